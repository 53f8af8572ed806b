# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine on ONNX Runtime: graphs exported from a checkpoint, on the processor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from backend.errors import Cancelled, UserError
from backend.inference.engine import Floats, LearnedShapes, StopCall
from backend.inference.engine_files import GRAPHS, check_features, read_facts
from backend.model.checkpoint_files import read_config
from backend.model.style_search import MOST_FRAMES, search_code
from backend.onnx_sessions import Session
from backend.processes import num_cores

CHUNK_FRAMES: Final = 3000
"""Frames that are made at a time; each chunk also takes in its surroundings on both sides."""
_TOLERANCE: Final = 1e-3
"""Largest difference of a weight from PyTorch's that the self-check passes."""


class OnnxEngine:
    """See `Engine`; models of solved shapes on the motion's clock, decoded in parallel.

    Loading takes most of a second. It ends with a check: stored features must give stored weights.

    Args:
        folder: The checkpoint.
        graphs: Folder of its graphs.
        chunk_frames: Frames that are made at a time.

    Raises:
        UserError: A graph is damaged, or ONNX Runtime makes something else of it than PyTorch.
    """

    def __init__(self, folder: Path, graphs: Path, *, chunk_frames: int = CHUNK_FRAMES) -> None:
        facts = read_facts(graphs)
        self.name, self.device = "onnx", "cpu"
        self.learned_shapes: LearnedShapes | None = None
        self.config = read_config(folder)
        self.fingerprint = facts.fingerprint
        self.num_parameters = facts.num_parameters
        self.neutral_code = np.array(facts.neutral_code, np.float32)
        self.jobs_at_once = num_cores()
        self._facts, self._graphs, self._chunk_frames = facts, graphs, chunk_frames
        self._loading = Lock()
        self._for_styles: tuple[Session, Session] | None = None
        talk, hear, *_ = GRAPHS
        with ThreadPoolExecutor(max_workers=2) as pool:
            self._talk, self._hear = pool.map(lambda name: Session(graphs / name), (talk, hear))
        self._check()

    def hear(self, features: Floats, should_stop: StopCall) -> Floats:
        """See `Engine`."""
        parts = []
        for start, end, first, last in self._chunks(len(features), self._facts.hear_around):
            _raise_if(should_stop)
            (made,) = self._hear.run(None, {"features": features[None, first:last]})
            parts.append(made[0, start - first : end - first])
        return np.concatenate(parts)

    def talk(
        self,
        speech: Floats,
        phones: NDArray[np.int64] | None,
        code: Floats,
        *,
        num_frames: int,
        decoder: str,
        report: Callable[[int, int], None],
        should_stop: StopCall,
    ) -> Floats:
        """See `Engine`."""
        if decoder != "parallel":
            raise ValueError(f"The engine onnx decodes in parallel, not {decoder}")
        fitted = _fitted(speech, num_frames)
        ids = _fitted(np.zeros(0, np.int64) if phones is None else phones, num_frames)
        parts = []
        for start, end, first, last in self._chunks(num_frames, self._facts.talk_around):
            _raise_if(should_stop)
            feeds: dict[str, NDArray[Any]] = {
                "features": fitted[None, first:last],
                "phones": ids[None, first:last],
                "style": code[None].astype(np.float32),
            }
            (made,) = self._talk.run(None, feeds)
            parts.append(made[0, start - first : end - first])
            report(end, num_frames)
        return np.concatenate(parts)

    def read_style(self, motion: Floats) -> Floats:
        """See `Engine`."""
        with self._loading:  # jobs of a list run in threads
            if self._for_styles is None:
                read, restyle = (Session(self._graphs / name) for name in GRAPHS[2:])
                self._for_styles = read, restyle
        read, restyle = self._for_styles
        code = read.run(["code"], {"motion": motion[None]})[0][0]
        if "content" not in read.outputs:
            return code
        shown = motion[None, :MOST_FRAMES]
        nodes, content = read.run(["nodes", "content"], {"motion": shown})

        def restyled(codes: Floats) -> Floats:
            return restyle.run(None, {"content": content, "styles": codes})[0]

        return search_code(restyled, nodes[0], code)

    def identity_code(self, speaker: str) -> Floats:
        """See `Engine`."""
        return np.array(self._facts.identity_codes[speaker], np.float32)

    def participant(self) -> AbstractContextManager[None]:
        """See `Engine`."""
        return nullcontext()

    def close(self) -> None:
        """See `Engine`."""

    def _chunks(self, num_frames: int, around: int) -> Iterator[tuple[int, int, int, int]]:
        """Chunks of frames, and with what is around them: start, end, first, last."""
        for start in range(0, num_frames, self._chunk_frames):
            end = min(num_frames, start + self._chunk_frames)
            first = max(0, start - around) // self._facts.stacked * self._facts.stacked
            yield start, end, first, min(num_frames, end + around)

    def _check(self) -> None:
        features = check_features(self.config.speech.input_dim)
        made = self.talk(
            features, None, self.neutral_code, num_frames=len(features), decoder="parallel",
            report=lambda _done, _total: None, should_stop=lambda: False,
        )[len(features) // 2]  # fmt: skip
        expected = np.array(self._facts.expected_weights, np.float32)
        difference = np.abs(made - expected).max() if made.shape == expected.shape else np.inf
        if not difference <= _TOLERANCE:
            raise UserError(
                f"ONNX Runtime computes this model wrongly here (a weight is off by "
                f"{difference:.2g}); install another version of onnxruntime, or add PyTorch."
            )


def _fitted(values: NDArray[np.generic], num_frames: int) -> NDArray[np.generic]:
    """Cut, or filled with zeros, to so many frames."""
    missing = max(0, num_frames - len(values))
    return np.pad(values[:num_frames], [(0, missing)] + [(0, 0)] * (values.ndim - 1))


def _raise_if(should_stop: StopCall) -> None:
    if should_stop():
        raise Cancelled
