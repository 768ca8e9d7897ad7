"""ComfyUI: the graph that made a picture, followed backwards from the saved image.

PNG keeps the API graph under `prompt` and the UI's under `workflow`; WebP and JPEG in EXIF Model and Make as
`prompt:{…}`/`workflow:{…}`, saver nodes in other EXIF fields. The walk starts at the node that saved, goes up to the
samplers, and from the first pass's sampler to its prompts, model, LoRAs, latent and VAE. Node classes are recognised by
the inputs they have rather than by name alone, because most graphs use nodes nobody has a list of; where the walk stops
at a node that says nothing, the node is named in `warnings`.

`raw` keeps the graph (`prompt`, `workflow`), every sampler in it (`samplers`) and all loaded files (`models`).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeGuard

from hubctl.errors import NoParameters
from hubctl.infotext import _values as v
from hubctl.infotext._graph import MAX_NODES, Graph, Link, Node, from_prompt, from_workflow, is_prompt, is_workflow
from hubctl.infotext.embedded import Embedded
from hubctl.parameters import GenerationParameters, Generator, Hires, Refiner, ResourceRef, sampler_name, schedule_name

MAX_DEPTH = 200  # links followed from one node to the next
MAX_HOPS = 60_000  # links followed in all; real graphs take some thousands
MAX_WARNINGS = 12
MAX_SAMPLERS = 100
MAX_PROMPT = 1024 * 1024  # characters; joins of joins double in size


def can_parse(embedded: Embedded) -> bool:
    return any(graphs_of(embedded))


def graphs_of(embedded: Embedded) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """(API prompt, UI workflow), wherever they stand."""
    prompt: Mapping[str, Any] | None = None
    workflow: Mapping[str, Any] | None = None
    for value in _objects(embedded):
        inner = [value] + [_object(value.get(key)) for key in ("prompt", "workflow")]
        for candidate in inner:
            if prompt is None and is_prompt(candidate):
                prompt = candidate
            elif workflow is None and is_workflow(candidate):
                workflow = candidate
    return prompt, workflow


def _object(value: Any) -> Any:
    return v.parse_object(value) if isinstance(value, str) and value[:1] == "{" else value


def _objects(embedded: Embedded) -> Iterator[Mapping[str, Any]]:
    """JSON objects among the texts, also behind a "prompt:" or "Workflow: " label."""
    for name, text in embedded.texts.items():
        value = embedded.object(name)
        if value is None and text[:16].lower().startswith(("prompt:", "workflow:")):
            value = v.parse_object(text.partition(":")[2])
        if value is not None:
            yield value


def parse(embedded: Embedded) -> GenerationParameters:
    """Graph → parameters. When infotext stands beside it, the graph wins and what it lacks is filled in."""
    from hubctl.infotext import a1111

    if {"parameters-json", "smproj"} & embedded.texts.keys() and a1111.can_parse(embedded):
        return a1111.parse(embedded)  # Stability Matrix: the graph is its own back end's
    prompt, workflow = graphs_of(embedded)
    parameters = parse_graph(prompt, workflow)
    text = a1111.infotext_of(embedded)
    return with_text(parameters, a1111.parse(text)) if text is not None else parameters


_COMPARED = ("prompt", "negative_prompt", "steps", "sampler", "schedule", "cfg_scale", "seed", "width", "height")


def with_text(graph: GenerationParameters, text: GenerationParameters) -> GenerationParameters:
    """The graph ran, the text was composed by a node: the graph's values stand, differences are named."""
    differing = [name for name in _COMPARED if _differs(getattr(graph, name), getattr(text, name))]
    filled = {
        name: getattr(text, name)
        for name in (*_COMPARED, "sampler_label", "schedule_label", "clip_skip", "denoise")
        if getattr(graph, name) in (None, "")
    }
    hashes = {(r.kind, r.name): r.hash for r in text.resources if r.hash}
    resources = tuple(
        replace(r, hash=hashes.get(("checkpoint" if r.kind == "unet" else r.kind, r.name))) if r.hash is None else r
        for r in graph.resources or text.resources
    )
    warning = f"The text beside the graph says something else about {', '.join(differing)}; the graph is followed."
    sources = dict(graph.sources) | {name: "infotext" for name, value in filled.items() if value not in (None, "")}
    return replace(
        graph,
        **filled,
        resources=resources,
        raw=MappingProxyType({**graph.raw, "parameters": dict(text.raw)}),
        sources=MappingProxyType(sources),
        warnings=(*graph.warnings, *((warning,) if differing else ())),
    )


def _differs(left: Any, right: Any) -> bool:
    if left in (None, "") or right in (None, ""):
        return False
    if isinstance(left, str) and isinstance(right, str):
        return " ".join(left.split()) != " ".join(right.split())
    return bool(left != right)


def parse_graph(prompt: Mapping[str, Any] | None, workflow: Mapping[str, Any] | None = None) -> GenerationParameters:
    """Parameters of an API prompt, or of a UI workflow when there is no prompt. Raises NoParameters without either."""
    if prompt is None and workflow is None:
        raise NoParameters("There is no ComfyUI graph here.")
    graph = from_prompt(prompt) if prompt is not None else from_workflow(workflow or {})
    walk = _Walk(graph)
    samplers = walk.samplers()
    chain = walk.saved_chain(samplers)
    passes = {node.id: walk.read_sampler(node) for node in samplers}
    if len(graph) >= MAX_NODES:
        walk.warnings.append(f"The graph has more than {MAX_NODES} nodes; it was read in part.")
    if walk.tangled:
        walk.warnings.append("The graph is too tangled to follow every link; it was read in part.")
    raw: dict[str, Any] = {
        "samplers": [passes[node.id].to_json() for node in samplers],
        "models": _models(graph, workflow),
        "node_types": sorted({node.type for node in graph.values()} | set(_workflow_types(workflow))),
    }
    raw |= {name: value for name, value in (("prompt", prompt), ("workflow", workflow)) if value is not None}
    base = GenerationParameters(generator=Generator("ComfyUI", _frontend(workflow)), raw=MappingProxyType(raw))
    if not chain:
        sentence = "The graph has no sampler that could be followed from a saved image."
        return replace(base, resources=tuple(_loaded(graph)), warnings=(*walk.warnings, sentence))
    return _assemble(base, walk, [passes[node.id] for node in chain])


def _frontend(workflow: Mapping[str, Any] | None) -> str | None:
    """Only the page's version is written down; ComfyUI's own counts differently."""
    extra = workflow.get("extra") if workflow is not None else None
    version = v.to_text(extra.get("frontendVersion")) if isinstance(extra, Mapping) else None
    return f"frontend {version}" if version else None


def _containers(workflow: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """Node objects of a workflow and its subgraphs, notes and muted nodes among them."""
    definitions = workflow.get("definitions") if workflow is not None else None
    subgraphs = definitions.get("subgraphs") if isinstance(definitions, Mapping) else None
    for container in (workflow, *(subgraphs if isinstance(subgraphs, list) else ())):
        nodes = container.get("nodes") if isinstance(container, Mapping) else None
        yield from (node for node in (nodes if isinstance(nodes, list) else ()) if isinstance(node, Mapping))


def _workflow_types(workflow: Mapping[str, Any] | None) -> Iterator[str]:
    definitions = workflow.get("definitions") if workflow is not None else None
    subgraphs = definitions.get("subgraphs") if isinstance(definitions, Mapping) else None
    ids = {str(s.get("id")) for s in (subgraphs if isinstance(subgraphs, list) else ()) if isinstance(s, Mapping)}
    for node in _containers(workflow):
        if isinstance(node.get("type"), str) and node["type"] not in ids:
            yield node["type"]


def _models(graph: Graph, workflow: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Every file a loader names, and the download hints templates keep in `properties.models`."""
    found: dict[str, dict[str, Any]] = {}
    for node in _containers(workflow):
        properties = node.get("properties")
        models = properties.get("models") if isinstance(properties, Mapping) else None
        for model in models if isinstance(models, list) else ():
            if isinstance(model, Mapping) and isinstance(model.get("name"), str):
                found.setdefault(model["name"], {key: model.get(key) for key in ("name", "directory", "url")})
    stems = {v.stem(name) for name in found}
    for resource in _loaded(graph):
        for name in (resource.name, resource.air):
            if name and name not in stems:
                stems.add(name)
                found[name] = {"name": name, "directory": resource.kind, "url": None}
    return list(found.values())


# --- what a walk finds ------------------------------------------------------------------------------------------------


@dataclass
class Pass:
    """One sampler's run, values as the graph has them."""

    node: str
    class_type: str
    steps: int | None = None
    sampler: str | None = None
    schedule: str | None = None
    cfg: float | None = None
    guidance: float | None = None
    seed: int | None = None
    denoise: float | None = None
    subseed: int | None = None
    subseed_strength: float | None = None
    start_at_step: int | None = None
    end_at_step: int | None = None
    adds_noise: bool = True
    positive: list[str] = field(default_factory=list)
    negative: list[str] = field(default_factory=list)
    models: list[ResourceRef] = field(default_factory=list)
    networks: list[ResourceRef] = field(default_factory=list)
    clip_skip: int | None = None
    size: tuple[int | None, int | None] = (None, None)
    vae: ResourceRef | None = None
    encoders: list[ResourceRef] = field(default_factory=list)
    controls: list[ResourceRef] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "node": self.node,
            "class_type": self.class_type,
            "steps": self.steps,
            "sampler": self.sampler,
            "schedule_type": self.schedule,
            "cfg_scale": self.cfg,
            "guidance": self.guidance,
            "seed": self.seed,
            "denoise": self.denoise,
            "start_at_step": self.start_at_step,
            "end_at_step": self.end_at_step,
            "positive": self.positive,
            "negative": self.negative,
            "model": self.models[0].air or self.models[0].name if self.models else None,
            "loras": [
                {"name": r.name or r.air, "weight": r.weight, "clip_weight": r.weight_te}
                for r in self.networks
                if r.kind == "lora"
            ],
        }


def _assemble(base: GenerationParameters, walk: _Walk, chain: list[Pass]) -> GenerationParameters:
    first = chain[0]
    resources = [*first.models, *first.networks]
    hires, refiner = None, None
    for later in chain[1:]:
        resources += [*later.models, *later.networks]
        if later.start_at_step and later.models and later.models[:1] != first.models[:1]:
            refiner = refiner or _refiner(first, later)
        elif hires is None and not _goes_on(walk, first, later):
            hires = _hires(walk, first, later)
    vae = next((p.vae for p in (*chain[::-1],) if p.vae is not None), None)
    resources += [*([vae] if vae else []), *first.encoders, *first.controls]
    hires = hires or walk.scripted_hires(first) or walk.tiled_hires(first)
    prompts = {"prompt": _joined(first.positive), "negative_prompt": _joined(first.negative)}
    resources += [r for text in prompts.values() for r in embeddings(text)]
    values: dict[str, Any] = {
        **prompts,
        "steps": v.positive(first.steps),
        **v.sampler_fields(first.sampler, first.schedule),
        "cfg_scale": first.cfg,
        "distilled_cfg": first.guidance,
        "seed": first.seed,
        "width": first.size[0],
        "height": first.size[1],
        "clip_skip": first.clip_skip,
        "denoise": first.denoise,
        "subseed": first.subseed,
        "subseed_strength": first.subseed_strength,
        "hires": hires,
        "refiner": refiner or walk.refiner_of_its_loader(first),
        "resources": v.merge_resources(resources),
    }
    source = f"comfy:{first.class_type}#{first.node}"
    said = {name: source for name, value in values.items() if value not in (None, "", ())}
    # ComfyUI draws noise on the CPU whatever the device
    values["rng"] = "cpu" if first.seed is not None else None
    return replace(base, **values, sources=MappingProxyType(said), warnings=(*base.warnings, *walk.warnings))


def _joined(texts: list[str]) -> str:
    """Several conditionings in one pass are written as A1111's AND, the nearest thing text can say."""
    return "\nAND ".join(texts)


def _refiner(first: Pass, later: Pass) -> Refiner:
    model = later.models[0]
    switch = later.start_at_step / first.steps if later.start_at_step and first.steps else None
    return Refiner(checkpoint=model.name or model.air, switch_at=round(switch, 6) if switch else None)


def _goes_on(walk: _Walk, first: Pass, later: Pass) -> bool:
    """Whether a pass only takes the same steps further: no new noise, no other size."""
    continued = bool(later.start_at_step) and not later.adds_noise
    return continued and not any(walk.upscaling(later.node, first.node))


def _hires(walk: _Walk, first: Pass, later: Pass) -> Hires:
    upscale, width, height, upscaler = walk.upscaling(later.node, first.node)
    sampler = sampler_name((later.sampler or "").removeprefix("sample_"))[0]
    same_prompt = later.positive == first.positive
    same_negative = later.negative == first.negative
    same_model = later.models == first.models or not later.models
    return Hires(
        upscale=upscale,
        width=width,
        height=height,
        steps=later.steps,
        upscaler=upscaler,
        denoise=later.denoise,
        sampler=sampler if later.sampler != first.sampler else None,
        schedule=schedule_name(later.schedule) if later.schedule != first.schedule else None,
        prompt=None if same_prompt else _joined(later.positive),
        negative_prompt=None if same_negative else _joined(later.negative),
        cfg_scale=later.cfg if later.cfg != first.cfg else None,
        checkpoint=None if same_model else later.models[0].name,
    )


def embeddings(text: str) -> Iterator[ResourceRef]:
    """`embedding:name` mentions in a prompt, with or without a weight."""
    for piece in text.split("embedding:")[1:257]:
        end = next((i for i, char in enumerate(piece) if char in " ,:()[]\n\t;"), len(piece))
        name = v.stem(piece[:end][:256])
        if name:
            yield ResourceRef(kind="embedding", name=name.rstrip("."))


# --- the walk ---------------------------------------------------------------------------------------------------------

_VALUE_INPUTS = (
    "value", "Value", "seed", "noise_seed", "int", "float", "number", "text", "string", "String", "Text", "boolean",
    "selected", "sampler_name", "scheduler", "steps", "cfg", "widget_0",
)  # fmt: skip
_ALIASES = {
    # what a carrier of many values calls one of them
    "sampler_name": ("sampler",), "seed": ("noise_seed", "seed_num"), "noise_seed": ("seed",),
    "steps": ("steps_total",), "scheduler": ("schedule",),
}  # fmt: skip
_OPERATIONS = {
    "add": operator.add, "+": operator.add, "subtract": operator.sub, "sub": operator.sub, "-": operator.sub,
    "multiply": operator.mul, "mul": operator.mul, "*": operator.mul, "divide": operator.truediv,
    "div": operator.truediv, "/": operator.truediv,
}  # fmt: skip
_PIPES = ("base_ctx", "ctx", "context", "ctx_01", "pipe", "basic_pipe", "optional_pipe", "sdxl_tuple", "sdxl_pipe")
_TEXT_INPUTS = (
    "populated_text", "text", "Text", "prompt", "string", "String", "value", "Value", "wildcard_text", "text_positive",
    "positive_prompt", "positive", "user_prompt", "caption", "tags", "text_0", "text2", "widget_0",
)  # fmt: skip
_NEGATIVE_INPUTS = ("negative", "text_negative", "negative_prompt", "negative_text")
_JOINERS = ("concat", "join", "combine", "multiline", "append")
_TEXT_CHANGES = {"StringReplace", "StringTrim", "StringSubstring", "RegexReplace", "RegexExtract", "CaseConverter"}
_JOIN_MARKS = ("1", "_1", "_a", "_A", "2", "_2", "_b", "_B", "3", "_3", "_c", "_C", "4", "_4", "_d", "_D")
_JOINED_INPUTS = tuple(f"{stem}{mark}" for mark in _JOIN_MARKS for stem in ("text", "string", "prompt"))
_ENCODER_TEXTS = ("text_g", "text_l", "clip_l", "clip_g", "t5xxl", "bert", "mt5xl", "llama")
_ROLE_TEXTS = {"positive": ("pos_g", "pos_l"), "negative": ("neg_g", "neg_l")}  # Searge
_CONDITIONING_INPUTS = (
    "conditioning", "conditioning_to", "conditioning_1", "conditioning_2", "conditioning_from", "cond", "conditioning1",
    "conditioning2", "cond1", "cond2", *_PIPES,
)  # fmt: skip
_IMAGE_INPUTS = (
    "images", "image", "samples", "latent_image", "latent", "pixels", "optional_latent", "image1", "upscaled_image",
    "video", "vae_decoded", "latents", "samples1", "input",
)  # fmt: skip
_MODEL_INPUTS = ("model", "model1", "model2", "unet", "base_model", "diffusion_model", *_PIPES)
_SWITCHES = ("switch", "select", "index", "Input", "input", "boolean", "boolean_value", "condition", "cond")
_NUMBERED_INPUTS = (
    "input", "value", "image", "model", "latent", "clip", "vae", "conditioning", "positive", "text", "any_0", "any_",
)  # fmt: skip
_CHECKPOINT_INPUTS = ("ckpt_name", "unet_name", "base_ckpt_name", "checkpoint", "model_name", "gguf_name", "ckpt")


def _is_sampler(node: Node) -> bool:
    """A node that runs a denoising loop over a latent. Detailers and tiled upscalers work on finished pictures."""
    kind = node.type.lower()
    if _works_on_pictures(node) or kind.endswith(("select", "selector", "provider")):
        return False
    has = node.inputs.keys()
    if "ksampler" in kind and "steps" not in has and any(isinstance(node.inputs.get(pipe), Link) for pipe in _PIPES):
        return True  # easy-use keeps a sampler's settings in the node before it
    if "latent_image" in has or "latent" in has or "samples" in has or "optional_latent" in has:
        by_parts = {"sigmas", "sampler"} <= has or {"guider", "noise"} <= has
        return "sampler" in kind and (by_parts or "steps" in has or "sampler_name" in has)
    return "sampler" in kind and "steps" in has and bool({"seed", "noise_seed", "cfg"} & has)


def _works_on_pictures(node: Node) -> bool:
    """Detailers and tiled upscalers: samplers only where nothing else in the graph is one."""
    kind = node.type.lower()
    return ("detailer" in kind and "pipe" not in kind.removeprefix("facedetailer")) or "ultimatesdupscale" in kind


def _is_output(node: Node) -> bool:
    return any(isinstance(node.inputs.get(name), Link) for name in ("images", "image", "video", "samples")) and (
        any(word in node.type.lower() for word in ("save", "preview", "combine", "output", "export"))
    )


class _Walk:
    """Backward look-ups in one graph. Every method tolerates loops, missing nodes and values of any type."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.warnings: list[str] = []
        self._upstream: dict[str, list[str]] = {}
        self._texts: dict[tuple[str, str], str | None] = {}
        self._text_depth = 0
        self._role = "positive"
        self._hops = MAX_HOPS
        self._choosing = 0
        self.sizes: dict[str, tuple[int | None, int | None]] = {}  # of the latents that passes start from
        self.path: list[Node] = []  # from the first pass to the node that saved

    @property
    def tangled(self) -> bool:
        return self._hops < 0

    def warn(self, what: str, node: Node) -> None:
        sentence = f"{what} could not be read: node {node.type[:80]} (#{node.id[:40]}) is not understood."
        if sentence not in self.warnings and len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(sentence)

    # -- following links

    def node(self, value: Any) -> Node | None:
        """The node a link leads to, through reroutes and switches."""
        for _ in range(MAX_DEPTH):
            found = self.graph.get(value.node) if isinstance(value, Link) else None
            self._hops -= 1
            if found is None or self._hops < 0:
                return None
            onward = self._passes_on(found)
            if onward is None:
                return found
            value = onward
        return None

    def _passes_on(self, node: Node) -> Link | None:
        """The input that a reroute or switch hands to its output; None for nodes that make something."""
        kind = node.type.lower()
        links = dict(node.links())
        if "reroute" in kind or kind in ("getnode", "setnode"):
            return next(iter(links.values()), None)
        if not any(word in kind for word in ("switch", "selector", "branch", "ifelse")):
            return None
        live = [(n, link) for n, link in links.items() if n not in _SWITCHES and link.node in self.graph]
        choice = None
        if self._choosing < 8:  # a switch's number may come through switches
            self._choosing += 1
            choice = next((self.value(node, name) for name in _SWITCHES if name in node.inputs), None)
            self._choosing -= 1
        names: tuple[str, ...]
        if isinstance(choice, bool):
            names = (
                ("on_true", "true", "if_true", "tt_value") if choice else ("on_false", "false", "if_false", "ff_value")
            )
            position = 0 if choice else 1
        elif (number := v.to_int(choice)) is not None:
            names = tuple(f"{stem}{mark}{number}" for stem in _NUMBERED_INPUTS for mark in ("", "_"))
            position = 0
        else:
            names, position = (), 0
        chosen = next((links[name] for name in names if name in links), None)
        # "any switch": the first input that is connected
        return chosen or (live[min(position, len(live) - 1)][1] if live else None)

    def value(self, node: Node, *names: str, depth: int = 0) -> Any:
        """A scalar input: literal, or what the linked node holds."""
        for name in names:
            value = node.inputs.get(name)
            if value is None:
                continue
            if not isinstance(value, Link):
                return value
            source = self.node(value)
            if source is None or depth > 20:
                continue
            found = self._carried(source, name, depth)
            if found is None and "isfloatX" in source.inputs:  # a slider keeps its number as both
                found = source.literal("Xf" if source.literal("isfloatX") else "Xi")
            if found is None and {"a", "b"} <= source.inputs.keys():
                found = self._computed(source, depth)
            if found is None:
                found = source.literal(*_VALUE_INPUTS)
            if found is not None:
                return found
            links = list(source.links())
            if len(links) == 1:
                found = self.value(source, links[0][0], depth=depth + 1)
                if found is not None:
                    return found
        return None

    def _computed(self, node: Node, depth: int) -> float | None:
        """The four operations on `a` and `b`; formulas are not run."""
        operation = _OPERATIONS.get(str(node.literal("operation", "op", "operator"))[:16].lower())
        a, b = (v.to_float(self.value(node, name, depth=depth + 1)) for name in ("a", "b"))
        if operation is None or a is None or b is None:
            return None
        try:
            return v.to_float(operation(a, b))
        except (ZeroDivisionError, OverflowError):
            return None

    def _carried(self, source: Node, name: str, depth: int) -> Any:
        """The value of that name in a node, or in the contexts and pipes that it takes over."""
        for step in self._along(source, _PIPES):
            found = step.literal(name, *_ALIASES.get(name, ()))
            if found is None and step is not source and isinstance(step.inputs.get(name), Link):
                found = self.value(step, name, depth=depth + 1)
            if found is not None:
                return found
        return None

    # -- texts

    def text(self, node: Node, name: str) -> str | None:
        """A text input, with concatenations put together; every node is read once, so loops and repeats are cheap."""
        value = node.inputs.get(name)
        if isinstance(value, str):
            return value
        if name == "text2" and isinstance(value, list) and value and isinstance(value[0], str):
            return value[0]
        source = self.node(value)
        if source is None or self._text_depth >= 50:
            return None
        key = (source.id, self._role)
        if key not in self._texts:
            self._texts[key] = None
            self._text_depth += 1
            self._texts[key] = self._node_text(source)
            self._text_depth -= 1
        return self._texts[key]

    def _node_text(self, node: Node) -> str | None:
        parts = [name for name in _JOINED_INPUTS if name in node.inputs]
        if node.type.startswith("StringFunction"):
            return self._string_function(node)
        if node.type in _TEXT_CHANGES:
            return self._changed_text(node)
        if len(parts) > 1 and any(word in node.type.lower() for word in _JOINERS):
            texts = [text for name in parts if (text := self.text(node, name))]
            delimiter = self.value(node, "delimiter", "separator")
            joined = (delimiter if isinstance(delimiter, str) else "").replace("\\n", "\n").join(texts)
            return joined[:MAX_PROMPT]
        own = _NEGATIVE_INPUTS if self._role == "negative" else ()
        named = [name for name in (*own, *_TEXT_INPUTS, *parts) if name in node.inputs]
        for name in (*named, *(name for name, _ in node.links())):
            text = self.text(node, name)
            if text is not None:
                return text
        self.warn("A text", node)
        return None

    def _changed_text(self, node: Node) -> str | None:
        """ComfyUI's own text nodes: trimmed and replaced as they do; patterns of strangers are not run."""
        text = self.text(node, "string")
        if text is None:
            self.warn("A text", node)
        elif "find" in node.inputs:
            find, other = self.text(node, "find"), self.text(node, "replace")
            return text.replace(find, other or "")[:MAX_PROMPT] if find else text
        elif node.type == "StringTrim":
            mode = node.literal("mode")
            return text.lstrip() if mode == "Left" else text.rstrip() if mode == "Right" else text.strip()
        else:
            self.warn("A changed text", node)
        return text

    def _string_function(self, node: Node) -> str | None:
        """pysssss' node: its shown result, else a, b and c appended, or b replaced by c in a."""
        shown = node.literal("result")
        if isinstance(shown, str) and shown:
            return shown
        a, b, c = ((self.text(node, name) or "") for name in ("text_a", "text_b", "text_c"))
        if node.literal("action") == "replace":
            return (a.replace(b, c) if b else a)[:MAX_PROMPT]
        between = ", " if node.literal("tidy_tags") in ("yes", True) else ""
        return between.join(text for text in (a, b, c) if text)[:MAX_PROMPT]

    def conditioning(self, value: Any, role: str, found: Pass) -> list[str]:
        """The texts of a conditioning ("positive" or "negative"), noting guidance and clip skip on the way."""
        texts: list[str] = []
        waiting: list[Any] = [value]
        seen: set[str] = set()
        self._role = role
        while waiting and len(seen) < MAX_DEPTH:
            node = self.node(waiting.pop(0))
            if node is None or node.id in seen:
                continue
            seen.add(node.id)
            if isinstance(node.inputs.get("control_net"), Link):
                self._controlnet(node, found)
            if role == "positive" and found.guidance is None:
                found.guidance = v.to_float(self.value(node, "guidance"))
            if "zeroout" in node.type.lower():
                texts.append("")
                continue
            onward = self._conditioning_inputs(node, role)
            if onward:
                waiting = onward + waiting
                continue
            text = self._encoded_text(node, role)
            if text is None:
                self.warn(f"The {role} prompt", node)
                continue
            if text not in texts:
                texts.append(text)
            if found.clip_skip is None:
                found.clip_skip = self.clip_skip(node)
            found.encoders = found.encoders or self._text_encoders(node)
        filled = [text for text in texts if text]
        return filled or texts[:1]

    def _controlnet(self, node: Node, found: Pass) -> None:
        for step in self._along(self.node(node.inputs["control_net"]), ("control_net",)):
            name = v.to_text(self.value(step, "control_net_name", "controlnet_name"))
            control = _file("controlnet", name, self.value(node, "strength")) if name else None
            if control is not None and control not in found.controls:
                found.controls.append(control)

    def _text_encoders(self, node: Node) -> list[ResourceRef]:
        """Files of their own that encode the prompt, in the order the loader names them."""
        names = ("clip_name", *(f"clip_name{number}" for number in range(1, 5)))
        for step in self._along(node, ("clip", "opt_clip", "text_encoder", *_PIPES)):
            files = [name for key in names if (name := v.to_text(self.value(step, key)))]
            if files:
                return [_file("text_encoder", name) for name in files]
        return []

    def _conditioning_inputs(self, node: Node, role: str) -> list[Link]:
        links = dict(node.links())
        if role in links:
            source = self.node(links[role])
            if source is not None and not self._is_text_node(source):
                return [links[role]]
        return [links[name] for name in _CONDITIONING_INPUTS if name in links]

    def _is_text_node(self, node: Node) -> bool:
        return "clip" not in node.inputs and any(isinstance(node.inputs.get(name), str) for name in _TEXT_INPUTS)

    def _encoded_text(self, node: Node, role: str) -> str | None:
        names = _NEGATIVE_INPUTS if role == "negative" else ("positive", *_TEXT_INPUTS)
        encoders = (*_ENCODER_TEXTS, *_ROLE_TEXTS[role])
        several = [t for name in encoders if name in node.inputs and (t := self.text(node, name))]
        for name in (*names, *_TEXT_INPUTS):
            if name in node.inputs:
                text = self.text(node, name)
                if text is not None and (text or not several):
                    return text
        if several:
            return "\n".join(dict.fromkeys(several))
        return "" if any(name in node.inputs for name in _ENCODER_TEXTS) else None

    def clip_skip(self, node: Node) -> int | None:
        """CLIPSetLastLayer's -2 means clip skip 2."""
        for step in self._along(node, ("clip", "opt_clip", "clip_skip", "text_encoder", *_PIPES)):
            layer = v.to_int(self.value(step, "stop_at_clip_layer", "clip_skip"))
            if layer:
                return abs(layer)
        return None

    def _along(self, node: Node | None, names: tuple[str, ...]) -> Iterator[Node]:
        """A node and what is upstream of it through the first of the named links."""
        for _ in range(MAX_DEPTH):
            if node is None:
                return
            yield node
            node = self.node(next((node.inputs[n] for n in names if isinstance(node.inputs.get(n), Link)), None))

    # -- models

    def read_model(self, value: Any, found: Pass) -> None:
        waiting: list[Any] = [value]
        seen: set[str] = set()
        stacked: set[str] = set()
        while waiting and len(seen) < MAX_DEPTH:
            node = self.node(waiting.pop(0))
            if node is None or node.id in seen:
                continue
            seen.add(node.id)
            networks: list[ResourceRef] = self._loras(node)
            stacks = [
                s for name, link in node.links() if ("stack" in name or name == "lora") and (s := self.node(link))
            ]
            for stack in stacks:
                for step in self._along(stack, ("lora_stack", "optional_lora_stack", "prev_lora")):
                    if step.id in stacked:
                        break
                    stacked.add(step.id)
                    networks[:0] = self._loras(step)
            found.networks[:0] = networks  # the walk goes from the sampler up; LoRAs are listed as they are applied
            name = self.value(node, *_CHECKPOINT_INPUTS) if not _is_adapter_loader(node) else None
            if name is None and "loader" in node.type.lower():
                name = node.literal("model", "model_path")
            if isinstance(name, str):
                alone = "unet_name" in node.inputs or any(word in node.type.lower() for word in ("unet", "ditloader"))
                kind = "unet" if alone else "checkpoint"
                found.models.append(_file(kind, name))
            found.clip_skip = found.clip_skip or _loader_clip_skip(node)
            onward = [node.inputs[n] for n in _MODEL_INPUTS if isinstance(node.inputs.get(n), Link)]
            waiting += onward
            if not onward and not networks and not isinstance(name, str):
                self.warn("The model", node)

    def _loras(self, node: Node) -> list[ResourceRef]:
        """`loras` with linked names and strengths looked up, and those that wildcard nodes find in a text."""
        looked_up = {
            name: self.value(node, name)
            for name, _ in node.links()
            if name == "lora_name" or name.startswith(_LORA_WEIGHTS)
        }
        found = list(loras(replace(node, inputs={**node.inputs, **looked_up}) if looked_up else node))
        kind = node.type.lower()
        if not found and ("wildcard" in kind or "lora" in kind) and "loras" not in node.inputs:
            texts = (self.text(node, name) for name in ("populated_text", "text", "lora_syntax") if name in node.inputs)
            text = next((text for text in texts if text), "")
            from hubctl.infotext.a1111 import prompt_resources

            found = list(prompt_resources(text[:MAX_PROMPT]))
        return found

    # -- samplers

    def samplers(self) -> list[Node]:
        """Every sampler, upstream ones first; then by the order in the graph."""
        nodes = [node for node in self.graph.values() if _is_sampler(node)][:MAX_SAMPLERS]
        if not nodes:
            nodes = [n for n in self.graph.values() if _works_on_pictures(n) and "steps" in n.inputs][:MAX_SAMPLERS]
        ids = {node.id for node in nodes}
        rank = {node.id: len(ids & set(self.upstream(node.id))) for node in nodes}
        return sorted(nodes, key=lambda node: rank[node.id])

    def upstream(self, start: str) -> list[str]:
        """Ids of all nodes that lead to one, itself left out."""
        if start not in self._upstream:
            seen: dict[str, None] = {}
            waiting = [start]
            while waiting:
                node = self.graph.get(waiting.pop())
                for _, link in node.links() if node is not None else ():
                    if link.node not in seen and link.node in self.graph and link.node != start:
                        seen[link.node] = None
                        waiting.append(link.node)
            self._upstream[start] = list(seen)
        return self._upstream[start]

    def saved_chain(self, samplers: list[Node]) -> list[Node]:
        """The samplers the saved picture went through, first pass first."""
        outputs = [node for node in self.graph.values() if _is_output(node)]
        outputs.sort(key=lambda node: "save" not in node.type.lower())
        best: list[Node] = []
        ids = {node.id for node in samplers}
        saving = [node for node in outputs if "save" in node.type.lower()] or outputs
        for output in saving or [Node("", "")]:
            path = self._image_path(output) if output.id else samplers
            chain = [node for node in path if node.id in ids]
            if len(chain) > len(best):
                best, self.path = chain, path
        return best or samplers

    def _image_path(self, output: Node) -> list[Node]:
        """Walk from an output through images and latents; other links only when those lead nowhere."""
        path: dict[str, Node] = {}
        node: Node | None = output
        while node is not None and node.id not in path and len(path) < MAX_DEPTH:
            path[node.id] = node
            node = self._image_source(node)
        return list(path.values())[::-1]

    def _image_source(self, node: Node) -> Node | None:
        stage = self.node(node.inputs.get("positive")) if _is_sampler(node) else None
        if stage is not None and isinstance(stage.inputs.get("stage_c"), Link):  # Stable Cascade's second model
            return self.node(stage.inputs["stage_c"])
        for name in _IMAGE_INPUTS:
            source = self.node(node.inputs.get(name))
            if source is not None:
                return source
        sources = [self.node(link) for name, link in node.links() if name not in ("model", "positive", "negative")]
        return next((s for s in sources if s is not None and (_is_sampler(s) or self._leads_to_sampler(s))), None)

    def _leads_to_sampler(self, node: Node) -> bool:
        return any(_is_sampler(self.graph[key]) for key in self.upstream(node.id))

    def read_sampler(self, node: Node) -> Pass:
        found = Pass(node=node.id, class_type=node.type)
        noise, guider = self.node(node.inputs.get("noise")), self.node(node.inputs.get("guider"))
        sampler, sigmas = self.node(node.inputs.get("sampler")), self._scheduler(node)
        parts = [part for part in (node, noise, guider, sampler, sigmas) if part is not None]
        parts += [part for part in self._along(self.node(self._pipe(node)), _PIPES) if "steps" in part.inputs]
        found.seed = v.to_int(self._first(parts, "seed", "noise_seed"))
        found.steps = v.to_int(self._first(parts, "steps"))
        listed = sigmas.literal("sigmas") if sigmas is not None and found.steps is None else None
        if isinstance(listed, str):  # typed in by hand: one step from each to the next
            found.steps = v.positive(listed[:100_000].replace(";", ",").strip(" ,").count(","))
        found.cfg = v.to_float(self._first(parts, "cfg", "cfg_scale", "cfg_conds", "true_gs"))
        found.sampler = self._sampler_label(node, sampler) or v.to_text(self._first(parts, "sampler_name"))
        found.schedule = v.to_text(self._first(parts, "scheduler", "schedule"))
        found.denoise = v.to_float(self._first(parts, "denoise", "denoise_strength"))
        strength = v.to_float(self.value(node, "variation_strength", "var_seed_strength"))
        if strength:
            found.subseed_strength, found.subseed = strength, v.to_int(self.value(node, "variation_seed", "var_seed"))
        found.start_at_step = v.to_int(self.value(node, "start_at_step"))
        found.end_at_step = v.to_int(self.value(node, "end_at_step"))
        found.adds_noise = self.value(node, "add_noise") not in ("disable", False)
        owner = guider or node
        positives = ("positive", "conditioning", "cond1", "text_embeds", "base_positive")
        negatives = ("negative", "neg_conditioning", "text_embeds", "base_negative")
        positive, negative = (
            next((owner.inputs[name] for name in names if name in owner.inputs), None)
            for names in (positives, negatives)
        )
        found.positive = self._prompt(owner, positive, "positive", found)
        found.negative = self._prompt(owner, negative, "negative", found)
        models = [
            part.inputs[name]
            for part in (owner, node, sigmas)
            for name in ("model", "base_model")
            if part is not None and name in part.inputs
        ]
        self.read_model(next(iter(models), self._pipe(owner)), found)
        found.size = self.sizes[node.id] = self._size(node)
        found.vae = self._vae(node)
        return found

    def _first(self, parts: list[Node], *names: str) -> Any:
        return next((value for part in parts if (value := self.value(part, *names)) is not None), None)

    def _pipe(self, node: Node) -> Any:
        return next(
            (link for name, link in node.links() if "pipe" in name or "context" in name or name in _PIPES), None
        )

    def _prompt(self, node: Node, value: Any, role: str, found: Pass) -> list[str]:
        if isinstance(value, str):
            return [value]
        if value is None:
            value = self._pipe(node)
            if value is None:
                return []
        return self.conditioning(value, role, found)

    def _scheduler(self, node: Node) -> Node | None:
        """The node that made the sigmas, behind splits and multiplications."""
        last = None
        for step in self._along(self.node(node.inputs.get("sigmas")), ("sigmas", "sigmas_1", "sigma")):
            last = step
            if "steps" in step.inputs:
                return step
        return last

    def _sampler_label(self, node: Node, part: Node | None) -> str | None:
        label = v.to_text(self.value(node, "sampler_name", "sampler")) if part is None else None
        label = label or v.to_text(self.value(node, "sampler_name"))
        if label or part is None:
            return label
        named = v.to_text(self.value(part, "sampler_name", "solver", "sampler"))
        if named:
            return named
        # one class per sampler: SamplerDPMPP_2M_SDE, SamplerEulerAncestral, SamplerLCM …
        bare = part.type.removeprefix("Sampler").removesuffix("Sampler")
        return sampler_name(bare)[0] or bare or None

    def _size(self, node: Node) -> tuple[int | None, int | None]:
        """Size of the empty latent a pass starts from; (None, None) when it starts from a picture."""
        links = ("latent_image", "latent", "samples", "optional_latent", "image_embeds", *_PIPES)
        for step in self._along(node, links):
            named = _named_size(v.to_text(self.value(step, "dimensions", "resolution", "aspect_ratio")))
            if named is not None:
                return named[::-1] if step.literal("swap_dimensions") in ("On", True) else named
            if any(name in step.inputs for name in ("pixels", "image", "samples")) and step is not node:
                continue
            width = v.to_int(self.value(step, "width", "empty_latent_width", "width_override"))
            height = v.to_int(self.value(step, "height", "empty_latent_height", "height_override"))
            if width and height and width > 0 and height > 0:
                return width, height
        return None, None

    def _vae(self, sampler: Node) -> ResourceRef | None:
        """The VAE that decodes what a sampler made, when it is a file of its own."""
        for node in self.graph.values():
            latent = next((node.inputs[n] for n in ("samples", "latent", "latents") if n in node.inputs), None)
            if "vae" not in node.inputs or not isinstance(latent, Link):
                continue
            if any(step.id == sampler.id for step in self._along(self.node(latent), ("samples", "latent"))):
                loader = next(iter(self._along(self.node(node.inputs["vae"]), ("vae",))), None)
                return self._vae_file(loader)
        own = self.node(sampler.inputs.get("vae") or sampler.inputs.get("optional_vae"))
        if own is not None:
            return self._vae_file(own)
        pipe = self._along(self.node(self._pipe(sampler)), _PIPES)
        return next((file for step in pipe if (file := self._vae_file(step)) is not None), None)

    def _vae_file(self, node: Node | None) -> ResourceRef | None:
        names = ("vae_name", "model_name") if node is not None and "vae" in node.type.lower() else ("vae_name",)
        name = v.to_text(self.value(node, *names)) if node is not None else None
        return _file("vae", name) if name and name.lower() not in ("baked vae", "none") else None

    def scripted_hires(self, first: Pass) -> Hires | None:
        """Efficiency nodes: a script handed to the sampler runs the second pass."""
        for step in self._along(self.node(self.graph[first.node].inputs.get("script")), ("script",)):
            if "upscale_by" in step.inputs and step.literal("use_same_seed", "hires_steps") is not None:
                names = (("pixel_upscaler", "latent_upscaler") if step.literal("upscale_type") == "pixel"
                         else ("latent_upscaler", "pixel_upscaler"))  # fmt: skip
                return Hires(
                    upscale=v.to_float(self.value(step, "upscale_by")),
                    steps=v.positive(v.to_int(self.value(step, "hires_steps"))),
                    upscaler=v.stem(self.value(step, *names)),
                    denoise=v.to_float(self.value(step, "denoise")),
                )
        return None

    def tiled_hires(self, first: Pass) -> Hires | None:
        """Ultimate SD Upscale after the last sampler: the finished picture once more, larger and in tiles."""
        node = next((node for node in self.path if "ultimatesdupscale" in node.type.lower()), None)
        if node is None or not any(_is_sampler(step) for step in self.path):
            return None
        model = self.node(node.inputs.get("upscale_model"))
        sampler, schedule = v.to_text(self.value(node, "sampler_name")), v.to_text(self.value(node, "scheduler"))
        cfg = v.to_float(self.value(node, "cfg"))
        return Hires(
            upscale=v.to_float(self.value(node, "upscale_by")),
            steps=v.positive(v.to_int(self.value(node, "steps"))),
            upscaler=v.stem(self.value(model, "model_name")) if model is not None else None,
            denoise=v.to_float(self.value(node, "denoise")),
            sampler=sampler_name(sampler)[0] if sampler != first.sampler else None,
            schedule=schedule_name(schedule) if schedule != first.schedule else None,
            cfg_scale=cfg if cfg != first.cfg else None,
        )

    def refiner_of_its_loader(self, first: Pass) -> Refiner | None:
        """Efficiency's SDXL nodes: the loader names both checkpoints, the sampler the step to change at."""
        node = self.graph[first.node]
        at = v.to_int(self.value(node, "refine_at_step"))
        for step in self._along(self.node(self._pipe(node)), _PIPES):
            name = v.stem(step.literal("refiner_ckpt_name"))
            if name and name != "None" and at and at > 0 and first.steps:
                return Refiner(name, switch_at=round(at / first.steps, 6))
        return None

    def upscaling(self, later: str, first: str) -> tuple[float | None, int | None, int | None, str | None]:
        """(factor, width, height, upscaler) of what stands between two passes."""
        factor, width, height, upscaler, plain = None, None, None, None, None
        start = self.graph[later]
        node = self._image_source(start)
        for _ in range(MAX_DEPTH):
            if node is None or node.id == first:
                break
            scale = v.to_float(self.value(node, "scale_by", "upscale_by", "factor", "upscale_factor", "upscale"))
            if scale is not None:
                factor = scale * (factor if factor is not None else 1.0)
            if width is None and "empty" not in node.type.lower():
                width = v.positive(v.to_int(self.value(node, "width")))
                height = v.positive(v.to_int(self.value(node, "height")))
            model = self.node(node.inputs.get("upscale_model"))
            if model is not None:
                upscaler = v.stem(self.value(model, "model_name")) or upscaler
                if scale is None and factor is not None:  # scaled by the model, then down again
                    times = _model_factor(upscaler)
                    factor = times * factor if times else None
            method = v.to_text(self.value(node, "upscale_method"))
            if upscaler is None and method and "latent" in node.type.lower():
                upscaler = "Latent" if method == "bilinear" else f"Latent ({method})"
            elif upscaler is None and plain is None and method:
                plain = {"lanczos": "Lanczos", "nearest-exact": "Nearest"}.get(method, method)
            node = self._image_source(node)
        if factor is None and width and height and self.sizes.get(first, (None, None))[0]:
            wide, high = self.sizes[first]
            same = wide and high and abs(width * high - height * wide) <= max(wide, high)
            factor = round(width / wide, 4) if same and wide and width > wide else None
        return factor, width, height, upscaler or plain


_SIZE_IN_LABEL = re.compile(r"(?<!\d)(\d{3,5})\s{0,3}[x×]\s{0,3}(\d{3,5})(?!\d)")
_FACTOR_IN_NAME = re.compile(r"(?:(?<![a-z\d])(\d)x|x(\d)(?!\d))", re.IGNORECASE)


def _named_size(label: str | None) -> tuple[int, int] | None:
    """(896, 1152) of "3:4 portrait 896x1152"; None for labels without a size ("custom")."""
    match = _SIZE_IN_LABEL.search(label[:128]) if label else None
    return (int(match[1]), int(match[2])) if match else None


def _model_factor(name: str | None) -> float | None:
    """4.0 of "4x-UltraSharp" and "RealESRGAN_x4plus"."""
    match = _FACTOR_IN_NAME.search(name[:256]) if name else None
    return float(match[1] or match[2]) if match else None


# --- loaders ----------------------------------------------------------------------------------------------------------

_FILE_INPUTS = {
    "ckpt_name": "checkpoint", "base_ckpt_name": "checkpoint", "refiner_ckpt_name": "checkpoint", "unet_name": "unet",
    "vae_name": "vae", "control_net_name": "controlnet", "hypernetwork_name": "hypernetwork",
    "clip_name": "text_encoder", "clip_name1": "text_encoder", "clip_name2": "text_encoder",
    "clip_name3": "text_encoder", "clip_name4": "text_encoder", "style_model_name": "other", "gligen_name": "other",
}  # fmt: skip


def _is_adapter_loader(node: Node) -> bool:
    kind = node.type.lower()
    return any(word in kind for word in ("upscale", "controlnet", "ipadapter", "clipvision", "style", "patch"))


def _file(kind: str, name: str, weight: Any = None, weight_te: Any = None) -> ResourceRef:
    air = v.air_resource(name, weight)
    if air is not None:
        return replace(air, weight_te=v.to_float(weight_te))
    return ResourceRef(kind=kind, name=v.stem(name), weight=v.to_float(weight), weight_te=v.to_float(weight_te))


def _loaded(graph: Graph) -> Iterator[ResourceRef]:
    """Every file that any loader of the graph names."""
    for node in graph.values():
        yield from loras(node)
        for name, kind in _FILE_INPUTS.items():
            value = node.literal(name)
            if isinstance(value, str) and value and value.lower() not in ("none", "baked vae"):
                yield _file(kind, value)
        if "upscale" in node.type.lower() and isinstance(node.literal("model_name"), str):
            yield _file("upscaler", node.inputs["model_name"])


_LORA_WEIGHTS = (
    "strength", "lora_wt", "model_str", "clip_str", "model_weight", "clip_weight", "lora_model_str", "lora_clip_str",
)  # fmt: skip


def _loader_clip_skip(node: Node) -> int | None:
    layer = v.to_int(node.literal("clip_skip", "base_clip_skip", "stop_at_clip_layer"))
    return abs(layer) if layer else None


def loras(node: Node) -> Iterator[ResourceRef]:
    """LoRAs (and hypernetworks) that one loader or stack applies, switched-off ones left out."""
    if node.literal("toggle", "switch") in (False, "Off", "off"):
        return
    name = node.literal("lora_name", "lora")
    if _is_file(name):
        weight = node.literal(
            "strength_model", "lora_model_strength", "strength", "lora_weight", "model_strength", "model_weight",
            "lora_wt", "lora_strength",
        )  # fmt: skip
        clip = node.literal("strength_clip", "lora_clip_strength", "clip_strength", "clip_weight")
        yield _file("lora", name, weight, clip)
    hypernetwork = node.literal("hypernetwork_name")
    if isinstance(hypernetwork, str):
        yield _file("hypernetwork", hypernetwork, node.literal("strength"))
    yield from _power_loras(node)
    yield from _numbered_loras(node)
    yield from _listed_loras(node)


def _is_file(name: Any) -> TypeGuard[str]:
    return isinstance(name, str) and name.strip().lower() not in ("none", "")


def _power_loras(node: Node) -> Iterator[ResourceRef]:
    """rgthree's Power Lora Loader: inputs of {"on", "lora", "strength", "strengthTwo"}."""
    for value in node.inputs.values():
        name = value.get("lora") if isinstance(value, Mapping) and value.get("on", True) else None
        if _is_file(name):
            yield _file("lora", name, value.get("strength"), value.get("strengthTwo"))


def _numbered_loras(node: Node) -> Iterator[ResourceRef]:
    """Stacks with numbered inputs: Efficiency, Comfyroll, rgthree, easy-use."""
    if not any("lora" in name for name in node.inputs):
        return
    count = v.to_int(node.literal("lora_count", "num_loras"))
    simple = node.literal("input_mode", "mode") == "simple"
    for number in range(min(count if count is not None else 50, 50) + 1):
        for tag in (str(number), f"{number:02d}"):
            name = node.literal(f"lora_name_{tag}", f"lora_{tag}_name", f"lora{tag}_name", f"lora_{tag}")
            if not _is_file(name):
                continue
            if node.literal(f"switch_{tag}") in ("Off", False):
                break
            one = (f"lora_wt_{tag}", f"lora_{tag}_strength", f"strength_{tag}")
            apart = (f"model_str_{tag}", f"model_weight_{tag}", f"lora_{tag}_model_strength",
                     f"lora{tag}_model_strength", f"strength_model_{tag}")  # fmt: skip
            weight = node.literal(*one, *apart) if simple else node.literal(*apart, *one)
            clips = (f"clip_weight_{tag}", f"lora_{tag}_clip_strength", f"lora{tag}_clip_strength",
                     f"strength_clip_{tag}", f"clip_str_{tag}")  # fmt: skip
            clip = None if simple else node.literal(*clips)
            yield _file("lora", name, weight, clip)
            break


def _listed_loras(node: Node) -> Iterator[ResourceRef]:
    """Lora Manager's list of {"name", "strength", "clipStrength", "active"}."""
    value = node.inputs.get("loras")
    items = value.get("__value__") if isinstance(value, Mapping) else value
    for item in items if isinstance(items, list) else ():
        if isinstance(item, Mapping) and isinstance(item.get("name"), str) and item.get("active", True):
            yield _file("lora", item["name"], item.get("strength"), item.get("clipStrength"))


# --- writing ----------------------------------------------------------------------------------------------------------


def write(parameters: GenerationParameters) -> dict[str, Any]:
    """An API-format graph that can be dropped into ComfyUI: text to image, LoRAs, clip skip, VAE, latent hires pass.

    A result that was read from a graph gives that graph back unchanged.
    """
    known = parameters.raw.get("prompt")
    if parameters.generator.name == "ComfyUI" and is_prompt(known):
        return dict(known)  # type: ignore[arg-type]
    return _GraphWriter(parameters).graph()


class _GraphWriter:
    """Builds nodes in order; an output is [node id, slot]."""

    def __init__(self, parameters: GenerationParameters) -> None:
        self.p = parameters
        self.nodes: dict[str, Any] = {}

    def add(self, class_type: str, title: str, **inputs: Any) -> str:
        key = str(len(self.nodes) + 1)
        self.nodes[key] = {"class_type": class_type, "inputs": inputs, "_meta": {"title": title}}
        return key

    def graph(self) -> dict[str, Any]:
        ref = next(iter(self.p.of_kind("checkpoint", "unet")), ResourceRef("checkpoint", "model"))
        model, clip, vae = self._models(ref)
        own_vae = next(iter(self.p.of_kind("vae")), None)
        if own_vae is not None or vae is None:
            name = _file_name(own_vae) if own_vae is not None else ""
            vae = [self.add("VAELoader", "VAE", vae_name=name), 0]
        texts = (self.p.prompt, self.p.negative_prompt)
        common = {"model": model, **self._conditioning(clip, *texts)}
        width, height = self.p.width or 512, self.p.height or 512
        empty = self.add("EmptyLatentImage", "Size", width=width, height=height, batch_size=1)
        latent = self._first_pass([empty, 0], common)
        if self.p.hires is not None:
            latent = self._second_pass(self.p.hires, latent, {**common, "clip": clip, "vae": vae}, width, height)
        image = self.add("VAEDecode", "Decode", samples=latent, vae=vae)
        self.add("SaveImage", "Save", images=[image, 0], filename_prefix="hubctl")
        return self.nodes

    def _models(self, ref: ResourceRef) -> tuple[list[Any], list[Any], list[Any] | None]:
        """(model, CLIP, VAE) with LoRAs and clip skip; no VAE comes with a diffusion model in a file of its own."""
        vae: list[Any] | None = None
        if ref.kind == "unet":
            unet = self.add("UNETLoader", "Diffusion model", unet_name=_file_name(ref), weight_dtype="default")
            model: list[Any] = [unet, 0]
            clip: list[Any] = [self._text_encoders(), 0]
        else:
            loader = self.add("CheckpointLoaderSimple", "Checkpoint", ckpt_name=_file_name(ref))
            model, clip, vae = [loader, 0], [loader, 1], [loader, 2]
        for lora in self.p.of_kind("lora", "lycoris"):
            weight = lora.weight if lora.weight is not None else 1.0
            clip_weight = lora.weight_te if lora.weight_te is not None else weight
            key = self.add(
                "LoraLoader", f"LoRA {lora.name or ''}".strip(), lora_name=_file_name(lora), strength_model=weight,
                strength_clip=clip_weight, model=model, clip=clip,
            )  # fmt: skip
            model, clip = [key, 0], [key, 1]
        if self.p.clip_skip is not None and self.p.clip_skip > 1:
            clip = [self.add("CLIPSetLastLayer", "Clip skip", stop_at_clip_layer=-self.p.clip_skip, clip=clip), 0]
        return model, clip, vae

    def _text_encoders(self) -> str:
        names = [_file_name(ref) for ref in self.p.of_kind("text_encoder")][:4]
        if len(names) < 2:
            return self.add("CLIPLoader", "Text encoder", clip_name="".join(names), type="stable_diffusion")
        loader = ("DualCLIPLoader", "TripleCLIPLoader", "QuadrupleCLIPLoader")[len(names) - 2]
        kind = {"type": "flux"} if len(names) == 2 else {}
        files = {f"clip_name{number}": name for number, name in enumerate(names, 1)}
        return self.add(loader, "Text encoders", **files, **kind)

    def _conditioning(self, clip: list[Any], prompt: str, negative: str) -> dict[str, list[Any]]:
        embedded = tuple(ref.name for ref in self.p.of_kind("embedding") if ref.name)
        positive = self.add("CLIPTextEncode", "Positive", text=_for_comfy(prompt, embedded), clip=clip)
        other = self.add("CLIPTextEncode", "Negative", text=_for_comfy(negative, embedded), clip=clip)
        conditioning: list[Any] = [positive, 0]
        if self.p.distilled_cfg is not None:
            guided = self.add("FluxGuidance", "Guidance", guidance=self.p.distilled_cfg, conditioning=conditioning)
            conditioning = [guided, 0]
        return {"positive": conditioning, "negative": [other, 0]}

    def _first_pass(self, latent: list[Any], common: Mapping[str, Any]) -> list[Any]:
        refiner, steps = self.p.refiner, self.p.steps or 20
        if refiner is None or not refiner.checkpoint or not refiner.switch_at or not 0 < refiner.switch_at < 1:
            return self._sampler(latent, common)
        at = min(max(round(steps * refiner.switch_at), 1), steps - 1) if steps > 1 else 1
        base = self._advanced(latent, common, "Sampler", start=0, end=at)
        loader = self.add(
            "CheckpointLoaderSimple", "Refiner", ckpt_name=_file_name(ResourceRef("checkpoint", refiner.checkpoint))
        )
        texts = self._conditioning([loader, 1], self.p.prompt, self.p.negative_prompt)
        return self._advanced(base, {"model": [loader, 0], **texts}, "Refiner pass", start=at, end=10000)

    def _advanced(self, latent: list[Any], common: Mapping[str, Any], title: str, *, start: int, end: int) -> list[Any]:
        key = self.add(
            "KSamplerAdvanced",
            title,
            add_noise="disable" if start else "enable",
            noise_seed=max(self.p.seed or 0, 0),
            steps=self.p.steps or 20,
            cfg=self._cfg(),
            sampler_name=self.p.sampler or "euler",
            scheduler=_comfy_schedule(self.p.schedule),
            start_at_step=start,
            end_at_step=end,
            return_with_leftover_noise="disable" if start else "enable",
            latent_image=latent,
            **common,
        )
        return [key, 0]

    def _cfg(self) -> float:
        if self.p.cfg_scale is not None:
            return self.p.cfg_scale
        return 1.0 if self.p.distilled_cfg is not None else 7.0

    def _sampler(self, latent: list[Any], common: Mapping[str, Any], hires: Hires | None = None) -> list[Any]:
        first_denoise = self.p.denoise if self.p.hires is None and self.p.denoise is not None else 1.0
        hires_denoise = hires.denoise if hires is not None else None
        key = self.add(
            "KSampler",
            "Hires pass" if hires else "Sampler",
            seed=max(self.p.seed or 0, 0),
            steps=(hires.steps if hires else None) or self.p.steps or 20,
            cfg=hires.cfg_scale if hires and hires.cfg_scale is not None else self._cfg(),
            sampler_name=(hires.sampler if hires else None) or self.p.sampler or "euler",
            scheduler=_comfy_schedule((hires.schedule if hires else None) or self.p.schedule),
            denoise=(hires_denoise if hires_denoise is not None else 0.5) if hires else first_denoise,
            latent_image=latent,
            **common,
        )
        return [key, 0]

    def _second_pass(
        self, hires: Hires, latent: list[Any], parts: Mapping[str, Any], width: int, height: int
    ) -> list[Any]:
        common = {name: parts[name] for name in ("model", "positive", "negative")}
        clip = parts["clip"]
        if hires.checkpoint is not None:
            common["model"], clip, _ = self._models(ResourceRef("checkpoint", hires.checkpoint))
        if hires.checkpoint is not None or hires.prompt is not None or hires.negative_prompt is not None:
            prompt = hires.prompt if hires.prompt is not None else self.p.prompt
            negative = hires.negative_prompt if hires.negative_prompt is not None else self.p.negative_prompt
            common |= self._conditioning(clip, prompt, negative)
        target = (hires.width or 0, hires.height or 0)
        if hires.upscale is None and any(target):
            target = (target[0] or round(width * target[1] / height), target[1] or round(height * target[0] / width))
        else:
            target = (0, 0)
        upscaler = hires.upscaler or "Latent"
        scale = self._scale_latent if upscaler.lower().startswith("latent") else self._scale_picture
        scaled = scale(upscaler, hires.upscale or 2.0, target, (width, height), latent, parts["vae"])
        return self._sampler(scaled, common, hires)

    def _scale_latent(
        self, upscaler: str, factor: float, target: tuple[int, int], _: tuple[int, int], latent: list[Any], vae: Any
    ) -> list[Any]:
        method = upscaler.partition("(")[2].strip(" )").lower()
        method = method if method in ("nearest-exact", "area", "bicubic", "bislerp") else "bilinear"
        if "nearest" in upscaler.lower():
            method = "nearest-exact"
        common: dict[str, Any] = {"upscale_method": method, "samples": latent}
        if target[0]:
            size = {"width": target[0], "height": target[1], "crop": "disabled"}
            return [self.add("LatentUpscale", "Upscale", **size, **common), 0]
        return [self.add("LatentUpscaleBy", "Upscale", scale_by=factor, **common), 0]

    def _scale_picture(
        self, upscaler: str, factor: float, target: tuple[int, int], size: tuple[int, int], latent: list[Any], vae: Any
    ) -> list[Any]:
        """Decoded, scaled by an upscaler's file or a plain method to the exact size, and encoded again."""
        image: list[Any] = [self.add("VAEDecode", "Decode first pass", samples=latent, vae=vae), 0]
        method = {"lanczos": "lanczos", "nearest": "nearest-exact", "none": "lanczos"}.get(upscaler.lower())
        own = 1.0
        if method is None:
            loader = self.add("UpscaleModelLoader", "Upscaler", model_name=_upscaler_file(upscaler))
            image = [self.add("ImageUpscaleWithModel", "Upscale", upscale_model=[loader, 0], image=image), 0]
            own = _model_factor(upscaler) or 0.0
        method = method or "lanczos"
        if target[0] or not own:
            wide, high = target if target[0] else (round(size[0] * factor), round(size[1] * factor))
            scaled = self.add("ImageScale", "Exact size", upscale_method=method, width=wide, height=high,
                              crop="disabled", image=image)  # fmt: skip
        else:
            scaled = self.add("ImageScaleBy", "Exact size", upscale_method=method, scale_by=factor / own, image=image)
        return [self.add("VAEEncode", "Encode", pixels=[scaled, 0], vae=vae), 0]


def _upscaler_file(name: str) -> str:
    return name if name.lower().endswith((".pth", ".pt", ".safetensors")) else f"{name}.pth"


def _file_name(resource: ResourceRef) -> str:
    name = resource.name or resource.air or resource.hash or "unknown"
    return name if resource.name is None or v.stem(name) != name else f"{name}.safetensors"


def _comfy_schedule(schedule: str | None) -> str:
    """ComfyUI's scheduler ids; A1111's "automatic" and "uniform" are its "normal"."""
    if schedule is None or schedule == "uniform":
        return "normal"
    return {"ddim": "ddim_uniform"}.get(schedule, schedule)


def _for_comfy(prompt: str, embedded: tuple[str, ...]) -> str:
    """Without LoRA tags, which are nodes here, and with embeddings marked, which are plain words elsewhere."""
    from hubctl.infotext.a1111 import TAG

    text = TAG.sub("", prompt)
    names = [re.escape(name) for name in embedded[:64] if f"embedding:{name}" not in text]
    if not names:
        return text
    return re.sub(rf"(?<![\w:])(?:{'|'.join(names)})(?!\w)", lambda match: f"embedding:{match[0]}", text)
