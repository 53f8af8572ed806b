# SPDX-License-Identifier: GPL-3.0-or-later
"""Ablations: PTalker without one of its parts, to measure what the part is worth."""

from collections.abc import Sequence
from dataclasses import replace

from backend.errors import UserError
from backend.model.config import LossWeights, ModelConfig


def without(
    config: ModelConfig, weights: LossWeights, parts: Sequence[str]
) -> tuple[ModelConfig, LossWeights]:
    """Config and loss weights with some parts left out or replaced by simpler ones.

    Args:
        config: Config of the whole model.
        weights: Weights of all loss terms.
        parts: Parts to leave out, of ``cli.train.PARTS``. ``graph-attention``: a linear layer
            encodes motion instead. ``cross-attention``: each frame gets its own frame of content,
            by a linear layer. ``alignment-losses``: no top-k contrast of contents, no KL
            divergence. ``disentanglement``: no orthogonality of content and style, no adversary.

    Returns:
        The config and the loss weights without these parts.

    Raises:
        UserError: A name is of no such part.
    """
    for part in parts:
        if part == "graph-attention":
            config = replace(config, motion_encoder="linear")
        elif part == "cross-attention":
            config = replace(config, alignment="linear")
        elif part == "alignment-losses":
            weights = replace(weights, contrastive=0.0, divergence=0.0)
        elif part == "disentanglement":
            weights = replace(weights, orthogonality=0.0, adversary=0.0)
        else:
            raise UserError(f"There is no part {part!r} to leave out; --help names them.")
    return config, weights
