# SPDX-License-Identifier: GPL-3.0-or-later
"""Concurrent calls of ``generate`` that are answered as one batch."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch

from backend.errors import Cancelled
from backend.inference import dynamic_batching
from backend.model.generate import generate
from backend.model.presets import PRESETS
from tests.backend.model.samples import build


def test_batched_calls_give_what_each_gives_alone(monkeypatch):
    model = build(PRESETS["tiny"], lively=True).eval()
    calls = []
    for number, num_frames in enumerate((60, 45, 60, 20, 130)):
        generator = torch.Generator().manual_seed(number)
        speech = torch.randn(1, num_frames, 160, generator=generator)
        style = model.neutral_style() + 0.3 * number
        phones = torch.randint(0, 41, (1, num_frames - 3)) if number % 2 else None
        mode = "autoregressive" if number == 3 else "parallel"
        calls.append((speech, style, num_frames, phones, mode))
    sizes = []

    def counted(model, speech, *args, **flags):
        sizes.append(len(speech))
        return generate(model, speech, *args, **flags)

    monkeypatch.setattr(dynamic_batching, "generate", counted)
    batcher = dynamic_batching.DynamicBatcher(model, size=3)
    all_take_part = threading.Barrier(len(calls), timeout=60)

    def ask(call):
        speech, style, num_frames, phones, mode = call
        with batcher.participant():
            all_take_part.wait()  # one that is done before others come is never batched with them
            return batcher.generate(
                speech, style, num_frames=num_frames, phones=phones, mode=mode, chunk_frames=100
            )

    with ThreadPoolExecutor(len(calls)) as pool:
        made = list(pool.map(ask, calls))
    batcher.close()
    assert sum(sizes) == len(calls)
    assert max(sizes) > 1
    for (speech, style, num_frames, phones, mode), weights in zip(calls, made, strict=True):
        expected = generate(
            model, speech, style, num_frames=num_frames, phones=phones, mode=mode, chunk_frames=100
        )
        torch.testing.assert_close(weights, expected, atol=1e-5, rtol=0)


def test_one_bad_call_does_not_spoil_its_batch():
    model = build(PRESETS["tiny"]).eval()
    batcher = dynamic_batching.DynamicBatcher(model, size=2)
    all_take_part = threading.Barrier(2, timeout=60)

    def ask(width):
        with batcher.participant():
            all_take_part.wait()
            return batcher.generate(torch.zeros(1, 30, 160), torch.zeros(1, width), num_frames=30)

    with ThreadPoolExecutor(2) as pool:
        good, bad = pool.submit(ask, 16), pool.submit(ask, 15)
        assert good.result().shape == (1, 30, 52)
        with pytest.raises(RuntimeError):
            bad.result()
    batcher.close()


def test_a_cancelled_call_does_not_wait_for_its_batch():
    model = build(PRESETS["tiny"]).eval()
    batcher = dynamic_batching.DynamicBatcher(model, size=2)
    speech, style = torch.zeros(1, 30, 160), model.neutral_style()
    with batcher.participant():  # who never calls, so that the other waits
        started = time.monotonic()
        with ThreadPoolExecutor(1) as pool:

            def ask():
                with batcher.participant():
                    return batcher.generate(speech, style, num_frames=30, should_stop=lambda: True)

            with pytest.raises(Cancelled):
                pool.submit(ask).result()
        assert time.monotonic() - started < 5.0
    with batcher.participant():
        assert batcher.generate(speech, style, num_frames=30).shape == (1, 30, 52)
    batcher.close()


def test_an_answer_that_is_there_at_once_holds_up_nobody():
    class SoonReady:
        """A thread pool whose tasks have always ended when it returns."""

        def submit(self, task, *arguments):
            made = Future()
            made.set_result(task(*arguments))
            return made

        def shutdown(self):
            pass

    batcher = dynamic_batching.DynamicBatcher(build(PRESETS["tiny"]).eval(), size=1)
    batcher.close()
    batcher._pool = SoonReady()

    def ask():
        with batcher.participant():
            return batcher.generate(
                torch.zeros(1, 30, 160), torch.zeros(1, 16), num_frames=30, phones=None,
                mode="parallel", chunk_frames=100, on_progress=lambda done, total: None,
            )  # fmt: skip

    answered = queue.SimpleQueue()
    threading.Thread(target=lambda: answered.put(ask()), daemon=True).start()
    assert answered.get(timeout=60).shape == (1, 30, 52)
