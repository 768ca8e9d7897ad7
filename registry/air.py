"""AIR, the name of an AI resource:

    [urn:] [air:] [ecosystem:] [type:] source : id [@version] [+fileId] [.format]

Case-insensitive; every bracketed part may be missing. With one extra segment it is the ecosystem. A `.format` is only
recognised after `+fileId`, since ids and versions may contain dots.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from registry.errors import InvalidReference

_WORD = r"[A-Za-z0-9_\-/]+"
_AIR = re.compile(
    r"(?:urn:)?(?:air:)?"
    rf"(?:(?P<ecosystem>{_WORD}):)?(?:(?P<type>{_WORD}):)?"
    rf"(?P<source>{_WORD}):(?P<id>[A-Za-z0-9_\-/.]+)"
    r"(?:@(?P<version>[A-Za-z0-9_\-/.]+))?"
    r"(?:\+(?P<file_id>[0-9]+)(?:\.(?P<format>[A-Za-z0-9_\-]+))?)?",
    re.IGNORECASE,
)
LONGEST = 1024


@dataclass(frozen=True)
class AIR:
    """`urn:air:sdxl:lora:civitai:328553@368189+301234.safetensor`, taken apart."""

    source: str
    id: str
    version: str | None = None
    ecosystem: str | None = None
    type: str | None = None
    file_id: str | None = None
    format: str | None = None

    @classmethod
    def parse(cls, text: str) -> AIR:
        """Raises InvalidReference."""
        found = _AIR.fullmatch(text) if len(text) <= LONGEST else None
        if found is None:
            raise InvalidReference(
                f"`{text[:80]}` is not an AIR", hint="for example urn:air:sdxl:lora:civitai:328553@368189"
            )
        parts = found.groupdict()
        for name in ("ecosystem", "type", "source"):
            parts[name] = parts[name].lower() if parts[name] else None
        return cls(**parts)

    def __str__(self) -> str:
        lead = "".join(f"{part}:" for part in (self.ecosystem, self.type) if part)
        tail = f"@{self.version}" if self.version else ""
        if self.file_id:
            tail += f"+{self.file_id}" + (f".{self.format}" if self.format else "")
        return f"urn:air:{lead}{self.source}:{self.id}{tail}"
