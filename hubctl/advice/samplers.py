"""Sampler names as people spell them: "DPM++2M karras", "eular a", "dpmpp_2m_sde"."""

from __future__ import annotations

import re

from hubctl.parameters import sampler_name

_SAMPLER_START = re.compile(
    r"(?<![A-Za-z0-9])(?:k[_\s])?(?:d[pm][mp]|eul[ea]r|heun|lms|ddim|ddpm|plms|uni[\s_\-]?pc|lcm|tcd|deis|ipndm|"
    r"restart|er[\s_]sde|"
    r"res[\s_]multistep|gradient[\s_]estimation|sa[\s_]solver)",
    re.IGNORECASE,
)
_GAP = re.compile(r"[\s_\-]{0,2}")
_PIECE = re.compile(r"[A-Za-z0-9+]{1,24}")


def samplers(text: str) -> list[tuple[int, int, str, str | None]]:
    """(start, end, sampler, schedule) of every sampler name, as any program or person spells it."""
    out: list[tuple[int, int, str, str | None]] = []
    last = 0
    for match in _SAMPLER_START.finditer(text):
        if match.start() < last:
            continue
        pieces: list[re.Match[str]] = []
        at, stop = match.start(), min(len(text), match.start() + 52)
        while len(pieces) < 7 and (piece := _PIECE.match(text, at, stop)):
            pieces.append(piece)
            gap = _GAP.match(text, piece.end())
            at = gap.end() if gap else piece.end()
        for count in range(len(pieces), 0, -1):
            spelled = _respell(" ".join(piece[0] for piece in pieces[:count]))
            sampler, schedule = sampler_name(spelled)
            if sampler is not None:
                last = pieces[count - 1].end()
                out.append((match.start(), last, sampler, schedule))
                break
    return out


def _respell(name: str) -> str:
    name = re.sub(r"(?i)eular", "euler", re.sub(r"(?i)\bd(?:mp|mm|pp)(?=[\s+\d])", "dpm", name))
    name = re.sub(r"(?i)\bdpm\s?(?:\+\s?\+|pp)\s?", "DPM++ ", name)
    name = re.sub(r"(?i)\bdpm\s(?=[23][ms]|sde)|\bdpm(?=[23][ms])", "DPM++ ", name)
    name = re.sub(r"(?i)\b([23][ms])\s?(sde)", r"\1 \2", name)
    return re.sub(r"(?i)\bdpm\+\+ sde 2m", "DPM++ 2M SDE", re.sub(r"\s{2,}", " ", name)).strip()
