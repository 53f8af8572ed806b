# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage *styles*: the motion style encoder learns to read styles off motions."""

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn

from backend.data.speech.batches import EXEMPLAR_FRAMES, MotionRecipe, style_batch
from backend.data.speech.dataset import SpeechData
from backend.model.attention import frame_mask
from backend.model.ptalker import PTalker
from backend.training.loop import BATCHES_PER_STEP, Stage

_FITTED_BATCHES: Final = 100
_FITTED_AT_ONCE: Final = 100
_HEAD_BATCHES: Final = 8
_VALIDATION_BATCHES: Final = 6


class _StyleReader(nn.Module):
    """The motion style encoder with a linear layer that reads a style's dimensions off its code."""

    def __init__(self, model: PTalker, style_head: nn.Linear) -> None:
        super().__init__()
        self.graph_encoder = model.graph_encoder
        self.motion_style = model.motion_style
        self.style_head = style_head
        self._style = [model.encode_style]  # in a list, so that the model is no submodule

    def forward(self, motion: Tensor, lengths: Tensor) -> Tensor:
        vectors: Tensor = self.style_head(self._style[0](motion, lengths).code)
        return vectors


def fit_style_reader(
    model: PTalker, style_head: nn.Linear, data: SpeechData, *, seed: int, num_steps: int
) -> float:
    """Solves the part of E_m^s that has a closed form, on motions of known styles.

    Args:
        model: Model whose motion style encoder is fitted.
        style_head: Linear layer from a code to the style's dimensions; the identity afterwards.
        data: Speech to draw from.
        seed: Seed of the run.
        num_steps: Length of the stage that follows; a short one gets fewer motions, at most
            10,000.

    Returns:
        The mean squared error on these motions; that of the mean style is 0.25.
    """
    graph, scale = model.graph_encoder, model.config.motion_scale
    recipe = MotionRecipe(batch_size=_FITTED_AT_ONCE, style_frames=EXEMPLAR_FRAMES)
    device = graph.basis.device

    def examples() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for number in range(min(_FITTED_BATCHES, max(1, num_steps))):
            motion, lengths, vectors = style_batch(data, recipe, seed=seed + 2000, number=number)
            nodes = graph.displacements(motion.to(device)) * scale
            mask = frame_mask(lengths.to(device), nodes.shape[1])
            yield nodes, mask, vectors[:, : model.config.style_dim].to(device)

    with torch.no_grad():
        style_head.weight.zero_().fill_diagonal_(1.0)
        style_head.bias.zero_()
    return model.motion_style.fit(examples())


def fit_style_maps(
    model: PTalker, style_head: nn.Linear, style_codes: nn.Linear, data: SpeechData, *, seed: int
) -> None:
    """Solves two maps by least squares, for a model whose codes have their meaning already.

    Args:
        model: Model whose motion style encoder reads the codes; it stays as it is.
        style_head: Linear layer from a code to the style's dimensions; solved.
        style_codes: Linear layer from a style's dimensions to the mean code of the style; solved.
        data: Speech to draw from.
        seed: Seed of the run.
    """
    recipe = MotionRecipe(batch_size=_FITTED_AT_ONCE, style_frames=EXEMPLAR_FRAMES)
    device = style_head.weight.device
    codes, vectors = [], []
    with torch.no_grad():
        for number in range(_HEAD_BATCHES):
            motion, lengths, wanted = style_batch(data, recipe, seed=seed + 2000, number=number)
            codes.append(model.encode_style(motion.to(device), lengths.to(device)).code.cpu())
            vectors.append(wanted)
    _solve(style_head, torch.cat(codes), torch.cat(vectors))
    _solve(style_codes, torch.cat(vectors), torch.cat(codes))


@torch.no_grad()
def _solve(linear: nn.Linear, x: Tensor, y: Tensor) -> None:
    """Least squares of ``y`` ``(n, out)`` on ``x`` ``(n, in)``."""
    x = torch.cat((x, torch.ones_like(x[:, :1])), dim=1).double()
    solved = torch.linalg.lstsq(x, y.double(), driver="gelsd").solution
    linear.weight.copy_(solved[:-1].T)
    linear.bias.copy_(solved[-1])


def style_stage(
    model: PTalker,
    style_head: nn.Linear,
    data: SpeechData,
    *,
    seed: int,
    batch_size: int,
    num_steps: int,
) -> Stage:
    """The stage in which the motion style encoder is trained.

    Args:
        model: Model whose motion style encoder is trained.
        style_head: Linear layer from a code to the style's dimensions.
        data: Speech to draw from.
        seed: Seed of the run.
        batch_size: Number of exemplars in a step.
        num_steps: Length of the stage.

    Returns:
        The stage.
    """
    recipe = MotionRecipe(
        batch_size=max(2, batch_size // BATCHES_PER_STEP), style_frames=EXEMPLAR_FRAMES
    )

    def error(reader: nn.Module, seed: int, number: int) -> Tensor:
        motion, lengths, vectors = style_batch(data, recipe, seed=seed, number=number)
        read = reader(motion, lengths).float()
        return (read - vectors.to(read.device)).square().mean()

    def validate(reader: nn.Module) -> dict[str, float]:
        errors = [error(reader, seed + 1000, number) for number in range(_VALIDATION_BATCHES)]
        return {"score": -float(torch.stack(errors).mean())}

    return Stage(
        name="styles",
        module=_StyleReader(model, style_head),
        terms=lambda reader, number: {"style_dimensions": error(reader, seed, number)},
        validate=validate,
        num_steps=num_steps,
        learning_rate=1e-3,
        num_validations=4,
        batches_per_step=BATCHES_PER_STEP,
    )
