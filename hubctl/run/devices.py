"""Where to compute, in which precision, and what rests in main memory when a graphics card is small.

| offload | what is on the device |
|---|---|
| none | everything, all the time |
| model | the one of text encoders, UNet and VAE that is at work; the others rest in main memory |
| sequential | one layer at a time: slow, fits nearly anywhere |
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from hubctl.errors import RunError

if TYPE_CHECKING:
    from hubctl.run.loader import Model

OFFLOADS = ("none", "model", "sequential")
WORKING_BYTES = 2 * 1024**3  # beside the weights: activations of a 1024-pixel picture, the allocator's slack
UNET_SHARE = 0.8  # of a checkpoint's weights: what `model` offload has to hold at once


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def choose(device: str | None) -> Any:
    """A torch.device: what was asked for, else CUDA, else MPS, else the processor. Raises RunError."""
    import torch

    if device in (None, "auto"):
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        where = torch.device(str(device))
    except RuntimeError:
        where = None
    if where is None or where.type not in {"cpu", "cuda", "mps"}:
        raise RunError(f"`{device}` is no device", hint="one of: cpu, cuda, cuda:1, mps")
    if where.type == "cuda" and not torch.cuda.is_available():
        raise RunError("there is no CUDA device here", hint="leave out --device, or see `hubctl doctor`")
    if where.type == "cuda" and (where.index or 0) >= torch.cuda.device_count():
        raise RunError(f"there is no CUDA device {where.index}", hint="`hubctl doctor` lists the devices")
    if where.type == "mps" and not torch.backends.mps.is_available():
        raise RunError("there is no MPS device here", hint="leave out --device, or see `hubctl doctor`")
    return where


def choose_dtype(dtype: str | None, device: Any) -> Any:
    """float32 on the processor, float16 on a GPU, or what was asked for."""
    import torch

    kinds = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    if dtype in (None, "auto"):
        return torch.float32 if device.type == "cpu" or _black_in_half(device) else torch.float16
    if dtype not in kinds:
        raise RunError(f"`{dtype}` is no precision", hint="one of: fp32, fp16, bf16")
    return kinds[dtype]


def _black_in_half(device: Any) -> bool:
    """GeForce 16 cards give black pictures in half precision; cards before Pascal have no fast half at all."""
    import torch

    if device.type != "cuda":
        return False
    properties = torch.cuda.get_device_properties(device)
    return "GTX 16" in properties.name or properties.major < 6


def choose_offload(asked: str | None, device: Any, weight_bytes: int) -> str:
    """What was asked for, else as little offload as fits the device's free memory. Raises RunError."""
    import torch

    if asked not in (None, "auto"):
        if asked not in OFFLOADS:
            raise RunError(f"`{asked}` is no way to offload", hint=f"one of: auto, {', '.join(OFFLOADS)}")
        return str(asked)
    if device.type != "cuda":  # elsewhere device memory is main memory
        return "none"
    free, _ = torch.cuda.mem_get_info(device)
    return offload_for(weight_bytes, free)


def offload_for(weight_bytes: int, free_bytes: int) -> str:
    """The least offload with which weights and a picture's working memory fit."""
    if weight_bytes + WORKING_BYTES <= free_bytes:
        return "none"
    return "model" if weight_bytes * UNET_SHARE + WORKING_BYTES <= free_bytes else "sequential"


TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # glibc's numbers for mallopt
LARGEST_BLOCK, AT_ONCE, KEPT = 32 * 1024**2, 512 * 1024**2, 1024**3  # bytes


def keep_working_memory() -> None:
    """Let the C library keep what one layer frees for the next one.

    By default glibc hands blocks of some megabytes back to the system, which faults them in again page by page: on a
    processor that was up to a fifth of every step, by chance. Here the heap grows in large pieces and is not trimmed
    below a gigabyte; what is never touched takes no memory. To be called after the weights are there: these shall go
    back when they are freed.
    """
    import ctypes
    import sys

    import torch

    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library: nothing to tune
            mallopt = ctypes.CDLL(None).mallopt
            for parameter, value in ((MMAP_THRESHOLD, LARGEST_BLOCK), (TRIM_THRESHOLD, KEPT), (TOP_PAD, AT_ONCE)):
                mallopt(parameter, value)
            torch.empty(LARGEST_BLOCK - 65536, dtype=torch.uint8)  # grows the heap once, and is let go


# --- resting and waking -----------------------------------------------------------------------------------------------


def park(model: Model) -> None:
    """Let a model's parts rest in main memory and wake on the device when they are called; nothing with `none`.

    Hooks sit on every module, since parts are entered in the middle too (`vae.decode`, a text model's final norm).
    """
    if model.offload == "none":
        return
    groups = [group for group in ([*model.encoders], [model.unet], [model.vae]) if group[0] is not None]
    if model.offload == "model":
        _Turns(groups, model.device).watch()
    else:
        for group in groups:
            for root in group:
                _one_layer_at_a_time(root, model.device)


class _Turns:
    """One group of modules is on the device at a time."""

    def __init__(self, groups: list[list[Any]], device: Any) -> None:
        self.groups, self.device = groups, device
        self.awake: list[Any] | None = None

    def watch(self) -> None:
        for group in self.groups:
            for root in group:
                for module in root.modules():
                    module.register_forward_pre_hook(self._waker(group))

    def _waker(self, group: list[Any]) -> Callable[..., None]:
        def wake(_module: Any, _args: Any) -> None:
            if self.awake is group:
                return
            for root in self.awake or ():
                root.to("cpu")
            for root in group:
                root.to(self.device)
            self.awake = group

        return wake


def _one_layer_at_a_time(root: Any, device: Any) -> None:
    """Every module brings its own tensors before it is called and takes them back after."""
    for module in root.modules():
        if any(True for _ in _own(module)):
            resting: dict[int, Any] = {}

            def bring(module: Any, _args: Any, resting: dict[int, Any] = resting) -> None:
                for tensor in _own(module):
                    resting[id(tensor)] = tensor.data
                    tensor.data = tensor.data.to(device)

            def take_back(module: Any, _args: Any, _out: Any, resting: dict[int, Any] = resting) -> None:
                for tensor in _own(module):
                    if id(tensor) in resting:
                        tensor.data = resting.pop(id(tensor))

            module.register_forward_pre_hook(bring)
            module.register_forward_hook(take_back)


def _own(module: Any) -> Iterable[Any]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)


def describe() -> list[str]:
    """One sentence a device."""
    import torch

    out = [f"processor, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        out.append(f"{properties.name}, {properties.total_memory / 1e9:.0f} GB (CUDA {torch.version.cuda})")
    if torch.backends.mps.is_available():
        out.append("Apple GPU (MPS)")
    return out
