# SPDX-License-Identifier: GPL-3.0-or-later
"""The optimiser Muon, in the precision of the parameters.

``torch.optim.Muon`` is the same rule but rounds to bfloat16, which a CPU without instructions for
it emulates: a step of the bundled model's speech encoder then took 5 s instead of half a second.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration; Jordan et al. 2024
_EPSILON = 1e-7


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are orthogonalised (Jordan et al. 2024), sized as AdamW's steps.

    The step is scaled by ``0.2 sqrt(max(A, B))`` for an ``(A, B)`` matrix, so that one learning
    rate serves this and AdamW (Liu et al. 2025, Moonlight).

    Args:
        params: Parameters to train, matrices only.
        lr: Learning rate.
        weight_decay: Decoupled weight decay, as AdamW's.
        momentum: Momentum of the gradients, with Nesterov's look ahead.
        iterations: Number of iterations of the orthogonalisation.

    Raises:
        ValueError: A parameter is no matrix.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
        iterations: int = 4,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(params, defaults)
        self._iterations = iterations
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.ndim != 2:
                    raise ValueError(f"Muon takes matrices, not shape {tuple(weight.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient; there is no closure to evaluate again."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            directions = self._directions(weights, group)
            for weight, direction in zip(weights, directions, strict=True):
                size = 0.2 * math.sqrt(max(weight.shape))
                weight.mul_(1.0 - group["lr"] * group["weight_decay"])
                weight.add_(direction, alpha=-group["lr"] * size)

    def _directions(self, weights: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Where each matrix moves; processes share the work, as their gradients are the same."""
        if not weights:
            return []
        in_group = dist.is_available() and dist.is_initialized()
        rank, num_ranks = (dist.get_rank(), dist.get_world_size()) if in_group else (0, 1)
        moved = torch.zeros(sum(weight.numel() for weight in weights), device=weights[0].device)
        directions = [
            part.view_as(weight)
            for part, weight in zip(
                moved.split([weight.numel() for weight in weights]), weights, strict=True
            )
        ]
        for place, (weight, direction) in enumerate(zip(weights, directions, strict=True)):
            state = self.state[weight]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(weight)
            momentum, gradient = state["momentum_buffer"], weight.grad
            assert gradient is not None
            momentum.lerp_(gradient, 1.0 - group["momentum"])
            if place % num_ranks == rank:
                ahead = gradient.lerp(momentum, group["momentum"])
                direction.copy_(orthogonalised(ahead, self._iterations))
        if num_ranks > 1:
            dist.all_reduce(moved)
        return directions


def orthogonalised(matrix: Tensor, iterations: int) -> Tensor:
    """About the nearest matrix with singular values of 1, by Newton-Schulz iterations.

    Args:
        matrix: Any matrix, shape ``(A, B)``.
        iterations: Number of iterations; after 4 or 5, singular values lie between about 0.5 and
            1.5.

    Returns:
        The orthogonalised matrix, shape ``(A, B)``.
    """
    a, b, c = _COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / x.norm().clamp(min=_EPSILON)
    for _ in range(iterations):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x
