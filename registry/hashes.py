"""The hashes the field knows a file by, upper-case hex as the hub writes them.

    SHA256   64   the whole file
    AutoV2   10   its first digits (A1111's model hash)
    AutoV1    8   SHA256 of 64 KiB at offset 1 MiB (A1111's old model hash); files that end before have none
    AutoV3   12   SHA256 of a safetensors file behind its header (A1111's LoRA hash); other formats have none
    BLAKE3   64   the whole file
    CRC32     8   the whole file

A hash of nothing is no name: A1111 computes AutoV1 `e3b0c442` for every short file, the hub records none for them, and
so do we. All of them in one pass, on as many threads as help: hashlib, blake3 and zlib let go of the interpreter while
they work.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

ALL = ("SHA256", "AutoV1", "AutoV2", "AutoV3", "BLAKE3", "CRC32")
PIECE = 2 * 1024 * 1024
V1_START, V1_LENGTH = 0x100000, 0x10000
OF_NOTHING = "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"  # some trainers write it: never a name
LONGEST_HEADER = 100_000_000


def hash_file(path: Path, kinds: Iterable[str] = ALL) -> dict[str, str]:
    """The asked hashes of a file, each byte read once. AutoV1 and AutoV3 are left out where a file has none.

    >>> hash_file(path, ["SHA256", "AutoV2"])
    {'SHA256': '6F56095F…', 'AutoV2': '6F56095FB5'}
    """
    wanted = set(kinds)
    if unknown := wanted - set(ALL):
        raise ValueError(f"no such hash: {', '.join(sorted(unknown))}")
    found: dict[str, str] = {}
    if "AutoV1" in wanted and (old := autov1(path)):
        found["AutoV1"] = old
    payload = payload_start(path) if "AutoV3" in wanted else None
    jobs: dict[str, _Job] = {}
    if wanted & {"SHA256", "AutoV2"}:
        jobs["SHA256"] = _Job(hashlib.sha256())
    if payload is not None:
        jobs["AutoV3"] = _Job(hashlib.sha256(), start=payload)
    if "BLAKE3" in wanted:
        from blake3 import blake3

        jobs["BLAKE3"] = _Job(blake3())
    if "CRC32" in wanted:
        jobs["CRC32"] = _Job(_Crc32())
    _run(path, list(jobs.values()))
    digests = {name: job.digest.hexdigest().upper() for name, job in jobs.items()}
    if "SHA256" in digests:
        digests["AutoV2"] = digests["SHA256"][:10]
    if "AutoV3" in digests:
        digests["AutoV3"] = digests["AutoV3"][:12]
    found.update(digests)
    return {name: found[name] for name in ALL if name in found and name in wanted}


def autov1(path: Path) -> str | None:
    """A1111's old 8-digit hash; reads 64 KiB. None for a file of a mebibyte or less."""
    with path.open("rb") as file:
        file.seek(V1_START)
        data = file.read(V1_LENGTH)
    return hashlib.sha256(data).hexdigest()[:8].upper() if data else None


def autov3(path: Path) -> str | None:
    """The 12-digit hash of what follows a safetensors header; None for other files."""
    return hash_file(path, ["AutoV3"]).get("AutoV3")


def payload_start(path: Path) -> int | None:
    """Where the tensors of a safetensors file begin; None when the file is none. Reads nine bytes."""
    with path.open("rb") as file:
        lead = file.read(9)
    length = int.from_bytes(lead[:8], "little")
    if len(lead) < 9 or lead[8:] != b"{" or length > LONGEST_HEADER or 8 + length > path.stat().st_size:
        return None
    return 8 + length


def cheap(path: Path) -> dict[str, Any]:
    """What can be said of a file without reading it: size, AutoV1, and the hashes its own header claims.

    `claimed` is a trainer's word for the payload's hash; it differs from AutoV3 in some files, and A1111 writes the
    claimed one into pictures, so both are worth looking up.
    """
    from registry import header
    from registry.errors import VerificationFailed

    claims: Mapping[str, str] = {}
    if payload_start(path) is not None:
        try:
            claims = claimed(header.read(path).metadata)
        except VerificationFailed:
            claims = {}
    return {"size": path.stat().st_size, "AutoV1": autov1(path), "claimed": dict(claims)}


CLAIMS = ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256")


def claimed(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Hashes a header gives for its own file, upper-case; those of an empty file (a common slip) are left out."""
    found = {}
    for key in CLAIMS:
        value = metadata.get(key)
        if not isinstance(value, str) or len(value) > 80:
            continue
        value = value.strip().upper().removeprefix("0X")
        digits = 8 <= len(value) <= 64 and all(c in "0123456789ABCDEF" for c in value)
        if digits and not OF_NOTHING.startswith(value) and set(value) != {"0"}:
            found[key] = value
    return found


class _Crc32:
    def __init__(self) -> None:
        self.value = 0

    def update(self, piece: Any) -> None:
        self.value = zlib.crc32(piece, self.value)

    def hexdigest(self) -> str:
        return f"{self.value:08x}"


class _Job:
    """One hash over the file from `start` on."""

    def __init__(self, digest: Any, start: int = 0) -> None:
        self.digest = digest
        self.start = start

    def feed(self, at: int, piece: memoryview) -> None:
        if at + len(piece) > self.start:
            self.digest.update(piece[max(0, self.start - at) :])


def _run(path: Path, jobs: list[_Job]) -> None:
    if not jobs:
        return
    with path.open("rb", buffering=0) as file:
        if len(jobs) == 1 or (os.cpu_count() or 1) == 1 or path.stat().st_size <= 2 * PIECE:

            def feed_all(at: int, piece: memoryview) -> None:
                for job in jobs:
                    job.feed(at, piece)

            _pump(file.readinto, feed_all)
            return
        with ThreadPoolExecutor(min(len(jobs), os.cpu_count() or 1)) as pool:
            pending: list[Future[None]] = []

            def feed(at: int, piece: memoryview) -> None:
                """Hand a piece to every hash once all are done with the one before; reading goes on meanwhile."""
                for future in pending:
                    future.result()
                pending[:] = [pool.submit(job.feed, at, piece) for job in jobs]

            _pump(file.readinto, feed)
            for future in pending:
                future.result()


def _pump(readinto: Callable[[memoryview], int | None], feed: Callable[[int, memoryview], Any]) -> None:
    """Read the file piece by piece into two buffers in turn: one is hashed while the other fills."""
    buffers = [memoryview(bytearray(PIECE)) for _ in range(2)]
    at, turn = 0, 0
    while count := readinto(buffers[turn]):
        feed(at, buffers[turn][:count])
        at += count
        turn = (turn + 1) % len(buffers)
