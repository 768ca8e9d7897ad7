"""ComfyUI graphs in one form: nodes by id, inputs by name, links as (node id, output slot).

API prompts have that form already. UI workflows are converted: widget values get names (from the node's own input list,
or a table for programs older than that list), subgraphs are unfolded, muted nodes disappear and bypassed ones pass
their inputs on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MAX_NODES = 20_000
MAX_SUBGRAPH_DEPTH = 12
MAX_UNFOLDED = 150_000  # nodes and links of all unfolded subgraphs: each may hold several of the next
_MUTED, _BYPASSED = 2, 4
_NOTES = {"Note", "MarkdownNote", "Label (rgthree)", "Fast Groups Muter (rgthree)", "Fast Groups Bypasser (rgthree)"}
_SEED_CONTROLS = {"fixed", "increment", "decrement", "randomize"}


class Link(NamedTuple):
    node: str
    slot: int


@dataclass(frozen=True)
class Node:
    """`inputs`: name → literal value or Link; a workflow's widgets without a name are "widget_<position>"."""

    id: str
    type: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    title: str | None = None

    def literal(self, *names: str) -> Any:
        """The first of the named inputs that holds a value rather than a link."""
        for name in names:
            value = self.inputs.get(name)
            if value is not None and not isinstance(value, Link):
                return value
        return None

    def links(self) -> Iterator[tuple[str, Link]]:
        for name, value in self.inputs.items():
            if isinstance(value, Link):
                yield name, value


Graph = dict[str, Node]


def is_prompt(value: Any) -> bool:
    """Whether a JSON object is an API prompt: most values are nodes with a class."""
    if not isinstance(value, Mapping) or not value:
        return False
    nodes = sum(isinstance(node, Mapping) and isinstance(node.get("class_type"), str) for node in value.values())
    return nodes * 2 > len(value)


def is_workflow(value: Any) -> bool:
    """Whether a JSON object is a UI workflow."""
    if not isinstance(value, Mapping) or not isinstance(value.get("nodes"), list):
        return False
    return isinstance(value.get("links"), list | Mapping) or "last_node_id" in value


def from_prompt(prompt: Mapping[str, Any]) -> Graph:
    graph: Graph = {}
    for key, node in list(prompt.items())[:MAX_NODES]:
        if not isinstance(node, Mapping) or not isinstance(node.get("class_type"), str):
            continue
        inputs = node.get("inputs")
        meta = node.get("_meta")
        graph[str(key)] = Node(
            id=str(key),
            type=node["class_type"],
            inputs={str(k): _input(value) for k, value in inputs.items()} if isinstance(inputs, Mapping) else {},
            title=meta.get("title") if isinstance(meta, Mapping) and isinstance(meta.get("title"), str) else None,
        )
    return graph


def _input(value: Any) -> Any:
    if (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str | int)
        and isinstance(value[1], int)
        and not isinstance(value[1], bool)
    ):
        return Link(str(value[0]), value[1])
    if isinstance(value, Mapping) and isinstance(value.get("content"), str) and "image" in value:
        return value["content"]  # pysssss' loaders keep a preview picture beside the file's name
    return value


# --- UI workflows -----------------------------------------------------------------------------------------------------

_WIDGETS: dict[str, tuple[str, ...]] = {
    # Names of widget values for frontends that did not yet list widgets among the inputs.
    "KSampler": ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        "add_noise", "noise_seed", "steps", "cfg", "sampler_name", "scheduler", "start_at_step", "end_at_step",
        "return_with_leftover_noise",
    ),
    "SamplerCustom": ("add_noise", "noise_seed", "cfg"),
    "RandomNoise": ("noise_seed",),
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "KarrasScheduler": ("steps", "sigma_max", "sigma_min", "rho"),
    "SDTurboScheduler": ("steps", "denoise"),
    "AlignYourStepsScheduler": ("model_type", "steps", "denoise"),
    "LTXVScheduler": ("steps", "max_shift", "base_shift", "stretch", "terminal"),
    "CFGGuider": ("cfg",),
    "DualCFGGuider": ("cfg_conds", "cfg_cond2_negative"),
    "CLIPTextEncode": ("text",),
    "CLIPTextEncodeSDXL": (
        "width", "height", "crop_w", "crop_h", "target_width", "target_height", "text_g", "text_l",
    ),
    "CLIPTextEncodeSDXLRefiner": ("ascore", "width", "height", "text"),
    "CLIPTextEncodeFlux": ("clip_l", "t5xxl", "guidance"),
    "CLIPTextEncodeSD3": ("clip_l", "clip_g", "t5xxl", "empty_padding"),
    "CLIPSetLastLayer": ("stop_at_clip_layer",),
    "FluxGuidance": ("guidance",),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "CheckpointLoader": ("config_name", "ckpt_name"),
    "unCLIPCheckpointLoader": ("ckpt_name",),
    "ImageOnlyCheckpointLoader": ("ckpt_name",),
    "UNETLoader": ("unet_name", "weight_dtype"),
    "UnetLoaderGGUF": ("unet_name",),
    "VAELoader": ("vae_name",),
    "CLIPLoader": ("clip_name", "type", "device"),
    "DualCLIPLoader": ("clip_name1", "clip_name2", "type", "device"),
    "TripleCLIPLoader": ("clip_name1", "clip_name2", "clip_name3"),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "HypernetworkLoader": ("hypernetwork_name", "strength"),
    "ControlNetLoader": ("control_net_name",),
    "UpscaleModelLoader": ("model_name",),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "EmptySD3LatentImage": ("width", "height", "batch_size"),
    "EmptyHunyuanLatentVideo": ("width", "height", "length", "batch_size"),
    "EmptyLTXVLatentVideo": ("width", "height", "length", "batch_size"),
    "LatentUpscale": ("upscale_method", "width", "height", "crop"),
    "LatentUpscaleBy": ("upscale_method", "scale_by"),
    "ImageScale": ("upscale_method", "width", "height", "crop"),
    "ImageScaleBy": ("upscale_method", "scale_by"),
    "PrimitiveNode": ("value",),
    "StringConcatenate": ("string_a", "string_b", "delimiter"),
    "EmptyQwenImageLayeredLatentImage": ("width", "height", "layers", "batch_size"),
    "EmptyFlux2LatentImage": ("width", "height", "batch_size"),
    "EmptyMochiLatentVideo": ("width", "height", "length", "batch_size"),
    "EmptyCosmosLatentVideo": ("width", "height", "length", "batch_size"),
    "WanImageToVideo": ("width", "height", "length", "batch_size"),
    "Wan22ImageToVideoLatent": ("width", "height", "length", "batch_size"),
    "ModelSamplingFlux": ("max_shift", "base_shift", "width", "height"),
    "ModelSamplingSD3": ("shift",),
    "ModelSamplingAuraFlow": ("shift",),
    "Flux2Scheduler": ("steps", "width", "height"),
    "ExponentialScheduler": ("steps", "sigma_max", "sigma_min"),
    "PolyexponentialScheduler": ("steps", "sigma_max", "sigma_min", "rho"),
    "VPScheduler": ("steps", "beta_d", "beta_min", "eps_s"),
    "BetaSamplingScheduler": ("steps", "alpha", "beta"),
    "ManualSigmas": ("sigmas",),
    "SplitSigmas": ("step",),
    "SplitSigmasDenoise": ("denoise",),
    "SamplerEulerAncestral": ("eta", "s_noise"),
    "SamplerDPMPP_2M_SDE": ("solver_type", "eta", "s_noise", "noise_device"),
    "QuadrupleCLIPLoader": ("clip_name1", "clip_name2", "clip_name3", "clip_name4"),
    "CLIPLoaderGGUF": ("clip_name", "type"),
    "DualCLIPLoaderGGUF": ("clip_name1", "clip_name2", "type"),
    "TextEncodeQwenImageEdit": ("prompt",),
    "TextEncodeQwenImageEditPlus": ("prompt",),
    "CLIPTextEncodeHunyuanDiT": ("bert", "mt5xl"),
    "CLIPTextEncodeLumina2": ("system_prompt", "user_prompt"),
    "PrimitiveInt": ("value",),
    "PrimitiveFloat": ("value",),
    "PrimitiveString": ("value",),
    "PrimitiveStringMultiline": ("value",),
    "PrimitiveBoolean": ("value",),
    "ControlNetApply": ("strength",),
    "ControlNetApplyAdvanced": ("strength", "start_percent", "end_percent"),
    "ImageScaleToTotalPixels": ("upscale_method", "megapixels"),
    # packages most graphs use
    "Efficient Loader": (
        "ckpt_name", "vae_name", "clip_skip", "lora_name", "lora_model_strength", "lora_clip_strength", "positive",
        "negative", "token_normalization", "weight_interpretation", "empty_latent_width", "empty_latent_height",
        "batch_size",
    ),
    "KSampler (Efficient)": (
        "seed", "steps", "cfg", "sampler_name", "scheduler", "denoise", "preview_method", "vae_decode",
    ),
    "CR LoRA Stack": tuple(
        f"{name}_{number}" for number in (1, 2, 3) for name in ("switch", "lora_name", "model_weight", "clip_weight")
    ),
    "Lora Loader Stack (rgthree)": tuple(
        f"{name}_0{number}" for number in (1, 2, 3, 4) for name in ("lora", "strength")
    ),
    "Seed (rgthree)": ("seed",),
    "KSampler Config (rgthree)": ("steps_total", "refiner_step", "cfg", "sampler_name", "scheduler"),
    "SDXL Empty Latent Image (rgthree)": ("dimensions", "clip_scale", "batch_size"),
    "SDXLEmptyLatentSizePicker+": ("resolution", "batch_size", "width_override", "height_override"),
    "CR SDXL Aspect Ratio": ("width", "height", "aspect_ratio", "swap_dimensions", "upscale_factor", "batch_size"),
    "CR Seed": ("seed",),
    "Seed Generator": ("seed",),
    "ImpactWildcardEncode": ("wildcard_text", "populated_text", "mode", "lora", "wildcard", "seed"),
    "ImpactWildcardProcessor": ("wildcard_text", "populated_text", "mode", "seed"),
    "StringFunction|pysssss": ("action", "tidy_tags", "text_a", "text_b", "text_c", "result"),
    "CheckpointLoader|pysssss": ("ckpt_name",),
    "LoraLoader|pysssss": ("lora_name", "strength_model", "strength_clip"),
    "ShowText|pysssss": ("text2",),
    "Text Multiline": ("text",),
    "Text Concatenate": ("delimiter", "clean_whitespace"),
    "INTConstant": ("value",),
    "FloatConstant": ("value",),
    "StringConstant": ("string",),
    "StringConstantMultiline": ("string", "strip_newlines"),
    "UltimateSDUpscale": (
        "upscale_by", "seed", "steps", "cfg", "sampler_name", "scheduler", "denoise", "mode_type", "tile_width",
        "tile_height",
    ),
}  # fmt: skip


def from_workflow(workflow: Mapping[str, Any]) -> Graph:
    graph: Graph = {}
    definitions = workflow.get("definitions")
    listed = definitions.get("subgraphs") if isinstance(definitions, Mapping) else None
    subgraphs = (
        {str(s.get("id")): s for s in listed or () if isinstance(s, Mapping)} if isinstance(listed, list) else {}
    )
    _unfold(workflow, "", {}, {}, _Unfolding(subgraphs, graph), depth=0)
    return graph


@dataclass
class _Unfolding:
    subgraphs: Mapping[str, Mapping[str, Any]]
    graph: Graph
    left: int = MAX_UNFOLDED

    def may_open(self, container: Mapping[str, Any]) -> bool:
        self.left -= sum(len(value) for value in container.values() if isinstance(value, list | dict)) + 1
        return self.left >= 0


def _link_table(container: Mapping[str, Any]) -> dict[int, tuple[str, int]]:
    """link id → (origin node, origin slot); links are lists in the main graph and objects in subgraphs."""
    table: dict[int, tuple[str, int]] = {}
    links = container.get("links")
    for link in links.values() if isinstance(links, Mapping) else links or ():
        if isinstance(link, list) and len(link) >= 3 and isinstance(link[2], int):
            table[link[0] if isinstance(link[0], int) else -1] = (str(link[1]), link[2])
        elif isinstance(link, Mapping) and isinstance(link.get("id"), int) and isinstance(link.get("origin_slot"), int):
            table[link["id"]] = (str(link.get("origin_id")), link["origin_slot"])
    return table


def _unfold(
    container: Mapping[str, Any],
    prefix: str,
    outside: dict[int, Any],
    promoted: Mapping[str, Mapping[str, Any]],
    work: _Unfolding,
    *,
    depth: int,
) -> dict[int, Any]:
    """Add a container's nodes to `graph`; gives its outputs.

    `outside`: what is linked to a subgraph's inputs. `promoted`: its nodes' widgets that are shown, and set, outside.
    """
    if not work.may_open(container):
        return {}
    table = _link_table(container)
    nodes = {str(n.get("id")): n for n in container.get("nodes") or () if isinstance(n, Mapping)}
    inner_outputs: dict[str, dict[int, Any]] = {}
    named = {_first_widget(n): n for n in nodes.values() if n.get("type") in _SETTERS}
    everywhere = dict(_everywhere(nodes.values()))

    def source(link_id: Any) -> Any:
        """What a link carries: a Link to a real node, a literal handed into the subgraph, or None."""
        for _ in range(256):
            if not isinstance(link_id, int) or link_id not in table:
                return None
            origin, slot = table[link_id]
            if origin == "-10":
                return outside.get(slot)
            node = nodes.get(origin)
            if node is None or node.get("mode") == _MUTED:
                return None
            if origin in inner_outputs:
                return inner_outputs[origin].get(slot)
            if node.get("type") in _GETTERS:
                link_id = _only_link(named.get(_first_widget(node)))
            elif node.get("mode") == _BYPASSED:
                link_id = _bypass(node, slot)
            else:
                return Link(prefix + origin, slot)
        return None

    order = sorted(nodes.values(), key=_order)
    for node in order:
        if len(work.graph) >= MAX_NODES or node.get("mode") in (_MUTED, _BYPASSED) or node.get("type") in _NOTES:
            continue
        key, kind = str(node.get("id")), str(node.get("type"))
        inputs = _ui_inputs(node, source, everywhere)
        inputs |= {n: x for n, x in promoted.get(key, {}).items() if not isinstance(inputs.get(n), Link)}
        if kind in work.subgraphs and depth < MAX_SUBGRAPH_DEPTH:
            definition = work.subgraphs[kind]
            names = [str(i.get("name")) for i in definition.get("inputs") or () if isinstance(i, Mapping)]
            shown = _promoted(node)
            handed = {slot: inputs.get(name, shown.get("-1", {}).get(name)) for slot, name in enumerate(names)}
            inner_outputs[key] = _unfold(definition, f"{prefix}{key}:", handed, shown, work, depth=depth + 1)
        else:
            title = node.get("title")
            work.graph[prefix + key] = Node(prefix + key, kind, inputs, title if isinstance(title, str) else None)
    return {slot: source(link_id) for slot, link_id in _output_links(container).items()}


def _promoted(node: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Inner node → {widget: value} of those that a subgraph's node shows; "-1" are the subgraph's own inputs."""
    properties, values = node.get("properties"), node.get("widgets_values")
    shown = properties.get("proxyWidgets") if isinstance(properties, Mapping) else None
    if not isinstance(shown, list) or not isinstance(values, list):
        return {}
    found: dict[str, dict[str, Any]] = {}
    for entry, value in zip(shown[:256], values, strict=False):
        if isinstance(entry, list) and len(entry) > 1 and isinstance(entry[1], str) and value is not None:
            found.setdefault(str(entry[0]), {})[entry[1]] = value
    return found


_SETTERS, _GETTERS = ("SetNode", "easy setNode"), ("GetNode", "easy getNode")


def _first_widget(node: Mapping[str, Any]) -> str | None:
    """The name that a value is kept under, of the nodes that set and get values without drawn links."""
    values = node.get("widgets_values")
    return values[0] if isinstance(values, list) and values and isinstance(values[0], str) else None


def _only_link(node: Mapping[str, Any] | None) -> Any:
    entries = node.get("inputs") if node is not None else None
    links = (e.get("link") for e in (entries if isinstance(entries, list) else ()) if isinstance(e, Mapping))
    return next((link for link in links if link is not None), None)


def _everywhere(nodes: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Type → link of the nodes that feed every open input of a type ("Anything Everywhere")."""
    for node in nodes:
        if "Everywhere" not in str(node.get("type")) or node.get("mode") in (_MUTED, _BYPASSED):
            continue
        entries = node.get("inputs")
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, Mapping) and entry.get("link") is not None:
                kind = str(entry.get("name") if entry.get("type") in ("*", None) else entry.get("type"))
                yield kind, entry["link"]


def _order(node: Mapping[str, Any]) -> int:
    order = node.get("order")
    return order if isinstance(order, int) else 0


def _output_links(container: Mapping[str, Any]) -> dict[int, int]:
    """A subgraph's output slot → the link that feeds it (target node -20)."""
    links = container.get("links")
    found: dict[int, int] = {}
    for link in links if isinstance(links, list) else ():
        if isinstance(link, Mapping) and link.get("target_id") == -20 and isinstance(link.get("id"), int):
            slot = link.get("target_slot")
            if isinstance(slot, int):
                found[slot] = link["id"]
    return found


def _bypass(node: Mapping[str, Any], slot: int) -> Any:
    """The link of the input that a bypassed node passes to an output: the first of the same type."""
    outputs = node.get("outputs")
    output = outputs[slot] if isinstance(outputs, list) and 0 <= slot < len(outputs) else None
    kind = output.get("type") if isinstance(output, Mapping) else None
    for entry in node.get("inputs") or ():
        if isinstance(entry, Mapping) and entry.get("type") == kind and entry.get("link") is not None:
            return entry["link"]
    return None


def _ui_inputs(node: Mapping[str, Any], source: Any, everywhere: Mapping[str, Any]) -> dict[str, Any]:
    values = node.get("widgets_values")
    inputs: dict[str, Any] = {}
    entries = (
        [e for e in node.get("inputs") or () if isinstance(e, Mapping)] if isinstance(node.get("inputs"), list) else []
    )
    if isinstance(values, Mapping):
        inputs.update({str(k): value for k, value in values.items()})
    elif isinstance(values, list) and not _promoted(node):
        inputs.update(_named_widgets(str(node.get("type")), entries, values))
    for entry in entries:
        link = entry.get("link")
        if link is None and everywhere and not isinstance(entry.get("widget"), Mapping):
            link = everywhere.get(str(entry.get("type")))
        if link is not None:
            found = source(link)
            if found is not None:
                inputs[str(entry.get("name"))] = found
    return inputs


def _named_widgets(kind: str, entries: list[Mapping[str, Any]], values: list[Any]) -> dict[str, Any]:
    """Widget values by name. A seed is followed by what happens to it after a run, which is not listed."""
    listed = [str(e.get("name")) for e in entries if isinstance(e.get("widget"), Mapping)]
    known = _WIDGETS.get(kind, ())
    names = listed if len(listed) >= len(known) else list(known)
    named: dict[str, Any] = {}
    position = 0
    for name in names:
        if position >= len(values):
            break
        named[name] = values[position]
        position += 1
        if name in ("seed", "noise_seed", "value") and position < len(values) and _is_seed_control(values[position]):
            position += 1
    for index, value in enumerate(values[position:], start=position):
        named[f"widget_{index}"] = value
    return named


def _is_seed_control(value: Any) -> bool:
    return isinstance(value, str) and value in _SEED_CONTROLS
