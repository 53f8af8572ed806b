# SPDX-License-Identifier: GPL-3.0-or-later
"""Where on a face the losses measure motion: points, their weights, pairs of lip points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class FaceGeometry:
    """Points of a face at which the losses measure motion.

    Attributes:
        points: Points at rest, shape ``(P, 3)``.
        basis: Displacement of the points by each weight, shape ``(K, P, 3)``; None where motion is
            offsets of these points already.
        point_weights: Weight of each point in the losses, of mean 1, shape ``(P,)``.
        lip_pairs: Points that meet when the lips close, upper and lower, int64, shape ``(L, 2)``.
        scale: Factor that brings offsets to the unit of ``points``.
    """

    points: Tensor
    basis: Tensor | None
    point_weights: Tensor
    lip_pairs: Tensor
    scale: float = 1.0

    def to(self, device: torch.device | str) -> FaceGeometry:
        """The geometry on a device."""
        return replace(
            self,
            points=self.points.to(device),
            basis=None if self.basis is None else self.basis.to(device),
            point_weights=self.point_weights.to(device),
            lip_pairs=self.lip_pairs.to(device),
        )

    def displacements(self, motion: Tensor) -> Tensor:
        """Of the points: weights ``(B, T, K)`` or offsets ``(B, T, P, 3)`` to ``(B, T, P, 3)``."""
        if self.basis is None:
            return motion * self.scale
        return torch.einsum("btk,kpi->btpi", motion, self.basis)

    def lip_gaps(self, displacements: Tensor) -> Tensor:
        """From lower to upper lip: displacements to ``(B, T, L, 3)``."""
        placed = displacements + self.points
        return placed[:, :, self.lip_pairs[:, 0]] - placed[:, :, self.lip_pairs[:, 1]]


def face_point_geometry(names: Sequence[str], points: Tensor, basis: Tensor) -> FaceGeometry:
    """The geometry of solved shapes: face points by name, lips before jaw before the rest.

    Args:
        names: Names of the face points.
        points: Face points at rest, in interocular distances, shape ``(P, 3)``.
        basis: Displacement of the face points by each shape, shape ``(K, P, 3)``.

    Returns:
        The geometry.
    """
    weights = torch.tensor([_point_weight(name) for name in names])
    number = {name: index for index, name in enumerate(names)}
    pairs = [
        [number[name], number[name.replace("upper", "lower")]]
        for name in names
        if name.startswith("lip_upper_inner")
    ]
    return FaceGeometry(
        points.float(), basis.float(), weights / weights.mean(), torch.tensor(pairs)
    )


def _point_weight(name: str) -> float:
    if name.startswith("lip_"):
        return 3.0
    return 1.5 if name.startswith(("chin", "jaw_line", "lid_", "cheek_hollow")) else 1.0
