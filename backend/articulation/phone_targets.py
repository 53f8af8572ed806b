# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: RUF001 (the letters of IPA are meant)
"""Target weights of jaw, lips and tongue for each phone, and their dominance strengths.

Targets are ARKit-like weights for a neutral speaker. They follow what is measured of American
English: jaw height by vowel (Keating et al. 1994; Lindblom and Sundberg 1971), lip rounding and
protrusion (Fromkin 1964; Linker 1982), teeth nearly together in sibilants (Lee et al. 1994; JALI
rule 3), and the grouping of consonants into visemes (Fisher 1968; Edwards et al. 2016). How
strongly a phone insists on a group of articulators (Cohen and Massaro's alpha) is its degree of
articulatory constraint (Recasens 1997): /k/ leaves the lips to its neighbours, /sh/ does not.
The jaw goes up for p, b, m, t, d, n and sibilants (Keating et al. 1994; Mooshammer et al. 2007),
and the lips part with it: the lower one by its depressors, the upper one by its levators. Sizes are
such that speech with these targets lies within the figures of captured people
(``evaluation/motion_figures.py``). A smile is hardly part of a phone; see ``postures.py``.

Phones of other languages are variants of these where lips show them. Front rounded vowels have the
rounding of the back ones and the jaw of the spread ones (Zerling 1992; Abry and Boë 1986); Swedish
and Japanese high vowels are compressed, not protruded (Ladefoged and Maddieson 1996, chapter 9);
French nasal vowels are rounder or more open than their oral neighbours (Zerling 1984; Carignan
2014). Retroflex fricatives protrude the lips less than English ones, alveolo-palatal and palatal
ones spread them (Ladefoged and Wu 1984; Ladefoged and Maddieson 1996, chapter 5). Bilabial
fricatives leave a slit, labial-velars close, labiodental approximants touch the teeth lightly
(same, chapters 2, 5 and 9). Sizes are set beside those of the English phones that they share a
posture with, since measures in millimetres are of other heads.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.speech.phones import PHONES, SILENCE, VOWELS, Phone

CHANNELS: tuple[str, ...] = (
    "jaw",  # jawOpen
    "close",  # which part of the jaw's opening the lips close: mouthClose = close * jawOpen
    "funnel",
    "pucker",
    "forward",  # jawForward
    "stretch",
    "smile",
    "lower_down",
    "upper_up",
    "roll_lower",
    "tongue",
)
GROUPS: dict[str, tuple[str, ...]] = {
    "jaw": ("jaw",),
    "rounding": ("close", "funnel", "pucker", "forward"),
    "spread": ("stretch", "smile"),
    "parting": ("lower_down", "upper_up", "roll_lower"),
    "tongue": ("tongue",),
}
"""Articulators that move together, in the order of ``CHANNELS``."""

# Each row: strength per group (jaw, rounding, spread, parting, tongue) | targets that are not zero.
# A digit after the name marks a diphthong's first or second target.
_TABLE = """
SIL 0.55 0.9 0.8 1 1 |
AA  1 0.8 0.8 0.9 0.5 | jaw 0.57 lower_down 0.41 upper_up 0.32
AE  1 0.8 0.8 0.9 0.5 | jaw 0.5 stretch 0.2 smile 0.03 lower_down 0.5 upper_up 0.42
AH  0.8 0.6 0.5 0.7 0.5 | jaw 0.3 lower_down 0.28 upper_up 0.22
AO  1 1.6 1.2 0.9 0.5 | jaw 0.38 close 0.15 funnel 0.45 pucker 0.16 lower_down 0.24 upper_up 0.08
EH  1 0.8 0.8 0.9 0.5 | jaw 0.38 stretch 0.16 smile 0.02 lower_down 0.44 upper_up 0.34
ER  0.9 1 0.8 0.8 0.5 | jaw 0.09 close 0.12 funnel 0.39 pucker 0.16 lower_down 0.2 upper_up 0.08
IH  1 0.8 0.8 0.8 0.5 | jaw 0.11 stretch 0.18 smile 0.03 lower_down 0.28 upper_up 0.23
IY  1 1 1.3 0.9 0.5 | jaw 0.09 stretch 0.34 smile 0.06 lower_down 0.36 upper_up 0.29
UH  1 1.6 1.2 0.8 0.5 | jaw 0.09 close 0.15 funnel 0.37 pucker 0.24 lower_down 0.06
UW  1 1.6 1.2 0.8 0.5 | jaw 0.05 close 0.35 funnel 0.35 pucker 0.58
AA1 1 0.8 0.8 0.9 0.5 | jaw 0.5 lower_down 0.46 upper_up 0.36
AO1 1 1.4 1 0.9 0.5 | jaw 0.4 close 0.06 funnel 0.48 pucker 0.2 lower_down 0.13
OW1 1 1.4 1 0.9 0.5 | jaw 0.35 close 0.08 funnel 0.48 pucker 0.26 lower_down 0.07
EH1 1 0.8 0.8 0.9 0.5 | jaw 0.4 stretch 0.2 smile 0.04 lower_down 0.44 upper_up 0.34
IH2 0.8 0.8 0.9 0.8 0.5 | jaw 0.11 stretch 0.26 smile 0.05 lower_down 0.34 upper_up 0.27
UW2 1 1.6 1.2 0.8 0.5 | jaw 0.09 close 0.28 funnel 0.35 pucker 0.46
P   1.1 0.15 0.3 1 0.5 | jaw 0.01
B   1.1 0.15 0.3 1 0.5 | jaw 0.01
M   1 0.15 0.3 1 0.5 | jaw 0.015
F   1 0.3 0.5 1.5 0.5 | jaw 0.07 close 0.3 upper_up 0.21 roll_lower 0.3
V   1 0.3 0.5 1.5 0.5 | jaw 0.07 close 0.3 upper_up 0.19 roll_lower 0.28
TH  1 0.25 0.3 0.7 2 | jaw 0.06 lower_down 0.22 upper_up 0.13 tongue 0.3
DH  0.8 0.2 0.2 0.5 2 | jaw 0.06 lower_down 0.15 upper_up 0.08 tongue 0.22
T   0.9 0.12 0.15 0.5 0.8 | jaw 0.045 stretch 0.1 lower_down 0.15 upper_up 0.07
D   0.8 0.12 0.15 0.5 0.8 | jaw 0.045 stretch 0.08 lower_down 0.14 upper_up 0.07
N   0.7 0.1 0.15 0.45 0.8 | jaw 0.025 stretch 0.08 lower_down 0.13 upper_up 0.04
L   0.5 0.12 0.15 0.4 1.4 | jaw 0.09 lower_down 0.17 upper_up 0.09 tongue 0.08
S   1.5 0.3 0.7 1 0.8 | jaw 0.015 stretch 0.24 smile 0.01 lower_down 0.25 upper_up 0.13
Z   1.4 0.3 0.6 0.9 0.8 | jaw 0.02 stretch 0.22 smile 0.01 lower_down 0.25 upper_up 0.13
SH  1.7 1.5 0.9 1 0.8 | jaw 0.025 funnel 0.56 pucker 0.22 forward 0.12 lower_down 0.13 upper_up 0.11
ZH  1.6 1.4 0.9 1 0.8 | jaw 0.025 funnel 0.52 pucker 0.22 forward 0.1 lower_down 0.13 upper_up 0.09
CH  1.6 1.4 0.9 1 0.8 | jaw 0.02 funnel 0.54 pucker 0.22 forward 0.12 lower_down 0.13 upper_up 0.11
JH  1.5 1.3 0.9 0.9 0.8 | jaw 0.025 funnel 0.5 pucker 0.2 forward 0.1 lower_down 0.13 upper_up 0.09
K   0.4 0.08 0.1 0.3 0.3 | jaw 0.13 lower_down 0.13 upper_up 0.07
G   0.4 0.08 0.1 0.3 0.3 | jaw 0.13 lower_down 0.13 upper_up 0.07
NG  0.35 0.08 0.1 0.3 0.3 | jaw 0.07 lower_down 0.13 upper_up 0.07
HH  0.2 0.05 0.08 0.15 0.1 | jaw 0.16 lower_down 0.13 upper_up 0.08
R   1 1 0.5 0.9 0.5 | jaw 0.03 close 0.3 funnel 0.43 pucker 0.24 lower_down 0.03
W   1.3 1.5 1.2 1 0.5 | jaw 0.03 close 0.45 funnel 0.22 pucker 0.74
Y   0.8 0.3 0.7 0.6 0.5 | jaw 0.03 stretch 0.24 smile 0.04 lower_down 0.2 upper_up 0.13
"""
_VARIANTS = """
y   1 1.6 1.2 0.8 0.5 | jaw 0.09 close 0.35 funnel 0.35 pucker 0.58
ʏ   1 1.6 1.2 0.8 0.5 | jaw 0.11 close 0.18 funnel 0.37 pucker 0.34
ʉ   1 1.6 1.2 0.8 0.5 | jaw 0.07 close 0.5 funnel 0.18 pucker 0.46
ɵ   1 1.6 1.2 0.8 0.5 | jaw 0.18 close 0.22 funnel 0.4 pucker 0.32
ø   1 1.6 1.2 0.8 0.5 | jaw 0.2 close 0.2 funnel 0.43 pucker 0.4 lower_down 0.05
œ   1 1.5 1.2 0.9 0.5 | jaw 0.34 close 0.12 funnel 0.46 pucker 0.2 lower_down 0.18 upper_up 0.06
e   1 0.9 1 0.9 0.5 | jaw 0.22 stretch 0.25 smile 0.04 lower_down 0.38 upper_up 0.3
o   1 1.6 1.2 0.9 0.5 | jaw 0.22 close 0.18 funnel 0.45 pucker 0.36 lower_down 0.05
ɯ   1 1 1.1 0.9 0.5 | jaw 0.08 stretch 0.2 smile 0.02 lower_down 0.26 upper_up 0.2
ɯᵝ  1 1.2 1 0.9 0.5 | jaw 0.08 close 0.3 pucker 0.12 lower_down 0.12 upper_up 0.05
ɤ   1 0.9 0.9 0.9 0.5 | jaw 0.22 stretch 0.12 smile 0.01 lower_down 0.34 upper_up 0.26
ɒ   1 1.2 1 0.9 0.5 | jaw 0.46 close 0.05 funnel 0.34 pucker 0.1 lower_down 0.3 upper_up 0.12
ɑ̃   1 1.2 1 0.9 0.5 | jaw 0.48 funnel 0.3 pucker 0.1 lower_down 0.32 upper_up 0.16
ɔ̃   1 1.6 1.2 0.9 0.5 | jaw 0.26 close 0.12 funnel 0.48 pucker 0.42 lower_down 0.06
ɛ̃   1 0.8 0.8 0.9 0.5 | jaw 0.46 stretch 0.18 smile 0.02 lower_down 0.46 upper_up 0.37
œ̃   1 1.3 1 0.9 0.5 | jaw 0.38 close 0.05 funnel 0.34 pucker 0.1 lower_down 0.28 upper_up 0.14
ɥ   1.3 1.5 1.2 1 0.5 | jaw 0.05 close 0.4 funnel 0.3 pucker 0.6
ɸ   1 0.6 0.6 1.5 0.5 | jaw 0.06 close 0.5
β   1 0.5 0.5 1.4 0.5 | jaw 0.07 close 0.45
ʙ   1.1 0.6 0.5 1 0.5 | jaw 0.02 pucker 0.24
ʘ   1.2 1.2 0.9 1 0.5 | jaw 0.03 close 0.4 pucker 0.7
ɱ   1 0.3 0.5 1.5 0.5 | jaw 0.07 close 0.3 upper_up 0.16 roll_lower 0.26
ʋ   0.9 0.3 0.4 1.1 0.5 | jaw 0.09 close 0.28 upper_up 0.14 roll_lower 0.14
ʂ   1.6 1.1 0.9 1 0.8 | jaw 0.03 funnel 0.36 pucker 0.12 forward 0.08 lower_down 0.16 upper_up 0.1
ʐ   1.5 1 0.9 1 0.8 | jaw 0.035 funnel 0.33 pucker 0.12 forward 0.07 lower_down 0.16 upper_up 0.09
ɕ   1.6 0.9 0.9 1 0.8 | jaw 0.02 stretch 0.27 smile 0.03 lower_down 0.27 upper_up 0.16
ʑ   1.5 0.9 0.9 1 0.8 | jaw 0.025 stretch 0.25 smile 0.03 lower_down 0.26 upper_up 0.15
ç   0.6 0.3 0.7 0.6 0.5 | jaw 0.06 stretch 0.26 smile 0.03 lower_down 0.24 upper_up 0.16
ɟ   0.8 0.2 0.5 0.6 0.6 | jaw 0.045 stretch 0.2 lower_down 0.18 upper_up 0.1
"""
"""Targets of variants, by their names in IPA."""
_ADDED: dict[str, tuple[str, float, str]] = {
    "ʷ": ("rounding", 1.2, "close 0.4 funnel 0.24 pucker 0.62"),
    "ʲ": ("spread", 0.5, "stretch 0.22 smile 0.02"),
}
"""Variants of any consonant, its own but for a group: the group, its strength and targets."""
SLITS = frozenset(("ɸ", "β"))
"""Variants with the lips near each other, neither closed nor at the teeth."""
LIGHT_BITES = frozenset(("ʋ",))
"""Variants that bring the lower lip near the teeth, not to them."""
_DIPHTHONGS: dict[str, tuple[str, str, float]] = {
    "AW": ("AA1", "UW2", 0.55),
    "AY": ("AA1", "IH2", 0.55),
    "EY": ("EH1", "IH2", 0.45),
    "OW": ("OW1", "UW2", 0.45),
    "OY": ("AO1", "IH2", 0.55),
}
"""First target, second target, and the part of the duration that belongs to the first."""


@dataclass(frozen=True, slots=True)
class PhoneTargets:
    """The tables as arrays; rows are targets, of which a kind of phone has one or two.

    Attributes:
        targets: Weights, shape ``(rows, channels)``.
        strengths: Cohen and Massaro's alpha, shape ``(rows, groups)``.
        first_row: Row of each kind's first target: of ``PHONES`` in their order, then of variants.
        second_row: Row of a diphthong's second target, -1 for all other kinds.
        first_share: Part of the duration that belongs to the first target, 1 without a second.
        kinds: Place of each kind in these three, by its phone and variant; variants that do not
            depend on the phone stand under an empty one.
    """

    targets: NDArray[np.float32]
    strengths: NDArray[np.float32]
    first_row: NDArray[np.int64]
    second_row: NDArray[np.int64]
    first_share: NDArray[np.float32]
    kinds: dict[tuple[str, str], int]

    def kind_of(self, phone: Phone) -> int:
        """Place of a phone's kind in ``first_row``.

        Args:
            phone: A phone.

        Returns:
            The place; 0 is silence.

        Raises:
            ValueError: There are no targets for this phone or its variant.
        """
        for symbol in (phone.symbol, ""):
            if (kind := self.kinds.get((symbol, phone.variant))) is not None:
                return kind
        raise ValueError(f"{phone.symbol!r} {phone.variant} is not in the phone table")


def _set(targets: NDArray[np.float32], pairs: str) -> None:
    """Writes channels and their values into one row."""
    words = pairs.split()
    for channel, value in zip(words[::2], words[1::2], strict=True):
        targets[CHANNELS.index(channel)] = float(value)


def _build() -> PhoneTargets:
    rows: dict[str, int] = {}
    strengths: list[NDArray[np.float32]] = []
    targets: list[NDArray[np.float32]] = []
    for line in (*_TABLE.strip().splitlines(), *_VARIANTS.strip().splitlines()):
        left, _, right = line.partition("|")
        name, *alphas = left.split()
        rows[name] = len(targets)
        strengths.append(np.array([float(alpha) for alpha in alphas], np.float32))
        targets.append(np.zeros(len(CHANNELS), np.float32))
        _set(targets[-1], right)
    parts = [_DIPHTHONGS.get(symbol, (symbol, "", 1.0)) for symbol in PHONES]
    kinds = {(symbol, ""): index for index, symbol in enumerate(PHONES)}
    first_row = [rows[first] for first, _, _ in parts]
    for line in _VARIANTS.strip().splitlines():
        kinds["", line.split()[0]] = len(first_row)
        first_row.append(rows[line.split()[0]])
    for symbol in PHONES:
        if symbol == SILENCE or symbol in VOWELS:
            continue
        for variant, (group, strength, pairs) in _ADDED.items():
            kinds[symbol, variant] = len(first_row)
            first_row.append(len(targets))
            targets.append(targets[rows[symbol]].copy())
            strengths.append(strengths[rows[symbol]].copy())
            targets[-1][[CHANNELS.index(channel) for channel in GROUPS[group]]] = 0.0
            _set(targets[-1], pairs)
            column = list(GROUPS).index(group)
            strengths[-1][column] = max(strength, strengths[-1][column])
    single = len(first_row) - len(parts)
    return PhoneTargets(
        targets=np.stack(targets),
        strengths=np.stack(strengths),
        first_row=np.array(first_row),
        second_row=np.array([rows.get(second, -1) for _, second, _ in parts] + [-1] * single),
        first_share=np.array([share for _, _, share in parts] + [1.0] * single, dtype=np.float32),
        kinds=kinds,
    )


PHONE_TARGETS = _build()
