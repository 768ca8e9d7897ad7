"""Pickles judged unread: model files pass, everything that could run code is named, nothing is ever run."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import pickles
from registry.unpickle import Broken, seen_before, walk


class Calls:
    """Pickles to a call of anything."""

    def __init__(self, func: Callable[..., Any], *args: Any) -> None:
        self.func, self.args = func, args

    def __reduce__(self) -> Any:
        return self.func, self.args


WEIGHTS = {f"layer.{i}.weight": torch.zeros(2, 3, dtype=torch.float16) for i in range(20)}


def saved(value: Any, **options: Any) -> bytes:
    made = io.BytesIO()
    torch.save(value, made, **options)
    return made.getvalue()


def zipped(**members: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/").replace("_pkl", ".pkl"), data)
    return made.getvalue()


def tarred(**members: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return made.getvalue()


def look(content: bytes, folder: Path, name: str = "model.ckpt") -> pickles.Report:
    path = folder / name
    path.write_bytes(content)
    return pickles.scan(path)


STATE = {
    "a checkpoint": {"state_dict": WEIGHTS, "global_step": 3, "epoch": 1.5, "lr": [0.1, None, True, b"x"]},
    "an ordered dict": OrderedDict(WEIGHTS),
    "parameters": {"a": torch.nn.Parameter(torch.zeros(2)), "b": torch.nn.ParameterDict({"*": torch.zeros(1)})},
    "every usual type": {
        str(t): torch.zeros(2, dtype=t) for t in (torch.float64, torch.bfloat16, torch.int64, torch.bool)
    },
    "half-precision floats": {"x": torch.zeros(2, dtype=torch.float8_e4m3fn)},
    "numpy numbers": {"best": np.float64(0.1), "a": np.zeros(3), "d": np.dtype("float32")},
    "sets and sizes": {"s": {1, 2}, "z": torch.Size([1, 2]), "d": torch.device("cpu"), "t": torch.float16},
}


@pytest.mark.parametrize("case", STATE)
@pytest.mark.parametrize("way", ["zip", "legacy"])
def test_what_models_are_made_of_is_safe(case: str, way: str, tmp_path: Path) -> None:
    report = look(saved(STATE[case], _use_new_zipfile_serialization=way == "zip"), tmp_path)
    assert report.verdict == "safe", report


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_of_plain_values_are_safe(protocol: int, tmp_path: Path) -> None:
    value = {"a": [1, -5, 2**70, 1.5, None, True, "é\n'", b"x", (1, 2, 3, 4)], "b": {"c": {1, 2}}}
    report = look(pickle.dumps(value, protocol=protocol), tmp_path, "x.pkl")
    assert report.verdict == "safe", report


class _Unrelated:
    pass


DANGEROUS: dict[str, Callable[..., Any]] = {
    "os.system": os.system,
    "eval": eval,
    "exec": exec,
    "open": open,
    "getattr": getattr,
    "subprocess.Popen": subprocess.Popen,
    "subprocess.check_output": subprocess.check_output,
    "pickle.loads": pickle.loads,
    "torch.load": torch.load,
    "torch.hub.load": torch.hub.load,
    "importlib.import_module": __import__("importlib").import_module,
    "runpy.run_path": __import__("runpy").run_path,
    "ctypes.CDLL": __import__("ctypes").CDLL,
    "webbrowser.open": __import__("webbrowser").open,
    "builtins.__import__": builtins.__import__,
    "timeit.timeit": __import__("timeit").timeit,
    "urllib.request.urlopen": __import__("urllib.request").request.urlopen,
    "code.interact": __import__("code").interact,
}


@pytest.mark.parametrize("name", DANGEROUS)
@pytest.mark.parametrize("way", ["zip", "legacy", "protocol 0", "protocol 2", "protocol 4", "protocol 5"])
def test_what_runs_programs_is_dangerous_however_it_is_packed(name: str, way: str, tmp_path: Path) -> None:
    value = {**WEIGHTS, "hook": Calls(DANGEROUS[name], "touch /nowhere/at/all")}
    if way in {"zip", "legacy"}:
        content = saved(value, _use_new_zipfile_serialization=way == "zip")
    else:
        content = pickle.dumps({"hook": Calls(DANGEROUS[name], "x")}, protocol=int(way[-1]))
    report = look(content, tmp_path)
    assert report.verdict == "dangerous", report
    assert any(name.rsplit(".", 1)[-1] in found for found in report.globals)


def test_a_class_nobody_knows_is_suspicious(tmp_path: Path) -> None:
    report = look(pickle.dumps(_Unrelated()), tmp_path)
    assert report.verdict == "suspicious"
    assert "_Unrelated" in report.reason
    assert look(saved(torch.nn.Linear(2, 2)), tmp_path).verdict == "suspicious"


HAND_MADE = {
    # protocol 4: module and name come from the stack, from the memo, or from something computed
    "name from the memo": (b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94h\x00h\x01\x93\x8c\x01x\x85R.", "dangerous"),
    "name that is a number": (b"\x80\x04K\x01\x8c\x06system\x93)R.", "dangerous"),
    "name through a dot": (b"\x80\x04\x8c\x05torch\x8c\x0chub.os.popen\x93)R.", "dangerous"),
    "name inside an allowed module": (b"\x80\x04\x8c\x0ctorch._utils\x8c\x0bsys.modules\x93.", "dangerous"),
    "old instance": (b"(S'x'\nios\nsystem\n.", "dangerous"),
    "old object": (b"(cos\nsystem\nS'x'\no.", "dangerous"),
    "new object": (b"\x80\x02cos\nsystem\n)\x81.", "dangerous"),
    "call of a call": (b"\x80\x02ccollections\nOrderedDict\n)R)R.", "suspicious"),
    "attributes of an imported thing": (b"\x80\x02ccollections\nOrderedDict\n}b.", "suspicious"),
    "extension registry": (b"\x80\x02\x82\x01.", "suspicious"),
    "harmful, then broken": (b"\x80\x02cos\nsystem\n(S'x'\ntR\xff", "dangerous"),
    "harmful after a clean one": (b"\x80\x02N." + b"\x80\x02cos\nsystem\n(S'x'\ntR.", "dangerous"),
    "clean, then bytes": (b"\x80\x02N." + b"\xff\xff\xff", "suspicious"),
    "no end": (b"\x80\x02]q\x00(K\x01", "suspicious"),
    "torch's own loader of bytes": (
        b"\x80\x03ctorch.storage\n_load_from_bytes\nC\x11\x80\x02cos\nsystem\n(tR.\x85R.",
        "dangerous",
    ),
    "torch's own loader of safe bytes": (b"\x80\x03ctorch.storage\n_load_from_bytes\nC\x04\x80\x02N.\x85R.", "safe"),
}


@pytest.mark.parametrize("case", HAND_MADE)
def test_hand_made_pickles(case: str, tmp_path: Path) -> None:
    content, verdict = HAND_MADE[case]
    assert look(content, tmp_path).verdict == verdict, look(content, tmp_path)


def test_archives_are_looked_into_and_bounded(tmp_path: Path) -> None:
    evil = pickle.dumps(Calls(os.system, "x"))
    assert look(zipped(a__data_pkl=pickle.dumps({})), tmp_path).verdict == "safe"
    assert look(zipped(a__data_pkl=evil), tmp_path).verdict == "dangerous"
    assert look(zipped(readme=b"hello", notes__other_pkl=evil), tmp_path, "pack.zip").verdict == "dangerous"
    assert look(zipped(nothing=b"hello"), tmp_path, "pack.zip").verdict == "safe"
    inner = zipped(a__data_pkl=evil)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("models/inner.pt", inner)
    assert look(made.getvalue(), tmp_path, "pack.zip").verdict == "dangerous"
    assert look(tarred(pickle=evil, storages=b"", tensors=b""), tmp_path).verdict == "dangerous"
    assert look(tarred(pickle=pickle.dumps({}), storages=pickle.dumps(0)), tmp_path).verdict == "safe"
    assert look(b"7z\xbc\xaf\x27\x1c" + bytes(100), tmp_path).verdict == "suspicious"
    nameless = zipped(QQQQ=b"x", data_pkl=evil).replace(b"QQQQ", bytes(4))
    assert look(nameless, tmp_path).verdict == "dangerous"
    assert look(inner[:-30], tmp_path).verdict == "suspicious"  # its table of contents is gone


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "LONGEST_PICKLE", 1_000_000)
    started = time.monotonic()
    report = look(zipped(a__data_pkl=bytes(200_000_000)), tmp_path)
    assert report.verdict == "suspicious"
    assert "unpacks to more" in report.reason
    assert time.monotonic() - started < 60


def test_a_numpy_array_of_objects_is_a_pickle(tmp_path: Path) -> None:
    made = io.BytesIO()
    np.save(made, np.array([Calls(os.system, "x")], dtype=object), allow_pickle=True)
    assert look(made.getvalue(), tmp_path, "a.npy").verdict == "dangerous"
    made = io.BytesIO()
    np.save(made, np.zeros(3))
    assert look(made.getvalue(), tmp_path, "a.npy").verdict == "safe"


@pytest.mark.parametrize(
    ("content", "verdict"),
    [
        (b"", "safe"),
        (b"GGUF\x03\x00\x00\x00", "safe"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "safe"),
        (b"<!doctype html><p>sign in", "safe"),
        (struct.pack("<Q", 2) + b"{}", "safe"),
        (struct.pack("<Q", 0x280) + b"{" + b" " * 0x27E + b"}", "safe"),  # its length begins like a pickle
        (b"model:\n  target: ldm.models.diffusion.ddpm.LatentDiffusion\n", "safe"),  # the configuration beside a model
        ('{"3": {"class_type": "KSampler", "text": "é"}}'.encode(), "safe"),
        (b"V" + b"a" * 200_000 + b"\ncos\nsystem\n", "suspicious"),  # more than we follow: no all-clear
        (b"\xff" * 5000, "suspicious"),
    ],
)
def test_what_is_no_pickle(content: bytes, verdict: str, tmp_path: Path) -> None:
    assert look(content, tmp_path).verdict == verdict


def test_a_file_that_cannot_be_read_is_suspicious(tmp_path: Path) -> None:
    assert pickles.scan(tmp_path / "missing.ckpt").verdict == "suspicious"


def test_tiny_pickles_that_want_a_lot_are_refused_fast(tmp_path: Path) -> None:
    """Lengths of terabytes, a memo of everything, tuples of tuples: linear time and no memory."""
    started = time.monotonic()
    for content in (
        b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"x.",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**50) + b"x.",
        b"\x80\x02\x8b" + struct.pack("<I", 2**31 - 1) + b".",
        b"\x80\x02)" + b"2\x86" * 3000 + b".",
        b"\x80\x02}(" + b")" + b"2\x86" * 200 + b"Nu.",  # a dict keyed by a tuple whose hash would take forever
        b"\x80\x02" + b"(" * 500_000 + b".",
        b"V" + b"a" * 300_000,
        b"I" + b"9" * 90_000 + b"\n.",
    ):
        look(content, tmp_path)
    assert time.monotonic() - started < 120


def test_nothing_a_pickle_names_is_imported(tmp_path: Path) -> None:
    (tmp_path / "landmine.py").write_text("raise SystemExit('imported')")
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x02clandmine\nboom\n(S'x'\ntR.")
    code = (
        "import sys; from pathlib import Path; from registry import pickles, detect\n"
        f"r = pickles.scan(Path({str(path)!r})); detect.inspect(Path({str(path)!r}))\n"
        "print(r.verdict, 'landmine' in sys.modules, 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["suspicious", "False", "False"]
    assert not done.stderr


# --- the machine against Python's own disassembler -------------------------------------------------------------------

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=30,
)


@settings(max_examples=200, deadline=None)
@given(_VALUES, st.integers(0, 5))
def test_the_walk_makes_the_value_the_pickle_holds(value: Any, protocol: int) -> None:
    walked = walk(io.BytesIO(pickle.dumps(value, protocol=protocol)))
    if not walked.imports:  # bytes need an import in old protocols
        assert walked.value == value


_CODES = st.lists(st.sampled_from(sorted(op.code for op in pickletools.opcodes)), max_size=60)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200) | _CODES.map(lambda codes: "".join(codes).encode("latin-1")))
def test_any_bytes_are_walked_or_refused_and_no_import_is_missed(content: bytes) -> None:
    """Where Python's disassembler finds an import before it gives up, so do we."""
    try:
        seen = walk(io.BytesIO(content))
    except Broken as error:
        seen = seen_before(error)
    names = set()
    try:
        for op, arg, _ in pickletools.genops(io.BytesIO(content)):
            if op.name in {"GLOBAL", "INST"}:
                names.add(str(arg))
    except Exception:
        return
    if not names:
        return
    assert {f"{found.module} {found.name}" for found in seen.imports} >= names


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 5000), st.binary(min_size=1, max_size=8))
def test_a_damaged_torch_file_never_crashes_the_judge(
    tmp_path_factory: pytest.TempPathFactory, at: int, patch: bytes
) -> None:
    content = bytearray(saved({"a": torch.zeros(4), "b": [1, 2]}))
    at %= len(content)
    content[at : at + len(patch)] = patch
    report = look(bytes(content), tmp_path_factory.mktemp("d"))
    assert report.verdict in {"safe", "suspicious", "dangerous"}
    assert report.reason
