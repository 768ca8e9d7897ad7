"""Every refusal has a name.

    KnownError                      code, exit status, a sentence and a hint
    ├── InvalidReference    2       what was typed names nothing we can look for
    ├── Ambiguous           2       it names several things; all of them are listed
    ├── UsageError          2       options that do not go together
    ├── NotFound            4       it is not there (or not any more)
    ├── VerificationFailed  7       the bytes are not what was promised
    │   └── UnsafeFile              they may run code, or were judged harmful
    ├── NoSpace             8
    ├── Busy                9       another process holds what is needed
    ├── NoPermission        1       the folder or file may not be written or read
    └── TooNew              1       written by a newer hubctl

Hub, plan and run errors live in `hubctl.errors`; they share this base, so the command line turns all of them into a
sentence, a hint and an exit status in one place.
"""

from __future__ import annotations

from typing import Any, ClassVar


class KnownError(Exception):
    """Something a person can meet: one sentence of what happened and, in `hint`, what to do next."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    default_hint: ClassVar[str | None] = None

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        details: dict[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint if hint is not None else self.default_hint
        self.details = details or {}
        self.retry_after = retry_after

    def to_json(self) -> dict[str, Any]:
        """The error object every `--json` command prints: code, message, hint, retryable, retry_after, details."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "retryable": self.retryable,
            "retry_after": self.retry_after,
            "details": self.details,
        }


class InvalidReference(KnownError):
    code, exit_code = "invalid_reference", 2


class UsageError(KnownError):
    code, exit_code = "usage", 2


class Ambiguous(KnownError):
    """`details["candidates"]` lists what the text could mean."""

    code, exit_code = "ambiguous", 2


class NotFound(KnownError):
    code, exit_code = "not_found", 4


class VerificationFailed(KnownError):
    code, exit_code = "verification_failed", 7
    default_hint = "nothing was kept under a good name; run the command again to fetch it anew"


class UnsafeFile(VerificationFailed):
    code = "unsafe_file"
    default_hint = "choose the safetensors file of the same version, or pass --allow-pickle if you trust its maker"


class NoSpace(KnownError):
    code, exit_code = "no_space", 8
    default_hint = "`hubctl prune --dry-run` shows what could be freed"


class Busy(KnownError):
    code, exit_code, retryable = "busy", 9, True


class NoPermission(KnownError):
    code = "no_permission"


class TooNew(KnownError):
    code = "too_new"
    default_hint = "upgrade hubctl; nothing was changed"
