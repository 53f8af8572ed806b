# SPDX-License-Identifier: GPL-3.0-or-later
"""Target weights of jaw, lips and tongue for each phone, and their dominance strengths.

Targets are ARKit-like weights for a neutral speaker. They follow what is measured of American
English: jaw height by vowel (Keating et al. 1994; Lindblom and Sundberg 1971), lip rounding and
protrusion (Fromkin 1964; Linker 1982), teeth nearly together in sibilants (Lee et al. 1994; JALI
rule 3), and the grouping of consonants into visemes (Fisher 1968; Edwards et al. 2016). How
strongly a phone insists on a group of articulators (Cohen and Massaro's alpha) is its degree of
articulatory constraint (Recasens 1997): /k/ leaves the lips to its neighbours, /sh/ does not.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.speech.phones import PHONES

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
SIL 1 0.9 0.8 1 1 |
AA  1 0.8 0.8 0.7 0.5 | jaw 0.46 lower_down 0.12 upper_up 0.08
AE  1 0.8 0.8 0.7 0.5 | jaw 0.4 stretch 0.2 smile 0.14 lower_down 0.2 upper_up 0.14
AH  0.7 0.6 0.5 0.5 0.5 | jaw 0.26 lower_down 0.1 upper_up 0.06
AO  0.9 1.6 1.2 0.7 0.5 | jaw 0.38 close 0.08 funnel 0.34 pucker 0.14 lower_down 0.08
EH  1 0.8 0.8 0.7 0.5 | jaw 0.31 stretch 0.16 smile 0.1 lower_down 0.16 upper_up 0.1
ER  0.8 1 0.8 0.7 0.5 | jaw 0.18 funnel 0.3 pucker 0.14 lower_down 0.12 upper_up 0.04
IH  1 0.8 0.8 0.7 0.5 | jaw 0.19 stretch 0.18 smile 0.12 lower_down 0.16 upper_up 0.1
IY  0.9 1 1.3 0.8 0.5 | jaw 0.12 stretch 0.34 smile 0.24 lower_down 0.22 upper_up 0.13
UH  0.9 1.6 1.2 0.7 0.5 | jaw 0.19 close 0.15 funnel 0.28 pucker 0.22 lower_down 0.06
UW  0.9 1.6 1.2 0.7 0.5 | jaw 0.15 close 0.35 funnel 0.26 pucker 0.58
AA1 1 0.8 0.8 0.7 0.5 | jaw 0.45 lower_down 0.14 upper_up 0.1
AO1 1 1.4 1 0.7 0.5 | jaw 0.32 close 0.08 funnel 0.36 pucker 0.2
OW1 1 1.4 1 0.7 0.5 | jaw 0.3 close 0.1 funnel 0.36 pucker 0.26
EH1 1 0.8 0.8 0.7 0.5 | jaw 0.28 stretch 0.2 smile 0.14 lower_down 0.18 upper_up 0.12
IH2 0.8 0.8 0.9 0.7 0.5 | jaw 0.16 stretch 0.26 smile 0.18 lower_down 0.18 upper_up 0.1
UW2 0.9 1.6 1.2 0.7 0.5 | jaw 0.16 close 0.28 funnel 0.26 pucker 0.46
P   0.7 0.15 0.3 1 0.5 | jaw 0.07
B   0.7 0.15 0.3 1 0.5 | jaw 0.07
M   0.7 0.15 0.3 1 0.5 | jaw 0.07
F   1 0.3 0.5 1.5 0.5 | jaw 0.09 close 0.3 upper_up 0.14 roll_lower 0.3
V   1 0.3 0.5 1.5 0.5 | jaw 0.09 close 0.3 upper_up 0.12 roll_lower 0.28
TH  0.9 0.25 0.3 0.7 2 | jaw 0.14 lower_down 0.2 upper_up 0.1 tongue 0.3
DH  0.7 0.2 0.2 0.5 2 | jaw 0.13 lower_down 0.14 upper_up 0.06 tongue 0.22
T   0.7 0.12 0.15 0.4 0.8 | jaw 0.09 stretch 0.1 lower_down 0.16 upper_up 0.06
D   0.6 0.12 0.15 0.4 0.8 | jaw 0.1 stretch 0.08 lower_down 0.14 upper_up 0.06
N   0.5 0.1 0.15 0.35 0.8 | jaw 0.11 stretch 0.08 lower_down 0.12 upper_up 0.05
L   0.4 0.12 0.15 0.35 1.4 | jaw 0.17 lower_down 0.12 upper_up 0.05 tongue 0.08
S   1.6 0.3 0.7 1 0.8 | jaw 0.05 stretch 0.24 smile 0.06 lower_down 0.26 upper_up 0.1
Z   1.5 0.3 0.6 0.9 0.8 | jaw 0.055 stretch 0.22 smile 0.06 lower_down 0.24 upper_up 0.1
SH  1.6 1.5 0.9 1 0.8 | jaw 0.07 funnel 0.46 pucker 0.2 forward 0.12 lower_down 0.14 upper_up 0.1
ZH  1.5 1.4 0.9 1 0.8 | jaw 0.07 funnel 0.42 pucker 0.2 forward 0.1 lower_down 0.12 upper_up 0.08
CH  1.5 1.4 0.9 1 0.8 | jaw 0.06 funnel 0.44 pucker 0.2 forward 0.12 lower_down 0.14 upper_up 0.1
JH  1.4 1.3 0.9 0.9 0.8 | jaw 0.07 funnel 0.4 pucker 0.18 forward 0.1 lower_down 0.12 upper_up 0.08
K   0.35 0.08 0.1 0.25 0.3 | jaw 0.15 lower_down 0.08 upper_up 0.04
G   0.35 0.08 0.1 0.25 0.3 | jaw 0.15 lower_down 0.08 upper_up 0.04
NG  0.3 0.08 0.1 0.25 0.3 | jaw 0.15 lower_down 0.08 upper_up 0.04
HH  0.12 0.05 0.08 0.12 0.1 | jaw 0.2 lower_down 0.06 upper_up 0.04
R   0.6 1 0.5 0.5 0.5 | jaw 0.14 close 0.08 funnel 0.34 pucker 0.22 lower_down 0.06
W   0.9 1.5 1.2 1 0.5 | jaw 0.09 close 0.45 funnel 0.16 pucker 0.74
Y   0.6 0.3 0.7 0.5 0.5 | jaw 0.1 stretch 0.24 smile 0.16 lower_down 0.16 upper_up 0.08
"""
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
    """The table as arrays; rows are targets, of which a phone has one or two.

    Attributes:
        targets: Weights, shape ``(rows, channels)``.
        strengths: Cohen and Massaro's alpha, shape ``(rows, groups)``.
        first_row: Row of each phone's first target, by its index in ``PHONES``.
        second_row: Row of a diphthong's second target, -1 for all other phones.
        first_share: Part of the duration that belongs to the first target, 1 without a second.
    """

    targets: NDArray[np.float32]
    strengths: NDArray[np.float32]
    first_row: NDArray[np.int64]
    second_row: NDArray[np.int64]
    first_share: NDArray[np.float32]


def _build() -> PhoneTargets:
    rows: dict[str, int] = {}
    strengths: list[list[float]] = []
    targets = np.zeros((_TABLE.count("|"), len(CHANNELS)), dtype=np.float32)
    for row, line in enumerate(_TABLE.strip().splitlines()):
        left, _, right = line.partition("|")
        name, *alphas = left.split()
        rows[name] = row
        strengths.append([float(alpha) for alpha in alphas])
        pairs = right.split()
        for channel, value in zip(pairs[::2], pairs[1::2], strict=True):
            targets[row, CHANNELS.index(channel)] = float(value)
    parts = [_DIPHTHONGS.get(symbol, (symbol, "", 1.0)) for symbol in PHONES]
    return PhoneTargets(
        targets=targets,
        strengths=np.array(strengths, dtype=np.float32),
        first_row=np.array([rows[first] for first, _, _ in parts]),
        second_row=np.array([rows.get(second, -1) for _, second, _ in parts]),
        first_share=np.array([share for _, _, share in parts], dtype=np.float32),
    )


PHONE_TARGETS = _build()
