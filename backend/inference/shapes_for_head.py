# SPDX-License-Identifier: GPL-3.0-or-later
"""A model's shapes on a head: solved on it, or learned ones brought into its space."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend.heads.solve import solve_shapes
from backend.heads.topology import Head
from backend.inference.engine import LearnedShapes
from backend.model.config import ModelConfig

_KEPT_HEADS: Final = 4


class HeadShapes:
    """The shapes of one model on any head; those of the last few heads are kept."""

    def __init__(self, config: ModelConfig, learned: LearnedShapes | None = None) -> None:
        """Prepare.

        Args:
            config: The model's config.
            learned: Its learned shapes; None where they are solved.
        """
        self._config, self._learned = config, learned
        self._lock = threading.Lock()  # jobs of a list run in threads
        self._kept: OrderedDict[str, tuple[tuple[str, ...], NDArray[np.float32]]] = OrderedDict()

    def on(self, head: Head) -> tuple[tuple[str, ...], NDArray[np.float32]]:
        """Names and shapes (K, V, 3) of the model on this head; the last few heads are kept."""
        key = _head_key(head)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = self._computed(head)
                while len(self._kept) > _KEPT_HEADS:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]

    def to_model(self, head: Head) -> NDArray[np.float32]:
        """The matrix that takes offsets of a head to a model of learned shapes, ``(3, 3)``."""
        assert self._learned is not None
        return self._learned.to_model(head)

    def _computed(self, head: Head) -> tuple[tuple[str, ...], NDArray[np.float32]]:
        if self._learned is not None:
            shapes = self._learned.on(head)
            return tuple(str(k) for k in range(len(shapes))), shapes
        solved = solve_shapes(head)
        order = [solved.names.index(name) for name in self._config.shape_names]
        return self._config.shape_names, solved.offsets[order]


def _head_key(head: Head) -> str:
    digest = hashlib.sha256()
    for array in (head.vertices, head.corners, head.topology.face_point_vertices):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
