# SPDX-License-Identifier: GPL-3.0-or-later
"""Evaluation protocols on captured faces: regions by their hash, split, pooling and unit.

The same model scores 3.9e-5, 1.1e-5 and 0.5e-5 m² on VOCASET under three papers' rules. So every
report carries the identity of its evaluation protocol, and only numbers of one identity are
compared.
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
class ProtocolRules:
    """Rules of a named evaluation protocol.

    Attributes:
        pooling: ``sequences``: each sequence counts the same; ``frames``: each frame does. FDD is
            averaged over sequences in both.
        own_regions: Whether the regions must be given, as published with the protocol.
        text: Description of the protocol.
    """

    pooling: Literal["sequences", "frames"]
    own_regions: bool
    text: str


PROTOCOLS: Final[dict[str, ProtocolRules]] = {
    "ptalker": ProtocolRules(
        "sequences", False, "regions of the topology, every sequence counts the same"
    ),
    "codetalker": ProtocolRules(
        "frames", True, "published regions by --regions, frames pooled over all sequences"
    ),
}
"""Rules by protocol name; ``codetalker`` pools as CodeTalker's script, which its peers copied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationProtocol:
    """All that must be equal for two numbers to be comparable.

    Attributes:
        name: Name of the protocol's rules, one of ``PROTOCOLS``.
        pooling: What is pooled; see `ProtocolRules`.
        dataset: Name of the data set.
        content: Hash of the prepared set.
        splits: Where the set's splits come from.
        split: The split that is evaluated.
        sequences: Number of sequences in the split.
        frames: Number of frames in the split.
        fps: Frames a second.
        unit: Unit of the vertices, which squared metrics have squared.
        regions: SHA-256 of each region.
        counts: Number of vertices of each region.
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
    """Checks that a protocol with regions of its own is given their file.

    Args:
        name: Name of the protocol, one of ``PROTOCOLS``.
        file: JSON file with regions, if one is given.

    Raises:
        UserError: The protocol needs the file and it is not given.
    """
    if PROTOCOLS[name].own_regions and file is None:
        raise UserError(
            f'The protocol "{name}" is about the regions that its authors published: give them '
            "with --regions FILE.json, or choose --protocol ptalker."
        )


def protocol_of(
    name: str, prepared: PreparedSet, split: Split, sequences: Items[Sequence], regions: Regions
) -> EvaluationProtocol:
    """The evaluation protocol of some sequences of a set."""
    manifest = prepared.manifest
    return EvaluationProtocol(
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
