# SPDX-License-Identifier: GPL-3.0-or-later
"""Training without one of PTalker's parts, to see what the part is worth.

Apart from ``config.py``, which says what a model is and not what is doubted about it.
"""

from collections.abc import Sequence
from dataclasses import replace

from backend.errors import UserError
from backend.model.config import LossWeights, ModelConfig


def without(
    config: ModelConfig, weights: LossWeights, parts: Sequence[str]
) -> tuple[ModelConfig, LossWeights]:
    """The model and the losses with some parts left out or replaced by simpler ones.

    Args:
        config: Of the whole model.
        weights: Factors of all losses.
        parts: Of ``train_options.PARTS``. ``graph-attention``: a linear layer encodes motion
            instead. ``cross-attention``: a frame gets its own frame of content, by a linear layer.
            ``alignment-losses``: no top-k contrast of contents, no KL divergence.
            ``disentanglement``: no orthogonality of content and style, no adversary.

    Raises:
        UserError: There is no such part.
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
