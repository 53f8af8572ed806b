# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a driver's expression as a straight line with limits, and turns such lines round.

``max(0, var * 2 - 0.1)`` is such a line in ``var``: its value can be chosen by choosing ``var``.
Nothing is executed; what is no straight line is not read.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from .motion import Floats

_MAX_LETTERS: Final = 256  # Blender's own limit of an expression
_SAME: Final = 1e-6
_BINARY: Final[dict[type, Callable[[float, float], float]]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}  # fmt: skip
_CONSTANTS: Final = {"pi": math.pi, "True": 1.0, "False": 0.0}
_FACTORS: Final = {"radians": math.pi / 180.0, "degrees": 180.0 / math.pi, "float": 1.0}


@dataclass(frozen=True, slots=True)
class ClippedLine:
    """``y = min(max(slope * x + offset, low), high)``.

    Attributes:
        slope: Change of the value per unit of the variable; 0 for a constant.
        offset: Value at 0.
        low: Smallest value.
        high: Largest value.
    """

    slope: float = 1.0
    offset: float = 0.0
    low: float = -math.inf
    high: float = math.inf

    @property
    def is_constant(self) -> bool:
        """Whether the variable changes nothing."""
        return self.slope == 0.0 or self.low == self.high

    @property
    def is_unlimited(self) -> bool:
        """Whether the line goes on for ever on both sides."""
        return self.low == -math.inf and self.high == math.inf

    def __call__(self, x: Floats | float) -> Floats:
        """The value at ``x``."""
        return np.clip(self.slope * np.asarray(x) + self.offset, self.low, self.high)

    def scaled(self, factor: float) -> ClippedLine:
        """The line times a number."""
        if factor == 0.0:
            return constant(0.0)
        ends = sorted((self.low * factor, self.high * factor))
        return ClippedLine(self.slope * factor, self.offset * factor, *ends)

    def moved(self, by: float) -> ClippedLine:
        """The line plus a number."""
        return ClippedLine(self.slope, self.offset + by, self.low + by, self.high + by)

    def limited(self, low: float = -math.inf, high: float = math.inf) -> ClippedLine:
        """The line within further limits."""
        ends = [min(max(end, low), high) for end in (self.low, self.high)]
        return ClippedLine(self.slope, self.offset, *ends)

    def after(self, inner: ClippedLine) -> ClippedLine:
        """This line of the value of another."""
        return inner.scaled(self.slope).moved(self.offset).limited(self.low, self.high)

    def at(self, y: float) -> float:
        """Where the line without its limits has a value."""
        return (y - self.offset) / self.slope


def constant(value: float) -> ClippedLine:
    """A line on which the variable changes nothing."""
    return ClippedLine(0.0, value, value, value)


@lru_cache(maxsize=1024)  # a panel asks at every redraw
def read(expression: str, variable: str) -> ClippedLine | None:
    """The line that an expression is in its variable.

    Args:
        expression: Python, as a driver has it.
        variable: Name of the driver's variable.

    Returns:
        None where it is no straight line with limits.
    """
    if len(expression) > _MAX_LETTERS:
        return None
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
        found = _line(tree, variable)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None
    is_finite = found is not None and math.isfinite(found.slope) and math.isfinite(found.offset)
    return found if is_finite else None


def _line(node: ast.expr, variable: str) -> ClippedLine | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return constant(float(node.value))
    if isinstance(node, ast.Name):
        if node.id == variable:
            return ClippedLine()
        return constant(_CONSTANTS[node.id]) if node.id in _CONSTANTS else None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inner = _line(node.operand, variable)
        return inner and inner.scaled(-1.0 if isinstance(node.op, ast.USub) else 1.0)
    if isinstance(node, ast.BinOp):
        return _of_two(node, variable)
    if isinstance(node, ast.Call):
        return _called(node, variable)
    if isinstance(node, ast.IfExp):
        return _either(node, variable)
    return None


def _of_two(node: ast.BinOp, variable: str) -> ClippedLine | None:
    left, right = _line(node.left, variable), _line(node.right, variable)
    if left is None or right is None or type(node.op) not in _BINARY:
        return None
    if left.is_constant and right.is_constant:
        return constant(_BINARY[type(node.op)](left.offset, right.offset))
    if isinstance(node.op, ast.Mult):
        if right.is_constant:
            return left.scaled(right.offset)
        return right.scaled(left.offset) if left.is_constant else None
    if isinstance(node.op, ast.Div):
        return left.scaled(1.0 / right.offset) if right.is_constant else None
    if isinstance(node.op, ast.Sub):
        right = right.scaled(-1.0)
    if right.is_constant:
        return left.moved(right.offset)
    if left.is_constant:
        return right.moved(left.offset)
    if left.is_unlimited and right.is_unlimited:
        return ClippedLine(left.slope + right.slope, left.offset + right.offset)
    return None


def _called(node: ast.Call, variable: str) -> ClippedLine | None:
    if not isinstance(node.func, ast.Name) or node.keywords:
        return None
    found = [_line(argument, variable) for argument in node.args]
    lines = [line for line in found if line is not None]
    name = node.func.id
    if len(lines) < len(found) or not lines:
        return None
    if name in _FACTORS and len(lines) == 1:
        return lines[0].scaled(_FACTORS[name])
    if name == "clamp" and all(line.is_constant for line in lines[1:]):
        low, high = [line.offset for line in lines[1:]] or [0.0, 1.0]
        return lines[0].limited(low, high)
    if name in ("min", "max"):
        numbers = [line.offset for line in lines if line.is_constant]
        others = [line for line in lines if not line.is_constant]
        if len(others) == 1 and numbers:
            ends = {"high": min(numbers)} if name == "min" else {"low": max(numbers)}
            return others[0].limited(**ends)
    return None


def _either(node: ast.IfExp, variable: str) -> ClippedLine | None:
    """``var if var > 0 else 0``: a line and a constant that meet where the one gives way."""
    test = node.test
    if not isinstance(test, ast.Compare) or len(test.ops) != 1:
        return None
    asked, limit = _line(test.left, variable), _line(test.comparators[0], variable)
    yes, no = _line(node.body, variable), _line(node.orelse, variable)
    if asked is None or limit is None or yes is None or no is None:
        return None
    if not isinstance(test.ops[0], ast.Gt | ast.GtE | ast.Lt | ast.LtE):
        return None
    if asked.is_constant or not limit.is_constant or yes.is_constant == no.is_constant:
        return None
    line, flat = (no, yes) if yes.is_constant else (yes, no)
    meeting = asked.at(limit.offset)
    if abs(float(line(meeting)) - flat.offset) > _SAME:
        return None
    is_above = isinstance(test.ops[0], ast.Gt | ast.GtE) == (asked.slope > 0)
    rises = (line.slope > 0) == (is_above == (line is yes))
    return line.limited(low=flat.offset) if rises else line.limited(high=flat.offset)


def invert(lines: Sequence[ClippedLine], values: Floats, *, rests: Sequence[float]) -> Floats:
    """The variable over time by which several lines come nearest to their values.

    Lines that rise and lines that fall in the variable, as of a control that goes left and right,
    are answered apart; what one side takes, the other gives back.

    Args:
        lines: ``K`` lines in one variable, none of them constant.
        values: ``(T, K)`` what they should be.
        rests: What the variable may be where nothing is spoken; see :func:`rest_of`.

    Returns:
        ``(T,)`` the variable.
    """
    begin = rest_of(lines, rests)
    moves = []
    for sign in (1.0, -1.0):
        chosen = [number for number, line in enumerate(lines) if line.slope * sign > 0]
        if not chosen:
            continue
        slopes = np.array([lines[number].slope for number in chosen], np.float32)
        zeros = np.array([lines[number].at(0.0) for number in chosen], np.float32)
        size = values[:, chosen] @ slopes / float(slopes @ slopes)
        start = float(slopes**2 @ zeros) / float(slopes @ slopes)
        moves.append((size, start))
    moved = sum((size for size, _ in moves), np.zeros(len(values), np.float32))
    if len(moves) == 2:
        starts = np.where(moved > 0, moves[0][1], moves[1][1])
    else:
        starts = np.full(len(values), moves[0][1])
    return np.where(np.abs(moved) <= _SAME, begin, starts + moved).astype(np.float32)


def rest_of(lines: Sequence[ClippedLine], rests: Sequence[float]) -> float:
    """The variable at which lines are 0: the first of those that are wished and do it."""
    for rest in rests:
        if all(abs(float(line(rest))) <= _SAME for line in lines):
            return rest
    return float(np.mean([line.at(0.0) for line in lines]))
