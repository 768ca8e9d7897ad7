"""Names a text gives: samplers, schedules, sizes, upscalers, VAEs, negative embeddings, detectors, checkpoints."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest

from hubctl.advice.said import Said, phrase, said
from hubctl.advice.samplers import samplers
from hubctl.advice.subject import Subject, squeezed
from hubctl.advice.units import Unit
from hubctl.advice.words import NEGATED, TRAINING, keywords, names_in
from hubctl.parameters import SCHEDULES, schedule_name

BAKED_IN = "baked in"
"""The value of `vae` when a checkpoint brings its own."""

SIZE = re.compile(r"(?<![\d.])(\d{2,4})\s?(?:px)?\s?[x*х]\s?(\d{2,4})(?!\d)", re.IGNORECASE)
_SIDE = re.compile(r"(?<![\d.])(\d{3,4})\s?(?:px)?(?![\d.])")
UPSCALER = re.compile(
    r"R-?ESRGAN[\s_]?(?:4x|2x)?\+?(?:\s?-?\s?Anime\s?6B)?|"
    r"(?<![A-Za-z])Real-?ESRGAN[\s_]?x?\d?(?:plus)?(?:[\s_]anime[\s_]?6B)?"
    r"|ESRGAN[\s_]?4x|[248]x[\-_\s]?Ultra[\-_\s]?Sharp(?:[\-_\s]?v\d)?|[248]x[\-_\s]?Anime[\-_\s]?Sharp|"
    r"[1248]x[\-_][A-Za-z][\w\-]{2,40}"
    r"|(?<![A-Za-z])(?:Ultra[\-_]?Sharp|Anime[\-_]?Sharp|(?:foolhardy[\s_])?Remacri|SwinIR(?:[\s_]4x)?|LDSR|"
    r"Lanczos|DAT\s?x\d|ScuNET|Lollypop)(?![A-Za-z])"
    r"|(?<![A-Za-z])Latent(?:\s?\((?:nearest(?:-exact|\s?exact)?|bicubic|antialiased|"
    r"bicubic\santialiased)\))?(?![A-Za-z])",
    re.IGNORECASE,
)


_NEEDS_WORD = frozenset(
    ["lcm", "tcd", "restart", "heun", "lms", "deis", "ddpm", "plms", "ipndm", "er_sde", "sa_solver"]
)
_SCHEDULE = re.compile(
    r"(?<![A-Za-z])(?:"
    + "|".join(sorted((re.escape(s).replace(r"\ ", r"[\s_]") for s in SCHEDULES.values()), key=len, reverse=True))
    + r"|sgm|ays)(?![A-Za-z])",
    re.IGNORECASE,
)


_BESIDE = re.compile(
    r"\s?[+/,&]\s?(beta(?:57)?|simple|normal|sgm[_ ]uniform|ddim[_ ]uniform|exponential|kl[_ ]optimal)(?![A-Za-z])",
    re.IGNORECASE,
)


def samplings(unit: Unit, sure: float) -> Iterator[Said]:
    """Samplers and schedules, in the order they are named."""
    named = names_in(f"{unit.label} {unit.text}") & {"sampler", "schedule"}
    found = samplers(unit.text)
    for start, end, sampler, schedule in found:
        before = unit.text[max(0, start - 26) : start]
        if _negation_reaches(before) or re.search(r"(?i)loras?$|^\s{0,2}lora", unit.text[end : end + 6]):
            continue
        if sampler in _NEEDS_WORD and not named:
            continue
        sure_here = sure + (0.14 if "sampler" in named else -0.06)
        yield replace(said("sampler", sampler, unit, sure_here, at=start), schedule=schedule)
        if schedule:
            yield replace(said("schedule", schedule, unit, sure_here, at=start), schedule=schedule)
    if found and "schedule" not in named:  # "euler + beta", "euler a / simple", as node graphs pair them
        after = _BESIDE.match(unit.text, found[-1][1])
        if after and found[-1][3] is None and (name := schedule_name(after[1])):
            yield said("schedule", name, unit, sure - 0.06, at=found[-1][0])
            return
    if "schedule" in named or ("sampler" in named and found):
        masked = unit.text
        for start, end, *_ in found:
            masked = masked[:start] + "\x01" * (end - start) + masked[end:]
        for match in _SCHEDULE.finditer(masked):
            name = schedule_name({"sgm": "SGM Uniform", "ays": "Align Your Steps"}.get(match[0].lower(), match[0]))
            strict = "schedule" in named or match[0].lower() in {"karras", "sgm", "exponential"}
            if name and strict and not _negation_reaches(masked[max(0, match.start() - 26) : match.start()]):
                yield said("schedule", name, unit, sure + 0.1, at=match.start())


def _negation_reaches(before: str) -> bool:
    return bool(NEGATED.search(re.split(r"[,;.()]|\bbut\b|\buse\b", before)[-1])) or bool(
        re.search(r"(?i)(?:don.?t use|avoid|not|instead of)\s{0,2}$", before)
    )


def upscalers(unit: Unit, sure: float) -> Iterator[Said]:
    context = names_in(f"{unit.heading} {unit.label} {unit.text}")
    for match in UPSCALER.finditer(unit.text):
        known = context & {"hires", "upscaler", "upscale", "denoise", "hires_steps"}
        if not known and match[0].lower().startswith(("latent", "lanczos")):
            continue
        if not _negation_reaches(unit.text[max(0, match.start() - 26) : match.start()]):
            yield said(
                "hires.upscaler", upscaler_label(match[0]), unit, sure + (0.1 if known else -0.1), at=match.start()
            )
    if "hires" in context and not _negation_reaches(unit.text[:40]):
        first = next((word for word in keywords(unit.text) if word.name == "hires"), None)
        if first is not None and not NEGATED.search(unit.text[first.end : first.end + 24]):
            yield said("hires.use", True, unit, sure, at=first.start)


_UPSCALER_NAMES = {
    "ultrasharp": "4x-UltraSharp", "4xultrasharp": "4x-UltraSharp", "animesharp": "4x-AnimeSharp",
    "4xanimesharp": "4x-AnimeSharp", "resrgan4xanime6b": "R-ESRGAN 4x+ Anime6B",
    "resrgananime6b": "R-ESRGAN 4x+ Anime6B",
    "resrgan4x": "R-ESRGAN 4x+", "resrgan": "R-ESRGAN 4x+", "remacri": "4x_foolhardy_Remacri",
    "foolhardyremacri": "4x_foolhardy_Remacri", "esrgan4x": "ESRGAN_4x", "swinir": "SwinIR_4x", "swinir4x": "SwinIR_4x",
    "latent": "Latent", "latentnearestexact": "Latent (nearest-exact)", "latentnearest": "Latent (nearest)",
    "latentbicubic": "Latent (bicubic)", "latentantialiased": "Latent (antialiased)", "lanczos": "Lanczos",
    "realesrgan": "R-ESRGAN 4x+", "realesrganx4plus": "R-ESRGAN 4x+", "realesrganx4plusanime6b": "R-ESRGAN 4x+ Anime6B",
}  # fmt: skip


def upscaler_label(name: str) -> str:
    """An upscaler as web UIs list it, when it is a common one; else as written."""
    return _UPSCALER_NAMES.get(squeezed(name), name.strip())


def sizes(unit: Unit, sure: float) -> Iterator[Said]:
    context = names_in(f"{unit.label} {unit.text}")
    if TRAINING.search(unit.text + unit.label) or ("upscale" in context and "size" not in context):
        return
    found = list(SIZE.finditer(unit.text))
    for match in found:
        wide, high = int(match[1]), int(match[2])
        before = unit.text[max(0, match.start() - 40) : match.start()]
        if (
            _is_size(wide, high)
            and not _negation_reaches(before)
            and not re.search(r"(?i)(?:than|upscaled? to|to|minimum(?: of)?|at least)\s{0,2}$", before)
        ):
            yield said("size", [wide, high], unit, sure + (0.12 if "size" in context else -0.06), at=match.start())
    if not found and "size" in context:
        for match in _SIDE.finditer(unit.text):
            side = int(match[1])
            if side in {512, 640, 768, 832, 896, 1024, 1152, 1280, 1536}:
                yield said("size", [side, side], unit, sure - 0.2, at=match.start())
                return


def _is_size(wide: int, high: int) -> bool:
    return all(64 <= side <= 2048 and side % 4 == 0 for side in (wide, high)) and max(wide, high) <= 3 * min(wide, high)


_VAES: tuple[tuple[str, str], ...] = (
    ("vae-ft-mse-840000-ema-pruned",
     (r"(?:sd[-_ ]?)?vae[-_ ]ft[-_ ]mse(?:[-_ ]840000)?(?:[-_ ]ema)?(?:[-_ ](?:pruned|original|recommended))?|"
     r"840000(?:[-_]ema)?(?:[-_]pruned)?|(?:ft[-_ ])?mse[-_ ]840000(?:[-_ ]ema)?(?:[-_ ]pruned)?")),
    ("vae-ft-ema-560000-ema-pruned",
     (r"(?:sd[-_ ]?)?vae[-_ ]ft[-_ ]ema(?:[-_ ]560000)?(?:[-_ ]ema)?(?:[-_ ](?:pruned|original))?|"
     r"560000(?:[-_]ema)?(?:[-_]pruned)?")),
    ("kl-f8-anime2", r"kl[-_ ]?f8[-_ ]?anime[-_ ]?2|kl[-_ ]?f8(?:[-_ ]?anime)?(?=\W)"),
    ("orangemix.vae", r"orange\s?mix(?:e?s)?[-_. ]?vae|orange\s?mix(?:e?s)?(?=\svae)|orange[-_. ]vae"),
    ("blessed2.vae", r"blessed[-_ ]?2?[-_. ]?vae|blessed2"),
    ("clearvae", r"clear[-_ ]?vae(?:[-_ ]?(?:main|variant|v?\d[\d.]{0,4}))?"),
    ("color101", r"color[-_ ]?101(?:[-_ ]?vae)?(?:[-_ ]?v\d)?"),
    ("anything-v3.0.vae", r"anything[-_ ]?(?:v?[345](?:\.\d)?)?[-_. ]vae"),
    ("nai.vae", r"(?:nai|novel\s?ai|animefull(?:-latest)?)[-_. ]?vae|animevae"),
    ("sdxl-vae-fp16-fix", r"sdxl[-_. ]?vae[-_. ]?fp16[-_. ]?fix|fp16[-_. ]?fix(?:ed)?[-_. ]?vae"),
    ("sdxl_vae", r"sdxl[-_. ]?vae(?:[-_ ]?(?:0\.9|1\.0))?"),
    ("pastel-waifu-diffusion.vae", r"pastel[-_ ]waifu[-_ ]diffusion(?:[-_. ]vae)?"),
    ("waifu-diffusion.vae", r"(?:waifu[-_ ]diffusion|wd)(?:[-_ ](?:v?1[.-]?4))?[-_. ]vae"),
    ("grapefruit.vae", r"grapefruit[-_. ]?vae"),
    ("ae", r"(?:flux[-_ ])?ae\.(?:safetensors|sft)"),
)  # fmt: skip
_VAE = re.compile(
    "|".join(f"(?P<n{i}>(?<![A-Za-z0-9]){text}(?![A-Za-z0-9]))" for i, (_, text) in enumerate(_VAES)), re.IGNORECASE
)
_VAE_NAMED = re.compile(
    r"(?<![A-Za-z])vae\s{0,2}(?:[:：=]|is|used?:?)\s{0,3}(?P<name>[A-Za-z][\w.+\-]{2,60}(?:\s(?:v?\d[\d.]{0,4}|"
    r"vae))?)|(?P<file>[\w+\-]{2,60}\.vae)(?:\.(?:pt|safetensors|ckpt))?(?![A-Za-z])|"
    r"(?P<suffixed>[A-Za-z]\w{1,40}(?:[-_]vae|VAE)\w{0,20}?)(?![A-Za-z])",
    re.IGNORECASE,
)
_BAKED = re.compile(
    r"vae[^.;\n]{0,70}?\bbaked|\bbaked[\s\-]in[^.;\n]{0,20}?vae|"
    r"(?:baked|bake|included|includes|built|build|embedded|integrated|comes\swith|has)[\s\-]{0,2}(?:in|it|with|a|"
    r"the)?[\s\-]{0,2}(?:own\s)?vae"
    r"|vae(?:\s(?:is|was|are|has\sbeen))?(?:\s(?:already|now|none|not\sneeded|"
    r"optional)){0,2}[\s(:]{0,3}(?:\(?it'?s\s)?(?:baked|included|built|embedded|integrated|inside)"
    r"|vae\s{0,2}[:：]\s{0,2}(?:none\s?\(?(?:it'?s\s)?(?:included|baked)|baked|included|built|автомат|встроен|内置|"
    r"已内置|自带)"
    r"|(?:no|not\sneed(?:\san?)?|don'?t\sneed(?:\san?)?|without)\s(?:extra\s|additional\s|external\s|"
    r"separate\s)?vae\s(?:is\s)?(?:needed|required|necessary)"
    r"|(?:内置|已内置|自带|内嵌|已烘焙|集成|整合)(?:了)?\s?vae|vae\s?(?:已|を|は)?\s?(?:内置|内嵌|集成|烘焙|込み|"
    r"内蔵|焼き込み|焼込|入り)|vae\s?(?:내장|포함)|vae\s(?:встроен|уже\sв)|vae\s(?:incluid|integrad|inkl|"
    r"enthalten|eingebaut|intégr)",
    re.IGNORECASE,
)
_NOT_BAKED = re.compile(
    r"(?:no|not|without|isn'?t|doesn'?t|n't)\s(?:a\s|any\s|have\sa\s|include\sa\s)?(?:baked|built|included|"
    r"embedded|include|come)|不(?:含|带|包含)\s?vae|未(?:内置|内嵌)|(?:没有|沒有)\s?vae|内蔵していません|"
    r"含まれていません|не\sвстроен|no\svae\s(?:baked|included)|vae\s(?:is\s)?not\s(?:baked|included)",
    re.IGNORECASE,
)
_NO_NAME = frozenset([
    "none", "any", "auto", "automatic", "your", "the", "my", "a", "an", "is", "recommended", "no", "yes", "not",
    "use", "used", "using", "with", "optional", "baked", "included", "built", "you", "needed", "required", "this",
    "same", "own", "original", "default", "it", "if", "download", "here", "for", "and", "or", "file", "files",
    "model", "models", "of", "in", "to",
])  # fmt: skip


def vaes(unit: Unit, sure: float) -> Iterator[Said]:
    """Which VAE to use; `baked in` when the file brings its own."""
    text = f"{unit.label} {unit.text}" if "vae" in unit.label.lower() and len(unit.label) < 50 else unit.text
    about_vae = "vae" in text.lower() or "vae" in unit.heading.lower()
    if _BAKED.search(text) and not _NOT_BAKED.search(text):
        yield said("vae", BAKED_IN, unit, sure + 0.15)
        return
    found = False
    for match in _VAE.finditer(text):
        if not about_vae and match.lastgroup not in {"n0", "n1", "n2"}:
            continue
        if not _negation_reaches(text[max(0, match.start() - 26) : match.start()]):
            found = True
            yield said("vae", _VAES[int((match.lastgroup or "n0")[1:])][0], unit, sure + 0.12)
    if found or not about_vae:
        return
    for match in _VAE_NAMED.finditer(text):
        name = (match["name"] or match["file"] or match["suffixed"]).strip(" .,")
        named = bool(match["file"] or match["suffixed"]) or any(c.isdigit() or c in "-_." for c in name[1:])
        if (
            name.lower() not in _NO_NAME
            and named
            and not _negation_reaches(text[max(0, match.start() - 26) : match.start()])
        ):
            yield said("vae", name, unit, sure)
            return


NEGATIVES = re.compile(
    r"(?<![\w-])(?:easynegative(?:v2)?|easy\snegative|bad[-_]?hands?[-_]?(?:v\d|\d)|badhandv4(?:-animeillustdiff)?|"
    r"bad[-_]prompt(?:[-_]version2)?|bad[-_]picture[-_]chill[-_]75v|"
    r"ng[-_]deepnegative[-_]v1[-_]\d{2}t|deep\s?negative(?:\sv1\.?x?)?|verybadimagenegative[-_]v1\.\d|"
    r"fastnegative(?:v2|embedding)?|negative[-_]hands?(?:-neg)?|"
    r"unrealisticdream|baddream|bad[-_]artist(?:-anime)?|bad[-_]quality|bad-image-v2-\d{4,6}|badpromptv?\d?|"
    r"unaestheticxl\w{0,12}|negativexl(?:_[a-z])?|"
    r"cyberrealistic[-_]negative(?:[-_]\w{1,8})?|realisticvision[-_]negative\w{0,20}|jugger?negative(?:[-_]neg)?|"
    r"zip2d[-_]neg(?:ative)?|boring[-_]e621(?:[-_]v4)?|aissist(?:xl)?[-_]neg|"
    r"lazyneg\w{0,10}|lazyhand|epicphoto(?:gasm)?-?\w{0,8}-?neg\w{0,10}|ac[-_]neg[12]|"
    r"pony[-_]?pdxl[-_]?negative\w{0,10}|stable_yogis_pdxl_negatives\w{0,10}|verybadquality|"
    r"auroranegative|khfb|ugh|rev2-badprompt|by\sbad\sartist\s-neg|kkw-\w{2,12}-neg)(?![\w-])",
    re.IGNORECASE,
)  # fmt: skip


def named_embeddings(unit: Unit, sure: float) -> Iterator[Said]:
    context = f"{unit.heading} {unit.label} {unit.text}"
    if not re.search(r"(?i)neg|负|負|反向|ネガティブ|네거|негатив|embedding|textual", context):
        return
    for match in NEGATIVES.finditer(unit.text):
        if not _negation_reaches(unit.text[max(0, match.start() - 26) : match.start()]):
            yield said("negative_embeddings", match[0], unit, sure, at=match.start())


def negative(text: str, unit: Unit) -> Iterator[Said]:
    """The words after "Negative prompt:", and the embeddings among them."""
    text = re.split(r"\s(?:Steps|Sampler|CFG scale)\s?[:：]", text)[0].strip(" \"'")
    for match in NEGATIVES.finditer(text):
        yield said("negative_embeddings", match[0], unit, 0.7)
    if (
        len(text) >= 8
        and re.search(r"[A-Za-z]{3}", text)
        and not text.lower().startswith(("http", "see ", "none", "no ", "not ", "optional", "use "))
    ):
        yield Said("negative_prompt", text[:600].rstrip(" ,"), phrase(unit), 0.7)


_DETAILER = re.compile(r"!?adetailer|after[\s-]?detailer|face[\s-]?detailer|脸部修复|面部修复", re.IGNORECASE)
_DETECTOR = re.compile(
    r"(?:face|hand|person|eyes?|mouth|deepfashion2?)[-_](?:yolov?\d{1,2}[a-z]\w{0,12})(?:\.pt)?|"
    r"mediapipe_face\w{0,12}|[\w\-]{2,30}_seg\.pt",
    re.IGNORECASE,
)


def detailers(unit: Unit, sure: float) -> Iterator[Said]:
    """ADetailer, with the detectors a text names."""
    if _DETAILER.search(unit.text) and not _negation_reaches(unit.text[: _DETAILER.search(unit.text).start()][-26:]):  # type: ignore[union-attr]
        found = [match[0] for match in _DETECTOR.finditer(unit.text)]
        for name in found or ["on"]:
            yield said("adetailer", name, unit, sure)


_BASE_LEAD = re.compile(
    r"(?<![A-Za-z])(?:(?:recommended\s|base\s|suggested\s|tested\s|best\s|main\s){0,2}(?:checkpoints?|"
    r"base\smodels?|models?\sused|model)\s{0,2}(?:used)?\s{0,2}[:=]"
    r"|(?:works?|looks?|performs?)\s(?:best|well|great|fine|good|nicely|perfectly)?\s{0,2}(?:with|on)|"
    r"trained\s(?:with|on|using)|tested\s(?:with|on)|made\s(?:with|on)"
    r"|recommend(?:ed)?\s(?:to\suse\s(?:it\s)?with|using|with)|(?:best|better)\s(?:with|on)|i\suse[d]?|used\swith|"
    r"底模|大模型|基础模型|推荐模型|主模型|推荐大模型|使用模型|ベースモデル|使用モデル|推奨モデル|베이스 모델|"
    r"추천 모델|чекпоинт|модель)",
    re.IGNORECASE,
)
_CHECKPOINT = re.compile(
    r"(?<![\w-])(?:any\s?lora|anything[\s\-_]?v?[345](?:\.\d)?|counterfeit(?:[\s\-_]?v?[\d.]{1,4})?|meina\s?(?:mix|"
    r"hentai|pastel|unreal)\w{0,8}(?:\s?v\d{1,2})?|abyss\s?orange\s?mix\w{0,8}|aom[23]\w{0,4}|"
    r"dream\s?shaper(?:[\s\-_]?(?:xl|v?\d{1,2}))?|deliberate(?:[\s\-_]?v?\d)?|rev\s?animated\w{0,12}|"
    r"realistic\s?vision(?:[\s\-_]?v?[\d.]{1,4})?|epic\s?realism\w{0,20}|chillout\s?mix\w{0,20}|"
    r"majic\s?mix\w{0,4}(?:\s\w{3,10})?|"
    r"juggernaut(?:[\s\-_]?xl)?(?:[\s\-_]?v?[\dx]{1,4})?|animagine(?:[\s\-_]?xl)?(?:[\s\-_]?v?[\d.]{1,4})?|"
    r"pony\s?diffusion(?:[\s\-_]?(?:v6)?(?:\s?xl)?)?|autismmix\w{0,12}|hassaku(?:[\s\-_]?xl)?|wai[\s\-_]?(?:nsfw|"
    r"ani)?[\s\-_]?illustrious\w{0,10}|"
    r"noobai[\s\-_]?xl\w{0,12}|illustrious[\s\-_]?xl(?:[\s\-_]?v?[\d.]{1,4})?|absolute\s?reality|ghost\s?mix|"
    r"cetus\s?mix|toon\s?you|protogen\w{0,12}|orange\s?mix\w{0,4}|pastel\s?mix|7th[\s_]anime\w{0,6}|"
    r"nai(?:[\s-]?animefull)?(?=\W)|animefull(?:-latest)?|"
    r"novelai(?:\sleak)?|flux(?:\.?1)?[\s\-.]?dev|sd\s?xl\s?(?:base\s?)?1\.0|stable\sdiffusion\s(?:v?1[.-]5|xl)|"
    r"sd\s?(?:v?1[.-]5))(?![\w-])",
    re.IGNORECASE,
)  # fmt: skip


def bases(unit: Unit, subject: Subject, sure: float) -> Iterator[Said]:
    """The checkpoints an adapter or embedding is meant for, where the text says so."""
    if subject.kind == "checkpoint":
        return
    text = f"{unit.label} {unit.text}" if unit.label and len(unit.text) <= 60 else unit.text
    leads = list(_BASE_LEAD.finditer(text))
    for lead, following in zip_longest(leads, leads[1:]):
        trained = bool(TRAINING.search(lead[0]))
        if _negation_reaches(text[max(0, lead.start() - 20) : lead.start()]) or (
            trained and subject.kind == "embedding"
        ):
            continue
        names = text[lead.end() : min(lead.end() + 160, following.start() if following else len(text))]
        for match in _CHECKPOINT.finditer(names):
            yield said(
                "base_checkpoint", " ".join(match[0].split()), unit, sure - (0.2 if trained else 0), at=lead.start()
            )


def negative_embeddings(prompt: str) -> tuple[str, ...]:
    """Well-known negative embeddings named in a negative prompt."""
    return tuple(dict.fromkeys(match[0] for match in NEGATIVES.finditer(prompt[:20_000])))
