# SPDX-License-Identifier: GPL-3.0-or-later
"""Which parameters Muon optimises and which AdamW; layers declare it where they are made.

Muon (Jordan et al. 2024) orthogonalises the momentum of a matrix, which suits the matrices inside a
network. Its authors advise AdamW for embeddings and for layers that touch the network's inputs and
outputs: those are made with ``optimised_by_adamw``. Vectors and convolutions are always AdamW's.
"""

from __future__ import annotations

from typing import Final, TypeVar

from torch import nn

_MARK: Final = "is_optimised_by_adamw"
_Layer = TypeVar("_Layer", bound=nn.Module)


def optimised_by_adamw(layer: _Layer) -> _Layer:
    """Declare that AdamW optimises all parameters of a layer itself, not of its submodules."""
    setattr(layer, _MARK, True)
    return layer


def muon_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The trainable matrices inside a network, except those of layers declared for AdamW.

    Args:
        module: The network; frozen parameters are left out.

    Returns:
        Each parameter once, in the order of ``named_parameters``.
    """
    found: dict[int, nn.Parameter] = {}
    for layer in module.modules():
        if not getattr(layer, _MARK, False):
            for parameter in layer.parameters(recurse=False):
                if parameter.requires_grad and parameter.ndim == 2:
                    found[id(parameter)] = parameter
    return list(found.values())
