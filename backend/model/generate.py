# SPDX-License-Identifier: GPL-3.0-or-later
"""The two ways to decode speech of any length, with memory that does not grow with it.

Apart from ``ptalker.py``, which is about one pass over sequences that fit in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from backend.model.cached_decoder import CachedDecoder

if TYPE_CHECKING:
    from backend.model.ptalker import PTalker

_WAVEFORM_RECEPTIVE_FIELD = 250  # frames of 20 ms that HuBERT gets on each side of a chunk
_WAVEFORM_HOP, _WAVEFORM_WINDOW = 320, 400  # samples
_PROGRESS_FRAMES = 250


@dataclass(frozen=True, slots=True)
class PreparedSpeech:
    """Prepared speech.

    Attributes:
        speech: Features ``(B, S, input_dim)`` or waveforms ``(B, N)``.
        lengths: Valid frames or samples, shape ``(B,)``.
        phones: On the encoder's clock, shape ``(B, S)``.
    """

    speech: Tensor
    lengths: Tensor
    phones: Tensor | None


def ignore(done: int, total: int) -> None:
    """Progress that nobody wants."""


def in_parallel(
    model: PTalker,
    sound: PreparedSpeech,
    style: Tensor,
    *,
    num_frames: int,
    chunk_frames: int,
    on_progress: Callable[[int, int], None],
) -> Tensor:
    """Decode all frames of a chunk at once; arguments as ``PTalker.generate``."""
    parts = []
    for start, end in _chunks(num_frames, chunk_frames):
        first = max(0, start - model.decoder.receptive_field)
        last = min(num_frames, end + model.decoder.receptive_field)
        content, mask = content_between(model, sound, first, last)
        queries = model.decoder.queries(style, last - first)
        hidden = model.decoder(queries, content, mask, style, causal=False)
        parts.append(model.weights(hidden[:, start - first : end - first]))
        on_progress(end, num_frames)
    return torch.cat(parts, dim=1)


def step_by_step(
    model: PTalker,
    sound: PreparedSpeech,
    style: Tensor,
    *,
    num_frames: int,
    chunk_frames: int,
    on_progress: Callable[[int, int], None],
) -> Tensor:
    """Decode frame after frame, each from the motion before; arguments as ``PTalker.generate``."""
    shapes = model.node_shapes()
    flat_shapes = shapes.flatten(1)
    nodes = shapes.new_zeros(len(style), 1, *shapes.shape[1:])
    cached = CachedDecoder(model.decoder, style)
    weights = style.new_empty(len(style), num_frames, len(shapes))
    for start, end in _chunks(num_frames, chunk_frames):
        window = model.config.cross_window
        first, last = max(0, start - window), min(num_frames, end + window)
        content, mask = content_between(model, sound, first, last)
        cached.enter(content, mask, before=start - first, num_frames=end - start)
        with torch.inference_mode():  # a tenth faster than without gradients alone
            for frame in range(start, end):
                hidden = cached.step(model.graph_encoder(nodes)[:, 0], frame - start)
                made = model.weights(hidden)
                weights[:, frame] = made
                nodes = (made @ flat_shapes).view(nodes.shape)
                if (frame + 1) % _PROGRESS_FRAMES == 0 or frame + 1 == num_frames:
                    on_progress(frame + 1, num_frames)
    return weights


def _chunks(num_frames: int, chunk_frames: int) -> Iterator[tuple[int, int]]:
    for start in range(0, num_frames, chunk_frames):
        yield start, min(num_frames, start + chunk_frames)


def content_between(
    model: PTalker, sound: PreparedSpeech, first: int, last: int
) -> tuple[Tensor, Tensor]:
    """Content of the motion's frames ``first`` to ``last``, heard with enough around them."""
    encoder = model.speech_content
    is_waveform = encoder.takes_waveform and sound.speech.ndim == 2
    margin = 2 + (_WAVEFORM_RECEPTIVE_FIELD if is_waveform else encoder.full_receptive_field)
    hidden_start, hidden_end = (
        (frame / encoder.fps - encoder.offset_seconds) * encoder.rate_hz for frame in (first, last)
    )
    hop, window = (_WAVEFORM_HOP, _WAVEFORM_WINDOW) if is_waveform else (1, 1)
    available = max(1, (sound.speech.shape[1] - window) // hop + 1)
    begin = min(math.floor(hidden_start) - margin, available - 1)
    begin = max(0, begin // encoder.stacking * encoder.stacking)
    end = max(begin + 1, min(math.ceil(hidden_end) + margin, available))
    speech = sound.speech[:, begin * hop : (end - 1) * hop + window]
    lengths = (sound.lengths - begin * hop).clamp(0, speech.shape[1])
    if is_waveform:
        lengths = lengths.clamp(min=window)  # a published encoder cannot hear nothing at all
    phones = None if sound.phones is None else sound.phones[:, begin:end]
    if not is_waveform:
        phones = encoder.self_conditioned_phones(speech, lengths, phones)
    hidden, mask = encoder.encode(speech, lengths, phones)
    return encoder.to_motion_clock(
        encoder.content_of(speech, hidden, mask, phones),
        mask,
        last - first,
        first_frame=first,
        first_hidden=begin,
    )
