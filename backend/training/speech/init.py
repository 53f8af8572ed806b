# SPDX-License-Identifier: GPL-3.0-or-later
"""The model that a training from speech starts with: a new one, or one from checkpoints."""

from collections.abc import Sequence
from pathlib import Path

import torch

from backend.errors import UserError
from backend.heads.lip_measures import MeasuredHead
from backend.model import checkpoint
from backend.model.config import ModelConfig
from backend.model.graph_encoder import face_point_graph
from backend.model.ptalker import PTalker
from backend.model.surgery import (
    can_extend,
    with_deeper_speech_encoder,
    with_lip_reader,
    with_phone_context,
)


def new_model(config: ModelConfig, mouth: MeasuredHead) -> PTalker:
    """A model with random parameters whose graph is the face points of a head.

    Args:
        config: Config of the model.
        mouth: Head whose face points are the graph.

    Returns:
        The model, in training mode.
    """
    model = PTalker(config)
    graph = face_point_graph(
        torch.from_numpy(mouth.points),
        torch.from_numpy(mouth.basis),
        model.config.num_neighbours,
    )
    model.set_graph(graph)
    return model


def trained_before(folders: Sequence[Path], config: ModelConfig, *, lip_steps: int) -> PTalker:
    """The model of a checkpoint, or the mean of several, with the layers of a newer config added.

    Args:
        folders: Folders of the checkpoints.
        config: Config that the model is to have.
        lip_steps: Steps in which the lip reader will be trained; a new one needs some.

    Returns:
        The model, in evaluation mode.

    Raises:
        UserError: A checkpoint cannot be read, or cannot be extended to the config.
    """
    model = checkpoint.load_mean(folders)
    if model.config.lip_layers == 0 < config.lip_layers:
        if lip_steps == 0:
            raise UserError(f'"{folders[0]}" cannot read lips yet: give --lip-steps 1 or more.')
        model = with_lip_reader(model, config)
    model = with_phone_context(model, config)
    if can_extend(model.config, config):
        model = with_deeper_speech_encoder(model, config)
    if model.config != config:
        raise UserError(
            f'The checkpoint "{folders[0]}" is built otherwise than the preset {config.preset} of'
            " now. Leave --start-from out, or give it a checkpoint of this preset."
        )
    return model
