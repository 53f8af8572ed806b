# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``info``: versions, checkpoints with their styles, topologies, devices. No torch."""

from __future__ import annotations

import argparse
import importlib
import json
import platform
from pathlib import Path

from backend import bundled, version
from backend.cli.terminal import DONE


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument("--devices", action="store_true", help="also where a model can run")
    command.add_argument("--json", action="store_true", help="as one line of JSON")
    command.add_argument(
        "--check", action="store_true", help="fail where a required package cannot be imported"
    )


def run(options: argparse.Namespace) -> int:
    """Print what is installed; the exit status."""
    if options.check:
        for name in required_packages():
            importlib.import_module(name.replace("-", "_"))
    found = collect(with_devices=options.devices)
    print(json.dumps(found) if options.json else as_text(found))
    return DONE


def engines() -> dict[str, object]:
    """What each engine is there with, and where the words come from; loads none."""
    words = bundled.moonshine_folder() is not None and bundled.is_installed("onnxruntime")
    return {
        "onnx": bundled.package_version("onnxruntime"),
        "torch": bundled.package_version("torch"),
        "words": "Moonshine" if words else "missing",
        "lexicon": "CMUdict" if bundled.pronouncing_dictionary() else "missing",
    }


def collect(*, with_devices: bool) -> dict[str, object]:
    """Collect versions, checkpoints with their styles, and topologies.

    Args:
        with_devices: Also say where a model can run; loads torch where it is installed, which
            takes seconds.

    Returns:
        What is installed, as JSON can hold it.
    """
    found: dict[str, object] = {
        "version": version(),
        "python": platform.python_version(),
        "engines": engines(),
        "packages": {name: bundled.package_version(name) for name in pinned_packages()},
        "checkpoints": {
            path.parent.name: describe_checkpoint(path.parent)
            for path in sorted(bundled.CHECKPOINTS_DIR.glob("*/config.json"))
        },
        "topologies": sorted(path.stem for path in bundled.TOPOLOGIES_DIR.glob("*.json")),
    }
    if with_devices:
        found["devices"] = ["cpu"]
        if bundled.package_version("torch") != "missing":
            from backend.inference.devices import available_devices  # brings torch

            found["devices"] = available_devices()
    return found


def as_text(found: dict[str, object], indent: str = "") -> str:
    """The result of `collect` as indented text."""
    lines = []
    for name, value in found.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", as_text(value, indent + "  ")]
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            lines.append(f"{indent}{name}: {text}")
    return "\n".join(lines)


def required_packages() -> list[str]:
    """Names of the pinned packages that every system can and must have."""
    lines = (bundled.BACKEND_DIR / "requirements.txt").read_text("utf-8").splitlines()
    return [name for line in lines if ";" not in line and (name := _pinned_name(line))]


def pinned_packages() -> list[str]:
    """Names of all packages that a setup installs where the system can have them."""
    names = ("requirements.txt", "requirements-words.txt")
    files = [(bundled.BACKEND_DIR / name).read_text("utf-8") for name in names]
    lines = [line for text in files for line in text.splitlines()]
    return list(dict.fromkeys(name for line in lines if (name := _pinned_name(line))))


def _pinned_name(line: str) -> str:
    """The package on a line of pinned requirements; empty for a comment or an empty line."""
    name, pin, _ = line.partition("==")
    return name.strip() if pin and not line.startswith("#") else ""


def describe_checkpoint(folder: Path) -> dict[str, object]:
    """Preset and styles of a checkpoint, or why it is damaged."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        presets_path = folder / "styles.json"
        presets = json.loads(presets_path.read_text("utf-8")) if presets_path.exists() else {}
        model = config.get("model", config)
        styles = ["neutral", *sorted({*(presets or model.get("speakers", ()))} - {"neutral"})]
        return {"preset": str(model.get("preset", "")), "styles": styles}
    except (OSError, ValueError, AttributeError) as error:
        return {"damaged": str(error)}
