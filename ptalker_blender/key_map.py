# SPDX-License-Identifier: GPL-3.0-or-later
"""The artist's own table of what drives which shape key, and its file.

A row says that a key takes the weight of an ARKit blendshape, or of a viseme, times a gain. In
place of a key there may be a pose of the armature, ``pose:jaw_open@1``: its Action and the frame at
which it is read. A file of rows is a JSON object
``{"Mouth_Smile_L": {"mouthSmileLeft": 0.8}, "AH": {"viseme_aa": 1}}``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .protocol import UserError
from .rig_mapping import Rig
from .rig_names import ARKIT_NAMES, MOUTH_SHAPES

_VISEME: Final = "viseme_"
SOURCES: Final = (*ARKIT_NAMES, *(_VISEME + shape for shape in MOUTH_SHAPES if shape != "rest"))
"""What a key may be driven by."""
MAX_GAIN: Final = 10.0
_MAX_BYTES: Final = 4 << 20
_POSE: Final = re.compile(r"pose:(.+)@(-?\d{1,7})")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table.

    Attributes:
        key: Name of a shape key, or of a pose.
        source: One of ``SOURCES``; empty where nothing is chosen yet.
        gain: What the source's weight is multiplied by.
    """

    key: str
    source: str
    gain: float = 1.0


def pose_name(action: str, frame: int) -> str:
    """What the table calls a pose of an armature."""
    return f"pose:{action}@{frame}"


def pose_of(name: str) -> tuple[str, int] | None:
    """Action and frame of a pose that the table names; None where a name is a shape key's."""
    found = _POSE.fullmatch(name)
    return None if found is None else (found[1], int(found[2]))


def viseme_source(shape: str) -> str:
    """What the table calls a mouth shape as a source; empty for the mouth at rest."""
    return _VISEME + shape if shape != "rest" else ""


def rows_of(rig: Rig | None, key_names: Iterable[str]) -> list[Row]:
    """A table that does what a rig does, with a row without a source for each other key.

    Args:
        rig: What was found by the keys' names; None where nothing was.
        key_names: Names of the head's shape keys, without the basis.

    Returns:
        The rows, those of driven keys first.
    """
    rows = []
    if rig is not None and not rig.needs_head:
        rows += [Row(key, name, gain) for key, of in rig.gains.items() for name, gain in of.items()]
        rows += [
            Row(key, viseme_source(shape), rig.scales.get(key, 1.0))
            for key, shape in rig.fitted.items()
        ]
    known = {row.key for row in rows}
    return rows + [Row(key, "") for key in key_names if key not in known]


def rig_of(rows: Iterable[Row], key_names: Collection[str],
           motion_names: Collection[str] = ARKIT_NAMES) -> Rig | None:  # fmt: skip
    """The rig that a table describes.

    Args:
        rows: The table.
        key_names: Names of the keys and poses that the head has; rows of others are passed
            over.
        motion_names: Names of the motion's shapes.

    Returns:
        None where no row can be used.
    """
    gains: dict[str, dict[str, float]] = {}
    fitted: dict[str, str] = {}
    scales: dict[str, float] = {}
    unclear = []
    for row in rows:
        if row.key not in key_names or row.source not in SOURCES:
            continue
        if row.source.startswith(_VISEME):
            if row.key in fitted:
                unclear.append(row.key)
            fitted[row.key] = row.source.removeprefix(_VISEME)
            scales[row.key] = row.gain
        elif row.source in motion_names:
            of = gains.setdefault(row.key, {})
            of[row.source] = of.get(row.source, 0.0) + row.gain
    unclear += [key for key in gains if key in fitted]  # by weight or by fit: not both
    gains = {key: of for key, of in gains.items() if key not in unclear}
    fitted = {key: shape for key, shape in fitted.items() if key not in unclear}
    if not gains and not fitted:
        return None
    return Rig(
        'VISEMES' if fitted else 'ARKIT',
        gains,
        fitted,
        tuple(dict.fromkeys(unclear)),
        {key: scale for key, scale in scales.items() if key in fitted and scale != 1.0},
    )


def read(path: Path) -> list[Row]:
    """The rows of a file.

    Args:
        path: A file that :func:`write` made, or one like it.

    Returns:
        The rows in the file's order.

    Raises:
        UserError: It cannot be read or is no such table.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path.name} is too large for a table of shape keys.")
        table = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path.name} cannot be read as a table of shape keys: {error}.") from error
    if not isinstance(table, dict) or not table:
        raise UserError(f"{path.name} holds no table of shape keys: an object is expected.")
    return [row for key, of in table.items() for row in _rows(path, key, of)]


def _rows(path: Path, key: str, of: object) -> list[Row]:
    if not isinstance(of, dict):
        raise UserError(f'{path.name}: "{key}" must have an object of names and gains.')
    rows = []
    for source, gain in of.items():
        if source not in SOURCES:
            raise UserError(
                f'{path.name}: "{source}", which is to drive "{key}", is neither an ARKit '
                f"blendshape nor a viseme such as {SOURCES[-1]}."
            )
        if isinstance(gain, bool) or not isinstance(gain, int | float) or not _is_gain(gain):
            raise UserError(
                f'{path.name}: the gain of "{key}" is {gain!r}, expected a number from '
                f"{-MAX_GAIN:g} to {MAX_GAIN:g}."
            )
        rows.append(Row(key, source, float(gain)))
    return rows


def _is_gain(gain: float) -> bool:
    return math.isfinite(gain) and abs(gain) <= MAX_GAIN


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows that have a source.

    Args:
        path: File to make or replace.
        rows: The table.

    Raises:
        UserError: There are none, or the file cannot be written.
    """
    table: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.source:
            of = table.setdefault(row.key, {})
            of[row.source] = round(of.get(row.source, 0.0) + row.gain, 6)
    if not table:
        raise UserError("Nothing in the table is driven. Choose what drives a row first.")
    try:
        path.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", "utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from error
