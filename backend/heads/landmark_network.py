# SPDX-License-Identifier: GPL-3.0-or-later
"""A face detector and a face landmark network (MediaPipe's) in NumPy.

Both are small convolutional networks: their graphs are a JSON file and their parameters a
safetensors file, which ``tools/convert_face_landmarks.py`` makes. Nothing here needs torch, so that
every engine of the backend can find face points.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend import bundled
from backend.errors import UserError
from backend.io import read_tensors

Floats = NDArray[np.float32]

DETECTOR_PIXELS: Final = 128
LANDMARK_PIXELS: Final = 256
NUM_LANDMARKS: Final = 478
"""The last ten are the irises."""

_ANCHORS: Final = ((16, 2), (8, 6))
"""Cells along a side, and boxes per cell, of the detector's two output layers."""


@dataclass(frozen=True, slots=True)
class Detection:
    """The best face in a picture; positions are shares of the picture's side.

    Attributes:
        score: Probability that it is a face, 0..1.
        centre: Middle of its box: right, down.
        size: Larger side of its box.
        eyes: Right and left eye of the subject, ``(2, 2)``.
    """

    score: float
    centre: Floats
    size: float
    eyes: Floats


def detect(pictures: Floats) -> list[Detection]:
    """The best face of each picture.

    Args:
        pictures: RGB, 0..1, ``(N, 128, 128, 3)``.

    Returns:
        One detection per picture, however poor its score.
    """
    boxes, scores = _network("detector").run(2.0 * pictures - 1.0)
    found = []
    for box, score in zip(boxes, scores[..., 0], strict=True):
        best = int(score.argmax())
        place = box[best] / DETECTOR_PIXELS
        centre = place[:2] + _anchors()[best]
        eyes = place[4:8].reshape(2, 2) + _anchors()[best]
        probability = 1.0 / (1.0 + np.exp(-np.clip(float(score[best]), -80.0, 80.0)))
        found.append(Detection(probability, centre, float(place[2:4].max()), eyes))
    return found


def find_landmarks(pictures: Floats) -> tuple[Floats, Floats]:
    """The face landmarks of pictures that show one face each.

    Args:
        pictures: RGB, 0..1, ``(N, 256, 256, 3)``.

    Returns:
        Positions in pixels (right, down, towards the viewer) from the picture's upper left corner,
        ``(N, 478, 3)``; and how much each picture looks like a face (a logit), ``(N,)``.
    """
    landmarks, score, _ = _network("landmarks").run(pictures)
    return landmarks.reshape(len(pictures), NUM_LANDMARKS, 3), score.reshape(len(pictures))


@cache
def _anchors() -> Floats:
    """Middle of the cell of each of the detector's 896 boxes: right, down; shares of the side."""
    found = []
    for cells, boxes in _ANCHORS:
        middles = (np.arange(cells) + 0.5) / cells
        down, right = np.meshgrid(middles, middles, indexing="ij")
        found.append(np.repeat(np.stack([right, down], axis=-1).reshape(-1, 2), boxes, axis=0))
    return np.concatenate(found).astype(np.float32)


class Network:
    """A convolutional network: nodes in order, each with one output; pictures are ``(N, H, W, C)``.

    Args:
        graph: Nodes, number of the input, and numbers of the outputs.
        parameters: Arrays by the names that the nodes give.
    """

    def __init__(self, graph: dict[str, object], parameters: dict[str, Floats]) -> None:
        self._input = graph["input"]
        self._outputs: list[int] = list(graph["outputs"])  # type: ignore[call-overload]
        self._nodes: list[dict[str, object]] = list(graph["nodes"])  # type: ignore[call-overload]
        self._parameters = parameters
        self._last_use: dict[object, int] = {}
        for index, node in enumerate(self._nodes):
            self._last_use |= dict.fromkeys(node["inputs"], index)

    def run(self, pictures: Floats) -> list[Floats]:
        """The outputs for a batch of pictures."""
        values = {self._input: np.ascontiguousarray(pictures, dtype=np.float32)}
        for index, node in enumerate(self._nodes):
            inputs: list[int] = node["inputs"]  # type: ignore[assignment]
            given = [values[i] for i in inputs]
            for i in inputs:
                if self._last_use[i] == index and i not in self._outputs:
                    del values[i]
            values[node["output"]] = _OPERATIONS[str(node["kind"])](given, node, self._parameters)
        return [values[i] for i in self._outputs]


@cache
def _network(name: str) -> Network:
    folder = bundled.FACE_LANDMARKS
    try:
        graph = json.loads((folder / "graphs.json").read_text(encoding="utf-8"))[name]
        stored = read_tensors(folder / "model.safetensors")
    except (OSError, ValueError, KeyError, UserError) as error:
        raise UserError(
            f"The face landmark network cannot be read ({error}). Install PTalker again."
        ) from error
    parameters = {
        key: value.astype(np.float32) for key, value in stored.items() if key.startswith(f"{name}.")
    }
    return Network(graph, parameters)


Node = dict[str, object]
Parameters = dict[str, Floats]


def _padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after, so that each stride gives one value: TensorFlow's SAME."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _padded(x: Floats, tall: int, wide: int, node: Node) -> Floats:
    stride = int(node["stride"])  # type: ignore[call-overload]
    if not node["padded"]:
        return x
    down = _padding(x.shape[1], tall, stride)
    across = _padding(x.shape[2], wide, stride)
    if not any(down + across):
        return x
    return np.pad(x, ((0, 0), down, across, (0, 0)))


def _convolve(given: list[Floats], node: Node, parameters: Parameters) -> Floats:
    (x,) = given
    kernel = parameters[str(node["kernel"])]  # (out, tall, wide, in)
    out, tall, wide, channels = kernel.shape
    stride = int(node["stride"])  # type: ignore[call-overload]
    if (tall, wide, stride) != (1, 1, 1):
        x = _padded(x, tall, wide, node)
        x = np.lib.stride_tricks.sliding_window_view(x, (tall, wide), axis=(1, 2))
        x = x[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)
    shape = x.shape[:3]
    rows = np.ascontiguousarray(x).reshape(-1, tall * wide * channels)
    result = (rows @ kernel.reshape(out, -1).T).reshape(*shape, out)
    _rows(result)[:] += _along_row(parameters[str(node["bias"])], shape[2])
    return result


def _convolve_depthwise(given: list[Floats], node: Node, parameters: Parameters) -> Floats:
    (x,) = given
    _, tall, wide, channels = parameters[str(node["kernel"])].shape
    stride = int(node["stride"])  # type: ignore[call-overload]
    x = _padded(x, tall, wide, node)
    high, across = ((x.shape[1] - tall) // stride + 1, (x.shape[2] - wide) // stride + 1)
    result = np.empty((len(x), high, across, channels), np.float32)
    _rows(result)[:] = _along_row(parameters[str(node["bias"])], across)
    product = np.empty_like(_rows(result))
    for i in range(tall):
        for j in range(wide):
            part = x[:, i : i + stride * high : stride, j : j + stride * across : stride]
            part = part if stride == 1 else np.ascontiguousarray(part)
            weights = _along_row(parameters[str(node["kernel"])][0, i, j], across)
            np.multiply(_rows(part), weights, out=product)
            _rows(result)[:] += product
    return result


def _rows(x: Floats) -> Floats:
    """A view in which a picture's row is one axis, over which NumPy's inner loops run."""
    shape, strides = x.shape, x.strides
    size = shape[2] * shape[3]
    return np.lib.stride_tricks.as_strided(
        x, (*shape[:2], size), (*strides[:2], x.itemsize), writeable=x.flags.writeable
    )


def _along_row(values: Floats, pixels: int) -> Floats:
    """One value per channel, repeated for the pixels of a row."""
    return np.tile(values.reshape(-1), pixels)


def _prelu(given: list[Floats], node: Node, parameters: Parameters) -> Floats:
    x = given[0]
    slope = _along_row(parameters[str(node["slope"])], x.shape[2])
    result = np.minimum(x, 0.0)
    _rows(result)[:] *= slope
    result += np.maximum(x, 0.0)
    return result


def _max_pool(given: list[Floats], _node: Node, _parameters: Parameters) -> Floats:
    x = given[0]
    rows = np.maximum(x[:, ::2], x[:, 1::2])
    return np.maximum(rows[:, :, ::2], rows[:, :, 1::2])


def _pad(given: list[Floats], node: Node, _parameters: Parameters) -> Floats:
    width = int(node["channels"])  # type: ignore[call-overload]
    return np.pad(given[0], ((0, 0), (0, 0), (0, 0), (0, width)))


def _reshape(given: list[Floats], node: Node, _parameters: Parameters) -> Floats:
    shape: list[int] = node["shape"]  # type: ignore[assignment]
    return given[0].reshape(len(given[0]), *shape)


def _sigmoid(given: list[Floats], _node: Node, _parameters: Parameters) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(given[0], -80.0, 80.0))), np.float32)


_OPERATIONS: Final[dict[str, Callable[[list[Floats], Node, Parameters], Floats]]] = {
    "convolve": _convolve,
    "convolve_depthwise": _convolve_depthwise,
    "prelu": _prelu,
    "relu": lambda given, _node, _parameters: np.maximum(given[0], 0.0),
    "add": lambda given, _node, _parameters: given[0] + given[1],
    "max_pool": _max_pool,
    "pad": _pad,
    "reshape": _reshape,
    "concatenate": lambda given, _node, _parameters: np.concatenate(given, axis=1),
    "sigmoid": _sigmoid,
}
