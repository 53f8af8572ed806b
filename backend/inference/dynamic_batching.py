# SPDX-License-Identifier: GPL-3.0-or-later
"""Dynamic batching: concurrent calls of ``generate`` are answered by one pass of the model.

Jobs of a list run in threads; while the model works on a batch, the other threads decode audio,
compute features and write results.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from backend.errors import Cancelled
from backend.model.config import Mode
from backend.model.generate import CHUNK_FRAMES, ProgressCall, StopCall, generate
from backend.model.ptalker import PTalker

SIZES: Final = {"cpu": 4, "cuda": 32, "mps": 8}
"""Largest batch by kind of device; on a CPU more gain nothing, since memory is the limit."""
_STOP_SECONDS: Final = 0.2  # between two questions of a waiting call whether to give up


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    speech: Tensor
    style: Tensor
    num_frames: int
    phones: Tensor | None
    mode: Mode
    chunk_frames: int
    should_stop: StopCall
    made: Future[Tensor] = field(default_factory=Future)

    @property
    def is_alone(self) -> bool:
        """Whether the call is not batched: too long, or decoded frame by frame."""
        return self.mode != "parallel" or self.num_frames > self.chunk_frames


class DynamicBatcher:
    """Batches ``generate`` calls of several threads.

    A batch starts when enough calls wait, or when every participating thread waits for an answer.

    Args:
        model: The model, in evaluation mode.
        size: Largest batch.

    Attributes:
        size: Largest batch.
    """

    size: int

    def __init__(self, model: PTalker, size: int) -> None:
        self._model, self.size = model, size
        self._lock = threading.RLock()  # an answer that is there at once is handed out inside it
        self._waiting: list[_Call] = []
        self._taking_part = 0
        self._is_busy = False
        self._pool = ThreadPoolExecutor(max_workers=1)

    @contextmanager
    def participant(self) -> Iterator[None]:
        """Count the current thread as one whose call the others' calls may wait for."""
        self._change(+1)
        try:
            yield
        finally:
            self._change(-1)

    def generate(
        self,
        speech: Tensor,
        style: Tensor,
        *,
        num_frames: int,
        phones: Tensor | None = None,
        mode: Mode = "parallel",
        chunk_frames: int = CHUNK_FRAMES,
        on_progress: ProgressCall | None = None,
        should_stop: StopCall | None = None,
    ) -> Tensor:
        """Generate the motion of one speech; the calling thread must be a participant.

        Args:
            speech: Features ``(1, S, input_dim)`` or a waveform ``(1, N)``.
            style: Style code, shape ``(1, D)``.
            num_frames: Frames ``T`` to generate.
            phones: Phone input on the speech encoder's clock, int64 ``(1, S)``.
            mode: How to decode.
            chunk_frames: Frames decoded at a time; calls for more are not batched.
            on_progress: Called at the end.
            should_stop: Asked while the call waits and while the model works on it.

        Returns:
            Weights of the shapes, ``(1, T, K)``.

        Raises:
            Cancelled: ``should_stop`` said so.
        """
        stop = should_stop or (lambda: False)
        call = _Call(speech, style, num_frames, phones, mode, chunk_frames, stop)
        with self._lock:
            self._waiting.append(call)
            self._begin()
        while not wait([call.made], timeout=_STOP_SECONDS).done:
            if stop():
                with self._lock:
                    if call in self._waiting:
                        self._waiting.remove(call)
                raise Cancelled
        made = call.made.result()
        if on_progress is not None:
            on_progress(num_frames, num_frames)
        return made

    def close(self) -> None:
        """End the thread in which the model runs."""
        self._pool.shutdown()

    def _change(self, threads: int) -> None:
        with self._lock:
            self._taking_part += threads
            self._begin()

    def _begin(self) -> None:
        """Start a batch if it is time; the lock must be held."""
        is_time = len(self._waiting) >= min(self.size, self._taking_part)
        if self._is_busy or not self._waiting or not is_time:
            return
        first = self._waiting[0]
        calls = [first]
        if not first.is_alone:
            others = [call for call in self._waiting if not call.is_alone]
            others.sort(key=lambda call: abs(call.num_frames - first.num_frames))
            calls = others[: self.size]  # of about the same length: padding is work, too
        self._waiting = [call for call in self._waiting if call not in calls]
        self._is_busy = True
        self._pool.submit(self._answer, calls).add_done_callback(
            lambda done: self._hand_out(calls, done)
        )

    def _hand_out(self, calls: Sequence[_Call], done: Future[list[Tensor]]) -> None:
        error = done.exception()
        if error is not None and len(calls) > 1:  # answered one by one, only one of them fails
            for call in calls:
                alone = self._pool.submit(self._answer, [call])
                alone.add_done_callback(partial(_settle, [call]))
        else:
            _settle(calls, done)
        with self._lock:
            self._is_busy = False
            self._begin()

    def _answer(self, calls: Sequence[_Call]) -> list[Tensor]:
        if len(calls) == 1:
            call = calls[0]
            return [
                generate(
                    self._model,
                    call.speech,
                    call.style,
                    num_frames=call.num_frames,
                    phones=call.phones,
                    mode=call.mode,
                    chunk_frames=call.chunk_frames,
                    should_stop=call.should_stop,
                )
            ]
        speech = pad_sequence([call.speech[0] for call in calls], batch_first=True)
        lengths = torch.tensor([call.speech.shape[1] for call in calls], device=speech.device)
        phones = None
        if any(call.phones is not None for call in calls):
            silent = lengths.new_zeros(1)
            given = [silent if call.phones is None else call.phones[0] for call in calls]
            phones = pad_sequence(given, batch_first=True)
            missing = max(0, speech.shape[1] - phones.shape[1]) if speech.dim() == 3 else 0
            phones = torch.nn.functional.pad(phones, (0, missing))
        frames = [call.num_frames for call in calls]
        weights = generate(
            self._model,
            speech,
            torch.cat([call.style for call in calls]),
            num_frames=max(frames),
            lengths=lengths,
            motion_lengths=torch.tensor(frames, device=speech.device),
            phones=phones,
            mode="parallel",
            chunk_frames=calls[0].chunk_frames,
            should_stop=lambda: all(call.should_stop() for call in calls),
        )
        return [made[None, : call.num_frames] for made, call in zip(weights, calls, strict=True)]


def _settle(calls: Sequence[_Call], done: Future[list[Tensor]]) -> None:
    error = done.exception()
    if error is not None:
        for call in calls:
            call.made.set_exception(error)
        return
    for call, made in zip(calls, done.result(), strict=True):
        call.made.set_result(made)
