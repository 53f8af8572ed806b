# SPDX-License-Identifier: GPL-3.0-or-later
"""Sessions of ONNX Runtime: where it is installed, and with which threads a graph runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from backend import bundled
from backend.errors import UserError, excerpt
from backend.processes import num_cores

MISSING: Final = (
    "ONNX Runtime is not installed for this Python: install the zip of PTalker that is made for "
    "this computer and this Blender, or add PyTorch in the preferences."
)


class Session:
    """A graph that is ready to run; threads may share it.

    Args:
        path: The graph's file; parameters outside it are beside it.
        threads: Threads that work on one call, by default one a core.

    Attributes:
        metadata: What the file says of itself.

    Raises:
        UserError: ONNX Runtime is not installed, or cannot run the file.
    """

    metadata: dict[str, str]

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        if not bundled.is_installed("onnxruntime"):
            raise UserError(MISSING)
        try:
            import onnxruntime  # optional: a system may have no build of it
        except ImportError as error:
            raise UserError(f"ONNX Runtime does not start here ({excerpt(error, 120)}).") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or num_cores()
        options.log_severity_level = 3
        # Threads that spin while they wait would take the cores from Blender.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise UserError(
                f'ONNX Runtime cannot run "{path.name}" ({excerpt(error, 160)}).'
            ) from error
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        self.inputs = [entry.name for entry in self._session.get_inputs()]
        self.outputs = [entry.name for entry in self._session.get_outputs()]

    def run(
        self, outputs: list[str] | None, feeds: dict[str, NDArray[Any]]
    ) -> list[NDArray[np.float32]]:
        """Run the graph.

        Args:
            outputs: Names of what is wanted; None for all.
            feeds: Arrays by the names of the inputs.

        Returns:
            The outputs.

        Raises:
            UserError: There is not enough memory.
        """
        try:
            made: list[NDArray[np.float32]] = self._session.run(outputs, feeds)
        except Exception as error:
            if "allocate" not in str(error).lower() and not isinstance(error, MemoryError):
                raise
            raise UserError(
                "There is not enough memory for this job. Close other programs, or animate a "
                "shorter stretch."
            ) from error
        return made
