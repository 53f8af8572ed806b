# SPDX-License-Identifier: GPL-3.0-or-later
"""Generation: speech and a style code to the motion that ships, for speech of any length.

Every caller goes through ``generate``: the predictor, dynamic batching, evaluation and the
validation of training. An exported model runs ``generate_in_one_pass``, which tests hold to the
same result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from backend.errors import Cancelled
from backend.model.cached_decoder import CachedDecoder
from backend.model.config import Mode
from backend.model.content_encoders import SpeechContentEncoder
from backend.model.ptalker import PTalker

CHUNK_FRAMES: Final = 3000
"""Motion frames decoded at a time: a minute at 50 frames a second, which takes two seconds on one
core. Shorter chunks cost more, since each also encodes about 1300 frames on either side."""
_WAVEFORM_RECEPTIVE_FIELD: Final = 250  # frames of 20 ms that HuBERT gets on each side of a chunk
_WAVEFORM_HOP: Final = 320  # samples from one of HuBERT's frames to the next
_WAVEFORM_WINDOW: Final = 400  # samples that one of HuBERT's frames covers
_PROGRESS_FRAMES: Final = 250
_STOP_FRAMES: Final = 50  # autoregressive frames between two calls of should_stop
_NEIGHBOUR: Final = 0.1065  # smoothing weight of a neighbouring frame: exp(-2) / (1 + 2 exp(-2))

ProgressCall = Callable[[int, int], None]
StopCall = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class PreparedSpeech:
    """Padded speech of a batch, as the speech encoder takes it.

    Attributes:
        speech: Features ``(B, S, input_dim)`` or normalised waveforms ``(B, N)``.
        lengths: Valid feature frames or samples of each sequence, int64 ``(B,)``.
        phones: Phone ids on the speech encoder's clock, int64 ``(B, S)``; None without phone input.
    """

    speech: Tensor
    lengths: Tensor
    phones: Tensor | None


@torch.no_grad()
def generate(
    model: PTalker,
    speech: Tensor,
    style: Tensor,
    *,
    num_frames: int,
    lengths: Tensor | None = None,
    motion_lengths: Tensor | None = None,
    phones: Tensor | None = None,
    mode: Mode | None = None,
    chunk_frames: int = CHUNK_FRAMES,
    on_progress: ProgressCall | None = None,
    should_stop: StopCall | None = None,
) -> Tensor:
    """Generate motion of any length, in chunks, smoothed.

    Chunks overlap by the receptive field of an output frame, so their borders cannot be seen
    (HuBERT attends to everything; it gets 5 s on each side of a chunk). Memory beside the result
    does not grow with the length.

    Args:
        model: The model, in evaluation mode.
        speech: Features ``(B, S, input_dim)`` or waveforms ``(B, N)``.
        style: Style codes of the model, shape ``(B, D)`` or ``(1, D)``.
        num_frames: Frames ``T`` to generate, at the model's rate.
        lengths: Valid feature frames or samples of each sequence, int64 ``(B,)``; by default all.
        motion_lengths: Frames of each sequence of a padded batch, int64 ``(B,)``; by default all
            ``T``. Smoothing does not cross a sequence's end.
        phones: Phone input on the speech encoder's clock, int64 ``(B, S)``, 0 for none.
        mode: How to decode; by default the first of the config's modes.
        chunk_frames: Frames decoded at a time.
        on_progress: Called with the frames done and ``num_frames``.
        should_stop: Asked several times in each chunk whether to give up.

    Returns:
        Weights of the shapes, ``(B, T, K)``.

    Raises:
        ValueError: The model was not trained for that mode.
        Cancelled: ``should_stop`` said so.
    """
    mode = mode or model.config.modes[0]
    if mode not in model.config.modes:
        raise ValueError(f"This model decodes {' or '.join(model.config.modes)}, not {mode}")
    if lengths is None:
        lengths = torch.full((len(speech),), speech.shape[1], device=speech.device)
    prepared = PreparedSpeech(model.speech_content.prepare(speech, lengths), lengths, phones)
    decode = _decode_in_parallel if mode == "parallel" else _decode_step_by_step
    weights = decode(
        model,
        prepared,
        style.expand(len(speech), -1),
        num_frames=num_frames,
        chunk_frames=chunk_frames,
        on_progress=on_progress or (lambda done, total: None),
        should_stop=should_stop or (lambda: False),
    )
    return smooth(model, weights, motion_lengths)


def generate_in_one_pass(
    model: PTalker, speech: Tensor, style: Tensor, phones: Tensor, *, num_frames: int
) -> Tensor:
    """``generate`` in parallel and in one chunk, without branches on the length, for tracing.

    Args:
        model: A model whose features and motion are on one clock.
        speech: Features ``(1, S, input_dim)``, filled to a multiple of the encoder's stacking.
        style: Style code, shape ``(1, D)``.
        phones: Phone input, int64 ``(1, S)``, 0 for none.
        num_frames: Frames ``T`` before the features were filled.

    Returns:
        Weights of the shapes, ``(1, T, K)``.
    """
    encoder = model.speech_content
    lengths = torch.full((1,), num_frames)
    phones = encoder.self_conditioned_phones(speech, lengths, phones)
    content = encoder(speech, lengths, phones=phones, num_frames=num_frames)
    return smooth(model, _decode(model, content.features, content.mask, style))


def smooth(model: PTalker, weights: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Generated weights without the jitter from frame to frame.

    Solved shapes: a Gaussian of half a frame (10 ms), which brings the jerk on held-out speech
    from 1.3 times the reference's to the same and changes nothing else. Learned shapes stay.

    Args:
        model: The model that generated the weights.
        weights: Weights of the shapes, ``(B, T, K)``.
        lengths: Valid frames of each sequence, int64 ``(B,)``; by default all.

    Returns:
        Smoothed weights, ``(B, T, K)``.
    """
    if model.config.shape_kind != "solved":
        return weights
    before = torch.cat((weights[:, :1], weights[:, :-1]), dim=1)
    after = torch.cat((weights[:, 1:], weights[:, -1:]), dim=1)
    if lengths is not None:
        frames = torch.arange(weights.shape[1], device=weights.device)
        is_last = frames == lengths.unsqueeze(1) - 1
        after = torch.where(is_last.unsqueeze(-1), weights, after)
    return (1.0 - 2.0 * _NEIGHBOUR) * weights + _NEIGHBOUR * (before + after)


def _decode_in_parallel(
    model: PTalker,
    prepared: PreparedSpeech,
    style: Tensor,
    *,
    num_frames: int,
    chunk_frames: int,
    on_progress: ProgressCall,
    should_stop: StopCall,
) -> Tensor:
    parts = []
    for start, end in _chunks(num_frames, chunk_frames):
        first = max(0, start - model.decoder.receptive_field)
        last = min(num_frames, end + model.decoder.receptive_field)
        content, mask = content_between(model, prepared, first, last, should_stop)
        _stop_if(should_stop)
        parts.append(_decode(model, content, mask, style)[:, start - first : end - first])
        on_progress(end, num_frames)
    return torch.cat(parts, dim=1)


def _decode(model: PTalker, content: Tensor, mask: Tensor, style: Tensor) -> Tensor:
    """Content ``(B, T, F)``, its mask ``(B, T)`` and styles ``(B, D)`` to weights, in parallel."""
    queries = model.decoder.queries(style, content.shape[1])
    return model.weights(model.decoder(queries, content, mask, style, causal=False))


def _decode_step_by_step(
    model: PTalker,
    prepared: PreparedSpeech,
    style: Tensor,
    *,
    num_frames: int,
    chunk_frames: int,
    on_progress: ProgressCall,
    should_stop: StopCall,
) -> Tensor:
    """Autoregressive decoding: each frame follows from the motion of the frame before."""
    shapes = model.node_shapes()
    flat_shapes = shapes.flatten(1)
    nodes = shapes.new_zeros(len(style), 1, *shapes.shape[1:])
    cached = CachedDecoder(model.decoder, style)
    weights = style.new_empty(len(style), num_frames, len(shapes))
    for start, end in _chunks(num_frames, chunk_frames):
        window = model.config.cross_window
        first, last = max(0, start - window), min(num_frames, end + window)
        content, mask = content_between(model, prepared, first, last, should_stop)
        cached.enter(content, mask, before=start - first, num_frames=end - start)
        with torch.inference_mode():  # a tenth faster than without gradients alone
            for frame in range(start, end):
                if frame % _STOP_FRAMES == 0:
                    _stop_if(should_stop)
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


def _stop_if(should_stop: StopCall) -> None:
    if should_stop():
        raise Cancelled


def content_between(
    model: PTalker,
    prepared: PreparedSpeech,
    first: int,
    last: int,
    should_stop: StopCall = lambda: False,
) -> tuple[Tensor, Tensor]:
    """Speech content of the motion frames from ``first`` to before ``last``.

    Args:
        model: The model, in evaluation mode.
        prepared: The whole speech, of which the receptive field around those frames is encoded.
        first: Number of the first motion frame.
        last: Number of the motion frame after the last one.
        should_stop: Asked before each pass of the speech encoder whether to give up.

    Returns:
        Content ``(B, last - first, F)`` and its mask ``(B, last - first)``.

    Raises:
        Cancelled: ``should_stop`` said so.
    """
    encoder = model.speech_content
    is_waveform = encoder.takes_waveform and prepared.speech.ndim == 2
    begin, end = _encoded_frames(encoder, prepared, first, last)
    hop, window = (_WAVEFORM_HOP, _WAVEFORM_WINDOW) if is_waveform else (1, 1)
    speech = prepared.speech[:, begin * hop : (end - 1) * hop + window]
    lengths = (prepared.lengths - begin * hop).clamp(0, speech.shape[1])
    if is_waveform:
        lengths = lengths.clamp(min=window)  # a published encoder cannot take no sample at all
    phones = None if prepared.phones is None else prepared.phones[:, begin:end]
    _stop_if(should_stop)
    if not is_waveform:
        phones = encoder.self_conditioned_phones(speech, lengths, phones)
        _stop_if(should_stop)
    hidden, mask = encoder.encode(speech, lengths, phones)
    return encoder.to_motion_clock(
        encoder.content_of(speech, hidden, mask, phones),
        mask,
        last - first,
        first_frame=first,
        first_hidden=begin,
    )


def _encoded_frames(
    encoder: SpeechContentEncoder, prepared: PreparedSpeech, first: int, last: int
) -> tuple[int, int]:
    """Frames of the speech encoder, from and to before, that motion frames depend on."""
    is_waveform = encoder.takes_waveform and prepared.speech.ndim == 2
    margin = 2 + (_WAVEFORM_RECEPTIVE_FIELD if is_waveform else encoder.full_receptive_field)
    hidden_start, hidden_end = (
        (frame / encoder.fps - encoder.offset_seconds) * encoder.rate_hz for frame in (first, last)
    )
    hop, window = (_WAVEFORM_HOP, _WAVEFORM_WINDOW) if is_waveform else (1, 1)
    available = max(1, (prepared.speech.shape[1] - window) // hop + 1)
    begin = min(math.floor(hidden_start) - margin, available - 1)
    begin = max(0, begin // encoder.stacking * encoder.stacking)
    return begin, max(begin + 1, min(math.ceil(hidden_end) + margin, available))
