"""hubctl prune: free disk space, after showing what would go and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubctl.cli import _app, _flags, _out, _progress
from hubctl.cli._options import DryRun

if TYPE_CHECKING:
    from registry import Registry
    from registry.prune import Policy, PrunePlan, PruneReport

KINDS = {
    "version": "remove",
    "trash": "empty from the trash",
    "orphan": "delete, named by no version",
    "partial": "delete, abandoned downloads",
    "leftover": "delete, left by killed processes",
    "picture": "delete, example pictures",
    "damaged": "delete, set aside as damaged",
}


def prune(
    unused: Annotated[int | None, typer.Option("--unused", metavar="DAYS", min=0, help="Not used for DAYS")] = None,
    superseded: Annotated[
        bool, typer.Option("--superseded", help="A newer version for the same base model is installed")
    ] = False,
    redownloadable: Annotated[
        bool, typer.Option("--redownloadable", help="The hub has the same file now (it is asked)")
    ] = False,
    free: Annotated[
        str | None, typer.Option("--free", metavar="SIZE", help="Least recently used, so many as free SIZE")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option("--max-size", metavar="SIZE", help="Least recently used until the library takes SIZE")
    ] = None,
    include_used: Annotated[
        bool, typer.Option("--include-used", help="Also what merges and recorded runs were made with")
    ] = False,
    orphans: Annotated[
        bool, typer.Option("--orphans", help="Bytes no version names; what killed processes left")
    ] = False,
    partials: Annotated[bool, typer.Option("--partials", help="Downloads nobody went on with for a day")] = False,
    previews: Annotated[
        bool, typer.Option("--previews", help="Example pictures; they can be fetched again. Your own stay")
    ] = False,
    damaged: Annotated[bool, typer.Option("--damaged", help="What `verify --repair` and `reindex` set aside")] = False,
    trash: Annotated[bool, typer.Option("--trash", help="Everything in the trash, not only what is due")] = False,
    now: Annotated[bool, typer.Option("--now", help="Delete at once instead of moving to the trash")] = False,
    dry_run: DryRun = False,
) -> None:
    """Free disk space: shows what would go and why, then asks.

    Conditions on models (--unused, --superseded, --redownloadable) all have to hold; --free and --max-size take the
    least recently used of those. Removed models wait in the trash. Pinned and locked models never go. Without any
    option only rubbish goes: due trash, bytes no model names, abandoned downloads.

    Example: hubctl prune --unused 90 --redownloadable --dry-run
    """
    from registry import prune as pruning

    policy = _policy(
        unused, superseded, redownloadable, free, max_size, include_used, orphans, partials, previews, damaged, trash,
        now,
    )  # fmt: skip
    with _app.open_registry(read_only=dry_run) as registry:
        registry.refuse_if_unplugged()
        with _progress.busy("looking around"):
            facts = pruning.look(registry, locked=_locked(registry), leftovers=policy.orphans)
        available = _Hub() if policy.redownloadable else None
        try:
            plan = pruning.plan_prune(facts, policy, available=available)
        finally:
            if available:
                available.close()
        if dry_run or not plan.items:
            _show(plan, policy, dry_run=dry_run)
            return
        if not _flags.CURRENT.json:
            _show(plan, policy, dry_run=False)
        if not _out.confirm(_question(plan)):
            raise typer.Abort
        with _progress.steps("pruning") as tick:
            report = pruning.execute(registry, plan, on_step=tick)
    _done(report, plan)


def _policy(
    unused: int | None, superseded: bool, redownloadable: bool, free: str | None, max_size: str | None,
    include_used: bool, orphans: bool, partials: bool, previews: bool, damaged: bool, trash: bool, now: bool,
) -> Policy:  # fmt: skip
    from hubctl.errors import UsageError
    from registry.prune import Policy

    conditions = unused is not None or superseded or free or max_size
    if redownloadable and not conditions:
        raise UsageError(
            "--redownloadable alone would remove nearly everything",
            hint="say what else has to hold: --unused DAYS, --superseded, --free SIZE or --max-size SIZE",
        )
    everything = not (conditions or orphans or partials or previews or damaged or trash)
    return Policy(
        unused_days=unused,
        superseded=superseded,
        redownloadable=redownloadable,
        free=_bytes("--free", free),
        max_size=_bytes("--max-size", max_size),
        include_used=include_used,
        orphans=orphans or everything,
        partials=partials or everything,
        pictures=previews,
        damaged=damaged,
        empty_trash=trash,
        trash_days=_app.settings().trash_days,
        at_once=now,
    )


def _bytes(name: str, text: str | None) -> int | None:
    from hubctl.config import parse_size
    from hubctl.errors import UsageError

    try:
        return None if text is None else parse_size(text)
    except ValueError:
        raise UsageError(f"`{name} {text}` is no size", hint="write it as 50G or 300GB") from None


def _locked(registry: Registry) -> Mapping[str, str]:
    """Blobs that a hubctl.lock known here names. By their hash alone: a lock of any format protects."""
    import re

    out: dict[str, str] = {}
    for path in registry.lock_roots():
        try:
            text = path.read_bytes().decode("utf-8", "replace")
        except OSError as error:
            if not isinstance(error, FileNotFoundError) or not path.parent.is_dir():  # else it was given up
                _out.warn(f"`{path}` cannot be read ({error.strerror}): what it locks is not protected now")
            continue
        for sha in re.findall(r"\b[0-9a-fA-F]{64}\b", text):
            out[sha.lower()] = str(path)
    return out


class _Hub:
    """Whether the hub has the very bytes of a version now; it is opened when first asked."""

    def __init__(self) -> None:
        self._hub: Any = None

    def __call__(self, version: Any) -> str | None:
        from hubctl.errors import KnownError

        if version.source == "local":
            return "was made or found here: no hub has it"
        if _app.settings().offline:
            return "--offline: the hub was not asked"
        try:
            self._hub = self._hub or _app.open_hub()
            found = self._hub.version(version.version_id)
        except KnownError as error:
            return f"cannot be had again: {error.message}"
        if mode := (found.model or {}).get("mode"):
            return f"cannot be had again: {str(mode).lower()} on the hub"
        if found.usage_control not in (None, "Download"):
            return "cannot be had again: its creator disabled downloads"
        served = {file.sha256 for file in found.files}
        return None if set(version.blobs) <= served else "the hub has other bytes now"

    def close(self) -> None:
        if self._hub is not None:
            self._hub.close()


def _show(plan: PrunePlan, policy: Policy, *, dry_run: bool) -> None:
    if _flags.CURRENT.json:
        _out.document("prune-plan", {"plan": plan.to_json()})
        return
    for kind, title in KINDS.items():
        items = plan.of(kind)
        if items:
            _items(title, items)
    if plan.kept and policy.picks_versions:
        _out.say(f"kept, though the conditions choose {'it' if len(plan.kept) == 1 else 'them'}:")
        for kept in plan.kept[:20]:
            _out.say(f"  {kept.label}: {'; '.join(kept.reasons)}")
        if len(plan.kept) > 20:
            _out.say(f"  … and {len(plan.kept) - 20} more (--json has all)")
        if any("run" in " ".join(k.reasons) or "merged" in " ".join(k.reasons) for k in plan.kept):
            _out.hint("--include-used takes what merges and runs used, too")
    if not plan.items:
        _out.say("nothing to prune")
    _totals(plan)
    if plan.missing:
        _out.warn(f"{_out.size(plan.missing)} short of what was asked for: everything else is protected or in use")
    if dry_run and plan.items:
        _out.say("Nothing was done (--dry-run)")


def _items(title: str, items: tuple[Any, ...], limit: int = 40) -> None:
    right = _out.NUMBER
    shown = items[:limit]
    _out.table(
        [f"{title} ({len(items)})", ("frees", right), "because"],
        [(item.label, _out.size(item.frees) if item.frees else "–", "; ".join(item.reasons)) for item in shown],
    )
    if len(items) > limit:
        rest = sum(item.frees for item in items[limit:])
        _out.say(f"… and {len(items) - limit} more, {_out.size(rest)} (--json has all)")
    _out.line()


def _totals(plan: PrunePlan) -> None:
    later = plan.frees - plan.frees_now
    if plan.items:
        _out.say(f"frees {_out.size(plan.frees_now)} now" + (_after(later, plan.trash_days) if later else ""))


def _after(later: int, days: int) -> str:
    return f", {_out.size(later)} more after {_out.plural(days, 'day')} in the trash or with `hubctl trash empty`"


def _question(plan: PrunePlan) -> str:
    versions = len(plan.of("version"))
    others = len(plan.items) - versions
    parts = []
    if versions:
        where = "move to the trash" if plan.trash_days else "delete"
        parts.append(f"{where} {_out.plural(versions, 'version')}")
    if others:
        parts.append(f"delete {_out.plural(others, 'other thing')}")
    return " and ".join(parts) + "?"


def _done(report: PruneReport, plan: PrunePlan) -> None:
    if _flags.CURRENT.json:
        _out.document("prune", {"plan": plan.to_json(), "report": report.to_json()})
        return
    done = []
    if report.versions:
        done.append(
            _out.plural(report.versions, "version") + (" moved to the trash" if plan.trash_days else " deleted")
        )
    if report.others:
        done.append(f"{_out.plural(report.others, 'other thing')} deleted")
    _out.say(f"✓ {', '.join(done) or 'nothing was left to do'}; {_out.size(report.freed)} is free now")
    if report.waiting:
        _out.say(
            f"  {_out.size(report.waiting)} more in {_out.plural(plan.trash_days, 'day')}, or now with "
            "`hubctl trash empty`; `hubctl trash restore REF` brings one back"
        )
