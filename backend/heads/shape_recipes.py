# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipes of the 52 shapes: displacements of the lips and of the face points.

Numbers only: millimetres at full weight on a face with 62 mm between the eyes and a mouth 48 mm
wide. x is outwards (away from the centre line), y up, z out of the face; a face point's third
number is instead a bulge along the skin's normal, since it slides along the skin otherwise.

The lips stay closed, whatever is combined, by construction: where a shape does not part the
lips, both contact rows follow one function of the position along the lip (``contact``); where it
parts them, the upper row only rises and the lower row only falls. Weights that are not negative
can then never push one lip through the other. ``mouthClose`` undoes what ``jawOpen`` parts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Vector = tuple[float, float, float]
Profile = tuple[Vector, Vector, Vector, Vector]
"""Displacements from the lip's centre to its corner, at ``PROFILE_POSITIONS``."""

PROFILE_POSITIONS = (0.0, 0.35, 0.7, 1.0)
REST: Profile = ((0.0, 0.0, 0.0),) * 4


@dataclass(frozen=True, slots=True)
class LipRecipe:
    """Displacements of the lips' rows; at the corner all rows must agree.

    Attributes:
        contact: Displacements where the lips touch: of both lips, or of the upper lip if
            ``contact_lower`` is given.
        upper: Displacements of the upper lip's outer border.
        lower: Displacements of the lower lip's outer border.
        contact_lower: Displacements of the lower lip's contact row, if they differ.
        bend: Exponent of the position between contact row and border with which height (y) blends
            from one to the other; above 1 the red of a lip that turns in stays off the other lip.
    """

    contact: Profile = REST
    upper: Profile = REST
    lower: Profile = REST
    contact_lower: Profile | None = None
    bend: float = 1.0


@dataclass(frozen=True, slots=True)
class ShapeRecipe:
    """One motion of the face, both sides at once.

    Attributes:
        names: Name of the shape; or the names of the left and right shape into which it is divided.
        lips: Displacements of the lips; None where the recipe is not about the mouth.
        points: Displacements of face points on the left side (named without ``_left``) and in the
            centre.
        seam: Width in mm, on either side of the centre, over which the two halves blend.
    """

    names: tuple[str, ...]
    lips: LipRecipe | None = None
    points: dict[str, Vector] = field(default_factory=dict)
    seam: float = 8.0


def _both(name: str) -> tuple[str, str]:
    return f"{name}Left", f"{name}Right"


MOUTH_RECIPES = (
    ShapeRecipe(
        ("mouthFunnel",),
        LipRecipe(
            contact=((0, 3.0, 6.2), (-1.7, 2.8, 5.8), (-3.6, 1.8, 4.4), (-5, 0, 2.4)),
            contact_lower=((0, -4.0, 6.0), (-1.7, -3.7, 5.6), (-3.6, -2.2, 4.3), (-5, 0, 2.4)),
            upper=((0, 3.2, 4.4), (-1.5, 3.0, 4.1), (-3.3, 2.0, 3.4), (-5, 0, 2.4)),
            lower=((0, -4.2, 3.8), (-1.5, -3.8, 3.7), (-3.3, -2.4, 3.2), (-5, 0, 2.4)),
        ),
        {
            "smile_fold": (-1.4, 0, 0.6), "chin_crease": (0, -2.4, 0.8), "chin": (0, -0.8, 0),
            "nose_base": (0, 0.6, 0.5), "cheek_hollow": (-2.0, 0, -0.6),
        },
    ),
    ShapeRecipe(
        ("mouthPucker",),
        LipRecipe(
            contact=((0, 0, 6.5), (-2.8, 0, 6.0), (-5.7, 0.1, 4.8), (-8, 0.2, 3.2)),
            upper=((0, 0.9, 4.6), (-2.4, 0.9, 4.3), (-5.3, 0.7, 3.8), (-8, 0.2, 3.2)),
            lower=((0, -0.9, 4.6), (-2.4, -0.9, 4.3), (-5.3, -0.6, 3.8), (-8, 0.2, 3.2)),
        ),
        {
            "smile_fold": (-2.4, -0.3, 0.5), "chin_crease": (0, 0.4, 0.8), "chin": (0, 0.5, 0.3),
            "nose_base": (0, -0.2, 0.6), "cheek_hollow": (-2.4, 0, -0.8),
        },
    ),
    ShapeRecipe(
        _both("mouthSmile"),
        LipRecipe(
            contact=((0, -0.3, -1.0), (1.7, 0.5, -1.5), (4.7, 3.2, -2.7), (7, 6.4, -3.8)),
            upper=((0, -0.9, -1.2), (1.8, 0.0, -1.6), (4.7, 2.8, -2.5), (7, 6.4, -3.8)),
            lower=((0, 0.6, -1.2), (1.7, 1.3, -1.6), (4.6, 3.6, -2.7), (7, 6.4, -3.8)),
        ),
        {
            "cheek": (0.8, 3.6, 1.6), "smile_fold": (3.2, 3.8, 0.8), "nostril": (0.8, 0.5, 0),
            "cheekbone": (0, 0.8, 0.3), "chin_crease": (0, 0.4, -0.2),
        },
    ),
    ShapeRecipe(
        _both("mouthFrown"),
        LipRecipe(
            contact=((0, 0.4, 0), (0.2, -0.2, 0), (0.8, -3.0, -0.4), (1.5, -6.5, -1.2)),
            upper=((0, 0.2, 0), (0.2, -0.4, 0), (0.8, -2.8, -0.4), (1.5, -6.5, -1.2)),
            lower=((0, 1.0, 0.5), (0.2, 0.2, 0.4), (0.7, -2.8, 0), (1.5, -6.5, -1.2)),
        ),
        {
            "chin": (0, 0.8, 0.3), "chin_crease": (0, 1.0, 0.3), "smile_fold": (0, -2.2, 0),
            "cheek_hollow": (0, -2.4, 0),
        },
    ),
    ShapeRecipe(
        _both("mouthDimple"),
        LipRecipe(
            contact=((0, 0, -0.4), (0.9, 0.1, -0.7), (2.8, 0.5, -2.0), (4.5, 1.0, -4.2)),
            upper=((0, -0.3, -0.4), (0.9, -0.1, -0.7), (2.8, 0.3, -1.9), (4.5, 1.0, -4.2)),
            lower=((0, 0.3, -0.4), (0.9, 0.3, -0.7), (2.8, 0.6, -1.9), (4.5, 1.0, -4.2)),
        ),
        {"smile_fold": (1.6, 0.4, 0.3), "cheek_hollow": (0.6, 0, 0.6)},
    ),
    ShapeRecipe(
        _both("mouthStretch"),
        LipRecipe(
            contact=((0, -0.2, -0.8), (2.2, -0.4, -1.2), (5.5, -1.4, -2.3), (8, -3.0, -3.4)),
            upper=((0, -0.6, -0.8), (2.2, -0.7, -1.2), (5.5, -1.6, -2.3), (8, -3.0, -3.4)),
            lower=((0, -0.3, -1.0), (2.2, -0.6, -1.2), (5.4, -1.6, -2.2), (8, -3.0, -3.4)),
        ),
        {"smile_fold": (2, -0.8, 0), "cheek_hollow": (2.4, -1.4, 0), "chin_crease": (0, -0.4, 0)},
    ),
    ShapeRecipe(
        ("mouthRollLower",),
        LipRecipe(
            contact_lower=((0, 0.0, -3.0), (0, 0.0, -2.8), (0, 0.0, -1.5), (0, 0, 0)),
            lower=((0, 4.0, -4.0), (0, 3.8, -3.8), (0, 2.1, -2.2), (0, 0, 0)),
            bend=2.0,
        ),
        {"chin_crease": (0, 1.6, -0.8), "chin": (0, 0.8, 0.3)},
    ),
    ShapeRecipe(
        ("mouthRollUpper",),
        LipRecipe(
            contact=((0, 0.0, -2.8), (0, 0.0, -2.6), (0, 0.0, -1.4), (0, 0, 0)),
            contact_lower=REST,
            upper=((0, -3.2, -3.6), (0, -3.0, -3.4), (0, -1.7, -2.0), (0, 0, 0)),
            bend=2.0,
        ),
        {"nose_base": (0, -0.6, -0.3)},
    ),
    ShapeRecipe(
        ("mouthShrugLower",),
        LipRecipe(
            contact=((0, 2.6, 1.2), (0, 2.3, 1.1), (0, 0.9, 0.5), (0, -0.4, 0)),
            upper=((0, 1.6, 0.6), (0, 1.4, 0.5), (0, 0.5, 0.2), (0, -0.4, 0)),
            lower=((0, 3.6, 2.3), (0, 3.2, 2.1), (0, 1.4, 0.9), (0, -0.4, 0)),
        ),
        {
            "chin": (0, 2.8, 0.6), "chin_crease": (0, 3.6, 0.5), "chin_left": (0, 1.8, 0.3),
            "chin_bottom": (0, 0.8, 0),
        },
    ),
    ShapeRecipe(
        ("mouthShrugUpper",),
        LipRecipe(
            contact=((0, 1.8, 1.0), (0, 1.6, 0.9), (0, 0.6, 0.3), (0, -0.3, 0)),
            upper=((0, 2.4, 1.8), (0, 2.1, 1.6), (0, 0.8, 0.6), (0, -0.3, 0)),
            lower=((0, 1.0, 0.5), (0, 0.9, 0.4), (0, 0.3, 0.2), (0, -0.3, 0)),
        ),
        {"nose_base": (0, 0.8, 0.4), "nostril": (0.2, 0.3, 0)},
    ),
    ShapeRecipe(
        _both("mouthPress"),
        LipRecipe(
            contact=((0, 0, -1.0), (0.2, 0, -1.0), (0.5, 0, -1.1), (0.9, 0, -1.2)),
            upper=((0, -1.6, -1.4), (0.2, -1.5, -1.4), (0.5, -0.8, -1.3), (0.9, 0, -1.2)),
            lower=((0, 1.7, -1.4), (0.2, 1.6, -1.4), (0.5, 0.8, -1.3), (0.9, 0, -1.2)),
            bend=2.0,
        ),
        {"chin_crease": (0, 1.2, 0.2), "chin": (0, 0.8, 0.3)},
    ),
    ShapeRecipe(
        _both("mouthLowerDown"),
        LipRecipe(
            contact=((0, 0, 0), (0, 0, 0), (0.1, -0.1, 0), (0.3, -0.6, 0)),
            contact_lower=((0, -4.2, -0.3), (0.3, -4.7, -0.4), (0.5, -3.2, -0.3), (0.3, -0.6, 0)),
            lower=((0, -4.4, -0.2), (0.3, -4.8, -0.2), (0.4, -3.2, 0), (0.3, -0.6, 0)),
        ),
        {"chin_crease": (0, -2.2, 0.2), "chin": (0, -0.5, 0)},
    ),
    ShapeRecipe(
        _both("mouthUpperUp"),
        LipRecipe(
            contact=((0, 3.2, 0), (0.2, 3.9, 0.1), (0.3, 2.8, 0.1), (0.3, 0.6, 0)),
            contact_lower=((0, 0, 0), (0, 0, 0), (0, 0.1, 0), (0.3, 0.6, 0)),
            upper=((0, 3.0, 0.1), (0.2, 3.8, 0.2), (0.3, 3.0, 0.2), (0.3, 0.6, 0)),
        ),
        {
            "nostril": (0.4, 1.0, 0), "smile_fold": (0.4, 2.4, 0.5), "nose_base": (0, 0.5, 0),
            "cheek": (0, 1.0, 0.4),
        },
    ),
    ShapeRecipe(
        ("cheekPuff",),
        LipRecipe(
            contact=((0, 0, 1.2), (0, 0, 1.4), (-0.4, 0, 1.6), (-1, 0, 1.6)),
            upper=((0, 0.5, 2.2), (0, 0.5, 2.4), (-0.4, 0.3, 2.2), (-1, 0, 1.6)),
            lower=((0, -0.5, 2.0), (0, -0.5, 2.2), (-0.4, -0.3, 2.0), (-1, 0, 1.6)),
        ),
        {
            "cheek_hollow": (0, 0, 8), "cheek": (0, 0, 2.2), "smile_fold": (0, 0, 3.2),
            "jaw_line_2": (0, 0, 1.2), "chin_crease": (0, 0, 1.2), "nose_base": (0, 0, 0.8),
        },
    ),
    ShapeRecipe(
        _both("cheekSquint"),
        LipRecipe(),
        {
            "cheek": (0, 3.6, 1.8), "smile_fold": (0.3, 1.4, 0.4), "cheekbone": (0, 1.0, 0.4),
            "nose_side": (0, 0.4, 0),
        },
    ),
    ShapeRecipe(
        _both("noseSneer"),
        LipRecipe(upper=((0, 1.0, 0.1), (0, 2.4, 0.4), (0, 1.6, 0.3), (0, 0, 0))),
        {
            "nostril": (1.0, 4.6, 0.4), "nose_side": (0, 2.6, 0.8), "nose_bridge": (0, 1.0, 0),
            "smile_fold": (0.3, 2.4, 0.8), "nose_tip": (0, 0.8, 0), "nose_base": (0, 0.6, 0),
        },
        seam=6.0,
    ),
)  # fmt: skip

SIDEWAYS_LIPS = LipRecipe(
    contact=((8.0, 0, 0), (8.0, 0, 0), (7.6, 0, 0), (7.0, 0, 0)),
    upper=((6.6, 0, 0), (6.8, 0, 0), (7.0, 0, 0), (7.0, 0, 0)),
    lower=((7.4, 0, 0), (7.4, 0, 0), (7.4, 0, 0), (7.0, 0, 0)),
)
"""``mouthLeft`` and ``mouthRight``: here x points to the side the mouth goes, on both halves."""

SIDEWAYS_POINTS = {
    "nose_base": 1.2, "nose_tip": 0.3, "chin_crease": 4.5, "chin": 1.2, "smile_fold_left": 3.0,
    "smile_fold_right": 3.0, "cheek_hollow_left": 2.6, "cheek_hollow_right": 2.6,
}  # fmt: skip

BROW_RECIPES = (
    ShapeRecipe(
        _both("browDown"),
        None,
        {
            "brow_1": (-1.4, -5.0, 0.5), "brow_2": (-1.2, -4.8, 0.5), "brow_3": (-0.8, -3.6, 0.2),
            "brow_4": (-0.3, -2.0, 0), "brow_5": (0, -0.6, 0), "brow_center": (0, -3.4, 0.4),
            "nose_root": (0, -0.6, 0.3), "forehead": (0, -0.8, 0), "forehead_center": (0, -0.6, 0),
        },
        seam=8.0,
    ),
    ShapeRecipe(
        ("browInnerUp",),
        None,
        {
            "brow_1": (-0.5, 7.0, 0), "brow_2": (-0.3, 5.2, 0), "brow_3": (0, 2.2, 0),
            "brow_4": (0, 0.4, 0), "brow_5": (0, 0, 0), "brow_center": (0, 5.5, 0),
            "nose_root": (0, 0.6, 0), "forehead": (0, 1.2, 0), "forehead_center": (0, 2.4, 0),
        },
    ),
    ShapeRecipe(
        _both("browOuterUp"),
        None,
        {
            "brow_1": (0, 0.6, 0), "brow_2": (0, 2.4, 0), "brow_3": (0.2, 5.0, 0),
            "brow_4": (0.4, 6.2, 0), "brow_5": (0.4, 4.6, 0), "brow_center": (0, 0, 0),
            "nose_root": (0, 0, 0), "forehead": (0, 2.0, 0), "forehead_center": (0, 0.4, 0),
        },
        seam=8.0,
    ),
)  # fmt: skip

JAW_OPENING_MM = 27.0
"""Distance by which ``jawOpen`` parts the lips' centres."""

JAW_SHARES = {
    "chin": 1.0, "chin_bottom": 1.0, "chin_left": 1.0, "chin_right": 1.0, "chin_crease": 1.0,
    "jaw_line_1": 0.98, "jaw_line_2": 0.9, "jaw_line_3": 0.6, "jaw_line_4": 0.2,
    "cheek_hollow": 0.4, "smile_fold": 0.12, "cheek": 0.03,
}  # fmt: skip
"""Share with which a face point follows the jaw, 0..1; other points stay."""
