"""The planner decides from values alone; carrying out does what the plan says and the disk agrees."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stocked import files_du, put

from registry import Registry, links, prune, trash
from registry.prune import BlobFacts, Facts, Policy, Version, plan_prune

NOW = datetime(2026, 6, 1, tzinfo=UTC)
OLD = "2020-01-01T00:00:00+00:00"


def version(number: int, *, days: float = 0, model: int = 1, base: str = "SD 1.5", **more: object) -> Version:
    made: dict[str, object] = {
        "source": "civitai", "version_id": number, "model_id": model, "name": f"M{model}", "version_name": f"v{number}",
        "type": "LORA", "base_model": base, "blobs": (f"b{number}",), "used_at": NOW - timedelta(days=days),
        "used_how": "used",
    }  # fmt: skip
    return Version(**{**made, **more})  # type: ignore[arg-type]


def facts(*versions: Version, size: int = 100, elsewhere: frozenset[str] = frozenset()) -> Facts:
    users: dict[str, set[tuple[str, int]]] = {}
    for each in versions:
        for sha in each.blobs:
            users.setdefault(sha, set()).add(each.key)
    blobs = {sha: BlobFacts(size, sha in elsewhere, frozenset(mine)) for sha, mine in users.items()}
    return Facts(versions=versions, blobs=blobs, now=NOW)


def chosen(plan: prune.PrunePlan) -> list[int]:
    return [item.key[1] for item in plan.of("version") if item.key]


def test_nothing_is_chosen_without_a_condition() -> None:
    plan = plan_prune(facts(version(1, days=999)), Policy())
    assert (plan.items, plan.kept) == ((), ())


def test_conditions_all_have_to_hold() -> None:
    library = facts(
        version(1, days=200), version(2, days=5), version(3, days=300, model=2), version(4, model=2, base="X")
    )
    assert chosen(plan_prune(library, Policy(unused_days=90))) == [3, 1]
    assert chosen(plan_prune(library, Policy(superseded=True))) == [1]  # another base model supersedes nothing
    assert chosen(plan_prune(library, Policy(superseded=True, unused_days=90))) == [1]
    assert chosen(plan_prune(library, Policy(superseded=True, unused_days=250))) == []


def test_each_choice_has_its_reasons() -> None:
    plan = plan_prune(facts(version(1, days=200), version(2)), Policy(superseded=True, unused_days=90))
    assert plan.items[0].reasons == ("last used 200 days ago", "`v2` is installed and newer")


def test_the_protected_are_kept_and_named() -> None:
    library = facts(
        version(1, days=900, never=("pinned",)),
        version(2, days=800, never=("locked by /p/hubctl.lock",), careful=("3 recorded runs used it",)),
        version(3, days=700, careful=("`Mix` was merged from it",)),
        version(4, days=600),
    )
    plan = plan_prune(library, Policy(unused_days=30))
    assert chosen(plan) == [4]
    assert [kept.reasons for kept in plan.kept] == [
        ("pinned",), ("locked by /p/hubctl.lock", "3 recorded runs used it"), ("`Mix` was merged from it",),
    ]  # fmt: skip
    asked = plan_prune(library, Policy(unused_days=30, include_used=True))
    assert chosen(asked) == [3, 4]
    assert "`Mix` was merged from it" in asked.items[0].reasons
    assert [kept.reasons for kept in asked.kept] == [("pinned",), ("locked by /p/hubctl.lock",)]


def test_a_budget_takes_the_least_recently_used_and_no_more() -> None:
    library = facts(*(version(n, days=n) for n in range(1, 11)))
    assert chosen(plan_prune(library, Policy(free=250))) == [10, 9, 8]
    assert chosen(plan_prune(library, Policy(max_size=750))) == [10, 9, 8]
    assert chosen(plan_prune(library, Policy(free=250, unused_days=9))) == [10, 9]
    short = plan_prune(library, Policy(free=250, unused_days=9))
    assert (short.frees, short.missing, short.library) == (200, 50, 1000)
    assert plan_prune(library, Policy(max_size=5000)).items == ()
    assert chosen(plan_prune(library, Policy(free=150, max_size=750))) == [10, 9, 8]


def test_a_budget_skips_what_frees_nothing_and_waits_for_the_last_user() -> None:
    library = facts(version(1, days=9), elsewhere=frozenset({"b1"}))
    assert plan_prune(library, Policy(free=50)).items == ()
    shared = facts(version(1, days=9, blobs=("b",)), version(2, days=8, blobs=("b",)), version(3, days=7))
    plan = plan_prune(shared, Policy(free=100))
    assert [(item.key, item.frees) for item in plan.items] == [(("civitai", 1), 0), (("civitai", 2), 100)]


def test_a_budget_spares_what_a_larger_one_made_superfluous() -> None:
    """The oldest small ones are not enough, and the large one that has to go is enough without them."""
    versions = [version(1, days=9), version(2, days=8), version(3, days=7), version(4, days=6, blobs=("big",))]
    library = facts(*versions)
    blobs = {**library.blobs, "big": replace(library.blobs["big"], allocated=1000)}
    library = replace(library, blobs=blobs)
    assert chosen(plan_prune(library, Policy(free=1000))) == [4]
    assert chosen(plan_prune(library, Policy(free=1001))) == [1, 4]  # what was used last is spared first
    assert chosen(plan_prune(library, Policy(free=250))) == [1, 2, 3]
    shared = facts(version(1, days=9, blobs=("b",)), version(2, days=8), version(3, days=7, blobs=("b",)))
    assert chosen(plan_prune(shared, Policy(free=100))) == [2]  # not 1 as well, whose bytes stay with 3


def test_what_housekeeping_frees_is_not_asked_of_models() -> None:
    library = facts(*(version(n, days=n) for n in range(1, 6)))
    library = replace(library, partials=((Path("a.part"), 150, 2 * 86400.0),))
    assert chosen(plan_prune(library, Policy(free=250))) == [5, 4, 3]
    plan = plan_prune(library, Policy(free=250, partials=True))
    assert (chosen(plan), plan.frees, plan.missing) == ([5], 250, 0)
    assert chosen(plan_prune(library, Policy(free=150, partials=True))) == []
    assert chosen(plan_prune(library, Policy(max_size=300, partials=True))) == [5, 4]  # of the models' bytes


def test_bytes_the_trash_needs_too_are_not_free_at_once(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"x" * 9000, installed_at=OLD)
        put(registry, b"x" * 9000, version_id=12, installed_at=OLD)
        registry.remove(registry.plan_remove([("civitai", 12)]), to_trash=True)
        look = prune.look(registry)
        before = files_du(home / "blobs")
        assert plan_prune(look, Policy(unused_days=30)).frees == before  # when all of the trash is gone
        assert plan_prune(look, Policy(unused_days=30, at_once=True, empty_trash=True)).frees == before
        plan = plan_prune(look, Policy(unused_days=30, at_once=True))
        assert (plan.frees, prune.execute(registry, plan).freed) == (0, 0)
        assert files_du(home / "blobs") == before
        trash.restore(registry, trash.entries(registry)[0])  # `--now` is not said of what waits already
        assert registry.get(12)


def test_what_was_set_aside_goes_when_asked_for(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one")
        (home / "damaged").mkdir()
        (home / "damaged/a.1").write_bytes(b"x" * 9000)
        (home / "damaged/b.1").write_bytes(b"y" * 9000)
        os.link(home / "damaged/b.1", tmp_path / "an edit of somebody")
        (home / "index.damaged.2026.db").write_bytes(b"z" * 9000)
        assert plan_prune(prune.look(registry), Policy(orphans=True, partials=True, pictures=True)).items == ()
        before = files_du(home, tmp_path / "an edit of somebody")
        plan = plan_prune(prune.look(registry), Policy(damaged=True))
        assert prune.execute(registry, plan).freed == plan.frees == before - files_du(home, tmp_path)
        assert not (home / "damaged").exists()
        assert (tmp_path / "an edit of somebody").read_bytes() == b"y" * 9000


def test_the_hub_is_asked_only_about_what_would_go_otherwise() -> None:
    asked: list[int] = []

    def available(each: Version) -> str | None:
        asked.append(each.version_id)
        return "cannot be had again: archived" if each.version_id == 2 else None

    library = facts(
        version(1, days=100), version(2, days=90), version(3, days=80), version(4, days=1, never=("pinned",))
    )
    plan = plan_prune(library, Policy(unused_days=0, redownloadable=True, free=200), available=available)
    assert chosen(plan) == [1, 3]
    assert asked == [1, 2, 3]
    assert plan.kept[0].reasons == ("cannot be had again: archived",)
    assert "can be downloaded again" in plan.items[0].reasons
    silent = plan_prune(library, Policy(unused_days=0, redownloadable=True))
    assert chosen(silent) == []


@given(
    st.lists(
        st.tuples(
            st.integers(0, 400), st.booleans(), st.booleans(), st.sets(st.integers(0, 5), min_size=1, max_size=3)
        ),
        max_size=12,
    ),
    st.one_of(st.none(), st.integers(0, 2000)),
    st.one_of(st.none(), st.integers(0, 400)),
    st.booleans(),
)
def test_whatever_is_asked_for(
    drawn: list[tuple[int, bool, bool, set[int]]], free: int | None, unused: int | None, include_used: bool
) -> None:
    library = facts(
        *(
            version(
                number, days=days, blobs=tuple(f"b{b}" for b in sorted(blobs)), never=("pinned",) if pinned else (),
                careful=("1 recorded run used it",) if used else (),
            )
            for number, (days, pinned, used, blobs) in enumerate(drawn)
        )
    )  # fmt: skip
    plan = plan_prune(library, Policy(free=free, unused_days=unused, include_used=include_used))
    gone = set(chosen(plan))
    by_number = {each.version_id: each for each in library.versions}
    assert not any(by_number[n].never for n in gone)
    assert include_used or not any(by_number[n].careful for n in gone)
    assert unused is None or all((NOW - by_number[n].used_at).days >= unused for n in gone)
    left = {sha for each in library.versions if each.version_id not in gone for sha in each.blobs}
    freed = {sha for n in gone for sha in by_number[n].blobs} - left
    assert plan.frees == 100 * len(freed)  # what it says is what would be free
    if free is not None and plan.frees >= free:
        for spared in gone:  # it takes none that it does not need
            left = {sha for each in library.versions if each.version_id not in gone - {spared} for sha in each.blobs}
            assert 100 * len({sha for n in gone - {spared} for sha in by_number[n].blobs} - left) < free
    assert plan.missing == max(0, (free or 0) - plan.frees)


def test_carried_out_as_planned(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        for number in range(6):
            put(
                registry, bytes([number]) * 9000, model_id=1 + number, version_id=11 + number,
                installed_at=f"2020-01-0{number + 1}T00:00:00+00:00",
            )  # fmt: skip
        registry.pin(11)
        registry.touch(13)
        (tmp_path / "ui/models/loras").mkdir(parents=True)
        links.add(registry, links.Ui("comfyui", "comfyui", tmp_path / "ui", kind="hardlink"))
        links.apply(registry)
        plan = plan_prune(prune.look(registry), Policy(unused_days=30))
        assert chosen(plan) == [12, 14, 15, 16]
        assert [kept.reasons for kept in plan.kept] == [("pinned",)]
        roots = (home / "blobs", home / "tree", tmp_path / "ui")
        before = files_du(*roots)
        report = prune.execute(registry, plan)
        assert (report.versions, report.freed, report.waiting) == (4, 0, plan.frees)
        assert files_du(*roots) == before
        assert len(list((tmp_path / "ui").rglob("*.safetensors"))) == 2
        later = prune.look(registry, at=datetime.now(UTC) + timedelta(days=8))
        emptying = plan_prune(later, Policy())
        assert (len(emptying.of("trash")), emptying.frees) == (4, plan.frees)
        assert prune.execute(registry, emptying).freed == plan.frees
        assert before - files_du(*roots) == plan.frees
        assert [item.ref for item in registry.installed()] == ["1@11", "3@13"]
        assert registry.check() == []


def test_at_once_when_the_trash_keeps_nothing(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"x" * 9000, installed_at="2020-01-01T00:00:00+00:00")
        plan = plan_prune(prune.look(registry), Policy(unused_days=30, trash_days=0))
        report = prune.execute(registry, plan)
        assert report.freed == plan.frees_now == plan.frees > 0
        assert trash.entries(registry) == []


def test_what_was_pinned_after_planning_stays(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one", installed_at="2020-01-01T00:00:00+00:00")
        plan = plan_prune(prune.look(registry), Policy(unused_days=30))
        registry.pin(11)
        assert prune.execute(registry, plan).versions == 0
        assert registry.get(11)


def test_last_use_is_what_a_ui_read_where_the_disk_says_so(home: Path) -> None:
    with Registry.open(home) as registry:
        sha = put(registry, b"one", installed_at="2020-01-01T00:00:00+00:00")
        blob = registry.blob_path(sha)
        read = datetime.now(UTC) - timedelta(days=3)
        os.utime(blob, (read.timestamp(), blob.stat().st_mtime))
        if not prune._keeps_access_times(home):
            pytest.skip("this volume forgets reads")
        found = prune.look(registry).versions[0]
        assert found.used_how == "read"
        assert abs((found.used_at - read).total_seconds()) < 2
        assert plan_prune(prune.look(registry), Policy(unused_days=30)).items == ()


def test_a_backup_that_read_everything_is_no_use(home: Path) -> None:
    with Registry.open(home) as registry:
        for number in range(8):
            sha = put(registry, b"%d" % number, model_id=number + 1, version_id=number + 1, installed_at=OLD)
            days = 400 if number == 0 else 2 if number == 1 else 1  # one was read on its own, six in a sweep
            moment = (datetime.now(UTC) - timedelta(days=days)).timestamp()
            os.utime(registry.blob_path(sha), (moment, moment))
        if not prune._keeps_access_times(home):
            pytest.skip("this volume forgets reads")
        plan = plan_prune(prune.look(registry), Policy(unused_days=30))
        assert sorted(chosen(plan)) == [1, 3, 4, 5, 6, 7, 8]


def test_runs_merges_and_locks_protect(home: Path) -> None:
    with Registry.open(home) as registry:
        first = put(registry, b"one", installed_at="2020-01-01T00:00:00+00:00")
        put(registry, b"two", model_id=2, version_id=12, installed_at="2020-01-01T00:00:00+00:00")
        third = put(registry, b"three", model_id=3, version_id=13, installed_at="2020-01-01T00:00:00+00:00")
        put(registry, b"mix", model_id=4, version_id=14, model="Mix", parents=[first], source="local")
        registry.record_run(
            image_id=None, plan={}, output=home / "a.png", similarity=None, device="cpu", seconds=1, versions={},
            used=[12],
        )  # fmt: skip
        look = prune.look(registry, locked={third: "/p/hubctl.lock"})
        plan = plan_prune(look, Policy(unused_days=30))
        assert plan.items == ()
        assert {kept.reasons for kept in plan.kept} == {
            ("`Mix` was merged from it",), ("1 recorded run used it",), ("locked by /p/hubctl.lock",),
        }  # fmt: skip


def left_behind(home: Path, registry: Registry) -> dict[str, Path]:
    """What kills can leave, one of each kind."""
    orphan = put(registry, b"orphan" * 3000, model_id=9, version_id=91)
    (home / "manifests/civitai/9/91.json").unlink()
    paths = {
        "half a manifest": home / "manifests/civitai/9/.91.json.abc.tmp",
        "half a copy": home / "tree/LORA/.a.safetensors.tmp",
        "a stray name": home / "tree/LORA/stray.safetensors",
        "a journal": home / "partial" / f"{'ab' * 32}.host.1.json",
        "half a blob": home / "blobs/ab/.half",
        "half a backup": home / "index.backup.1.tmp",
    }
    for name, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "a stray name":
            os.link(registry.blob_path(orphan), path)
        else:
            path.write_bytes(b"x" * 5000)
    part = home / "partial" / f"{'cd' * 32}.elsewhere.4711.part"
    part.write_bytes(b"x" * 5000)
    os.utime(part, (1_600_000_000, 1_600_000_000))
    registry.catch_up(force=True)
    return {**paths, "a partial": part, "an orphan": registry.blob_path(orphan)}


def test_everything_a_kill_leaves_is_seen_and_goes(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"kept" * 3000)
        paths = left_behind(home, registry)
        policy = Policy(orphans=True, partials=True)
        young = plan_prune(prune.look(registry), policy)
        assert [item.kind for item in young.items] == ["partial"]  # an hour of grace for the rest
        later = datetime.now(UTC) + timedelta(hours=2)
        plan = plan_prune(prune.look(registry, at=later), policy)
        found = {item.path or registry.blob_path(item.sha256 or "") for item in plan.items}
        assert found - {home / "tree/LORA/SD 1.5/Model 9 - v91/file_91.safetensors"} == set(paths.values())
        before = files_du(home / "blobs", home / "tree", home / "partial", home / "manifests")
        registry_files = [item.files[0].path for item in registry.installed()]
        prune.execute(registry, replace(plan, items=tuple(i for i in plan.items if i.kind != "orphan")))
        assert not any(path.exists() for name, path in paths.items() if name != "an orphan")
        assert paths["an orphan"].exists()
        assert all(path.exists() for path in registry_files)
        assert files_du(home / "blobs", home / "tree", home / "partial", home / "manifests") < before


def test_an_orphan_fetched_again_a_moment_ago_is_left(home: Path) -> None:
    with Registry.open(home) as registry:
        paths = left_behind(home, registry)
        plan = plan_prune(prune.look(registry, at=datetime.now(UTC) + timedelta(hours=2)), Policy(orphans=True))
        prune.execute(registry, plan)  # the plan is from a future in which the blob is old; on disk it is young
        assert paths["an orphan"].exists()


def test_blobs_of_a_manifest_nobody_can_read_are_no_orphans(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one")
        path = home / "manifests/civitai/1/11.json"
        path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
        registry.catch_up(force=True)
        (home / "manifests/generation").unlink()
    with Registry.open(home) as registry:
        assert registry.count()[0] in {0, 1}
        with registry.transaction() as db:
            from registry import index

            index.drop(db, "civitai", 11)
        later = datetime.now(UTC) + timedelta(hours=2)
        assert plan_prune(prune.look(registry, at=later), Policy(orphans=True)).of("orphan") == ()
