"""Whom a text is about: sentences about another version, base model or file do not count."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from hubctl.advice.words import HISTORY, RECOMMENDED, TRAINING, stems, words


@dataclass(frozen=True)
class Subject:
    """Whom a text is about, so that sentences about others can be told apart."""

    kind: str = "lora"  # lora · checkpoint · embedding · hypernetwork · other
    names: tuple[str, ...] = ()  # file stems, the model's name
    version: str = ""
    base_model: str = ""
    model_id: int | None = None

    @property
    def has_weight(self) -> bool:
        return self.kind in {"lora", "hypernetwork"}


_BASES: dict[str, str] = {  # family → how people write it
    "sd1": r"sd\s?-?(?:v\s?)?1(?:\.[45x])?(?!\d)|stable\sdiffusion\s(?:v\s?)?1(?:\.[45x])?"
    r"|1\.5\s(?:models?|version|loras?)",
    "sd2": r"sd\s?-?(?:v\s?)?2(?:\.[01x])?(?!\d)|stable\sdiffusion\s2(?:\.[01])?|2\.1\s(?:models?|version)",
    "pony": r"pony(?:\s?(?:xl|diffusion|v6))?",
    "illustrious": r"illustrious(?:\s?xl)?|noob\s?ai(?:\s?xl)?|\bilxl|\bil\s(?:version|lora)",
    "sdxl": r"sd\s?xl(?:\s?1\.0)?|xl\s(?:version|model|lora)",
    "flux": r"flux(?:\.?\s?1)?(?:\s?-?\s?(?:dev|schnell))?",
    "sd3": r"sd\s?3(?:\.5)?|stable\sdiffusion\s3(?:\.5)?",
    "qwen": r"qwen(?:[\s-]?image)?",
    "wan": r"wan\s?2\.\d",
    "zimage": r"z[\s-]?image(?:\s?turbo)?",
}
_BASE = re.compile("|".join(f"(?P<{name}>(?<![A-Za-z]){text})" for name, text in _BASES.items()), re.IGNORECASE)
_XL_CHILDREN = {"pony": "sdxl", "illustrious": "sdxl"}
_VARIANT = re.compile(
    r"(?<![A-Za-z])(lcm|turbo|lightning|hyper|dmd2?|schnell|pcm|distilled|nunchaku)(?![A-Za-z])", re.IGNORECASE
)
_VERSION_NO = r"(\d{1,2}(?:\.\d{1,3}){0,2}[a-z]?)"
_VERSION = re.compile(
    rf"(?:^|[\s(\[（【,/\-]|(?<=[一-龥ぁ-ヶ가-힣]))(?:v(?:er(?:sion|\.)?)?\s?\.?\s?){_VERSION_NO}(?![A-Za-z0-9])|"
    rf"第?{_VERSION_NO}版",
    re.IGNORECASE,
)
_OLD = words(
    "old version, older version, older versions, old versions, previous version, previous versions, earlier version, "
    "first version, last version, prior version, beta version, 旧版, 舊版, 之前的版本, 旧バージョン, "
    "前のバージョン, 이전 버전, старой версии, старая версия, "
    "версии 1, versión anterior, version précédente, alte version, alten version, versão anterior, versione precedente"
)


def bases_named(text: str) -> set[str]:
    return {match.lastgroup for match in _BASE.finditer(text) if match.lastgroup}


def base_family(text: str) -> str | None:
    """The base model family a hub's label or a text names first."""
    match = _BASE.search(text)
    return match.lastgroup if match else None


def other_base(text: str, subject: Subject) -> bool:
    """Whether the text names base models, and the subject's is not among them."""
    named = bases_named(text)
    own = base_family(subject.base_model)
    return bool(named) and own is not None and own not in named and _XL_CHILDREN.get(own) not in named


def versions(text: str) -> set[str]:
    return {_plain_version(match[1] or match[2]) for match in _VERSION.finditer(text)}


def _plain_version(text: str) -> str:
    while text.endswith(".0"):
        text = text[:-2]
    return text.lower()


def _own_versions(subject: Subject) -> set[str]:
    numbers = re.findall(r"(?<![\d.])\d{1,2}(?:\.\d{1,3}){0,2}[a-z]?(?![\d.])", subject.version.lower())
    return {_plain_version(number) for number in numbers[:8]}


def other_version(text: str, subject: Subject) -> bool:
    """Whether the text speaks of versions, and not of the subject's. Bases ("SD v1.5") are no versions."""
    if _OLD.search(text):
        return True
    named = versions(_BASE.sub(" ", _without_names(text)))
    own = _own_versions(subject)
    return bool(named) and not (named & own) and (bool(own) or not subject.version)


_NAME_VERSION = re.compile(r"([A-Za-z][A-Za-z_\-]{2,40})[\s_\-]?(?i:v)\d{1,2}(?:\.\d{1,3}){0,2}")


def _without_names(text: str) -> str:
    """Without names that carry a version of their own: "AnythingV5", "Deliberate v2"."""
    return _NAME_VERSION.sub(lambda match: match[0] if match[1].lower() in _GENERIC else " ", text)


def is_elsewhere(label: str, subject: Subject) -> bool:
    """Whether a heading or label opens a part about something else."""
    if TRAINING.search(label) and not RECOMMENDED.search(label):
        return True
    if HISTORY.search(label):
        return True
    if other_version(label, subject) or other_base(label, subject):
        return True
    return other_variant(label, subject)


def other_variant(text: str, subject: Subject) -> bool:
    """LCM, Turbo, Lightning: settings of their own, for the files that are one."""
    found = {match[1].lower() for match in _VARIANT.finditer(text)}
    own = " ".join((*subject.names, subject.version, subject.base_model)).lower()
    return bool(found) and not any(word in own for word in found)


LORA_TAG = re.compile(r"<(?:lora|lyco|hypernet)\s?:\s?([^<>:]{1,200})((?::[^<>:]{1,40}){0,4})>", re.IGNORECASE)
_MODEL_LINK = re.compile(r"civitai\.\w{2,4}/models/(\d{1,9})")
_URL = re.compile(r"(?:https?://|www\.)[^\s<>()]{1,400}")
_OTHER_FILE = (  # 'add_detail LoRA', 'the LoRA "Add Detail"'
    re.compile(
        r"(?<![A-Za-z])([\w.+\-]{3,60}|\"[^\"]{2,60}\")\s(?:lora|locon|lycoris|lyco|embedding|hypernetwork|"
        r"slider)(?![A-Za-z])",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?<![A-Za-z])(?:lora|locon|lycoris|embedding)\s?:?\s?(\"[^\"]{2,60}\"|[A-Za-z]\w{0,40}_\w{1,40})(?![A-Za-z])",
        re.IGNORECASE,
    ),
)
TOGETHER = stems(
    "combin, together with, along with, alongside, pair, mix with, mixed with, in conjunction, stack, merge with, "
    "与其他, 和其他, 搭配, 配合, 一起用, 一起使用, 併用, 組み合わせ, 같이, 함께, 조합, вместе с, в сочетании, "
    "комбинир, junto con, combina, "
    "zusammen mit, kombin, avec le lora, associé, junto com"
)
_GENERIC = frozenset([  # words before "LoRA" that are no name
    "this", "the", "my", "a", "an", "any", "other", "others", "style", "character", "concept", "sdxl", "sd",
    "pony", "flux", "illustrious", "your", "of", "for", "recommended", "suggested", "each", "single", "these",
    "those", "that", "its", "our", "best", "optimal", "ideal", "good", "use", "using", "used", "with", "as", "new",
    "first", "second", "base", "model", "anime", "realistic", "full", "lora", "weight", "strength", "positive",
    "negative", "textual", "every", "all", "some", "more", "multiple", "different", "another", "clothing",
    "outfit", "pose", "detail", "lighting", "face", "body", "hand", "strong", "weak", "trained", "training", "and",
    "or", "to", "in", "on", "both", "same", "xl", "turbo", "lcm", "about", "most", "many", "two", "three",
    "several", "adjust", "set", "from", "ver", "version", "since", "until", "before", "after", "old",
])  # fmt: skip


def is_other_file(text: str, subject: Subject) -> bool:
    """Whether a unit speaks of another LoRA, embedding or page: its weight is not the subject's."""
    own = [squeezed(name) for name in subject.names if name]
    for match in LORA_TAG.finditer(text):
        if not alike(squeezed(match[1]), own):
            return True
    for match in _MODEL_LINK.finditer(text):
        if subject.model_id is not None and int(match[1]) != subject.model_id:
            return True
    for match in (match for pattern in _OTHER_FILE for match in pattern.finditer(text)):
        name = match[1].strip('"')
        shaped = any(c.isdigit() or c == "_" or c.isupper() for c in name[1:]) or (
            name[0].isupper() and match.start() > 0
        )
        quoted = '"' in match[0]
        if (
            name.lower() not in _GENERIC
            and (shaped or quoted)
            and not alike(squeezed(name), own)
            and not name.replace(".", "").isdigit()
        ):
            return True
    return False


def squeezed(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


def alike(name: str, own: Iterable[str]) -> bool:
    """Whether two squeezed names mean the same file: one within the other, or a placeholder."""
    if not name or name in {"xxx", "name", "filename", "loraname", "yourlora", "modelname", "thislora"}:
        return True
    return any(each and (each in name or (name in each and len(name) >= 4)) for each in own)
