# SPDX-License-Identifier: GPL-3.0-or-later
"""What the names of a character's shape keys mean: ARKit blendshapes and visemes, in any spelling.

Names differ between programs by case, separators, prefixes and how they mark the side. A name is
cut into words; the longest end of it that is known is its meaning, what stands before is a prefix.
A prefix counts where it is one of the usual ones or stands before several known names, so that
``Head_jawOpen`` is found and ``jawOpen_mouthClose``, a corrective shape, is not. Names with two
meanings are left alone and listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

ARKIT_NAMES: Final = (
    "eyeBlinkLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft",
    "eyeSquintLeft", "eyeWideLeft",
    "eyeBlinkRight", "eyeLookDownRight", "eyeLookInRight", "eyeLookOutRight", "eyeLookUpRight",
    "eyeSquintRight", "eyeWideRight",
    "jawForward", "jawLeft", "jawRight", "jawOpen",
    "mouthClose", "mouthFunnel", "mouthPucker", "mouthLeft", "mouthRight",
    "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight",
    "mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
    "mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft", "mouthLowerDownRight",
    "mouthUpperUpLeft", "mouthUpperUpRight",
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight",
    "tongueOut",
)  # fmt: skip
"""The 52 blendshapes of ARKit, as the backend's ``heads.arkit`` has them."""

MIN_PREFIXED: Final = 5
"""Known names that must stand behind a prefix which is none of the usual ones."""
MIN_VISEMES: Final = 5
"""Different mouth shapes of one set of visemes: the five vowels of VRM are enough."""

_USUAL_PREFIXES: Final = frozenset(
    tuple(text.split())
    for text in (
        "", "arkit", "blendshape", "blendshapes", "bs", "face", "head", "expressions", "ctrl",
        "ctrl expressions", "e ctrl", "facs", "facs bs", "facs ctrl", "facs jnt", "fcl",
    )
)  # fmt: skip
_CORRECTIVE: Final = frozenset(
    ("cbs", "combo", "corr", "corrective", "correctives", "fix", "wm", "wrinkle", "wrinkles")
)
_SIDES: Final = {"left": "Left", "l": "Left", "right": "Right", "r": "Right"}
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")

# Rank of a form: of the keys that mean one blendshape, those of the lowest rank are driven.
_OWN, _ALIAS, _HALF, _BOTH = range(4)

_ALIASES: Final = {
    "browdrop": "browDown", "browraisein": "browInnerUp", "browraiseinner": "browInnerUp",
    "browraiseouter": "browOuterUp", "cheekraise": "cheekSquint", "cheekraiser": "cheekSquint",
    "eyecheekraise": "cheekSquint", "mouthcheekblow": "cheekPuff",
    "blink": "eyeBlink", "eyeclose": "eyeBlink", "eyesclosed": "eyeBlink", "wink": "eyeBlink",
    "eyesquintinner": "eyeSquint", "eyewiden": "eyeWide",
    "jawfwd": "jawForward", "mouthopen": "jawOpen",
    "mouthcornerdepress": "mouthFrown", "mouthcornerpull": "mouthSmile",
    "mouthsmilesimple": "mouthSmile", "mouthdownlower": "mouthLowerDown",
    "mouthlipspress": "mouthPress", "mouthpressupper": "mouthPress",
    "mouthpresslower": "mouthPress", "mouthlowerlipdepress": "mouthLowerDown",
    "mouthlowerliprollin": "mouthRollLower", "mouthrollinlower": "mouthRollLower",
    "mouthrollinupper": "mouthRollUpper", "mouthupperliprollin": "mouthRollUpper",
    "mouthupperlipraise": "mouthUpperUp", "mouthupupper": "mouthUpperUp",
    "nosewrinkle": "noseSneer",
}  # fmt: skip
"""Other words for a blendshape, without the side (MetaHuman, CC4, Daz, ICT, VRM)."""
_QUARTERED: Final = {
    "mouthfunnel": "mouthFunnel", "mouthpucker": "mouthPucker", "mouthpurse": "mouthPucker",
    "mouthlipspurse": "mouthPucker", "mouthclose": "mouthClose", "mouthlipstogether": "mouthClose",
}  # fmt: skip
"""Blendshapes that some rigs divide into upper left, upper right, lower left and lower right."""
_QUARTERS: Final = tuple(
    row + side
    for rows in (("u", "d"), ("up", "down"), ("upper", "lower"))
    for row in rows
    for side in _SIDES
)
_WHOLE_NAMES: Final = {
    "eyellookl": "eyeLookOutLeft", "eyellookr": "eyeLookInLeft", "eyerlookl": "eyeLookInRight",
    "eyerlookr": "eyeLookOutRight", "eyellookup": "eyeLookUpLeft", "eyerlookup": "eyeLookUpRight",
    "eyellookdown": "eyeLookDownLeft", "eyerlookdown": "eyeLookDownRight",
    "eyelookleftl": "eyeLookOutLeft", "eyelookrightl": "eyeLookInLeft",
    "eyelookleftr": "eyeLookInRight", "eyelookrightr": "eyeLookOutRight",
    "ウィンク": "eyeBlinkLeft", "ウィンク右": "eyeBlinkRight",
}  # fmt: skip
"""Names that say left or right twice (CC4, MetaHuman), and MMD's winks."""
_TWO_MEANINGS: Final = frozenset(("eyelookleft", "eyelookright", "eyelookl", "eyelookr"))
"""Both eyes to one side, or one eye somewhere."""
_OPPOSED: Final = frozenset(("jaw", "mouth", "eyeLookIn", "eyeLookOut"))
"""Blendshapes whose left and right are no pair that one key without a side could mean."""


_MOUTH_TABLE: Final = """
rest |
PP   | jawOpen 0.04 mouthClose 0.04 mouthRollLower 0.03 mouthRollUpper 0.03 mouthShrugLower 0.15 mouthPress 0.1
FF   | jawOpen 0.09 mouthClose 0.03 mouthUpperUp 0.25 mouthRollLower 0.36
TH   | jawOpen 0.07 mouthLowerDown 0.23 mouthUpperUp 0.13 tongueOut 0.32
DD   | jawOpen 0.06 mouthStretch 0.11 mouthLowerDown 0.18 mouthUpperUp 0.09
kk   | jawOpen 0.16 mouthLowerDown 0.16 mouthUpperUp 0.09
CH   | jawOpen 0.03 mouthFunnel 0.67 mouthPucker 0.27 jawForward 0.14 mouthLowerDown 0.16 mouthUpperUp 0.13
SS   | jawOpen 0.02 mouthStretch 0.29 mouthSmile 0.01 mouthLowerDown 0.31 mouthUpperUp 0.16
nn   | jawOpen 0.07 mouthStretch 0.05 mouthLowerDown 0.19 mouthUpperUp 0.08 tongueOut 0.05
RR   | jawOpen 0.04 mouthClose 0.01 mouthFunnel 0.54 mouthPucker 0.3 mouthLowerDown 0.04
aa   | jawOpen 0.71 mouthLowerDown 0.51 mouthUpperUp 0.4
E    | jawOpen 0.47 mouthStretch 0.2 mouthSmile 0.02 mouthLowerDown 0.55 mouthUpperUp 0.43
ih   | jawOpen 0.14 mouthStretch 0.23 mouthSmile 0.04 mouthLowerDown 0.35 mouthUpperUp 0.29
oh   | jawOpen 0.44 mouthClose 0.04 mouthFunnel 0.6 mouthPucker 0.32 mouthLowerDown 0.09
ou   | jawOpen 0.06 mouthClose 0.02 mouthFunnel 0.44 mouthPucker 0.72
ee   | jawOpen 0.11 mouthStretch 0.43 mouthSmile 0.07 mouthLowerDown 0.45 mouthUpperUp 0.36
ER   | jawOpen 0.11 mouthClose 0.01 mouthFunnel 0.49 mouthPucker 0.2 mouthLowerDown 0.25 mouthUpperUp 0.1
L    | jawOpen 0.11 mouthLowerDown 0.21 mouthUpperUp 0.11 tongueOut 0.1
W    | jawOpen 0.04 mouthClose 0.02 mouthFunnel 0.28 mouthPucker 0.93
UH   | jawOpen 0.11 mouthClose 0.02 mouthFunnel 0.46 mouthPucker 0.3 mouthLowerDown 0.07
etc  | jawOpen 0.08 mouthStretch 0.1 mouthLowerDown 0.19 mouthUpperUp 0.09
"""  # noqa: E501


def _mouth_shapes() -> dict[str, dict[str, float]]:
    shapes = {}
    for line in _MOUTH_TABLE.strip().splitlines():
        name, _, text = line.partition("|")
        words = text.split()
        pairs = zip(words[::2], map(float, words[1::2]), strict=True)
        shapes[name.strip()] = {
            arkit: weight
            for stem, weight in pairs
            for arkit in ((stem,) if stem in ARKIT_NAMES else (f"{stem}Left", f"{stem}Right"))
        }
    return shapes


MOUTH_SHAPES: Final[Mapping[str, Mapping[str, float]]] = _mouth_shapes()
"""What a viseme at value 1 looks like, as ARKit weights.

These are 1.25 times the means of the backend's phone targets for the phones that a viseme stands
for, since visemes are drawn as clear speech. ``PP`` is a firm closure of the lips. A test compares
the table with the targets.
"""

_VISEME_SETS: Final[Mapping[str, Mapping[str, str]]] = {
    "Oculus": {
        "sil": "rest", "pp": "PP", "ff": "FF", "th": "TH", "dd": "DD", "kk": "kk", "ch": "CH",
        "ss": "SS", "nn": "nn", "rr": "RR", "aa": "aa", "e": "E", "i": "ih", "ih": "ih",
        "o": "oh", "oh": "oh", "u": "ou", "ou": "ou",
    },
    "VRM": {
        "a": "aa", "i": "ee", "u": "ou", "e": "E", "o": "oh",
        "aa": "aa", "ih": "ee", "ou": "ou", "ee": "E", "oh": "oh",
    },
    "MMD": {"あ": "aa", "い": "ee", "う": "ou", "え": "E", "お": "oh", "ん": "PP"},
    "CC4": {
        "open": "aa", "explosive": "PP", "dentallip": "FF", "tighto": "ou", "tight": "UH",
        "wide": "ee", "affricate": "CH", "lipopen": "SS",
    },
    "Preston Blair": {
        "ai": "aa", "e": "E", "o": "oh", "u": "ou", "mbp": "PP", "fv": "FF", "l": "L", "lth": "L",
        "wq": "W", "etc": "etc", "cdgknrsthyz": "etc", "rest": "rest",
    },
    "Daz": {
        "aa": "aa", "ee": "ee", "eh": "E", "er": "ER", "f": "FF", "ih": "ih", "iy": "ee",
        "k": "kk", "l": "L", "m": "PP", "ow": "oh", "s": "SS", "sh": "CH", "t": "DD", "th": "TH",
        "uw": "ou", "w": "W",
    },
}  # fmt: skip
"""Sets of visemes: the end of a key's name -> mouth shape."""


@dataclass(frozen=True, slots=True)
class ArkitKeys:
    """Keys that stand for ARKit blendshapes.

    Attributes:
        gains: Name of each key -> ARKit name -> how much of its weight the key takes.
        left_alone: Names of keys that could mean two things, or double what another key does.
    """

    gains: Mapping[str, Mapping[str, float]]
    left_alone: tuple[str, ...]

    @property
    def arkit_names(self) -> frozenset[str]:
        """ARKit names that drive a key."""
        return frozenset(name for gains in self.gains.values() for name in gains)


@dataclass(frozen=True, slots=True)
class _Form:
    """One meaning: the gains of ARKit names, and how directly a name says it."""

    rank: int
    gains: Mapping[str, float]


def _forms() -> dict[str, _Form]:
    """Every known name, in lower case without separators."""
    forms: dict[str, _Form] = {}
    for name in ARKIT_NAMES:
        stem = re.sub("(Left|Right)$", "", name)
        _add_stem(forms, stem.lower(), stem, _OWN)
    for text, stem in _ALIASES.items():
        _add_stem(forms, text, stem, _ALIAS)
    for text, name in _QUARTERED.items():
        _add_stem(forms, text, name, _ALIAS)
        for quarter in _QUARTERS:
            _add(forms, text + quarter, _HALF, name)
    for text, name in _WHOLE_NAMES.items():
        _add(forms, text, _ALIAS, name)
    _add(forms, "まばたき", _BOTH, "eyeBlinkLeft", "eyeBlinkRight")  # MMD
    return forms


def _add_stem(forms: dict[str, _Form], text: str, stem: str, rank: int) -> None:
    """Add the forms of a blendshape or of a pair of them, with a side and without."""
    if stem in ARKIT_NAMES:
        _add(forms, text, rank, stem)
    elif stem not in _OPPOSED:
        _add(forms, text, _BOTH, f"{stem}Left", f"{stem}Right")
    for side, word in _SIDES.items():
        name, side_rank = (stem, _HALF) if stem in ARKIT_NAMES else (stem + word, rank)
        _add(forms, text + side, side_rank, name)
        _add(forms, side + text, side_rank, name)


def _add(forms: dict[str, _Form], text: str, rank: int, *names: str) -> None:
    if text not in forms or forms[text].rank > rank:
        forms[text] = _Form(rank, dict.fromkeys(names, 1.0 / len(names)))


_FORMS: Final = _forms()


def words_of(name: str) -> tuple[str, ...]:
    """The words of a key's name in lower case, without what a program puts around them.

    Left out are a path up to the last dot (``blendShape1.``), the number of a copy (``.001``) and
    Daz's ``_div2``. A side after a dot (``.L``) is a word.
    """
    name = re.sub(r"\.\d{3}$", "", name)
    parts = name.split(".")
    kept = parts[-2:] if parts[-1].lower() in _SIDES else parts[-1:]
    words = tuple(word.lower() for part in kept for word in _WORD.findall(part))
    return words[:-2] if words[-2:] == ("div", "2") else words


def _ends(words: Sequence[str], known: Iterable[str]) -> list[tuple[tuple[str, ...], str]]:
    """Prefix and rest for each end of a name that is known, the longest first."""
    found = []
    for start in range(len(words)):
        text = "".join(words[start:])
        if text in known:
            prefix = tuple(word for word in words[:start] if not word.isdigit())
            found.append((prefix, text))
    return found


def _is_prefix(prefix: Sequence[str]) -> bool:
    """Whether words can be a prefix at all: none says a side, a blendshape or a correction."""
    if any(word in _CORRECTIVE or word in _SIDES for word in prefix):
        return False
    return not any(
        "".join(prefix[start:end]) in _FORMS
        for start in range(len(prefix))
        for end in range(start + 1, len(prefix) + 1)
    )


def find_arkit_keys(key_names: Sequence[str]) -> ArkitKeys:
    """The keys that stand for ARKit blendshapes; one blendshape may drive several keys.

    Args:
        key_names: Names of a mesh's shape keys, without the basis.

    Returns:
        What drives each of them, in the mesh's order, and the keys that are left alone.
    """
    unclear, behind = [], dict[tuple[str, ...], dict[str, _Form]]()
    for key in _without_copies(key_names):
        words = words_of(key)
        if not words:
            continue
        if _ends(words, _TWO_MEANINGS):
            unclear.append(key)
            continue
        ends = _ends(words, _FORMS)
        if not ends:
            continue
        prefix, text = ends[0]
        if _is_prefix(prefix):
            behind.setdefault(prefix, {})[key] = _FORMS[text]
        else:
            unclear.append(key)
    gains: dict[str, Mapping[str, float]] = {}
    for prefix, forms in behind.items():
        meanings = {name for form in forms.values() for name in form.gains}
        if prefix not in _USUAL_PREFIXES and len(meanings) < MIN_PREFIXED:
            continue
        best = {
            name: min(form.rank for form in forms.values() if name in form.gains)
            for name in meanings
        }
        for key, form in forms.items():
            if all(best[name] == form.rank for name in form.gains):
                gains[key] = form.gains
            else:
                unclear.append(key)
    ordered = {key: gains[key] for key in key_names if key in gains}
    return ArkitKeys(ordered, tuple(key for key in key_names if key in unclear))


def _without_copies(key_names: Sequence[str]) -> list[str]:
    """Names without ``jawOpen.001`` where there is a ``jawOpen``."""
    known = set(key_names)
    return [
        name
        for name in key_names
        if not re.search(r"\.\d{3}$", name) or name.rpartition(".")[0] not in known
    ]


def find_visemes(key_names: Sequence[str]) -> dict[str, str]:
    """Name of each key that is a viseme -> mouth shape, by the set of which most are there.

    Args:
        key_names: Names of a mesh's shape keys, without the basis.

    Returns:
        Nothing where no set has enough different shapes.
    """
    names = [(key, words_of(key)) for key in _without_copies(key_names)]
    best: dict[str, str] = {}
    for shape_of in _VISEME_SETS.values():
        behind: dict[tuple[str, ...], dict[str, str]] = {}
        for key, words in names:
            for prefix, text in _ends(words, shape_of):
                behind.setdefault(prefix, {})[key] = shape_of[text]
        found: dict[str, str] = {}
        for shapes in behind.values():
            if len(set(shapes.values())) >= MIN_VISEMES:
                found.update(shapes)
        if len(set(found.values())) > len(set(best.values())):
            best = found
    return {key: best[key] for key in key_names if key in best}
