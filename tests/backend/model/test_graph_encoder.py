# SPDX-License-Identifier: GPL-3.0-or-later
from dataclasses import replace

import pytest
import torch
from torch_geometric.nn import GATv2Conv

from backend.model.presets import PRESETS
from backend.model.ptalker import PTalker
from tests.backend.model.samples import build, random_graph

TINY = PRESETS["tiny"]


def test_graph_attention_equals_torch_geometrics_own():
    model = build(TINY)
    layer, table = model.graph_encoder.layers[0], model.graph_encoder.table
    published = GATv2Conv(6, TINY.graph_channels, heads=TINY.graph_heads)
    published.load_state_dict(layer.state_dict(), strict=True)
    N = len(table)
    x = torch.randn(3, N, 6)
    targets = torch.arange(N).repeat_interleave(table.shape[1] - 1)
    edges = torch.stack((table[:, 1:].flatten(), targets))
    for frame, found in zip(x, layer(x, table), strict=True):
        expected = published(frame, edges)  # which adds the loops itself
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_graph_of_other_sizes_is_rejected():
    model = PTalker(TINY)
    with pytest.raises(ValueError, match=r"basis has shape .*expected"):
        model.set_graph(random_graph(replace(TINY, shape_names=("a", "b"))))
