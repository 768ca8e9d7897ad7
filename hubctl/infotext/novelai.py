"""NovelAI V1 to V4.5: a JSON `Comment` beside `Description`, `Software` and `Source`.

V1 and V2 keep the prompt in Description only; V4 adds `v4_prompt` with one caption per character. WebP keeps all of it
as JSON in EXIF UserComment, and every generation hides a copy in the alpha channel. NovelAI's `{x}` (× 1.05) and `[x]`
(÷ 1.05) become `(x:1.05)` and `(x:0.952)`; its round brackets are plain text and get escaped where that was done. The
numeric form `1.2::x::` of V4 stays as written: it allows weights below zero, which no other program's syntax does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from hubctl.errors import NoParameters
from hubctl.infotext import _values as v
from hubctl.infotext.embedded import Embedded
from hubctl.parameters import GenerationParameters, Generator, ResourceRef

_STEP = 1.05
_VERSION = re.compile(r"\bV(\d(?:\.\d)?)\b")


def can_parse(embedded: Embedded) -> bool:
    return _block(embedded) is not None


def _block(embedded: Embedded) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """(the Comment object, the texts around it) when NovelAI wrote them."""
    candidates: list[Mapping[str, Any]] = [embedded.texts]
    candidates += [value for _, value in embedded.objects("exif:UserComment", "stealth", "text", "sidecar", "comment")]
    for around in candidates:
        comment = around.get("Comment")
        comment = v.parse_object(comment) if isinstance(comment, str) else comment
        if not isinstance(comment, dict):
            comment = dict(around) if around.get("request_type") or "v4_prompt" in around else None
        if comment is None:
            continue
        software = f"{around.get('Software', '')} {around.get('Source', '')} {embedded.text('exif:Software') or ''}"
        if "NovelAI" in software or "v4_prompt" in comment or ("uc" in comment and "scale" in comment):
            return comment, dict(around)
    return None


def parse(embedded: Embedded) -> GenerationParameters:
    """Raises NoParameters when there is no NovelAI block."""
    block = _block(embedded)
    if block is None:
        raise NoParameters("There is no NovelAI metadata here.")
    comment, around = block
    source = v.to_text(around.get("Source")) or v.to_text(embedded.text("exif:Software"))
    version = _VERSION.search(source or "")
    prompt = _caption(comment, "v4_prompt", "prompt") or str(around.get("Description") or "")
    negative = _caption(comment, "v4_negative_prompt", "uc")
    noise = v.to_text(comment.get("noise_schedule"))
    values: dict[str, Any] = {
        "prompt": convert_weights(prompt),
        "negative_prompt": convert_weights(negative),
        "steps": v.positive(v.to_int(comment.get("steps"))),
        **v.sampler_fields(comment.get("sampler"), noise),
        "cfg_scale": v.to_float(comment.get("scale")),
        "seed": v.to_int(comment.get("seed")),
        "width": v.positive(v.to_int(comment.get("width"))),
        "height": v.positive(v.to_int(comment.get("height"))),
        "denoise": v.to_float(comment.get("strength")),
    }
    model = (ResourceRef(kind="checkpoint", name=source),) if source and source != "NovelAI" else ()
    return GenerationParameters(
        **values,
        resources=model,
        generator=Generator("NovelAI", f"V{version[1]}" if version else None),
        raw=MappingProxyType({**comment, "Source": source}),
        sources=MappingProxyType({name: "novelai" for name, value in values.items() if value not in (None, "")}),
    )


def _caption(comment: Mapping[str, Any], structured: str, plain: str) -> str:
    """The plain text, or the structured caption; characters' captions follow after " | " as NovelAI's own page does."""
    caption = comment.get(structured)
    caption = caption.get("caption") if isinstance(caption, Mapping) else None
    base = comment.get(plain)
    if not isinstance(caption, Mapping):
        return base if isinstance(base, str) else ""
    text = caption.get("base_caption")
    text = base if isinstance(base, str) and base else (text if isinstance(text, str) else "")
    characters = caption.get("char_captions")
    parts = [
        part["char_caption"]
        for part in (characters if isinstance(characters, list) else ())
        if isinstance(part, Mapping) and isinstance(part.get("char_caption"), str) and part["char_caption"]
    ]
    return " | ".join([text, *parts]) if parts else text


def convert_weights(prompt: str) -> str:
    """`{{x}}` → `(x:1.103)`, `[x]` → `(x:0.952)`; brackets without a partner stay. Linear in the prompt's length.

    Text without curly or square brackets is returned as it is.
    """
    partner = _partners(prompt)
    if not partner:
        return prompt
    out: list[str] = []
    position = 0
    closing: dict[int, str] = {}
    while position < len(prompt):
        char = prompt[position]
        if position in closing:
            out.append(closing[position])
            position += 1
        elif position in partner and partner[position] > position:
            depth = 1
            end = partner[position]
            while partner.get(position + depth) == end - depth and prompt[position + depth] == char:
                depth += 1
            weight = _STEP**depth if char == "{" else _STEP**-depth
            out.append("(")
            closing[end] = f":{round(weight, 3):g})"
            closing.update({end - inner: "" for inner in range(1, depth)})  # a run of brackets is one weight
            position += depth
        else:
            out.append("\\" + char if char in "()" else char)
            position += 1
    return "".join(out)


_NUMERIC = re.compile(r"(-?\d{1,3}(?:\.\d{1,4})?)::")


def numeric_weights(prompt: str) -> str:
    """V4's `1.2::x::` as `(x:1.2)`, which other programs read; a new number ends what the one before it weighted."""
    out: list[str] = []
    position = 0
    while (start := _NUMERIC.search(prompt, position)) is not None:
        out.append(prompt[position : start.start()])
        closing, following = prompt.find("::", start.end()), _NUMERIC.search(prompt, start.end())
        end = len(prompt) if closing < 0 else closing
        position = end + 2
        if following is not None and following.end() == end + 2:
            end = position = following.start()
        inner = prompt[start.end() : end]
        body = inner.strip(" ,")
        tail = inner[len(inner.rstrip(" ,")) :] if position == end else ""
        out.append(f"({body}:{start[1]}){tail}" if body else inner)
    return "".join(out) + prompt[position:]


def _partners(prompt: str) -> dict[int, int]:
    """Position of each matched bracket → position of its partner."""
    partner: dict[int, int] = {}
    opened: list[tuple[str, int]] = []
    for position, char in enumerate(prompt):
        if char in "{[":
            opened.append((char, position))
        elif char in "}]" and opened and opened[-1][0] == {"}": "{", "]": "["}[char]:
            _, start = opened.pop()
            partner[start], partner[position] = position, start
    return partner
