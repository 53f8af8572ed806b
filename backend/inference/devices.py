# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a model runs: the device of a name, and what it means when its memory is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

import torch

from backend.errors import UserError, excerpt

_FEW_PARAMETERS: Final = 20_000_000
_USUAL_THREADS: Final = torch.get_num_threads()


def pick_device(name: str) -> torch.device:
    """The device of a name.

    Args:
        name: Kind of device; ``auto`` is the fastest there is.

    Returns:
        The device.

    Raises:
        UserError: This computer has no such device, or torch was built without it.
    """
    available = available_devices()
    if name == "auto":
        return torch.device(usable_gpu()[0] or "cpu")
    if name not in available:
        raise UserError(
            f"This computer's PyTorch cannot use {name}. Choose the device auto, or set the "
            "backend up again for it."
        )
    return torch.device(name)


def available_devices() -> list[str]:
    """Kinds of devices that torch can use here, the fastest first."""
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [*(kind for kind, is_there in has.items() if is_there), "cpu"]


def usable_gpu() -> tuple[str, str]:
    """The graphics card that torch can compute on.

    Returns:
        ``cuda`` or ``mps``, empty without one; and why one that is there is not used, as a
        sentence: a card may be older or newer than those that this build of torch has kernels for.
    """
    kind = available_devices()[0]
    if kind == "cpu":
        return "", ""
    try:
        found = torch.ones(4, 4, device=kind) @ torch.ones(4, 4, device=kind)
        if float(found.sum()) == 64.0:
            return kind, ""
        reason = "it computes wrongly"
    except RuntimeError as error:
        reason = excerpt(error, 100)
    return "", f"PyTorch cannot use this graphics card ({reason}), so the processor does the work."


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turns torch's ways to say that memory is short into a sentence.

    Raises:
        UserError: There is not enough memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        short = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not (short or "not enough memory" in str(error) or "out of memory" in str(error)):
            raise
        raise UserError(
            "There is not enough memory for this job. Close other programs, choose the device cpu, "
            "or animate a shorter stretch."
        ) from error


def set_threads(num_parameters: int) -> None:
    """Set how many threads torch uses for a model: one for a small one, else torch's own choice.

    A small model animates a minute in a second on one core. More threads wait for each other at
    every layer: beside a busy Blender they made it many times slower than one.

    Args:
        num_parameters: Size of the model.
    """
    torch.set_num_threads(1 if num_parameters < _FEW_PARAMETERS else _USUAL_THREADS)


def training_precision() -> Literal["bf16", "no"]:
    """Mixed precision that makes training faster here: none on a CPU that would emulate it."""
    if torch.cuda.is_available():
        return "bf16"
    abilities = torch.cpu.get_capabilities()
    return "bf16" if abilities.get("avx512_bf16") or abilities.get("amx_bf16") else "no"
