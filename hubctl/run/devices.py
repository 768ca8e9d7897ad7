"""Where to compute, and in which precision."""

from __future__ import annotations

from typing import Any

from hubctl.errors import RunError


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def choose(device: str | None) -> Any:
    """A torch.device: what was asked for, else CUDA, else MPS, else the processor. Raises RunError."""
    import torch

    if device in (None, "auto"):
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert device is not None
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise RunError("there is no CUDA device here", hint="leave out --device, or see `hubctl doctor`")
    if device == "mps" and not torch.backends.mps.is_available():
        raise RunError("there is no MPS device here", hint="leave out --device, or see `hubctl doctor`")
    return torch.device(device)


def choose_dtype(dtype: str | None, device: Any) -> Any:
    """float32 on the processor, float16 on a GPU, or what was asked for."""
    import torch

    kinds = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    if dtype in (None, "auto"):
        return torch.float32 if device.type == "cpu" else torch.float16
    if dtype not in kinds:
        raise RunError(f"`{dtype}` is no precision", hint="one of: fp32, fp16, bf16")
    return kinds[dtype]


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
