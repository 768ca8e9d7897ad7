"""Refusals of the outside worlds: hubs, plans and runs. The shared base and the store's own are in `registry.errors`.

HubError
├── LoginRequired, TokenRejected, EarlyAccess, NoAccess, DownloadsDisabled, RegionBlocked, PolicyForbids   3
├── Archived, TakenDown                                                                      4
├── HubUnavailable, BlockedByEdge                                                            5
├── RateLimited                                                                              6
└── Offline                                                                                  10
PlanError                                                                                    2
├── NoParameters        the picture does not say how it was made
├── UnknownSampler      neither a sampler we know nor a named deviation
└── MissingResource     what it used is neither here nor on the hub                          4
RunError                                                                                     1
BelowSimilarity                                                                              11
PartialBatch                                                                                 12
"""

from __future__ import annotations

from registry.errors import (
    Ambiguous,
    Busy,
    InvalidReference,
    KnownError,
    NoPermission,
    NoSpace,
    NotFound,
    TooNew,
    UnsafeFile,
    UsageError,
    VerificationFailed,
)

__all__ = [
    "Ambiguous",
    "Archived",
    "BelowSimilarity",
    "BlockedByEdge",
    "Busy",
    "DownloadsDisabled",
    "EarlyAccess",
    "HubError",
    "HubUnavailable",
    "InvalidReference",
    "KnownError",
    "LoginRequired",
    "MissingResource",
    "NoAccess",
    "NoParameters",
    "NoPermission",
    "NoSpace",
    "NotFound",
    "Offline",
    "PartialBatch",
    "PlanError",
    "PolicyForbids",
    "RateLimited",
    "RegionBlocked",
    "RunError",
    "TakenDown",
    "TokenRejected",
    "TooNew",
    "UnknownSampler",
    "UnsafeFile",
    "UsageError",
    "VerificationFailed",
]


class HubError(KnownError):
    """A hub said no, or could not be understood."""

    code, exit_code = "hub_error", 5


class LoginRequired(HubError):
    code, exit_code = "login_required", 3
    default_hint = "make an API key on your account page of the hub and store it with `hubctl login`"


class TokenRejected(HubError):
    code, exit_code = "token_rejected", 3
    default_hint = "the hub does not know this key (any more): make a new one and store it with `hubctl login`"


class EarlyAccess(HubError):
    """`details["deadline"]` is the ISO date it opens, when the hub says so."""

    code, exit_code = "early_access", 3


class NoAccess(HubError):
    code, exit_code = "no_access", 3


class DownloadsDisabled(HubError):
    code, exit_code = "downloads_disabled", 3
    default_hint = "its creator allows generation on the site only"


class RegionBlocked(HubError):
    code, exit_code = "region_blocked", 3


class PolicyForbids(HubError):
    """Your own `policy` in the configuration, not the hub."""

    code, exit_code = "policy_forbids", 3


class Archived(HubError):
    code, exit_code = "archived", 4
    default_hint = "another hub may still have it: try `--hub`, or ask by its hash"


class TakenDown(HubError):
    code, exit_code = "taken_down", 4
    default_hint = "another hub may still have it: try `--hub`, or ask by its hash"


class HubUnavailable(HubError):
    code, exit_code, retryable = "hub_unavailable", 5, True
    default_hint = "nothing is lost; the same command can be run again and continues"


class BlockedByEdge(HubError):
    code, exit_code, retryable = "blocked_by_edge", 5, True
    default_hint = "the hub's gatekeeper refused the request before the hub saw it; wait a while and try again"


class RateLimited(HubError):
    code, exit_code, retryable = "rate_limited", 6, True


class Offline(HubError):
    code, exit_code = "offline", 10
    default_hint = "leave out --offline to let hubctl ask the hub"


class PlanError(KnownError):
    code, exit_code = "plan_error", 2


class NoParameters(PlanError):
    code = "no_parameters"
    default_hint = "pick an example whose settings are shown on its page, or pass them yourself with `hubctl generate`"


class UnknownSampler(PlanError):
    code = "unknown_sampler"


class MissingResource(PlanError):
    """`details["resources"]` lists what could not be found."""

    code, exit_code = "missing_resource", 4


class RunError(KnownError):
    code, exit_code = "run_error", 1


class BelowSimilarity(KnownError):
    code, exit_code = "below_similarity", 11


class PartialBatch(KnownError):
    """Some of many failed; `details["failures"]` has one object each."""

    code, exit_code = "partial_batch", 12
