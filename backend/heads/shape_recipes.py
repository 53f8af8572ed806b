# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipes of the 52 shapes: how each is made of figures measured on people.

The figures are displacements in millimetres at full weight, along the lips and at named places of
the skin (``skin_places``), on a face with 62 mm between the eyes: ``shape_figures.json``, written
by ``tools/measure_shapes.py`` from scans. x is outwards (away from the centre line), y up, z out of
the face. On another head they are scaled by its proportions and turned with its skin.

The lips stay closed, whatever is combined, by construction: where a shape does not part the lips,
both contact rows follow one function of the position along the lip; where it parts them, the upper
row never sinks below the lower one. Weights that are not negative can then never push one lip
through the other. ``mouthClose`` undoes what ``jawOpen`` parts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Final, Literal, cast

from backend import bundled
from backend.io import read_json

Vector = tuple[float, float, float]
Profile = tuple[Vector, ...]
"""Displacements from the lip's centre to its corner, at ``PROFILE_POSITIONS``."""
Contact = Literal["together", "sliding", "parting", "lower rolls", "upper rolls", "none"]

PROFILE_POSITIONS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
LIP_ROWS: Final = (0.5, 1.0)
"""Positions across a lip, beyond the contact row, at which figures are given; 1 is the border."""
REST: Final[Profile] = ((0.0, 0.0, 0.0),) * 5
_MAX_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class LipFigures:
    """Displacements of the lips' rows; at the corner all rows agree.

    Attributes:
        contact: Displacements where the lips touch: of both lips, or of the upper lip if
            ``contact_lower`` is given.
        upper: Displacements of the upper lip at ``LIP_ROWS``.
        lower: Displacements of the lower lip at ``LIP_ROWS``.
        contact_lower: Displacements of the lower lip's contact row, if they differ.
    """

    contact: Profile = REST
    upper: tuple[Profile, ...] = (REST, REST)
    lower: tuple[Profile, ...] = (REST, REST)
    contact_lower: Profile | None = None


@dataclass(frozen=True, slots=True)
class LidFigures:
    """Movement of one eye's lid margins, from the inner corner to the outer one, at five points.

    Attributes:
        upper: Share of the opening by which the upper lid rises.
        lower: Share of the opening by which the lower lid rises.
        along: Displacement of both in mm along the line of the eye's corners, outwards.
    """

    upper: tuple[float, ...] = (0.0,) * 5
    lower: tuple[float, ...] = (0.0,) * 5
    along: tuple[float, ...] = (0.0,) * 5


@dataclass(frozen=True, slots=True)
class Figures:
    """What one shape does on people.

    Attributes:
        lips: Displacements of the lips.
        lids: Movement of the lids' margins.
        places: Displacements of the skin's places; those of no figure stay.
    """

    lips: LipFigures = field(default_factory=LipFigures)
    lids: LidFigures = field(default_factory=LidFigures)
    places: dict[str, Vector] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MeasuredFigures:
    """All figures.

    Attributes:
        sizes: Proportions of the face on which they were measured, in mm; see ``Proportion``.
        lip_heights: Heights of its upper and lower lip, over half the mouth's width.
        normals: Which way the skin faces at each place on that face.
        shapes: Figures by the name of a recipe.
    """

    sizes: dict[str, float]
    lip_heights: dict[str, float]
    normals: dict[str, Vector]
    shapes: dict[str, Figures]


Proportion = Literal["mouth", "jaw", "eye"]
"""What scales a shape: half the mouth's width, the chin's depth below the eyes, the eye's width."""


@dataclass(frozen=True, slots=True)
class ShapeRecipe:
    """One motion of the face, both sides at once.

    Attributes:
        name: Name of its figures.
        contact: What the lips' contact rows do; ``none`` where the recipe is not about the lips.
        scaled_by: The proportion by which the figures are scaled.
        size: Share of the measured displacements that full weight takes.
        seam: Width in mm, on either side of the centre, over which the left and the right shape
            blend; 0 where the shape is not divided.
        is_sideways: Whether the right side moves the same way, not as the left side's image.
    """

    name: str
    contact: Contact = "together"
    scaled_by: Proportion = "mouth"
    size: float = 1.0
    seam: float = 0.0
    is_sideways: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the shape, or of the left and the right one."""
        return (f"{self.name}Left", f"{self.name}Right") if self.seam else (self.name,)


MOUTH_RECIPES: Final = (
    ShapeRecipe("mouthFunnel", "parting"),
    ShapeRecipe("mouthPucker"),
    ShapeRecipe("mouthSmile", seam=16.0),
    ShapeRecipe("mouthFrown", seam=16.0),
    ShapeRecipe("mouthDimple", seam=16.0),
    ShapeRecipe("mouthStretch", seam=16.0),
    ShapeRecipe("mouthRollLower", "lower rolls", size=1.1),
    ShapeRecipe("mouthRollUpper", "upper rolls"),
    ShapeRecipe("mouthShrugLower"),
    ShapeRecipe("mouthShrugUpper"),
    ShapeRecipe("mouthPress", seam=16.0),
    ShapeRecipe("mouthLowerDown", "parting", seam=16.0),
    ShapeRecipe("mouthUpperUp", "parting", seam=16.0),
    ShapeRecipe("cheekPuff"),
    ShapeRecipe("cheekSquint", seam=16.0),
    ShapeRecipe("noseSneer", "parting", seam=16.0),
    ShapeRecipe("browDown", "none", "eye", seam=12.0),
    ShapeRecipe("browInnerUp", "none", "eye"),
    ShapeRecipe("browOuterUp", "none", "eye", seam=12.0),
)
"""Shapes that are their figures."""

SIDEWAYS_RECIPES: Final = (
    ("mouthLeft", "mouthRight", ShapeRecipe("mouthAside", is_sideways=True),
     ShapeRecipe("mouthAsideShared")),
    ("jawLeft", "jawRight", ShapeRecipe("jawAside", scaled_by="jaw", is_sideways=True),
     ShapeRecipe("jawAsideShared", scaled_by="jaw")),
)  # fmt: skip
"""Shapes to the left and to the right: what both share, plus or minus what turns with the side."""

JAW_OPEN: Final = ShapeRecipe("jawOpen", "parting", "jaw", size=0.92)
JAW_OPEN_LIPS_CLOSED: Final = ShapeRecipe("jawOpenLipsClosed", "together", "jaw", size=0.92)
"""``jawOpen`` and ``mouthClose`` together."""
JAW_FORWARD: Final = ShapeRecipe("jawForward", "sliding", "jaw")
JAW_RECIPES: Final = (JAW_OPEN, JAW_OPEN_LIPS_CLOSED, JAW_FORWARD)

EYE_RECIPES: Final = (
    ShapeRecipe("eyeBlink", "none", "eye", size=0.8),
    ShapeRecipe("eyeSquint", "none", "eye", size=1.1),
    ShapeRecipe("eyeWide", "none", "eye"),
    ShapeRecipe("eyeLookIn", "none", "eye"),
    ShapeRecipe("eyeLookOut", "none", "eye"),
    ShapeRecipe("eyeLookUp", "none", "eye"),
    ShapeRecipe("eyeLookDown", "none", "eye", size=0.85),
)
"""Shapes of the eyes, each of one side."""


@cache
def measured_figures() -> MeasuredFigures:
    """The figures that come with the backend."""
    data = read_json(
        bundled.SHAPE_FIGURES,
        what="the figures of the shapes",
        remedy="Install PTalker again.",
        max_bytes=_MAX_BYTES,
    )
    return MeasuredFigures(
        sizes=dict(data["sizes"]),
        lip_heights=dict(data["lip_heights"]),
        normals={name: _vector(values) for name, values in data["normals"].items()},
        shapes={name: _figures(shape) for name, shape in data["shapes"].items()},
    )


def _figures(data: dict[str, object]) -> Figures:
    lips, lids, places = (data.get(key, {}) for key in ("lips", "lids", "places"))
    assert isinstance(lips, dict) and isinstance(lids, dict) and isinstance(places, dict)
    return Figures(
        _lip_figures(lips) if lips else LipFigures(),
        LidFigures(**{key: tuple(map(float, values)) for key, values in lids.items()}),
        {name: _vector(values) for name, values in places.items()},
    )


def _lip_figures(lips: dict[str, list[list[list[float]]]]) -> LipFigures:
    rows = {key: tuple(_profile(row) for row in lips[key]) for key in ("upper", "lower")}
    contact, lower = (
        _profile(cast("list[list[float]]", lips[key])) if key in lips else None
        for key in ("contact", "contact_lower")
    )
    return LipFigures(contact or REST, rows["upper"], rows["lower"], lower)


def _profile(rows: list[list[float]]) -> Profile:
    return tuple(_vector(row) for row in rows)


def _vector(values: list[float]) -> Vector:
    x, y, z = map(float, values)
    return x, y, z
