"""Verify finds what is not as it should be, reads only what it must, and repairs without losing anybody's bytes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from stocked import put, sha256sum

from registry import Registry, links, verify


def edit(path: Path, data: bytes) -> None:
    """As an editor that writes in place would."""
    path.chmod(0o644)
    path.write_bytes(data)


@pytest.fixture
def registry(home: Path) -> Registry:
    registry = Registry.open(home)
    for number in range(3):
        put(registry, bytes([number]) * 5000, model_id=1 + number, version_id=11 + number, name=f"{number}.ckpt")
    return registry


def kinds(verdict: verify.Verdict) -> list[str]:
    return sorted(problem.kind for problem in verdict.problems)


def test_only_what_moved_is_read_again(registry: Registry) -> None:
    with registry:
        first = verify.check(registry)
        assert (first.problems, first.versions, first.blobs, first.hashed) == ((), 3, 3, 0)
        blob = registry.blob_path(registry.get(11).files[0].sha256)
        os.utime(blob, (1, 1))
        assert verify.check(registry).hashed == 1
        assert verify.check(registry).hashed == 0  # it is remembered
        every = verify.check(registry, every=True)
        assert (every.hashed, every.hashed_bytes, every.problems) == (3, 15_000, ())
        assert verify.check(registry, [("civitai", 12)], every=True).hashed == 1


def test_changed_bytes_are_found_by_time_size_or_reading_them_all(registry: Registry) -> None:
    with registry:
        blob = registry.blob_path(registry.get(11).files[0].sha256)
        edit(registry.get(11).files[0].path, b"edited in place")
        assert kinds(verify.check(registry)) == ["blob"]
        other = registry.blob_path(registry.get(12).files[0].sha256)
        status = other.stat()
        edit(other, b"!" * 5000)
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))  # bit rot moves no time
        assert kinds(verify.check(registry)) == ["blob"]
        assert kinds(verify.check(registry, every=True)) == ["blob", "blob"]
        assert sha256sum(blob) != blob.name


def test_bad_bytes_lose_the_name_but_are_kept(registry: Registry, tmp_path: Path) -> None:
    with registry:
        (tmp_path / "ui/models/loras").mkdir(parents=True)
        links.add(registry, links.Ui("comfyui", "comfyui", tmp_path / "ui", kind="hardlink"))
        links.apply(registry)
        item = registry.get(11)
        shown = next(
            path for path in (tmp_path / "ui").rglob("*") if path.is_file() and path.samefile(item.files[0].path)
        )
        edit(shown, b"somebody's edit")
        verdict = verify.check(registry)
        fetch = verify.mend(registry, verdict.problems)[1]
        assert [problem.ref for problem in fetch] == ["1@11"]
        assert not registry.has(item.files[0].sha256)
        assert [path.read_bytes() for path in (registry.home / "damaged").iterdir()] == [b"somebody's edit"]
        data = bytes([0]) * 5000
        with registry.reserve(item.files[0].sha256, size=len(data)) as partial:  # as a download would
            partial.write(data)
            partial.seal()
        verify.restored(registry, item.files[0].sha256)
        assert verify.check(registry, every=True).problems == ()
        assert registry.get(11).files[0].path.read_bytes() == data == shown.read_bytes()


def test_names_links_and_rows_are_put_right_without_a_hub(registry: Registry, tmp_path: Path) -> None:
    with registry:
        (tmp_path / "ui/models/loras").mkdir(parents=True)
        links.add(registry, links.Ui("comfyui", "comfyui", tmp_path / "ui"))
        links.apply(registry)
        registry.get(11).files[0].path.unlink()
        gone = next((tmp_path / "ui").rglob("1.ckpt"))
        gone.unlink()
        with registry.transaction() as db:
            db.execute("DELETE FROM model_version WHERE version_id = 13")
        verdict = verify.check(registry)
        assert set(kinds(verdict)) == {"tree", "link", "index"}
        assert verify.mend(registry, verdict.problems)[1] == []
        assert verify.check(registry, every=True).problems == ()
        assert gone.exists()
        assert len(registry.installed()) == 3


def test_a_file_that_took_the_place_of_a_name_is_kept(registry: Registry) -> None:
    """As editors save: a new file under the old name. Of the same size it is told by its bytes."""
    with registry:
        blobs = {number: registry.get(number).files[0] for number in (11, 12, 13)}
        saved = {11: b"an edit", 12: b"!" * 5000, 13: bytes([2]) * 5000}  # the last is only a copy
        for number, data in saved.items():
            path = blobs[number].path
            path.with_name("new").write_bytes(data)
            path.with_name("new").replace(path)
        verdict = verify.check(registry)
        assert [(p.kind, p.version_id) for p in verdict.problems] == [("tree", 11), ("tree", 12)]
        mended, fetch = verify.mend(registry, verdict.problems)
        assert fetch == []
        assert all("damaged/" in problem.message for problem in mended)
        assert sorted(p.read_bytes() for p in (registry.home / "damaged").iterdir()) == [b"!" * 5000, b"an edit"]
        assert blobs[12].path.samefile(registry.blob_path(blobs[12].sha256))
        assert verify.check(registry, every=True).problems == ()


def test_copies_in_tree_are_read_where_a_volume_has_no_links(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from registry import fs

    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "not here")

    for kind in ("hardlink", "symlink"):
        monkeypatch.setitem(fs.LADDER, kind, refuse)
    with Registry.open(home) as registry:
        put(registry, b"x" * 5000, name="a.ckpt")
        copy = registry.get(11).files[0].path
        edit(copy, b"y" * 5000)
        assert kinds(verify.check(registry)) == []
        verdict = verify.check(registry, every=True)
        assert kinds(verdict) == ["tree"]
        verify.mend(registry, verdict.problems)
        assert copy.read_bytes() == b"x" * 5000
        assert verify.check(registry, every=True).problems == ()


def test_gone_bytes_are_told_once(registry: Registry, tmp_path: Path) -> None:
    """And not again for each name that shows them."""
    with registry:
        (tmp_path / "ui/models/loras").mkdir(parents=True)
        links.add(registry, links.Ui("comfyui", "comfyui", tmp_path / "ui", kind="symlink"))
        links.apply(registry)
        registry.blob_path(registry.get(11).files[0].sha256).unlink()
        assert kinds(verify.check(registry)) == ["missing"]


def test_missing_bytes_are_to_be_fetched(registry: Registry) -> None:
    with registry:
        registry.blob_path(registry.get(11).files[0].sha256).unlink()
        verdict = verify.check(registry)
        assert kinds(verdict) == ["missing"]
        assert verify.mend(registry, verdict.problems) == ([], list(verdict.problems))


def test_a_broken_header_is_a_problem_even_when_the_hub_has_it_so(registry: Registry) -> None:
    with registry:
        put(registry, b"\xff" * 100, model_id=7, version_id=71, name="x.safetensors")
        assert kinds(verify.check(registry, [("civitai", 71)], every=True)) == ["header"]


@pytest.mark.parametrize("name", ["x.safetensors", "x.gguf", "X.SafeTensors"])
def test_headers_are_looked_at_though_nothing_moved(registry: Registry, name: str) -> None:
    with registry:
        put(registry, b"\xff" * 100, model_id=7, version_id=71, name=name)
        verdict = verify.check(registry)
        assert (kinds(verdict), verdict.hashed) == (["header"], 0)


def test_reading_to_verify_is_no_use(registry: Registry) -> None:
    with registry:
        blob = registry.blob_path(registry.get(11).files[0].sha256)
        os.utime(blob, (1_600_000_000, blob.stat().st_mtime))
        verify.check(registry, every=True)
        if os.stat in os.supports_follow_symlinks and hasattr(os, "O_NOATIME"):
            assert blob.stat().st_atime == 1_600_000_000


def test_what_another_process_repaired_or_removed_meanwhile_is_left_alone(registry: Registry) -> None:
    with registry, Registry.open(registry.home) as other:
        sha = registry.get(11).files[0].sha256
        edit(registry.blob_path(sha), b"edited in place")
        registry.get(12).files[0].path.unlink()
        found = verify.check(registry).problems
        assert sorted(problem.kind for problem in found) == ["blob", "tree"]
        verify.mend(other, found)
        put(other, bytes([0]) * 5000, model_id=1, version_id=11, name="0.ckpt")
        verify.restored(other, sha)
        other.remove(other.plan_remove([("civitai", 12)]), to_trash=True)
        verify.mend(registry, found)
        assert registry.has(sha)
        assert not registry.get(11).files[0].path.is_symlink()
        assert kinds(verify.check(registry, every=True)) == []
        names = {path.name for path in (registry.home / "tree").rglob("*.ckpt")}
        assert names == {"0.ckpt", "2.ckpt"}
