# SPDX-License-Identifier: GPL-3.0-or-later
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
