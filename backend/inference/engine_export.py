# SPDX-License-Identifier: GPL-3.0-or-later
"""Export of a checkpoint's networks as the graphs that the ONNX engine runs.

The graphs lie beside ``model.safetensors`` and hold no parameters of their own: each one that is
larger than a few numbers is external data of ONNX at its place in that file, and a graph begins by
bringing those of 16 bits to 32. ``engine.json`` names the fingerprint of the file that the graphs
were made for, and what else the engine must know of the model.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from backend.errors import UserError
from backend.inference.engine_files import (
    FACTS_NAME,
    GRAPHS,
    Facts,
    check_features,
    write_facts,
)
from backend.inference.onnx_export import SoundPath, example_frames, require_packages
from backend.io import read_tensors, tensor_places, write_atomically
from backend.model import checkpoint
from backend.model.checkpoint_files import WEIGHTS_NAME, checked_fingerprint
from backend.model.config import why_not_exportable
from backend.model.phone_head import PhoneHead
from backend.model.ptalker import PTalker
from backend.model.style_inversion import content_of_phones
from backend.speech.phones import NUM_PHONE_IDS

_SMALL_BYTES: Final = 128
"""Parameters up to this size stay inside a graph."""
_MAX_INLINE_BYTES: Final = 1 << 18
_MAX_DISTANCES: Final = 1024
"""Widest matrix of biases by distance, in which tables are looked up."""
_OPSET: Final = 18
_LENGTH: Final = torch.export.Dim.DYNAMIC


class Hearing(nn.Module):
    """Features ``(1, T, input_dim)`` to log posteriors of phones ``(1, T, C)``."""

    def __init__(self, model: PTalker) -> None:
        super().__init__()
        self.encoder = model.speech_content

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        num_frames, stacking = features.shape[1], self.encoder.stacking
        missing = (num_frames + stacking - 1) // stacking * stacking - num_frames
        padded = F.pad(features, (0, 0, 0, missing))
        hidden, _ = self.encoder.encode(padded, torch.full((1,), num_frames), None)
        found: Tensor = self.encoder.phones(hidden[:, :num_frames]).log_softmax(-1)
        return found


class ExemplarReading(nn.Module):
    """Weights ``(1, T, K)`` to the encoded style ``(1, D)`` and what the search for it needs.

    That is the content that the lip reader finds, ``(1, T, F)``, and the nodes' displacements,
    ``(1, T, N, 3)``.
    """

    def __init__(self, model: PTalker) -> None:
        super().__init__()
        self.model = model

    def forward(self, motion: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        model = self.model
        code = model.encode_motion_style(motion)
        nodes = model.graph_encoder.displacements(motion)
        if model.lip_reader is None:
            return code, nodes
        num_frames, stacking = motion.shape[1], model.speech_content.stacking
        mask = torch.ones(motion.shape[:2], dtype=torch.bool)
        components = model.motion_style.components_of(nodes * model.config.motion_scale)
        phones = model.lip_reader(components, mask).argmax(-1)
        missing = (num_frames + stacking - 1) // stacking * stacking - num_frames
        content = content_of_phones(model, F.pad(phones, (0, missing)), num_frames)
        return code, nodes, content


class Restyling(nn.Module):
    """Content ``(1, T, F)`` and styles ``(B, D)`` to the nodes' displacements ``(B, T, N, 3)``."""

    def __init__(self, model: PTalker) -> None:
        super().__init__()
        self.model = model

    def forward(self, content: Tensor, styles: Tensor) -> Tensor:
        """See the class."""
        model = self.model
        content = content.expand(styles.shape[0], -1, -1)
        mask = content[..., 0] == content[..., 0]
        queries = model.decoder.queries(styles, content.shape[1])
        weights = model.weights(model.decoder(queries, content, mask, styles, causal=False))
        return model.graph_encoder.displacements(weights)


def export_engine(folder: Path, out: Path | None = None) -> Path:
    """Write the graphs of a checkpoint and what the ONNX engine must know of it.

    Args:
        folder: The checkpoint.
        out: Where the graphs go; a folder with the same ``model.safetensors``, by default the
            checkpoint's own.

    Returns:
        The folder of the graphs.

    Raises:
        UserError: The checkpoint is missing or damaged, its model cannot be exported, packages are
            missing, or a file cannot be written.
    """
    require_packages()
    out = out or folder
    fingerprint = checked_fingerprint(folder)
    model = checkpoint.load(folder)
    reason = why_not_exportable(model.config)
    if reason:
        raise UserError(f"{reason} Choose such a checkpoint, like the bundled one.")
    config = model.config
    frames = example_frames(model)
    features = torch.randn(1, frames, config.speech.input_dim)
    phones = torch.randint(0, config.num_phone_ids, (1, frames))
    motion = torch.rand(1, config.motion_stride * frames, len(config.shape_names))
    content = torch.randn(1, frames, config.feature_dim)
    styles = torch.randn(5, config.style_dim)
    length, batch = {1: _LENGTH}, {0: _LENGTH}
    writer = _GraphWriter(_read_stored(folder / WEIGHTS_NAME))
    talk, hear, read, restyle = GRAPHS
    reading = ["code", "nodes", "content"][: 2 if model.lip_reader is None else 3]
    for name, module, given, dynamic, inputs, outputs in (
        (talk, SoundPath(model), (features, phones, styles[:1]), (length, length, None),
         ["features", "phones", "style"], ["weights"]),
        (hear, Hearing(model), (features,), (length,), ["features"], ["log_posteriors"]),
        (read, ExemplarReading(model), (motion,), (length,), ["motion"], reading),
        (restyle, Restyling(model), (content, styles), (length, batch),
         ["content", "styles"], ["nodes"]),
    ):  # fmt: skip
        proto = _traced(module.eval(), given, dynamic, inputs, outputs)
        writer.write(proto, out / name)
    write_facts(out / FACTS_NAME, _facts(model, fingerprint))
    return out


def export_phone_head(weights: Path, out: Path) -> None:
    """Write the graph of a phone head beside its parameters.

    Args:
        weights: The head's safetensors file.
        out: The ``.onnx`` file, in the same folder.

    Raises:
        UserError: Packages are missing, or the file cannot be written.
    """
    require_packages()
    stored = load_file(weights)
    width, feature_dim = stored["projection.weight"].shape
    head = PhoneHead(feature_dim, NUM_PHONE_IDS, width=width)
    head.load_state_dict({name: value.float() for name, value in stored.items()})

    class Posteriors(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = head

        def forward(self, features: Tensor) -> Tensor:
            found: Tensor = self.head(features, torch.ones(features.shape[:2])).log_softmax(-1)
            return found

    given = (torch.randn(1, 67, feature_dim),)
    proto = _traced(Posteriors().eval(), given, ({1: _LENGTH},), ["features"], ["log_posteriors"])
    _GraphWriter(_read_stored(weights)).write(proto, out)


def _facts(model: PTalker, fingerprint: str) -> Facts:
    config, encoder = model.config, model.speech_content
    features = torch.from_numpy(check_features(config.speech.input_dim))[None]
    with torch.no_grad():
        weights = SoundPath(model)(
            features, torch.zeros(features.shape[:2], dtype=torch.int64), model.neutral_style()
        )
    return Facts(
        fingerprint=fingerprint,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        neutral_code=tuple(model.neutral_style()[0].tolist()),
        identity_codes={
            name: tuple(model.encode_identity_style(name)[0].tolist()) for name in config.speakers
        },
        talk_around=model.decoder.receptive_field + encoder.full_receptive_field + 3,
        hear_around=encoder.receptive_field,
        stacked=encoder.stacking,
        expected_weights=tuple(weights[0, len(features[0]) // 2].tolist()),
    )


def _traced(
    module: nn.Module,
    given: tuple[Tensor, ...],
    dynamic: tuple[Any, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> Any:
    """A module as ONNX, with its parameters inside."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of torchvision's absence
    with torch.no_grad():
        traced = torch.export.export(module, given, dynamic_shapes=dynamic, strict=False)
        program = torch.onnx.export(
            traced, dynamo=True, input_names=inputs, output_names=outputs, verbose=False,
            opset_version=_OPSET,
        )  # fmt: skip
    assert program is not None
    return program.model_proto


@dataclass(frozen=True, slots=True)
class _Stored:
    """A tensor of the checkpoint's file.

    Attributes:
        kind: How its numbers are stored.
        shape: Its shape.
        start: Its first byte in the file.
        size: Number of its bytes.
        values: Its numbers, in 32 bits where they are fractions.
    """

    kind: str
    shape: tuple[int, ...]
    start: int
    size: int
    values: NDArray[Any]


def _read_stored(weights: Path) -> list[_Stored]:
    values = read_tensors(weights)
    return [
        _Stored(kind, shape, start, size, _wide(values[name]))
        for name, (kind, shape, start, size) in tensor_places(weights).items()
    ]


def _wide(values: NDArray[np.generic]) -> NDArray[Any]:
    return values.astype(np.float32) if values.dtype.kind == "f" else values


def _digest(values: NDArray[Any]) -> tuple[str, tuple[int, ...], bytes]:
    return str(values.dtype), values.shape, hashlib.sha256(values.tobytes()).digest()


class _GraphWriter:
    """Puts places in the checkpoint's file where a graph holds parameters.

    The exporter may have turned a parameter round, or have looked up a table of distances in it;
    the graph then does so itself. What is alike is kept once.

    Args:
        stored: The file's tensors.
    """

    def __init__(self, stored: Sequence[_Stored]) -> None:
        self._as_is = {_digest(each.values): each for each in stored}
        matrices = [each for each in stored if len(each.shape) == 2]
        self._turned = {_digest(np.ascontiguousarray(each.values.T)): each for each in matrices}
        self._columns = [
            (each, {column.tobytes(): n for n, column in enumerate(each.values.T.copy())})
            for each in matrices
            if each.shape[1] <= _MAX_DISTANCES
        ]

    def write(self, proto: Any, path: Path) -> None:
        """Write a graph without its parameters; the file appears complete or not at all."""
        from onnx import numpy_helper

        self._kept: list[Any] = []
        self._nodes: list[Any] = []
        self._names: dict[object, str] = {}
        self._inline = 0
        graph, renamed = proto.graph, {}
        for tensor in graph.initializer:
            renamed[tensor.name] = self._placed(numpy_helper.to_array(tensor))
        if self._inline > _MAX_INLINE_BYTES:
            raise RuntimeError(f"{path.name} would hold {self._inline} bytes of its own")
        for node in graph.node:
            given = [renamed.get(name, name) for name in node.input]
            del node.input[:]
            node.input.extend(given)
        nodes = [*self._nodes, *graph.node]
        for field in (graph.initializer, graph.node, graph.value_info):
            del field[:]
        graph.initializer.extend(self._kept)
        graph.node.extend(nodes)
        _strip(proto)
        content = proto.SerializeToString(deterministic=True)

        def save(file: IO[bytes]) -> None:
            file.write(content)

        write_atomically(path, save)

    def _placed(self, array: NDArray[Any]) -> str:
        """Name of a value of the graph that equals an array."""
        key = _digest(array)
        if key not in self._names:
            self._names[key] = self._new(array, key)
        return self._names[key]

    def _new(self, array: NDArray[Any], key: tuple[str, tuple[int, ...], bytes]) -> str:
        if array.nbytes > _SMALL_BYTES:
            if key in self._as_is:
                return self._external(self._as_is[key])
            if key in self._turned:
                return self._node("Transpose", [self._external(self._turned[key])], perm=[1, 0])
            for each, columns in self._columns:
                found = self._looked_up(array, each, columns)
                if found is not None:
                    indices = self._placed(found)
                    return self._node("Gather", [self._external(each), indices], axis=1)
        from onnx import numpy_helper

        self._inline += array.nbytes
        name = f"inside.{len(self._kept)}"
        self._kept.append(numpy_helper.from_array(array, name))
        return name

    def _looked_up(
        self, array: NDArray[Any], each: _Stored, columns: dict[bytes, int]
    ) -> NDArray[np.int32] | None:
        """Columns of a stored matrix of which a table is made, if it is."""
        if array.ndim != 3 or array.shape[0] != each.shape[0] or array.dtype != np.float32:
            return None
        rows = np.ascontiguousarray(array.reshape(len(array), -1).T)
        numbers = [columns.get(row.tobytes(), -1) for row in rows]
        if min(numbers) < 0:
            return None
        return np.array(numbers, np.int32).reshape(array.shape[1:])

    def _external(self, each: _Stored) -> str:
        """Name of a stored tensor, in 32 bits."""
        from onnx import TensorProto

        if each.start in self._names:
            return self._names[each.start]
        kinds = {"F16": TensorProto.FLOAT16, "F32": TensorProto.FLOAT, "I64": TensorProto.INT64}
        name = f"stored.{each.start}"
        tensor = TensorProto(
            name=name, dims=each.shape, data_type=kinds[each.kind],
            data_location=TensorProto.EXTERNAL,
        )  # fmt: skip
        for key, value in (
            ("location", WEIGHTS_NAME), ("offset", each.start), ("length", each.size)
        ):  # fmt: skip
            tensor.external_data.add(key=key, value=str(value))
        self._kept.append(tensor)
        if each.kind == "F16":
            name = self._node("Cast", [name], to=TensorProto.FLOAT)
        self._names[each.start] = name
        return name

    def _node(self, operator: str, inputs: list[str], **details: Any) -> str:
        from onnx import helper

        name = f"made.{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], **details))
        return name


def _strip(proto: Any) -> None:
    """Takes out what no engine reads, and gives short names to what lies between the ends."""
    graph = proto.graph
    ends = {entry.name for entry in (*graph.input, *graph.output)}
    short: dict[str, str] = {"": ""}

    def renamed(name: str) -> str:
        if name in ends:
            return name
        return short.setdefault(name, f"{len(short):x}")

    for tensor in graph.initializer:
        tensor.name = renamed(tensor.name)
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    for node in graph.node:
        node.name = node.doc_string = ""
        del node.metadata_props[:]
        for names in (node.input, node.output):
            found = [renamed(name) for name in names]
            del names[:]
            names.extend(found)
    for entry in (*graph.input, *graph.output):
        del entry.metadata_props[:]
    graph.doc_string = proto.doc_string = ""
    del graph.metadata_props[:]
    del proto.metadata_props[:]
