# SPDX-License-Identifier: GPL-3.0-or-later
"""Expressions of drivers as straight lines with limits, and their inversion."""

import math

import numpy as np
import pytest

from ptalker_blender import driver_expression
from ptalker_blender.driver_expression import ClippedLine

X = np.linspace(-5, 5, 101)


def clamp(x, low=0.0, high=1.0):
    return min(max(x, low), high)


KNOWN = {"pi": math.pi, "radians": math.radians, "degrees": math.degrees, "clamp": clamp}


@pytest.mark.parametrize("expression", [
    "var", "-var", "+var * 2", "2 * var", "(var - 0.5) / 0.25", "var / -3 + 1", "1 - var",
    "max(0, var)", "min(1, max(0, var * 10 - 1))", "clamp(var)", "clamp(var * 2, -1, 0.5)",
    "-max(0, -var)", "2 * clamp(var, -1, 1) + 3", "radians(var) * 4", "degrees(var) / 90",
    "var * pi", "var + var * 2 - 1", "var if var > 0 else 0", "0 if var < 0 else var * 2",
    "-var if var < 0 else 0", "var * 2 if var < 0.5 else 1", " var*2 ",
    "max(var, -1, -2)", "min(0.5, -var)",
])  # fmt: skip
def test_line_has_the_values_of_the_expression(expression):
    line = driver_expression.read(expression, "var")
    expected = [eval(expression.strip(), {**KNOWN, "var": float(x)}) for x in X]  # noqa: S307
    np.testing.assert_allclose(line(X), expected, atol=1e-9)


@pytest.mark.parametrize("expression", [
    "", "var * var", "var ** 2", "sin(var)", "abs(var)", "var + other", "1 / var", "1 / 0",
    "frame", "__import__('os').system('true')", "var.x", "var[0]", "lambda: var", "max(var)",
    "clamp(var, 0)", "max(0, var) + var", "max(var, -var)", "var if var > 1 else 0",
    "0 if 0 >= 1 - 2 else var",
    "(" * 200 + "var" + ")" * 200, "var +" , "1e999 * var", "min(var, key=0)", "'a'",
])  # fmt: skip
def test_what_is_no_line_is_not_read(expression):
    assert driver_expression.read(expression, "var") is None


@pytest.mark.parametrize("expression", ["max(0, var * 2 - 0.5)", "clamp(-var)", "var * 3 + 1"])
def test_lines_follow_one_another(expression):
    inner = driver_expression.read("clamp(var * 2, -1, 1.5)", "var")
    outer = driver_expression.read(expression, "var")
    np.testing.assert_allclose(outer.after(inner)(X), outer(inner(X)), atol=1e-9)


def test_one_key_gets_what_it_should():
    line = driver_expression.read("clamp((var - 0.1) / 0.4)", "var")
    values = np.linspace(0, 1, 11, dtype=np.float32)[:, None]
    x = driver_expression.invert([line], values, rests=(0.0,))
    np.testing.assert_allclose(line(x), values[:, 0], atol=1e-6)
    assert x[0] == 0.0  # the mouth rests where the control does


def test_opposite_keys_of_one_control_are_both_reached():
    lines = [driver_expression.read(e, "v") for e in ("max(0, v * 4)", "max(0, -v * 2)")]
    values = np.array([[0, 0], [0.5, 0], [0, 0.5], [1, 0]], np.float32)
    x = driver_expression.invert(lines, values, rests=(0.0,))
    np.testing.assert_allclose(x, [0, 0.125, -0.25, 0.25], atol=1e-6)
    np.testing.assert_allclose(np.stack([line(x) for line in lines], 1), values, atol=1e-6)


def test_keys_that_move_together_get_the_nearest():
    lines = [ClippedLine(2.0), ClippedLine(2.0)]
    values = np.array([[0.2, 0.4], [0, 0]], np.float32)
    x = driver_expression.invert(lines, values, rests=(0.0,))
    np.testing.assert_allclose(x, [0.15, 0.0], atol=1e-6)


def test_rest_is_the_first_that_does_it():
    line = driver_expression.read("max(0, var - 3)", "var")
    assert driver_expression.rest_of([line], (5.0, 1.0, 0.0)) == 1.0
    assert driver_expression.rest_of([line], (5.0,)) == 3.0
