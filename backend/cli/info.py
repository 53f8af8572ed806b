# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``info``: versions, checkpoints with their styles, topologies, devices. No torch."""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Final

from backend import bundled, version
from backend.cli.terminal import DONE

_PACKAGES: Final = (
    "torch", "torch-geometric", "transformers", "numpy", "scipy", "soundfile", "soxr", "av",
    "pocketsphinx", "moonshine-voice", "onnxruntime",
)  # fmt: skip


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument("--devices", action="store_true", help="also where a model can run")
    command.add_argument("--json", action="store_true", help="as JSON")


def run(options: argparse.Namespace) -> int:
    """Print what is installed; the exit status."""
    found = collect(with_devices=options.devices)
    print(json.dumps(found, indent=1) if options.json else as_text(found))
    return DONE


def collect(*, with_devices: bool) -> dict[str, object]:
    """Collect versions, checkpoints with their styles, and topologies.

    Args:
        with_devices: Also say where a model can run; loads torch, which takes seconds.

    Returns:
        What is installed, as JSON can hold it.
    """
    found: dict[str, object] = {
        "version": version(),
        "python": platform.python_version(),
        "packages": {name: bundled.package_version(name) for name in _PACKAGES},
        "checkpoints": {
            path.parent.name: describe_checkpoint(path.parent)
            for path in sorted(bundled.CHECKPOINTS_DIR.glob("*/config.json"))
        },
        "topologies": sorted(path.stem for path in bundled.TOPOLOGIES_DIR.glob("*.json")),
    }
    if with_devices:
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
