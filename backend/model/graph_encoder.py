# SPDX-License-Identifier: GPL-3.0-or-later
"""E_G: motion on the graph of a face, one feature a frame by graph attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.model.config import ModelConfig

_NUM_POOLS = 8
_CPU_FRAMES = 16


@dataclass(frozen=True, slots=True)
class MotionGraph:
    """The nodes of a face, their neighbours, and how motion displaces them.

    Solved shapes: nodes are face points, which a frame's weights move by ``basis``. Learned shapes:
    a node is a patch of vertices and moves as they do on average.

    Attributes:
        positions: Nodes at rest, centred, in a unit of about the face's size, shape ``(N, 3)``.
        neighbours: Other nodes that each node attends to, int64, shape ``(N, num_neighbours)``.
        basis: Displacement of the nodes by each shape, ``(K, N, 3)``; None for learned shapes.
        vertex_nodes: Node of each vertex, int64, shape ``(V,)``; None for solved shapes.
        scale: Factor that brings offsets to the unit of ``positions``.
    """

    positions: Tensor
    neighbours: Tensor
    basis: Tensor | None = None
    vertex_nodes: Tensor | None = None
    scale: float = 1.0


def face_point_graph(positions: Tensor, basis: Tensor, num_neighbours: int) -> MotionGraph:
    """The graph of solved shapes: each face point attends to the nearest others.

    Args:
        positions: Face points at rest, centred, in interocular distances, shape ``(N, 3)``.
        basis: Displacement of the face points by each shape, same unit, shape ``(K, N, 3)``.
        num_neighbours: Other face points that each attends to.

    Returns:
        The graph.
    """
    positions, basis = positions.float(), basis.float()
    return MotionGraph(positions, nearest_nodes(positions, num_neighbours), basis=basis)


def coarse_mesh_graph(
    vertices: Tensor, density: Tensor, *, num_nodes: int, num_neighbours: int
) -> MotionGraph:
    """The graph of learned shapes: a few hundred patches of a mesh, smaller where it is denser.

    Graph attention at full resolution takes 7 GB a layer for FLAME at batch 8, so nodes are
    chosen by farthest-point sampling, in which distances count more where ``density`` is high.
    Neighbours are the nearest by position and not by the mesh's edges, so that upper and lower
    lip, and the eyeballs and their lids, which no edge connects, are neighbours.

    Args:
        vertices: The template, shape ``(V, 3)``, in any unit; it is centred and scaled.
        density: How dense the nodes should be around each vertex, above 0, shape ``(V,)``.
        num_nodes: Nodes ``N``.
        num_neighbours: Other nodes that each node attends to.

    Returns:
        The graph.
    """
    vertices = vertices.float() - vertices.float().mean(0)
    scale = float(1.0 / vertices.square().sum(1).mean().sqrt())
    vertices = vertices * scale
    nearest = torch.full((len(vertices),), torch.inf)
    chosen = [int(density.argmax())]
    while True:
        distance = (vertices - vertices[chosen[-1]]).norm(dim=1)
        nearest = torch.minimum(nearest, distance)
        if len(chosen) == num_nodes:
            break
        chosen.append(int((nearest * density).argmax()))
    vertex_nodes = torch.cat(
        [torch.cdist(part, vertices[chosen]).argmin(1) for part in vertices.split(4096)]
    )
    positions = patch_means(vertices, vertex_nodes, num_nodes)
    neighbours = nearest_nodes(positions, num_neighbours)
    return MotionGraph(positions, neighbours, vertex_nodes=vertex_nodes, scale=scale)


def patch_means(x: Tensor, vertex_nodes: Tensor, num_nodes: int) -> Tensor:
    """Means over each node's vertices, shape ``(..., V, 3)`` to ``(..., N, 3)``."""
    counts = torch.bincount(vertex_nodes, minlength=num_nodes).clamp(min=1)
    sums = x.new_zeros(*x.shape[:-2], num_nodes, 3).index_add(-2, vertex_nodes, x)
    return sums / counts.unsqueeze(1)


def nearest_nodes(positions: Tensor, num_neighbours: int) -> Tensor:
    """The nearest other nodes of each node.

    Args:
        positions: Nodes at rest, shape ``(N, 3)``.
        num_neighbours: Neighbours of each node.

    Returns:
        Numbers of the nodes, int64 ``(N, num_neighbours)``.

    Raises:
        ValueError: There are not so many nodes.
    """
    if num_neighbours >= len(positions):
        raise ValueError(
            f"{num_neighbours} neighbours are asked of {len(positions)} nodes; each has at most "
            f"{len(positions) - 1}"
        )
    distances = torch.cdist(positions, positions).fill_diagonal_(torch.inf)
    return distances.topk(num_neighbours, largest=False).indices


class GraphAttention(nn.Module):
    """GATv2 (Brody et al. 2022) for the signals of many frames on one graph of equal degrees.

    Formula, parameters and their initialisation are those of PyTorch Geometric's ``GATv2Conv``,
    which a test compares. It is written out for two reasons. ``GATv2Conv`` wants one big graph of
    all frames and sums messages edge by edge; with the same neighbours in every frame, messages are
    batched by a table, three to eight times faster, and exportable. And importing
    ``torch_geometric`` takes seconds and loads ``transformers``, which generation does not need.

    Args:
        features: Features of a node that enter.
        channels: Channels of each head.
        heads: Attention heads, whose channels are concatenated.
    """

    _SLOPE = 0.2  # of the leaky ReLU below zero

    def __init__(self, features: int, channels: int, *, heads: int) -> None:
        super().__init__()
        self.heads, self.channels = heads, channels
        self.lin_l = nn.Linear(features, heads * channels)
        self.lin_r = nn.Linear(features, heads * channels)
        self.att = nn.Parameter(torch.empty(1, heads, channels))
        self.bias = nn.Parameter(torch.zeros(heads * channels))
        for weight in (self.lin_l.weight, self.lin_r.weight, self.att):
            nn.init.xavier_uniform_(weight[0] if weight.ndim == 3 else weight)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """Attend.

        Args:
            x: Node features of all frames, shape ``(G, N, features)``.
            table: Neighbours of each node, itself among them, int64 ``(N, D)``.

        Returns:
            Node features, shape ``(G, N, heads * channels)``.
        """
        sources = self.lin_l(x).index_select(1, table.T.flatten()).unflatten(1, table.T.shape)
        scores = F.leaky_relu(sources + self.lin_r(x).unsqueeze(1), self._SLOPE)
        own_head = torch.eye(self.heads, device=x.device).unsqueeze(1)  # each head's channels alone
        weigh = (self.att[0].unsqueeze(-1) * own_head).flatten(0, 1)  # (H * C, H)
        shares = (scores @ weigh).softmax(1)  # (G, D, N, H): fastest with neighbours outside
        sources = sources.unflatten(-1, (self.heads, self.channels))
        out: Tensor = (sources * shares.unsqueeze(-1)).sum(1).flatten(2) + self.bias
        return out


class GraphEncoder(nn.Module):
    """E_G: displacements of the nodes to one feature a frame.

    Departures: the released code has a linear layer from all vertices instead (``motion_encoder =
    "linear"`` is its like); a node also knows its place at rest; frames are independent of each
    other here, so that it serves training, which sees all frames, and decoding, which sees one.
    """

    positions: Tensor
    scale: Tensor
    basis: Tensor
    vertex_nodes: Tensor
    table: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        N = config.num_nodes
        self.motion_scale = config.motion_scale
        self.solved = config.shape_kind == "solved"
        self.register_buffer("positions", torch.zeros(N, 3))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("table", torch.zeros(N, config.num_neighbours + 1, dtype=torch.int64))
        if self.solved:
            self.register_buffer("basis", torch.zeros(len(config.shape_names), N, 3))
        else:
            self.register_buffer(
                "vertex_nodes", torch.zeros(config.num_vertices, dtype=torch.int64)
            )
        width = config.graph_heads * config.graph_channels
        self.width = _NUM_POOLS * width
        self.linear = nn.Linear(3 * N, self.width) if config.motion_encoder == "linear" else None
        if self.linear is None:
            self.layers = nn.ModuleList(
                GraphAttention(
                    width if layer else 6, config.graph_channels, heads=config.graph_heads
                )
                for layer in range(config.graph_layers)
            )
            self.gate = nn.Linear(width + 3, _NUM_POOLS)
            self.value = nn.Linear(width, width)

    def set_graph(self, graph: MotionGraph) -> None:
        """Store the graph in the module's buffers.

        Args:
            graph: The graph of a face.

        Raises:
            ValueError: The graph has other sizes than the config says.
        """
        nodes = torch.arange(len(graph.positions)).unsqueeze(1)
        self.scale.fill_(graph.scale)
        given = {
            "positions": graph.positions,
            "table": torch.cat((nodes, graph.neighbours), dim=1),
            "basis" if self.solved else "vertex_nodes": graph.basis
            if self.solved
            else graph.vertex_nodes,
        }
        for name, value in given.items():
            buffer = getattr(self, name)
            if value is None or value.shape != buffer.shape:
                found = None if value is None else tuple(value.shape)
                raise ValueError(
                    f"The graph's {name} has shape {found}, expected {tuple(buffer.shape)}"
                )
            buffer.copy_(value)

    def displacements(self, motion: Tensor) -> Tensor:
        """Of the nodes: motion ``(B, T, K)`` or ``(B, T, V, 3)`` to ``(B, T, N, 3)``."""
        if self.solved:
            return torch.einsum("btk,kni->btni", motion, self.basis)
        return self.pool(motion) * self.scale

    def pool(self, vertices: Tensor) -> Tensor:
        """Learned shapes: means over each node's vertices, ``(..., V, 3)`` to ``(..., N, 3)``."""
        return patch_means(vertices, self.vertex_nodes, len(self.positions))

    def forward(self, nodes: Tensor) -> Tensor:
        """Encode.

        Args:
            nodes: Displacements of the nodes, shape ``(B, T, N, 3)``.

        Returns:
            One feature a frame, shape ``(B, T, width)``.
        """
        moved = (nodes * self.motion_scale).flatten(0, 1)  # (G, N, 3)
        if self.linear is not None:
            out = self.linear(moved.flatten(1))
        else:
            out = torch.cat([self._attend(part) for part in self._parts(moved)])
        return out.unflatten(0, nodes.shape[:2])

    def _parts(self, moved: Tensor) -> tuple[Tensor, ...]:
        """On a CPU a few frames at a time, whose messages its cache holds: three times faster."""
        is_whole = moved.device.type != "cpu" or torch.compiler.is_exporting()
        return (moved,) if is_whole else moved.split(_CPU_FRAMES)

    def _attend(self, moved: Tensor) -> Tensor:
        places = self.positions.expand_as(moved)
        x = torch.cat((moved, places), dim=-1)
        for number, layer in enumerate(self.layers):
            y = F.elu(layer(x, self.table))
            x = x + y if number else y
        shares = self.gate(torch.cat((x, places), dim=-1)).softmax(1)  # (G, N, P)
        return torch.bmm(shares.transpose(1, 2), self.value(x)).flatten(1)
