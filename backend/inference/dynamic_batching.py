# SPDX-License-Identifier: GPL-3.0-or-later
"""Many sounds through the model at once: jobs run in threads, what they ask of it is batched.

While the model works on some, the other threads decode, compute features and write results.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from backend.model.config import Mode
from backend.model.ptalker import PTalker

SIZES: Final = {"cpu": 4, "cuda": 32, "mps": 8}
"""Sounds at once by kind of device; on a CPU more gain nothing, since memory is the limit."""


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    speech: Tensor
    style: Tensor
    num_frames: int
    phones: Tensor | None
    mode: Mode
    chunk_frames: int
    made: Future[Tensor] = field(default_factory=Future)

    @property
    def is_alone(self) -> bool:
        """Whether it is too long for company, or decoded frame by frame."""
        return self.mode != "parallel" or self.num_frames > self.chunk_frames


class DynamicBatcher:
    """Answers calls of several threads as one call of the model each few.

    It waits until enough calls have come, or until all threads that take part wait for an answer.

    Args:
        model: The model, in evaluation mode.
        size: Calls to answer at once.

    Attributes:
        size: The same.
    """

    def __init__(self, model: PTalker, size: int) -> None:
        self._model, self.size = model, size
        self._lock = threading.RLock()  # an answer that is there at once is handed out inside it
        self._waiting: list[_Call] = []
        self._taking_part = 0
        self._is_busy = False
        self._pool = ThreadPoolExecutor(max_workers=1)

    @contextmanager
    def participant(self) -> Iterator[None]:
        """For a thread that is going to call: the others' calls may wait for its."""
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
        phones: Tensor | None,
        mode: Mode,
        chunk_frames: int,
        on_progress: Callable[[int, int], None],
    ) -> Tensor:
        """As ``PTalker.generate`` of one sound; the calling thread must take part."""
        call = _Call(speech, style, num_frames, phones, mode, chunk_frames)
        with self._lock:
            self._waiting.append(call)
            self._begin()
        made = call.made.result()
        on_progress(num_frames, num_frames)
        return made

    def close(self) -> None:
        """End the thread that runs the model."""
        self._pool.shutdown()

    def _change(self, threads: int) -> None:
        with self._lock:
            self._taking_part += threads
            self._begin()

    def _begin(self) -> None:
        """Start on calls if it is time; the lock must be held."""
        is_time = len(self._waiting) >= min(self.size, self._taking_part)
        if self._is_busy or not self._waiting or not is_time:
            return
        first = self._waiting[0]
        calls = [first]
        if not first.is_alone:
            company = [call for call in self._waiting if not call.is_alone]
            company.sort(key=lambda call: abs(call.num_frames - first.num_frames))
            calls = company[: self.size]  # of about the same length: padding is work, too
        self._waiting = [call for call in self._waiting if call not in calls]
        self._is_busy = True
        self._pool.submit(self._answer, calls).add_done_callback(
            lambda done: self._hand_out(calls, done)
        )

    def _hand_out(self, calls: Sequence[_Call], done: Future[list[Tensor]]) -> None:
        error = done.exception()
        if error is not None and len(calls) > 1:  # whose fault it is shows when each is alone
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
                self._model.generate(
                    call.speech, call.style, num_frames=call.num_frames, phones=call.phones,
                    mode=call.mode, chunk_frames=call.chunk_frames,
                )
            ]  # fmt: skip
        speech = pad_sequence([call.speech[0] for call in calls], batch_first=True)
        lengths = torch.tensor([call.speech.shape[1] for call in calls], device=speech.device)
        phones = None
        if any(call.phones is not None for call in calls):
            silent = lengths.new_zeros(1)
            told = [silent if call.phones is None else call.phones[0] for call in calls]
            phones = pad_sequence(told, batch_first=True)
            missing = max(0, speech.shape[1] - phones.shape[1]) if speech.dim() == 3 else 0
            phones = torch.nn.functional.pad(phones, (0, missing))
        weights = self._model.generate(
            speech,
            torch.cat([call.style for call in calls]),
            num_frames=max(call.num_frames for call in calls),
            lengths=lengths,
            phones=phones,
            mode="parallel",
            chunk_frames=calls[0].chunk_frames,
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
