# SPDX-License-Identifier: GPL-3.0-or-later
"""A model's shapes on a head: solved on it, or learned ones brought into its space."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend.heads.shape_checks import check_shapes
from backend.heads.solve import solve_shapes
from backend.heads.topology import Head, shipped_topologies
from backend.inference.engine import LearnedShapes
from backend.model.config import ModelConfig

_KEPT_HEADS: Final = 4

_Kept = tuple[tuple[str, ...], NDArray[np.float32], list[str]]


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
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def on(self, head: Head) -> tuple[tuple[str, ...], NDArray[np.float32]]:
        """Names and shapes (K, V, 3) of the model on this head; the last few heads are kept."""
        return self._of(head)[:2]

    def warnings(self, head: Head) -> list[str]:
        """What looks wrong on the shapes that were solved on this head."""
        return self._of(head)[2]

    def _of(self, head: Head) -> _Kept:
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

    def _computed(self, head: Head) -> _Kept:
        if self._learned is not None:
            learned = self._learned.on(head)
            # What a head has beyond its topology does not move with learned shapes.
            shapes = np.zeros((len(learned), len(head.vertices), 3), np.float32)
            shapes[:, : learned.shape[1]] = learned
            return tuple(str(k) for k in range(len(shapes))), shapes, []
        solved = solve_shapes(head)
        order = [solved.names.index(name) for name in self._config.shape_names]
        is_known = head.topology.name in shipped_topologies()
        warnings = [] if is_known else check_shapes(head, solved.offsets)
        return self._config.shape_names, solved.offsets[order], warnings


def _head_key(head: Head) -> str:
    digest = hashlib.sha256()
    for array in (head.vertices, head.corners, head.topology.face_point_vertices):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
