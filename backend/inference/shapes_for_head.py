# SPDX-License-Identifier: GPL-3.0-or-later
"""A model's shapes on a head: solved on it, or learned ones brought into its space."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from backend.errors import UserError
from backend.heads.mesh import similarity_fit
from backend.heads.shape_checks import check_shapes
from backend.heads.solve import solve_shapes
from backend.heads.topology import Head, load_topology, shipped_topologies
from backend.model.ptalker import PTalker

_KEPT_HEADS: Final = 4
_LARGEST_MISFIT: Final = 0.35
"""Mean distance of fitted nodes in radii: faces differ by a tenth, another order by 1."""

_Kept = tuple[tuple[str, ...], NDArray[np.float32], list[str]]


class HeadShapes:
    """The shapes of one model on any head; those of the last few heads are kept."""

    def __init__(self, model: PTalker) -> None:
        self._model = model
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

    def _computed(self, head: Head) -> _Kept:
        config = self._model.config
        if config.shape_kind == "solved":
            solved = solve_shapes(head)
            order = [solved.names.index(name) for name in config.shape_names]
            is_known = head.topology.name in shipped_topologies()
            warnings = [] if is_known else check_shapes(head, solved.offsets)
            return config.shape_names, solved.offsets[order], warnings
        learned = self._model.shapes().cpu().numpy() @ self.turn(head)
        # What a head has beyond its topology does not move with learned shapes.
        shapes = np.zeros((len(learned), len(head.vertices), 3), np.float32)
        shapes[:, : config.num_vertices] = learned
        return tuple(str(k) for k in range(len(shapes))), shapes, []

    def turn(self, head: Head) -> NDArray[np.float32]:
        """The matrix that takes offsets of the model's learned shapes to the head's own space.

        Found by a similarity fit of the model's graph nodes to the same nodes on the head.

        Args:
            head: The head to animate.

        Returns:
            Matrix that is multiplied from the right, shape ``(3, 3)``.

        Raises:
            UserError: The head has another topology than the model, or its vertices another order.
        """
        config = self._model.config
        wanted = config.topology
        if head.topology.num_vertices != config.num_vertices:
            raise UserError(
                f"This model animates heads of the topology {config.topology} "
                f"({config.num_vertices} vertices); this one is {head.topology.name} "
                f"({head.topology.num_vertices}). Choose such a head, or the bundled model."
            )
        graph = self._model.graph_encoder
        own = head.vertices[: config.num_vertices]
        nodes = graph.pool(torch.from_numpy(own).to(graph.positions.device)).cpu().numpy()
        positions = graph.positions.cpu().numpy()
        fit = similarity_fit(positions, nodes)
        radius = np.linalg.norm(nodes - nodes.mean(axis=0), axis=1).mean()
        misfit = np.linalg.norm(fit.apply(positions) - nodes, axis=1).mean() / radius
        is_shipped = wanted in shipped_topologies()
        has_same_faces = (
            not is_shipped or load_topology(wanted).fingerprint == head.topology.fingerprint
        )
        if not has_same_faces or misfit > _LARGEST_MISFIT:
            raise UserError(
                f"This head has as many vertices as those that the model animates ({wanted}, "
                f"{config.num_vertices}), but in another order, for example by an OBJ import. "
                "Import it again with the vertex order kept, or choose the bundled model."
            )
        return np.asarray(float(graph.scale) * fit.scale * fit.rotation.T, np.float32)


def _head_key(head: Head) -> str:
    digest = hashlib.sha256()
    for array in (head.vertices, head.corners, head.topology.face_point_vertices):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
