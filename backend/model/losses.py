# SPDX-License-Identifier: GPL-3.0-or-later
"""The loss terms, one pure function each, and their weights.

All of them leave padding out, are finite at batch one, and do not depend on the order of the batch.
Where a term departs from the released code, that is since the code's term is zero at batch one, has
the wrong sign, grows with length or scale, or is never called.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields

import torch
import torch.nn.functional as F
from torch import Tensor

from backend.model.batch import TrainingBatch, TrainingOutputs
from backend.model.config import LossWeights, TrainConfig
from backend.model.loss_geometry import FaceGeometry
from backend.model.style_encoders import StyleCodes

_EPSILON = 1e-6
_EXCLUDED = -1e4
_OTHERS_STRIDE = 4  # of other sequences' frames as negatives: neighbours are nearly the same


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over what is valid, 0 where nothing is; ``mask`` has the leading axes of ``values``."""
    weight = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim)).expand_as(values)
    weight = weight.to(values.dtype)
    return (torch.where(weight > 0, values, 0.0) * weight).sum() / weight.sum().clamp(min=1.0)


def reconstruction(predicted: Tensor, true: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of weights ``(B, T, K)`` or offsets ``(B, T, V, 3)``."""
    return masked_mean((predicted - true).square(), mask)


def displacement(predicted: Tensor, true: Tensor, mask: Tensor, point_weights: Tensor) -> Tensor:
    """Weighted mean of the points' squared distances, ``(B, T, P, 3)``.

    A weight per point takes the place of the released code's second term for the mouth, which, by
    an index into a flattened axis, touched no vertex of the mouth.
    """
    return masked_mean((predicted - true).square().sum(-1) * point_weights, mask)


def velocity(predicted: Tensor, true: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of the first differences over time."""
    return masked_mean(
        (predicted.diff(dim=1) - true.diff(dim=1)).square(), mask[:, 1:] & mask[:, :-1]
    )


def spread(predicted: Tensor, true: Tensor, mask: Tensor, point_weights: Tensor) -> Tensor:
    """Weighted mean of the squared errors of how far points ``(B, T, P, 3)`` move over time.

    Squared errors of places are least at the mean of all that may be true, which moves less than
    any of it; this term asks for the standard deviation itself. It is not the paper's.
    """
    error = _deviation(predicted, mask) - _deviation(true, mask)
    return masked_mean(error.square() * point_weights, mask.any(1))


def speed(predicted: Tensor, true: Tensor, mask: Tensor, point_weights: Tensor) -> Tensor:
    """The same of the speed: squared errors of the root mean square of the first differences."""
    both = mask[:, 1:] & mask[:, :-1]
    moved, should = predicted.diff(dim=1), true.diff(dim=1)
    error = _root_mean_square(moved, both) - _root_mean_square(should, both)
    return masked_mean(error.square() * point_weights, both.any(1))


def _deviation(points: Tensor, mask: Tensor) -> Tensor:
    """Root of the variance over time of points ``(B, T, P, 3)``, shape ``(B, P)``."""
    weight = mask[..., None, None].to(points.dtype)
    mean = (points * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1.0)
    return _root_mean_square(points - mean, mask)


def _root_mean_square(points: Tensor, mask: Tensor) -> Tensor:
    """Over time, of the lengths of vectors ``(B, T, P, 3)``, shape ``(B, P)``."""
    weight = mask[..., None].to(points.dtype)
    total = (points.square().sum(-1) * weight).sum(1)
    return (total / weight.sum(1).clamp(min=1.0) + _EPSILON**2).sqrt()


def lip_distance(predicted_gaps: Tensor, true_gaps: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute error of the distances of lip pairs; gaps ``(B, T, L, 3)``."""
    return masked_mean((_length(predicted_gaps) - _length(true_gaps)).abs(), mask)


def closure(predicted_gaps: Tensor, true_gaps: Tensor, mask: Tensor, closed: float) -> Tensor:
    """Mean distance by which lip pairs miss each other where they should meet.

    Gaps are compared as vectors, so that lips which pass through each other are missed too. Source:
    Imitator's closure loss, there on bilabials, here wherever the true distance is below
    ``closed``.
    """
    meet = mask.unsqueeze(-1) & (_length(true_gaps) < closed)
    return masked_mean(_length(predicted_gaps - true_gaps), meet)


def _length(x: Tensor) -> Tensor:
    return (x.square().sum(-1) + _EPSILON**2).sqrt()


def contrastive(
    motion: Tensor,
    audio: Tensor,
    mask: Tensor,
    *,
    positive_frames: int,
    guard_frames: int,
    negative_share: float,
    temperature: float,
) -> Tensor:
    """Top-k bidirectional contrast: content of motion and of audio agree at the same time.

    Positives are the frames around the same time, negatives the ``negative_share`` of the
    sequence's frames outside of a guard band that are most alike, and frames of the other
    sequences, which count as much as the former together. Departures: the released code's
    positives are the most alike frames, at any time, so nothing aligns; it has no guard band,
    though neighbours are nearly the same; and its penalty of feature norms is not needed here,
    where only directions count.

    Args:
        motion: Content of motion, shape ``(B, T, F)``.
        audio: Content of audio, likewise.
        mask: True at valid frames, shape ``(B, T)``.
        positive_frames: How far positives lie from the same time.
        guard_frames: How far negatives must lie from it.
        negative_share: Above.
        temperature: Of the softmax.

    Returns:
        The mean over frames and both directions, at least 0.
    """
    motion, audio = F.normalize(motion, dim=-1), F.normalize(audio, dim=-1)
    settings = (mask, positive_frames, guard_frames, negative_share, temperature)
    return 0.5 * (_contrast(motion, audio, *settings) + _contrast(audio, motion, *settings))


def _contrast(
    query: Tensor,
    key: Tensor,
    mask: Tensor,
    positive_frames: int,
    guard_frames: int,
    negative_share: float,
    temperature: float,
) -> Tensor:
    T = query.shape[1]
    frames = torch.arange(T, device=query.device)
    apart = (frames - frames.unsqueeze(1)).abs()
    scores = torch.einsum("bif,bjf->bij", query, key) / temperature
    valid = mask.unsqueeze(1)  # of the keys
    positive = scores.masked_fill(~(valid & (apart <= positive_frames)), _EXCLUDED).logsumexp(2)
    count = (negative_share * mask.sum(1)).ceil().clamp(min=1)  # (B,)
    most = min(T, math.ceil(negative_share * T))
    own = scores.masked_fill(~(valid & (apart > guard_frames)), _EXCLUDED).topk(most, dim=2).values
    rank = torch.arange(most, device=query.device)
    own = own.masked_fill(rank >= count[:, None, None], _EXCLUDED).logsumexp(2)
    negative = torch.logaddexp(own, _others(query, key, mask, temperature, count))
    return masked_mean(torch.logaddexp(positive, negative) - positive, mask)


def _others(query: Tensor, key: Tensor, mask: Tensor, temperature: float, count: Tensor) -> Tensor:
    """Log of ``count`` times the mean over other sequences' frames, shape ``(B, T)``."""
    key, usable = key[:, ::_OTHERS_STRIDE], mask[:, ::_OTHERS_STRIDE]
    scores = torch.einsum("bif,cjf->bicj", query, key) / temperature
    other = ~torch.eye(len(query), dtype=torch.bool, device=query.device)
    usable = other.unsqueeze(2) & usable.unsqueeze(0)  # (B, C, J)
    scores = scores.masked_fill(~usable.unsqueeze(1), _EXCLUDED).flatten(2)
    number = usable.sum((1, 2)).clamp(min=1)
    return scores.logsumexp(2) + (count / number).log().unsqueeze(1)


def divergence(motion: Tensor, audio: Tensor, mask: Tensor) -> Tensor:
    """Symmetric Kullback-Leibler divergence of the two contents' Gaussians over time.

    Diagonal, of layer-normalised features, mean over dimensions and sequences. The released
    code's is one-sided and a sum over dimensions of raw features.
    """
    mean_m, var_m = _moments(motion, mask)
    mean_a, var_a = _moments(audio, mask)
    apart = (mean_m - mean_a).square()
    both = (var_a + apart) / var_m + (var_m + apart) / var_a - 2.0  # logarithms cancel
    return masked_mean(0.25 * both, mask.any(1))


def _moments(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    x = F.layer_norm(x, x.shape[-1:], eps=1e-12)  # whatever its scale
    weight = mask.unsqueeze(-1).to(x.dtype)
    count = weight.sum(1).clamp(min=1.0)
    mean = (x * weight).sum(1) / count
    variance = ((x - mean.unsqueeze(1)).square() * weight).sum(1) / count
    return mean, variance.clamp(min=1e-4)


def orthogonality(content: Tensor, style: Tensor, mask: Tensor) -> Tensor:
    """How much the channels of content and of style vary together over time, 0 to 1.

    ``|C^T S|_F^2 / (F D)`` of channels that are centred and of length 1 over the valid frames, so
    neither length nor scale matter, as they do in the released code.

    Args:
        content: Shape ``(B, T, F)``.
        style: Shape ``(B, T, D)``.
        mask: True at valid frames, shape ``(B, T)``.

    Returns:
        The mean over sequences.
    """
    product = torch.einsum(
        "btf,btd->bfd", _unit_channels(content, mask), _unit_channels(style, mask)
    )
    return masked_mean(product.square(), mask.any(1))


def _unit_channels(x: Tensor, mask: Tensor) -> Tensor:
    weight = mask.unsqueeze(-1).to(x.dtype)
    mean = (x * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1.0)
    centred = (x - mean) * weight
    return centred / (centred.square().sum(1, keepdim=True) + _EPSILON**2).sqrt()


def style_contrast(codes: Tensor, same: Tensor, present: Tensor, temperature: float) -> Tensor:
    """Supervised InfoNCE: codes of one style are more alike than codes of two.

    The released code contrasts content with style, takes the pair of one sequence as positive,
    which pulls together what should be kept apart, and is zero at batch one. Source: Khosla et
    al. 2020.

    Args:
        codes: Shape ``(M, D)``.
        same: Whether two codes are of one style, bool, shape ``(M, M)``.
        present: Which codes there are, bool, shape ``(M,)``.
        temperature: Of the softmax.

    Returns:
        The mean over codes that have a positive.
    """
    unit = F.normalize(codes, dim=-1)
    usable = present & ~torch.eye(len(codes), dtype=torch.bool, device=codes.device)
    scores = (unit @ unit.T / temperature).masked_fill(~usable, _EXCLUDED)
    gains = scores - scores.logsumexp(1, keepdim=True)
    positive = same & usable
    per_code = (gains * positive).sum(1) / positive.sum(1).clamp(min=1)
    return masked_mean(-per_code, present & positive.any(1))


def style_consistency(styles: Sequence[StyleCodes]) -> Tensor:
    """Mean of ``1 - cos`` over pairs of sources that are both present; the figure's L_cos.

    The released code has the function and never calls it.
    """
    values, masks = [], []
    for number, one in enumerate(styles):
        for other in styles[number + 1 :]:
            values.append(1.0 - F.cosine_similarity(one.code, other.code, dim=-1))
            masks.append(one.present & other.present)
    return masked_mean(torch.stack(values), torch.stack(masks))


def adversary(logits: Tensor, speaker: Tensor) -> Tensor:
    """Cross entropy of the guessed speaker ``(B, N)`` where the speaker is known, else 0."""
    entropy = F.cross_entropy(logits, speaker.clamp(min=0), reduction="none")
    return masked_mean(entropy, speaker >= 0)


def cycle(
    found_content: Tensor,
    content: Tensor,
    mask: Tensor,
    found_style: StyleCodes,
    wanted_style: Tensor,
) -> Tensor:
    """After a swap of styles: content is found again, and the swapped style is.

    Args:
        found_content: In the motion made, shape ``(B, T, F)``.
        content: That was put in, likewise.
        mask: True at valid frames, shape ``(B, T)``.
        found_style: In the motion made; present where the style put in is known.
        wanted_style: That was put in, shape ``(B, D)``.

    Returns:
        Mean absolute error of content plus ``1 - cos`` of style.
    """
    kept = masked_mean((found_content - content).abs(), mask)
    turned = 1.0 - F.cosine_similarity(found_style.code, wanted_style, dim=-1)
    return kept + masked_mean(turned, found_style.present)


def phones(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of phone ids ``(B, S, P)`` against ``(B, S)``, -100 being unknown."""
    entropy = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=-100)
    return masked_mean(entropy, targets >= 0)


def weighted(terms: Mapping[str, Tensor], weights: LossWeights) -> dict[str, Tensor]:
    """Every loss term times its weight; the only place where losses are weighted.

    Args:
        terms: Loss terms by the names of ``LossWeights``.
        weights: Factors of the terms.

    Returns:
        The weighted terms, whose sum is the loss.

    Raises:
        ValueError: A term has no weight.
    """
    unknown = sorted(set(terms) - {item.name for item in fields(weights)})
    if unknown:
        raise ValueError(f"LossWeights has no weight for the loss terms {', '.join(unknown)}")
    return {name: getattr(weights, name) * value for name, value in terms.items()}


def total(
    outputs: TrainingOutputs, batch: TrainingBatch, geometry: FaceGeometry, config: TrainConfig
) -> dict[str, Tensor]:
    """All weighted loss terms of a training step; their sum is the loss.

    Args:
        outputs: Outputs of the model's forward pass.
        batch: Batch that the model was given.
        geometry: Points of the face at which motion is measured.
        config: Weights and settings of the terms.

    Returns:
        The weighted terms, by the names of ``LossWeights``.
    """
    weights, device = config.weights, outputs.motion.device.type
    with torch.autocast(
        device, enabled=False
    ):  # lips miss each other by less than bfloat16 can say
        outputs = outputs.float()
        mask = outputs.mask
        terms = motion_terms(outputs.motion, batch.motion, mask, geometry, config)
        again = motion_terms(outputs.motion_from_motion, batch.motion, mask, geometry, config)
        terms["motion_branch"] = torch.stack(list(weighted(again, weights).values())).sum()
        terms |= content_terms(outputs, batch, config) | style_terms(outputs, batch, config)
        return weighted(terms, weights)


def motion_terms(
    predicted: Tensor, true: Tensor, mask: Tensor, geometry: FaceGeometry, config: TrainConfig
) -> dict[str, Tensor]:
    """The terms that compare motion with the truth."""
    moved, should = geometry.displacements(predicted), geometry.displacements(true)
    gaps, true_gaps = geometry.lip_gaps(moved), geometry.lip_gaps(should)
    return {
        "reconstruction": reconstruction(predicted, true, mask),
        "displacement": displacement(moved, should, mask, geometry.point_weights),
        "velocity": velocity(predicted, true, mask),
        "spread": spread(moved, should, mask, geometry.point_weights),
        "speed": speed(moved, should, mask, geometry.point_weights),
        "lip_distance": lip_distance(gaps, true_gaps, mask),
        "closure": closure(gaps, true_gaps, mask, config.closed_lips),
    }


def content_terms(
    outputs: TrainingOutputs, batch: TrainingBatch, config: TrainConfig
) -> dict[str, Tensor]:
    """The terms that make two contents one and keep style out of both."""
    out, mask = outputs, outputs.content_mask
    motion, audio = out.motion_content, out.audio_content
    terms = {
        "contrastive": contrastive(
            motion,
            audio,
            mask,
            positive_frames=config.positive_frames,
            guard_frames=config.guard_frames,
            negative_share=config.negative_share,
            temperature=config.content_temperature,
        ),
        "divergence": divergence(motion, audio, mask),
        "orthogonality": orthogonality(audio, out.audio_style_frames, mask)
        + orthogonality(out.reduced_content, out.motion_style_frames, out.reduced_mask),
        "adversary": adversary(out.speaker_logits_audio, batch.speaker)
        + adversary(out.speaker_logits_motion, batch.speaker),
    }
    if batch.phone_targets is not None:
        terms["phones"] = phones(out.phone_logits, batch.phone_targets)
    return terms


def style_terms(
    outputs: TrainingOutputs, batch: TrainingBatch, config: TrainConfig
) -> dict[str, Tensor]:
    """The terms that make codes of style tell styles apart, whatever their source."""
    terms: dict[str, Tensor] = {}
    styles, own = outputs.styles, outputs.own_style
    if "motion" in styles:
        other = styles["motion"]
        speaker = batch.speaker
        same = torch.eye(len(speaker), dtype=torch.bool, device=speaker.device)
        same = same | ((speaker == speaker.unsqueeze(1)) & (speaker >= 0))
        terms["style_contrast"] = style_contrast(
            torch.cat((own.code, other.code)),
            same.repeat(2, 2),
            other.present.repeat(2),  # a sequence without a shown style would be no one's like
            config.style_temperature,
        )
    if len(styles) > 1:
        terms["style_consistency"] = style_consistency(
            [
                StyleCodes(style.code.detach(), style.present) if source == "identity" else style
                for source, style in styles.items()
            ]
        )
    if outputs.cycle is not None:
        swapped = outputs.cycle
        terms["cycle"] = cycle(
            swapped.content,
            outputs.reduced_content,
            outputs.reduced_mask,
            StyleCodes(swapped.style, swapped.wanted),
            swapped.wanted_style,
        )
    return terms
