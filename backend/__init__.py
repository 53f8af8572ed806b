# SPDX-License-Identifier: GPL-3.0-or-later
"""PTalker's backend: speech in, facial motion out, in a Python of its own, never in Blender's."""

import tomllib
from pathlib import Path


def version() -> str:
    """The version in blender_manifest.toml, which lies beside this package in every layout."""
    manifest = Path(__file__).resolve().parents[1] / "blender_manifest.toml"
    try:
        return str(tomllib.loads(manifest.read_text(encoding="utf-8"))["version"])
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return "unknown"
