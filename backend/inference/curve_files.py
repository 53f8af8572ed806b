# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of weights over time in ARKit's names: what phones capture, and what other programs read.

*Live Link Face* (Epic) writes CSV: a row a frame with ``Timecode`` (``HH:MM:SS:FF.mmm``, frames
and thousandths of one), ``BlendShapeCount``, ARKit's names with a capital first letter, and nine
angles of head and eyes in radians. *Face Cap* (Bannaflak) writes text: a line ``info``, a line
``bs`` with the names (``browDown_L``), and a line ``k`` a frame with milliseconds, position and
angles of head and eyes, and the weights. Beside these, ``.npz`` with ``weights`` (T, K), ``names``
and ``fps``, and ``motion.npz``. Weights are shares of 1 everywhere.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

from backend.errors import UserError, excerpt
from backend.heads.arkit import ARKIT_NAMES, MAX_WEIGHT
from backend.io import check_path, read_arrays, read_text, write_atomically
from backend.motion import LEARNED_SHAPE_NAME, Layers, Motion

SUFFIXES: Final = (".csv", ".txt")
"""Text files of curves; an ``.npz`` may hold curves or the vertices of a head."""
_MAX_BYTES: Final = 256 << 20
_MAX_SECONDS: Final = 3600.0
_MAX_FILES: Final = 1000
_FEWEST_NAMES: Final = 5
_LONGEST_GAP_SECONDS: Final = 1.0
"""Of frames in which no face was seen, longer than which a take is cut short."""
_ROUNDED_FRAMES: Final = 0.1
"""By which the last time may be early: Face Cap rounds to milliseconds."""
_RATES: Final = (24.0, 25.0, 30.0, 48.0, 50.0, 60.0, 120.0)
_ANGLES: Final = (
    "HeadYaw", "HeadPitch", "HeadRoll", "LeftEyeYaw", "LeftEyePitch", "LeftEyeRoll",
    "RightEyeYaw", "RightEyePitch", "RightEyeRoll",
)  # fmt: skip
_TIMECODE: Final = re.compile(r"(\d+):(\d+):(\d+)[:;](\d+(?:\.\d+)?)")
_INDEX: Final = {name.lower(): number for number, name in enumerate(ARKIT_NAMES)}
_REMEDY: Final = "Export it again from Live Link Face or Face Cap, or choose another file."

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Curves:
    """Weights of a face over time.

    Attributes:
        weights: Weights of ``ARKIT_NAMES`` at a regular rate, ``(T, 52)``; 0 where not known.
        names: The names that are known.
        fps: Frames a second.
    """

    weights: NDArray[np.float32]
    names: frozenset[str]
    fps: float

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.weights)


def read_curves(path: Path) -> Curves:
    """Read weights over time.

    Args:
        path: A ``.csv`` of Live Link Face, a ``.txt`` of Face Cap, an ``.npz``, or a folder of such
            files, which are joined in the order of their names.

    Returns:
        The weights.

    Raises:
        UserError: Missing, damaged, or no such file.
    """
    check_path(str(path))
    if path.is_dir():
        return _read_folder(path)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _read_live_link(path)
    if suffix == ".txt":
        return _read_face_cap(path)
    return _read_arrays(path)


def _read_folder(folder: Path) -> Curves:
    """All files of curves of a folder, one after the other at the rate of the first."""
    files = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in (*SUFFIXES, ".npz") and not path.name.startswith(".")
    )
    if not files or len(files) > _MAX_FILES:
        found = "no" if not files else f"{len(files)}"
        raise UserError(
            f'The folder "{excerpt(folder.name)}" has {found} files of curves (.csv, .txt, .npz); '
            f"1 to {_MAX_FILES} are read. Choose another folder."
        )
    parts = [read_curves(path) for path in files]
    names = frozenset.intersection(*(part.names for part in parts))
    fps = parts[0].fps
    rows = [_at_rate(np.arange(len(part.weights)) / part.fps, part.weights, fps) for part in parts]
    return _made(folder.name, np.concatenate(rows), names, fps)


def _read_live_link(path: Path) -> Curves:
    name = excerpt(path.name)
    lines = read_text(path, max_bytes=_MAX_BYTES).splitlines()
    try:
        rows = [row for row in csv.reader(lines) if row]
    except csv.Error as error:
        raise UserError(f'"{name}" is no CSV ({excerpt(error)}). {_REMEDY}') from error
    header = [cell.strip() for cell in rows[0]] if rows else []
    columns = _columns(header)
    if "Timecode" not in header or len(columns) < _FEWEST_NAMES:
        raise UserError(
            f'"{name}" is no CSV of Live Link Face: its first line must name Timecode and '
            f"blendshapes such as JawOpen. {_REMEDY}"
        )
    at = header.index("Timecode")
    seen = [row for row in rows[1:] if len(row) == len(header) and row[columns[0][0]].strip()]
    codes = [_TIMECODE.fullmatch(row[at].strip()) for row in seen]
    if not seen or None in codes:
        raise UserError(f'"{name}" has no frames with timecodes such as 12:30:01:05. {_REMEDY}')
    parts = np.array([[float(x) for x in code.groups()] for code in codes if code is not None])
    fps = _rate_of_frames(parts[:, 3], is_short=len(np.unique(parts[:, 2])) == 1)
    times = parts[:, :3] @ [3600.0, 60.0, 1.0] + parts[:, 3] / fps
    times += 86400.0 * np.cumsum(np.diff(times, prepend=times[0]) < -43200.0)  # midnight
    return _timed(name, times, seen, columns, fps)


def _rate_of_frames(frames: Floats, *, is_short: bool) -> float:
    """The rate by the largest frame number; where no second ends in so few frames, the app's 60."""
    if is_short and frames.max() < _RATES[0] - 1.0:
        return 60.0
    return next((rate for rate in _RATES if rate > frames.max()), _RATES[-1])


def _read_face_cap(path: Path) -> Curves:
    name = excerpt(path.name)
    lines = read_text(path, max_bytes=_MAX_BYTES).splitlines()
    rows = [[cell.strip() for cell in line.split(",")] for line in lines if line.strip()]
    names = next((row[1:] for row in rows if row[0] == "bs"), [])
    names = names[:-1] if names and not names[-1] else names
    frames = [row if row[-1] else row[:-1] for row in rows if row[0] == "k"]
    frames = [row for row in frames if len(row) >= len(names) + 2]
    if len(_columns(names)) < _FEWEST_NAMES or not frames:
        raise UserError(
            f'"{name}" is no text of Face Cap: it must have a line "bs" with the names of '
            f'blendshapes and lines "k" with their values. {_REMEDY}'
        )
    first = len(frames[0]) - len(names)  # the weights are the last columns
    columns = [(first + column, number) for column, number in _columns(names)]
    whole = [row for row in frames if len(row) == len(frames[0])]
    times = _numbers(name, [[row[1]] for row in whole])[:, 0] / 1000.0
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    if not step > 0.0:
        raise UserError(f'"{name}" has frames whose times do not go on. {_REMEDY}')
    fps = min(_RATES, key=lambda rate: abs(math.log(rate * step)))
    return _timed(name, times, whole, columns, fps)


def _columns(header: Sequence[str]) -> list[tuple[int, int]]:
    """Column and number of each name of ARKit; ``browDown_L`` is ``browDownLeft``."""
    found = []
    for column, text in enumerate(header):
        word = re.sub("_l$", "left", re.sub("_r$", "right", text.strip().lower()))
        if word in _INDEX:
            found.append((column, _INDEX[word]))
    return found


def _numbers(name: str, rows: Sequence[Sequence[str]]) -> Floats:
    try:
        numbers = np.array([[float(cell) for cell in row] for row in rows])
    except ValueError as error:
        raise UserError(f'"{name}" holds values that are no numbers. {_REMEDY}') from error
    if not np.isfinite(numbers).all():
        raise UserError(f'"{name}" holds values that are no numbers. {_REMEDY}')
    return numbers


def _timed(
    name: str, times: Floats, rows: Sequence[Sequence[str]], columns: list[tuple[int, int]],
    fps: float,
) -> Curves:  # fmt: skip
    """Curves of rows of text with times; gaps are bridged, frames out of order left out."""
    values = _numbers(name, [[row[column] for column, _ in columns] for row in rows])
    kept = np.concatenate([[True], times[1:] > np.maximum.accumulate(times)[:-1]])
    times, values = times[kept] - times[0], values[kept]
    if times[-1] > _MAX_SECONDS:
        raise UserError(f'"{name}" is longer than an hour. Cut out the part that shows the style.')
    gaps = np.concatenate([[0.0], np.maximum(np.diff(times) - _LONGEST_GAP_SECONDS, 0.0)])
    weights = np.zeros((len(values), len(ARKIT_NAMES)))
    weights[:, [number for _, number in columns]] = values
    known = frozenset(ARKIT_NAMES[number] for _, number in columns)
    return _made(name, _at_rate(times - np.cumsum(gaps), weights, fps), known, fps)


def _at_rate(times: Floats, weights: NDArray[np.floating], fps: float) -> Floats:
    regular = np.arange(math.floor(times[-1] * fps + _ROUNDED_FRAMES) + 1) / fps
    return np.stack([np.interp(regular, times, column) for column in weights.T], axis=1)


def _made(name: str, weights: Floats, names: frozenset[str], fps: float) -> Curves:
    largest = float(np.abs(weights).max(initial=0.0))
    if largest > 4.0:
        raise UserError(
            f'"{name}" has weights up to {largest:.3g}; expected shares of 1. Divide them by 100 '
            "where they are percents."
        )
    return Curves(np.clip(weights, 0.0, MAX_WEIGHT).astype(np.float32), names, fps)


def _read_arrays(path: Path) -> Curves:
    name = excerpt(path.name)
    rates = ("fps", "fps_numerator", "fps_denominator")
    arrays = read_arrays(path, ["weights", "names"], optional=rates)
    weights, names = arrays["weights"], [str(text) for text in arrays["names"].ravel()]
    if weights.ndim != 2 or weights.shape[1] != len(names) or weights.dtype.kind not in "fiu":
        raise UserError(
            f'"{name}" has weights {excerpt(weights.shape, 40)} of {len(names)} names, expected '
            "(T, K) numbers and K names. Export it again."
        )
    fps = _stored_rate([arrays[key] for key in rates if key in arrays])
    columns = _columns(names)
    if not 1.0 <= fps <= 1000.0:
        raise UserError(f'"{name}" has no frame rate of 1 to 1000 frames a second. {_REMEDY}')
    if len(columns) < _FEWEST_NAMES or not len(weights):
        raise UserError(
            f'"{name}" has weights of no names of ARKit such as jawOpen. Choose another file.'
        )
    values = np.zeros((len(weights), len(ARKIT_NAMES)))
    values[:, [number for _, number in columns]] = weights[:, [column for column, _ in columns]]
    known = frozenset(
        ARKIT_NAMES[number] for column, number in columns if np.isfinite(weights[:, column]).all()
    )
    return _made(name, np.nan_to_num(values), known, fps)


def _stored_rate(stored: Sequence[NDArray[np.generic]]) -> float:
    """A rate that is one number, or numerator and denominator; NaN where it is neither."""
    if not all(part.size == 1 and part.dtype.kind in "fiu" for part in stored):
        return math.nan
    numbers = [float(part.astype(np.float64).item()) for part in stored]
    if len(numbers) == 1:
        return numbers[0]
    return numbers[0] / numbers[1] if len(numbers) == 2 and numbers[1] else math.nan


def write_live_link(path: Path, motion: Motion) -> None:
    """Write a motion as Live Link Face does.

    Args:
        path: The ``.csv`` file.
        motion: A motion of shapes with ARKit's names, its head's rotation in its layers.

    Raises:
        UserError: The motion's shapes have no such names, or the file cannot be written.
    """
    columns = {name: number for number, name in enumerate(motion.names)}
    if not columns.keys() & set(ARKIT_NAMES):
        example = LEARNED_SHAPE_NAME.format(1)
        raise UserError(
            f"This motion has shapes of its own ({example}) instead of ARKit's, which no CSV can "
            "name. Generate it with the bundled model."
        )
    none = np.zeros(len(motion.weights))
    rows = [motion.weights[:, columns[n]] if n in columns else none for n in ARKIT_NAMES]
    values = np.stack([*rows, *_angles(motion.layers, len(none))], axis=1)
    header = ["Timecode", "BlendShapeCount", *(n[0].upper() + n[1:] for n in ARKIT_NAMES), *_ANGLES]
    first = Fraction(motion.start_seconds).limit_denominator(1_000_000) * motion.fps
    lines = [",".join(header)]
    for number, row in enumerate(values):
        code = _timecode(first + number, motion.fps)
        lines.append(",".join([code, str(len(row)), *(f"{value:.6f}" for value in row)]))
    text = "\n".join(lines) + "\n"

    def save(file: IO[bytes]) -> None:
        file.write(text.encode("ascii"))

    write_atomically(path, save)


def _angles(layers: Layers | None, num_frames: int) -> list[Floats]:
    """Radians of the head; the eyes turn by the weights of eyeLook*, which say the same."""
    still = np.zeros(num_frames)
    if layers is None:
        return [still] * len(_ANGLES)
    nod, turn, lean = np.radians(layers.head_rotation.astype(np.float64)).T
    return [turn, nod, lean, *[still] * (len(_ANGLES) - 3)]


def _timecode(frame: Fraction, fps: Fraction) -> str:
    """``HH:MM:SS:FF.mmm`` of a frame, counted without drop frames at the next whole rate."""
    nominal = math.ceil(fps)
    thousandths = round(frame * 1000)
    whole, part = divmod(thousandths, 1000)
    seconds, inside = divmod(whole, nominal)
    minutes, hours = seconds // 60, seconds // 3600
    return f"{hours % 24:02d}:{minutes % 60:02d}:{seconds % 60:02d}:{inside:02d}.{part:03d}"
