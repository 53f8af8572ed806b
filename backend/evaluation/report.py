# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of an evaluation on captured faces as JSON, Markdown and plots."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from backend.errors import UserError
from backend.io import write_text

_ARROWS: Final = {"low": "lower", "high": "higher", "zero": "nearer 0", "one": "nearer 1"}
_OTHER_COLOURS: Final = "#9aa5b1"


def write_report(
    folder: Path, report: Mapping[str, Any], curves: Mapping[str, NDArray[np.float64]]
) -> None:
    """Write ``report.json``, ``report.md`` and, where Matplotlib is installed, two plots.

    Args:
        folder: Made where it is missing.
        report: The report of ``captures.main``.
        curves: Lip distance over time of one sequence by method, each ``(T,)``.

    Raises:
        UserError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}). Choose another.") from error
    write_text(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    pictures = []
    if importlib.util.find_spec("matplotlib") is not None:
        pictures = _plot(folder, report, curves)
    write_text(folder / "report.md", markdown(report, pictures))


def markdown(report: Mapping[str, Any], pictures: Iterable[str] = ()) -> str:
    """The report as Markdown; its first lines are a summary."""
    lines = [*_summary(report), "", *_table(report), "", *_extras(report), "", *_paired(report)]
    lines += ["", *_protocol(report)]
    for name in pictures:
        lines += ["", f"![{name.removesuffix('.png').replace('_', ' ')}]({name})"]
    return "\n".join(lines) + "\n"


def _summary(report: Mapping[str, Any]) -> list[str]:
    protocol, methods = report["protocol"], report["methods"]
    unit = report["metrics"]["lve"]["unit"]
    models = [one for one in methods if one["kind"] == "checkpoint"]
    others = [one for one in methods if one["kind"] == "baseline"]
    beside = ", ".join(f"{one['name']} {_cell(one['metrics']['lve'], '')}" for one in others)
    lines = [
        f"# {', '.join(one['name'] for one in models)} on {protocol['dataset']}, split "
        f"{protocol['split']}",
        "",
        f"{protocol['sequences']} sequences, {protocol['frames']} frames; brackets are 95 % "
        "intervals over sequences. Compare only with reports of the protocol identity "
        f"**{protocol['identity']}**.",
        "",
    ]
    for one in sorted(models, key=lambda one: one["metrics"]["lve"]["value"]):
        lines.append(
            f"- **{one['name']}**: lip error {_cell(one['metrics']['lve'], unit)}; timing of the "
            f"lips {_cell(one['metrics']['mtm'], 'ms')}; {one['real_time_factor']:.3f} of real "
            f"time on {one['device']}."
        )
    lines.append(f"- Without a model, lip error in {unit}: {beside}.")
    for pair in report["paired"]:
        if pair["second"] in {one["name"] for one in models}:
            lines.append(f"- {_verdict(pair, unit)}")
    return lines


def _verdict(pair: Mapping[str, Any], unit: str) -> str:
    difference = pair["second_minus_first"]["lve"]
    word = "not distinguishable from"
    if difference["low"] > 0:
        word = "worse than"
    elif difference["high"] < 0:
        word = "better than"
    return (
        f"{pair['second']} is {word} {pair['first']} on the same sequences: lip error "
        f"{_cell(difference, unit, signed=True)}."
    )


def _table(report: Mapping[str, Any]) -> list[str]:
    methods = report["methods"]
    lines = [
        "| | unit | better | " + " | ".join(one["name"] for one in methods) + " |",
        "|---|---|---|" + "---|" * len(methods),
    ]
    for name, metric in report["metrics"].items():
        cells = " | ".join(_cell(one["metrics"][name], "") for one in methods)
        lines.append(
            f"| {metric['label']} | {metric['unit']} | {_ARROWS[metric['best']]} | {cells} |"
        )
    return lines


def _extras(report: Mapping[str, Any]) -> list[str]:
    methods, truth = [*report["methods"]], {"name": "truth", **report["truth"]}
    lines = [
        "| | SLCC | style retrieval, top-1 % | mean average precision % | diversity | real-time "
        "factor | peak memory, MB | style from |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in [*methods, truth]:
        found = one["style_retrieval"] or {}
        sources = ", ".join(f"{name} {count}" for name, count in one.get("style_from", {}).items())
        cells = [
            one["name"],
            _cell(one["slcc"], ""),
            _plain(found.get("top_1")),
            _plain(found.get("mean_average_precision")),
            _plain(one.get("diversity")),
            _plain(one.get("real_time_factor")),
            _plain(one.get("peak_memory_mb")),
            sources or "-",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    chance = (report["truth"]["style_retrieval"] or {}).get("chance")
    if chance is not None:
        lines += ["", f"Chance of style retrieval: {chance:.1f} %."]
    return lines


def _paired(report: Mapping[str, Any]) -> list[str]:
    """Table of differences to the first model; bold where the interval leaves 0 out."""
    if not report["paired"]:
        return []
    first = report["paired"][0]["first"]
    lines = [
        f"Differences to {first} on the same sequences (the other minus {first}; bold where the "
        "interval leaves 0 out):",
        "",
        "| | unit | " + " | ".join(pair["second"] for pair in report["paired"]) + " |",
        "|---|---|" + "---|" * len(report["paired"]),
    ]
    for name, metric in report["metrics"].items():
        cells = []
        for pair in report["paired"]:
            difference = pair["second_minus_first"][name]
            text = _cell(difference, "", signed=True)
            is_significant = difference["value"] is not None and (
                difference["low"] > 0 or difference["high"] < 0
            )
            cells.append(f"**{text}**" if is_significant else text)
        lines.append(f"| {metric['label']} | {metric['unit']} | {' | '.join(cells)} |")
    return lines


def _protocol(report: Mapping[str, Any]) -> list[str]:
    protocol = report["protocol"]
    regions = "; ".join(
        f"{name} {protocol['counts'].get(name, 2)} vertices, SHA-256 {digest[:16]}…"
        for name, digest in protocol["regions"].items()
    )
    return [
        f"Protocol {protocol['name']}, identity {protocol['identity']}: pooled over "
        f"{protocol['pooling']}; data {protocol['dataset']} ({protocol['content']}), splits by "
        f"\"{protocol['splits']}\"; {protocol['fps']} frames a second; unit {protocol['unit']}; "
        f"regions from {report['regions_from']}: {regions}.",
    ]


def _cell(metric: Mapping[str, Any], unit: str, *, signed: bool = False) -> str:
    if metric["value"] is None:
        return "-"
    size = max(abs(metric[name]) for name in ("value", "low", "high"))
    style = ".2e" if 0 < size < 0.005 else ".1f" if size >= 100 else ".2f" if size >= 1 else ".3f"
    value, low, high = (format(metric[name], style) for name in ("value", "low", "high"))
    plus = "+" if signed and metric["value"] > 0 else ""
    return f"{plus}{value} {unit}".rstrip() + f" [{low}, {high}]"


def _plain(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def _plot(
    folder: Path, report: Mapping[str, Any], curves: Mapping[str, NDArray[np.float64]]
) -> list[str]:
    """Plots lip errors with intervals, and one sentence's lips over time; the files' names."""
    from matplotlib.figure import Figure  # only where training is set up

    methods = report["methods"]
    unit = report["metrics"]["lve"]["unit"]
    names = [one["name"] for one in methods]
    values = np.array([one["metrics"]["lve"]["value"] for one in methods])
    ends = np.array([[one["metrics"]["lve"][end] for end in ("low", "high")] for one in methods])
    colours = ["#2f6db5" if one["kind"] == "checkpoint" else _OTHER_COLOURS for one in methods]
    figure = Figure(figsize=(7, 0.5 * len(names) + 1.2), layout="constrained")
    axes = figure.subplots()
    spread = np.maximum(np.abs(ends.T - values), 0.0)
    axes.barh(names, values, xerr=spread, color=colours, capsize=3)
    axes.invert_yaxis()
    axes.set_xlabel(f"largest lip error, mean over {report['protocol']['sequences']} sequences, "
                    f"{unit}; 95 % interval")  # fmt: skip
    figure.savefig(folder / "lip_error.png", dpi=120)
    if not curves:
        return ["lip_error.png"]
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    rate = float(Fraction(report["protocol"]["fps"]))
    for name, curve in curves.items():
        is_truth = name == "truth"
        axes.plot(np.arange(len(curve)) / rate, curve, label=name, lw=2.5 if is_truth else 1.0,
                  color="black" if is_truth else None)  # fmt: skip
    axes.set_xlabel("seconds")
    axes.set_ylabel(f"distance of the inner lips, {unit}")
    axes.legend(fontsize=8)
    figure.savefig(folder / "lips_over_time.png", dpi=120)
    return ["lip_error.png", "lips_over_time.png"]
