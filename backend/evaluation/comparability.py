# SPDX-License-Identifier: GPL-3.0-or-later
"""Under which rules captured faces are compared: regions by their hash, split, pooling, unit.

The same model scores 3.9e-5, 1.1e-5 and 0.5e-5 m² on VOCASET under three papers' rules, so every
report carries the identity of its protocol, and numbers of two identities are never set side by
side.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence as Items
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from backend.data.captures.prepared import PreparedSet, Sequence, Split
from backend.data.captures.regions import Regions
from backend.errors import UserError


@dataclass(frozen=True, slots=True)
class Rules:
    """What a named protocol fixes.

    Attributes:
        pooling: ``sequences``: each sequence counts the same; ``frames``: each frame does. FDD is
            averaged over sequences in both.
        own_regions: Whether the regions must be given, as their publishers hold them.
        text: For people.
    """

    pooling: Literal["sequences", "frames"]
    own_regions: bool
    text: str


PROTOCOLS: Final[dict[str, Rules]] = {
    "ptalker": Rules("sequences", False, "regions of the topology, every sequence counts the same"),
    "codetalker": Rules(
        "frames", True, "published regions by --regions, frames pooled over all sequences"
    ),
}
"""By name; ``codetalker`` pools as the field's script does (CodeTalker, copied by its peers)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """All that must be equal for two numbers to be comparable.

    Attributes:
        name: One of ``PROTOCOLS``.
        pooling: See `Rules`.
        dataset: Name of the set.
        content: Hash of the prepared set.
        splits: Where the set's splits come from.
        split: Which one.
        sequences: How many.
        frames: How many.
        fps: Frames a second.
        unit: Of the squared metrics before squaring.
        regions: SHA-256 of each region.
        counts: Vertices in each region.
    """

    name: str
    pooling: Literal["sequences", "frames"]
    dataset: str
    content: str
    splits: str
    split: Split
    sequences: int
    frames: int
    fps: str
    unit: str
    regions: dict[str, str]
    counts: dict[str, int]

    @property
    def identity(self) -> str:
        """Twelve hexadecimal digits that differ where anything differs."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def check_regions(name: str, file: Path | None) -> None:
    """A protocol with regions of its own needs their file.

    Raises:
        UserError: It is not given.
    """
    if PROTOCOLS[name].own_regions and file is None:
        raise UserError(
            f'The protocol "{name}" is about the regions that its authors published: give them '
            "with --regions FILE.json, or choose --protocol ptalker."
        )


def protocol_of(
    name: str, prepared: PreparedSet, split: Split, sequences: Items[Sequence], regions: Regions
) -> Protocol:
    """The protocol under which some sequences are judged."""
    manifest = prepared.manifest
    return Protocol(
        name=name,
        pooling=PROTOCOLS[name].pooling,
        dataset=manifest.dataset,
        content=prepared.content_hash,
        splits=manifest.protocol,
        split=split,
        sequences=len(sequences),
        frames=sum(sequence.num_frames for sequence in sequences),
        fps=str(manifest.fps),
        unit=manifest.units,
        regions=regions.hashes(),
        counts={"lips": len(regions.lips), "upper_face": len(regions.upper_face)},
    )
