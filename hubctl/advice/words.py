"""The words by which people name settings, limits and conditions, in a dozen languages.

A blank in a phrase also stands for "_", "-", "." or nothing: "clip skip" reads clipskip, clip_skip and CLIP-Skip.
All phrases of a table become one pattern that shares beginnings (a trie), so that a text is scanned once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Any, NamedTuple

NUMERIC = ("weight", "cfg_scale", "steps", "clip_skip", "denoise", "upscale", "hires_steps")
"""Words whose value is a number; the others name things, or own numbers that are none of ours."""

_WORDS: dict[str, str] = {
    "weight": (
        "weight, weights, weighting, strength, strengths, lora weight, lora weights, lora strength, model strength, "
        "strength model, multiplier, intensity, 权重, 權重, 比重, 强度, 強度, 重み, 強さ, ウェイト, ウエイト, "
        "ウェート, 適用度, 가중치, 강도, "
        "웨이트, вес, веса, весе, весом, вес лоры, сила, силу, силой, силе, peso, pesos, fuerza, intensidad, gewicht, "
        "gewichtung, stärke, poids, force du lora, force entre, force recommandée, force conseillée, "
        "force de la lora, intensité, força, intensidade, forza, intensità, waga, wagę, ağırlık, trọng số, "
        "bobot, weigth, wheight, weigh, strenght, strengh, hypernetwork strength, hypernet strength"
    ),
    "cfg_scale": (
        "cfg, cfg scale, cfg value, cfg level, guidance, guidance scale, prompt guidance, classifier free guidance, "
        "提示词引导系数, 提示詞引導係數, 提示词相关性, 提示詞相關性, 引导系数, 引導係數, cfg値, cfg值, "
        "cfgスケール, cfg 스케일, escala cfg, "
        "escala de cfg, échelle cfg, шкала cfg, cfg skala"
    ),
    "steps": (
        "steps, sampling steps, sampler steps, sample steps, inference steps, number of steps, steps count, "
        "step count, "
        "sampling step, num inference steps, 步数, 步數, 采样步数, 採樣步數, 迭代步数, 迭代步數, 采样迭代步数, 步, "
        "ステップ数, ステップ, "
        "サンプリングステップ, サンプリングステップ数, サンプリング回数, 샘플링 스텝, 스텝, 스텝 수, шаги, шагов, "
        "шага, шагах, количество шагов, "
        "pasos, pasos de muestreo, schritte, schritten, étapes, passos, passi, kroków, adım, bước"
    ),
    "clip_skip": (
        "clip skip, clip skips, clip layer, clip stop at last layers, clip set last layer, skip clip, clip终止层数, "
        "clip终止层, clip跳过层, clip跳过, clip 跳过层, 跳过层数, 跳过层, clip层, clip層, クリップスキップ, "
        "clipスキップ, 클립 스킵, "
        "클립스킵, клип скип, пропуск clip, saltar clip, salto de clip"
    ),
    "sampler": (
        "sampler, samplers, sampling method, sampling methods, sampler name, sampling, 采样器, 采样方法, 采样方式, "
        "采样, 採樣器, "
        "採樣方法, 取样器, サンプラー, サンプリング方法, サンプラ, 샘플러, 샘플링 방법, сэмплер, семплер, "
        "сэмплеры, семплеры, "
        "метод семплирования, muestreador, método de muestreo, échantillonneur, amostrador, campionatore"
    ),
    "schedule": (
        "scheduler, schedulers, schedule type, schedule, scheduler type, noise schedule, sigma schedule, 调度器, "
        "調度器, "
        "调度类型, スケジューラー, スケジューラ, スケジュールタイプ, 스케줄러, планировщик, planificador, "
        "ordonnanceur, agendador"
    ),
    "size": (
        "resolution, resolutions, size, image size, dimensions, image dimensions, canvas, canvas size, 分辨率, "
        "解析度, 尺寸, "
        "图片尺寸, 解像度, 画像サイズ, サイズ, 해상도, 사이즈, разрешение, разрешении, размер, resolución, tamaño, "
        "auflösung, "
        "bildgröße, résolution, taille, resolução, tamanho, risoluzione"
    ),
    "vae": "vae, vaes",
    "hires": (
        "hires, hires fix, hi res, hi res fix, highres, highres fix, high res fix, high res, hr fix, hires upscale, "
        "高清修复, 高清修復, 高分辨率修复, 高分辨修复, 高解析度修復, 高解像度補助, 高解像度修正, ハイレゾ修正, "
        "ハイレゾ, ハイレスフィックス, 하이레스, "
        "하이레스 픽스, 고해상도 보정, хайрез, хайрес, хайрезфикс"
    ),
    "denoise": (
        "denoise, denoising, denoising strength, denoise strength, denoising str, denoising value, denoise level, "
        "noise strength, hires denoise, hires denoising, hires denoising strength, 重绘幅度, 重绘强度, 重繪幅度, "
        "降噪强度, "
        "降噪強度, 降噪, 去噪强度, 去噪, ノイズ除去強度, ノイズ除去, デノイズ, デノイズ強度, デノイジング強度, "
        "デノイジング, 디노이즈, 디노이징, 디노이징 강도, "
        "노이즈 제거 강도, денойз, денойзинг, денойза, деноиз, шумоподавление, сила шумоподавления, "
        "reducción de ruido, "
        "fuerza de denoising, fuerza de denoise, entrauschung, entrauschen, débruitage, force de débruitage, "
        "força de denoise, força de denoising"
    ),
    "upscale": (
        "upscale, upscale by, upscaled by, upscaling, upscaling by, hires upscale by, upscale factor, upscale ratio, "
        "upscale value, scale factor, scale by, upscale to, 放大倍数, 放大倍率, 放大, アップスケール, "
        "アップスケール倍率, 拡大率, 拡大倍率, "
        "업스케일, 배율, апскейл, апскейл в, увеличение, escalado, escalar, hochskalieren, hochskalierung, "
        "agrandissement"
    ),
    "upscaler": (
        "upscaler, upscalers, hires upscaler, upscale model, upscaling model, upscale method, 放大算法, 放大器, "
        "放大模型, "
        "アップスケーラー, アップスケーラ, 업스케일러, апскейлер, escalador"
    ),
    "hires_steps": (
        "hires steps, hires step, hires sampling steps, hr steps, highres steps, high res steps, hi res steps, "
        "高清修复步数, 高分辨率迭代步数, 高分迭代步数, 高分迭代步數, 高清步数, 高解像度でのステップ数, "
        "ハイレゾステップ数, 하이레스 스텝, upscale steps, "
        "second pass steps"
    ),
    # words whose number is none of ours: either side
    "other": (
        "learning rate, unet lr, text encoder lr, te lr, lr, epoch, epochs, batch size, batch, repeats, repeat, "
        "network dim, dim, network rank, rank, network alpha, conv alpha, conv dim, alpha, seed, ensd, eta, "
        "eta noise seed delta, controlnet weight, control weight, controlnet strength, starting control step, "
        "ending control step, ip adapter weight, prompt weight, prompt weights, tag weight, token weight, "
        "tenc weight, te weight, te strength, clip weight, trigger weight, trigger word weight, word weight, "
        "words weight, detection confidence, confidence, mask blur, mask padding, dilation, shift, training steps, "
        "train steps, trained steps, adetailer denoising strength, adetailer denoise, inpaint denoising strength, "
        "inpainting denoising strength, inpaint denoise, inpainting denoise, img2img denoising strength, "
        "img2img denoise, i2i denoise, i2i denoising strength, mimic cfg, mimic scale, mimic cfg scale, "
        "cfg rescale, rescale cfg, pag scale, "
        "sag scale, text encoder weight, clip strength, strength clip, 学习率, 學習率, 学習率, エポック, 训练步数, "
        "学習ステップ, "
        "学習ステップ数, 控制权重, 提示词权重, 触发词权重, 钩子权重, vram, "
        "skin weight, offset noise"
    ),
    # … only a number before them
    "counted": (
        "images, pictures, pics, photos, image, photo, samples, screenshots, vectors, tokens, seconds, minutes, "
        "hours, fps, frames, gb, "
        "mb, days, weeks, months, years, times, people, versions, models, loras, characters, outfits, styles, epochs, "
        "repeats, training steps, 次, 张图, 張圖, 张, 枚, 번, 장, изображений, картинок, imágenes, bilder, "
        "bildern, images, "
        "imagens, stars, likes, downloads, downloads, followers, reviews, buzz, usd, percent of"
    ),
}

LETTER = "A-Za-zÀ-ɏͰ-ӿ"  # of scripts that put blanks between words
_JOINT = r"[\s_.\-]{0,2}"
_IS_LETTER = re.compile(f"[{LETTER}]")


class Word(NamedTuple):
    """A keyword in its place."""

    start: int
    end: int
    name: str  # the setting
    text: str


@lru_cache(maxsize=512)
def keywords(text: str) -> tuple[Word, ...]:
    """The words of `text` that name settings, longest readings first."""
    return tuple(
        Word(match.start(), match.end(), _setting_of(match), match[0]) for match in _keyword_pattern().finditer(text)
    )


def keyword_at(text: str, at: int) -> bool:
    return _keyword_pattern().match(text, at) is not None


def names_in(text: str) -> set[str]:
    """The settings a text names."""
    return {word.name for word in keywords(text)}


def _setting_of(match: re.Match[str]) -> str:
    return match.lastgroup or _settings()[_bare(match[0])]


def _bare(phrase: str) -> str:
    return re.sub(r"[\s_.\-]", "", phrase.lower())


@cache
def _settings() -> dict[str, str]:
    """Phrase without joints → setting. A phrase of two tables belongs to the later one."""
    return {_bare(phrase): name for name, text in _WORDS.items() for phrase in _split(text)}


@cache
def _keyword_pattern() -> re.Pattern[str]:
    phrases = [phrase for text in _WORDS.values() for phrase in _split(text)]
    alone = (  # "40 step", "Clip 2": words that need their number beside them
        rf"(?P<steps>(?:(?<=\d)|(?<=\d[\s\-]))step(?![{LETTER}]))",
        rf"(?P<clip_skip>(?<![{LETTER}])clip(?=\s{{0,2}}[:=]?\s{{0,2}}[1-4](?![\d.%x])))",
    )
    return re.compile("|".join([_alternatives(phrases, whole=True), *alone]), re.IGNORECASE)


def _alternatives(phrases: Iterable[str], *, whole: bool) -> str:
    """A pattern for any of the phrases, the longest that fits; `whole` = no letter may follow a letter."""
    latin: list[str] = []
    other: list[str] = []
    for phrase in phrases:
        (latin if _IS_LETTER.match(phrase) else other).append(phrase)
    parts = [rf"(?<![{LETTER}]){_trie(latin, whole)}"] if latin else []
    return "|".join([*parts, *([_trie(other, whole)] if other else [])])


def _trie(phrases: Iterable[str], whole: bool) -> str:
    root: dict[str, Any] = {}
    for phrase in phrases:
        node = root
        closed = whole or phrase.endswith(".")
        for char in phrase.rstrip("."):
            node = node.setdefault(char.lower(), {})
        end = rf"(?![{LETTER}])" if closed and _IS_LETTER.match(phrase.rstrip(".")[-1]) else ""
        node.setdefault("end", set()).add(end)
    return _drawn(root)


def _drawn(node: dict[str, Any]) -> str:
    options = [
        (_JOINT if char == " " else re.escape(char)) + _drawn(inner) for char, inner in node.items() if char != "end"
    ]
    ends = node.get("end", set())
    options += ["" if "" in ends else end for end in sorted(ends)[:1]]
    return options[0] if len(options) == 1 else f"(?:{'|'.join(options)})"


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def words(text: str) -> re.Pattern[str]:
    """A pattern for any of these words."""
    return re.compile(_alternatives(_split(text), whole=True), re.IGNORECASE)


def stems(text: str) -> re.Pattern[str]:
    """… by their beginning: "recommend" reads recommended, recommendation; "not." is the whole word."""
    return re.compile(_alternatives(_split(text), whole=False), re.IGNORECASE)


RECOMMENDED = stems(
    "recommend, recomend, suggest, best, better., favo, optimal, ideal, prefer, advise, advice, should be, "
    "sweet spot, works well, "
    "work well, works great, works fine, work fine, 推荐, 推薦, 建议, 建議, 最佳, 最好, 適合, 适合, おすすめ, "
    "オススメ, お勧め, 推奨, 最適, ベスト, 추천, 권장, "
    "최적, рекоменд, совет, лучш, оптимал, aconsej, recomen, mejor, sugier, óptim, ótim, melhor, sugest, empfehl, "
    "empfohl, am besten, ideal, bester, conseil, recommand, meilleur, idéal, consigli, raccomand, miglior, polec, "
    "önerilen, tavsiye, khuyên, disarankan"
)
_NEGATED = stems(
    "don't, dont, don’t, do not, never, avoid, not., shouldn't, shouldn’t, won't, can't, cannot, without, instead of, "
    "rather than, except, stay away, 不要, 别用, 别超, 请勿, 勿, 不建议, 不推荐, 不建議, 不推薦, 避免, 不能, 不用, "
    "不宜, 不超, 不得, ないで, ないよう, しない, 避け, "
    "非推奨, 使わない, おすすめしません, 推奨しません, 하지, 마세요, 말고, 피하, 비추천, не., избега, без., "
    "no uses, no usar, no use, no super, "
    "no pong, no sub, no excede, no pas, evit, nunca, sin., nicht, kein, vermeid, niemals, ne., n', n’, évit, jamais, "
    "sans., não, sem., non., nie., unikaj"
)
NEGATED = re.compile(  # "don't forget to" is none
    rf"(?!(?:don['’]?t|do\snot|not|never)\sforget)(?:{_NEGATED.pattern})", re.IGNORECASE
)
OVER = stems(
    "above., over., higher than, more than, greater than, larger than, exceed, beyond, past., too high, go higher, "
    "超过, 超過, 超出, 高于, 高於, 大于, 超え, 越え, より大き, より高, 초과, 넘, 보다 높, выше, больше, более, "
    "превыша, más de, encima de, "
    "por encima, super, exced, pases de, subas de, über, höher als, mehr als, au-dessus, plus de, dépass, acima, "
    "mais de, mais que, passe de, sopra, più di, oltre, powyżej"
)
UNDER = stems(
    "below., under., lower than, less than, smaller than, beneath, 低于, 低於, 小于, 少于, 下回, 未満, より小さ, "
    "より低, 미만, 보다 낮, ниже, "
    "меньше, менее, menos de, debajo de, por debajo, bajes de, unter, niedriger als, weniger als, en dessous, "
    "moins de, abaixo, menos que, sotto, meno di, poniżej"
)
HARM = stems(
    "artifact, artefact, artefakt, burn, fry, fried, cook, overcook, break, broke, destroy, distort, deform, overfit, "
    "over-fit, saturat, oversaturat, unfinished, incomplete, blurr, washed out, "
    "too strong, too much, mess., messy, weird, bad, worse, nois, ugly, glitch, "
    "mutat, ruin, "
    "no effect, weak, doesn't work, not work, lose, hardly, barely, little effect, 崩, 糊, 过拟合, 過擬合, 变形, "
    "失真, 异常, 过饱和, "
    "没效果, 无效, 不明显, 破綻, 崩れ, 焼け, ノイズ, 効果が薄, 깨지, 뭉개, 망가, артефакт, лома, порт, переж, "
    "слаб, искаж, quema, "
    "deform, rompe, artefact, kaputt, verbrann, verzerr, brûl, déform, casse, estrag, queim, distorc"
)
CONDITION = stems(
    "if., when., unless, in case, for more, for stronger, for a stronger, for weaker, for less, for subtle, "
    "reduce, decrease, increase, raise, "
    "lower it, lower the, turn down, turn it, bring it, otherwise, alternatively, depending, combin, other loras, "
    "multiple loras, 如果, 若, 当, 降到, 调到, 降低到, 提高到, 时可, 场合, 場合, なら, 下げ, 上げ, 다면, 경우, "
    "낮추, 올리, если, снизь, "
    "повысь, уменьш, увелич, si., cuando, baja, sube, reduc, wenn., falls., senk, erhöh, quand, baiss, augment, se., "
    "quando, diminu, aument, jeśli"
)
ADJUSTED = stems(  # "lower the weight to 0.4": where to go from what is meant
    "lower., lowering, reduc, decreas, increas, rais, turn down, turn up, drop., bump, crank, "
    "降, 提高, 下げ, 上げ, 낮추, 올리, сниз, пониз, повыс, уменьш, увелич, "
    "baj, sub., sube, senk, erhöh, baiss, augment, diminu, aument"
)
MAYBE = stems(
    "sometimes, might, maybe, perhaps, also try, you can try, try, can go, could, up to you, experiment, also works, "
    "也可以, 可以试, でもいい, も可, можно, 도 가능, también, auch, aussi, também"
)
DEFAULT = stems("default, 默认, 預設, 默認, デフォルト, 기본, по умолчанию, por defecto, standard, par défaut, padrão")
TRAINING = stems(
    "train, dataset, batch size, gradient accum, vectors, image count, finetun, fine-tun, epoch, learning rate, "
    "captioned, kohya, dreambooth, regulari, lr_, unet_lr, "
    "network_dim, 训练, 訓練, 学習, 教師, 데이터셋, 학습, обуч, трениров, датасет, entren, trainier, entraîn, "
    "treinad, treino, "
    "addestr, ss_"
)
HISTORY = words("changelog, change log, history, update log, release notes, 更新日志, 更新记录, 更新履歴")
IMG2IMG = words("img2img, i2i, image to image, 图生图, inpaint, inpainting, 局部重绘, 画像から画像")
BETWEEN = re.compile(r"(?:between|entre|zwischen|между|tra|from|von|desde|从|從)\s{0,2}$", re.IGNORECASE)
MINIMUM = re.compile(
    r"(?:at\s{1,2}least|min(?:imum)?(?:\s{1,2}of)?|>=?|≥|≧|no\s{1,2}less\s{1,2}than|not\s{1,2}below|"
    r"starting\s{1,2}(?:at|from)|"
    r"mindestens|al\s{1,2}menos|mínimo|minimal|au\s{1,2}moins|не\s{1,2}менее|не\s{1,2}ниже|от|минимум|ab|至少|最低|"
    r"最少|不低于|最小|"
    r"최소|pelo\s{1,2}menos|almeno|\+)[\s:]{0,2}$",
    re.IGNORECASE,
)
AS_LOW_AS = re.compile(r"(?:(?:as|so)\s{1,2}low\s{1,2}as|down\s{1,2}to|works\s{1,2}from)\s{0,2}$", re.IGNORECASE)
MAXIMUM = re.compile(
    r"(?:up\s{1,2}to|as\s{1,2}high\s{1,2}as|at\s{1,2}most|max(?:imum)?(?:\s{1,2}of)?|<=?|≤|≦|no\s{1,2}(?:more|higher)\s{1,2}than|"
    r"not\s{1,2}(?:above|over)|"
    r"bis(?:\s{1,2}zu)?|höchstens|hasta|máximo|jusqu['’]à|au\s{1,2}plus|не\s{1,2}более|не\s{1,2}выше|до|максимум|"
    r"最多|最高|最大|不超过|"
    r"최대|até|no\s{1,2}máximo|fino\s{1,2}a|non\s{1,2}oltre)[\s:]{0,2}$",
    re.IGNORECASE,
)
AND_UP = re.compile(
    r"\s{0,2}(?:\+(?!\d)|upwards?\b|onwards?\b|and\sonwards|or\s(?:more|higher|above|greater|up)|and\s(?:up|above|more|higher)|以上|이상|o\s(?:más|"
    r"superior)|ou\s(?:plus|mais)|"
    r"oder\s(?:mehr|höher)|и\s(?:выше|более|больше)|minimum|min\b)",
    re.IGNORECASE,
)
AND_DOWN = re.compile(
    r"\s{0,2}(?:or\s(?:less|lower|below|under)|and\s(?:below|under|lower|less)|以下|以内|이하|oder\s(?:weniger|"
    r"niedriger)|o\s(?:menos|inferior)|"
    r"ou\s(?:moins|menos)|и\s(?:ниже|меньше|менее)|maximum|max\b)",
    re.IGNORECASE,
)
