# SPDX-License-Identifier: GPL-3.0-or-later
"""Search for the style code with which a model moves as an exemplar does. No torch.

The steps are Levenberg's and Marquardt's, with derivatives by finite differences: a model of 64
numbers of style is run 64 times for them, forwards alone, so every engine can do it. Beside the
motion's error, the distance from the code that was read counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

MOST_FRAMES: Final = 500
"""Frames of an exemplar that are looked at."""
_STEPS: Final = 6
_STEPS_A_JACOBIAN: Final = 3
"""Steps that are made with the same derivatives of the motion, which hardly change."""
_TRIES: Final = 5
_DIFFERENCE: Final = 0.02
_CODES_AT_A_TIME: Final = 13
_FIRST_DAMPING: Final = 1e-3
_NEARNESS: Final = 0.3
"""Weight of the squared distance from the encoded code, beside the motion's error."""
_SOFTNESS: Final = 0.25
"""Of Charbonnier's penalty: below so many spreads of a node an error counts as a square, above as
an absolute value, so that frames of misread phones count less."""

Restyle = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Style codes ``(B, D)`` to displacements of the nodes ``(B, T, N, 3)``, of the same content."""


def search_code(
    restyle: Restyle, nodes: NDArray[np.float32], code: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Refine a style code.

    Args:
        restyle: The model with the exemplar's content.
        nodes: What the exemplar does, shape ``(T, N, 3)``.
        code: The code that was read, shape ``(D,)``.

    Returns:
        The refined code, shape ``(D,)``.
    """
    moving = nodes - nodes.mean(axis=0, keepdims=True)
    spread = max(float(np.sqrt(np.square(moving).sum(-1).mean())), 1e-6)
    fitted, damping = code.astype(np.float64), _FIRST_DAMPING
    made = restyle(code[None])[0]
    loss = _loss(made, nodes, spread, fitted - code)
    for step in range(_STEPS):
        if step % _STEPS_A_JACOBIAN == 0:
            changes = _jacobian(restyle, fitted, made) / spread
        gradient, curvature = _derivatives(changes, made, nodes, spread)
        share = 2.0 * _NEARNESS / len(code)
        gradient = gradient + share * (fitted - code)
        curvature = curvature + share * np.eye(len(code))
        for _ in range(_TRIES):
            damped = curvature + damping * np.diag(np.diag(curvature))
            tried = fitted - np.linalg.solve(damped, gradient)
            moved = restyle(tried[None].astype(np.float32))[0]
            tried_loss = _loss(moved, nodes, spread, tried - code)
            if tried_loss < loss:
                fitted, made, loss, damping = tried, moved, tried_loss, 0.3 * damping
                break
            damping = max(10.0 * damping, 1e-2)
        else:
            break
    return np.asarray(fitted, np.float32)


def _loss(
    made: NDArray[np.float32],
    nodes: NDArray[np.float32],
    spread: float,
    step: NDArray[np.float64],
) -> float:
    squares = np.square((made - nodes) / spread).sum(-1)
    return float(np.sqrt(squares + _SOFTNESS**2).mean() + _NEARNESS * np.square(step).mean())


def _jacobian(
    restyle: Restyle, code: NDArray[np.float64], made: NDArray[np.float32]
) -> NDArray[np.float32]:
    """How the nodes move with each number of the code, ``(D, T * N, 3)``."""
    rows = np.empty((len(code), made.size // 3, 3), np.float32)
    moved = (code + _DIFFERENCE * np.eye(len(code))).astype(np.float32)
    for start in range(0, len(code), _CODES_AT_A_TIME):
        part = slice(start, start + _CODES_AT_A_TIME)
        changes = (restyle(moved[part]) - made) / np.float32(_DIFFERENCE)
        rows[part] = changes.reshape(len(changes), -1, 3)
    return rows


def _derivatives(
    changes: NDArray[np.float32],
    made: NDArray[np.float32],
    nodes: NDArray[np.float32],
    spread: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gradient ``(D,)`` and approximate second derivatives ``(D, D)`` of the motion's error.

    As in iteratively reweighted least squares, each node's error counts by the inverse of its
    penalty.
    """
    errors = ((made - nodes) / spread).reshape(-1, 3)
    weights = 1.0 / np.sqrt(np.square(errors).sum(-1, keepdims=True) + _SOFTNESS**2)
    roots = np.sqrt(weights).astype(np.float32)
    rows = (changes * roots).reshape(len(changes), -1)
    gradient = rows @ (errors * roots).ravel() / len(errors)
    return gradient.astype(np.float64), (rows @ rows.T / len(errors)).astype(np.float64)
