# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights of both sides of the face, and points along rows of vertices."""

import numpy as np


def both(name, weight=1.0):
    return {f"{name}Left": weight, f"{name}Right": weight}


def samples(positions, row):
    """Points on a row of vertices: numbers of its segments' ends, and how far between them."""
    steps = np.linspace(0.0, 1.0, 33)
    start = np.repeat(np.arange(len(row) - 1), len(steps))
    along = np.tile(steps, len(row) - 1)
    points = (
        positions[row[start]] * (1 - along)[:, None] + positions[row[start + 1]] * along[:, None]
    )
    return start, along, points
