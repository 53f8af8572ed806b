# SPDX-License-Identifier: GPL-3.0-or-later
"""Which parameters Muon optimises: declared by layers, whatever they are called."""

import pytest
import torch
from torch import nn

from backend.model.optimizer_groups import muon_parameters, optimised_by_adamw
from backend.model.presets import PRESETS
from backend.model.ptalker import PTalker

BY_ADAMW = {
    "speech_content.encoder.feature_projection.projection.weight",
    "speech_content.phone_embedding.weight",
    "speech_content.spoken_embedding.weight",
    "identity_style.embedding.weight",
    "output_layer.weight",
}
LIPS = {"lip_reader.projection.weight", "lip_reader.phone_head.weight"}


@pytest.mark.parametrize(
    ("preset", "num_muon", "by_adamw", "decoder_layers"),
    [
        ("base", 226, BY_ADAMW | LIPS, 4),
        ("tiny", 100, BY_ADAMW | LIPS, 2),
        ("vocaset", 349, BY_ADAMW, 6),
        ("faceformer", 265, BY_ADAMW, 0),
    ],
)
def test_muon_has_all_matrices_but_those_at_the_networks_edges(
    preset, num_muon, by_adamw, decoder_layers
):
    with torch.device("meta"):
        model = PTalker(PRESETS[preset])
    by_adamw = by_adamw | {
        f"decoder.layers.{number}.distance_scores.weight" for number in range(decoder_layers)
    }
    chosen = {id(parameter) for parameter in muon_parameters(model)}
    matrices = {
        name: id(parameter)
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and parameter.requires_grad
    }
    assert {name for name, key in matrices.items() if key not in chosen} == by_adamw
    assert len(chosen) == len(matrices) - len(by_adamw) == num_muon


def test_a_name_does_not_change_the_choice():
    first, second = nn.Module(), nn.Module()
    inside, edge = nn.Linear(2, 3), optimised_by_adamw(nn.Linear(3, 4))
    first.inside, first.output = inside, edge
    second.head_of_embedded_shapes, second.plain = inside, edge
    for module in (first, second):
        (chosen,) = muon_parameters(module)
        assert chosen is inside.weight


def test_frozen_and_shared_parameters():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].weight.requires_grad_(False)
    model.append(model[1])
    assert [id(value) for value in muon_parameters(model)] == [id(model[1].weight)]
