# SPDX-License-Identifier: GPL-3.0-or-later
"""Simulated errors of a speech recogniser in phones.

A recogniser with a lexicon errs by whole words: a stretch of some phones is replaced by similar
ones, some are deleted, some inserted. Times are off by a frame or two everywhere.
"""

from collections.abc import Sequence

import numpy as np

from backend.speech.phones import SILENCE, Phone, merge_silences

_CONFUSABLE = (
    "P T K B F", "B D G V P M", "M N NG B V", "N M NG L D", "NG N M", "T D K P CH",
    "D T G B DH N", "K T G P", "G K D B", "F TH S P V", "V B F W DH M", "TH F S T DH",
    "DH TH D V L", "S Z SH TH F", "Z S JH ZH", "SH S CH ZH", "ZH JH SH Z", "CH JH SH T",
    "JH CH ZH D", "HH F TH K", "L W R OW N", "R L W ER", "W L R V UW", "Y IY JH IH", "IY IH EY Y",
    "IH IY EH AH", "EY EH IY AY", "EH IH AE EY AH", "AE EH AA AY", "AA AO AH AE", "AO AA OW AH",
    "AH IH AA EH UH", "OW AO UW AH L", "UH AH UW IH", "UW UH OW Y", "AY AA EY AE", "AW AA OW AE",
    "OY AY AO OW", "ER R AH AO",
)  # fmt: skip
_LIKE = {row.split()[0]: row.split()[1:] for row in _CONFUSABLE}
_STRETCH = (2, 8)
_CLEAR_SHARE = 0.5
_WRONG_CLEAR, _WRONG_UNCLEAR = (0.0, 0.35), (0.35, 0.95)
_LOST_SHARE = 0.15
_LOST_SECONDS = (0.3, 1.5)
_JITTER_SECONDS = 0.010
_SHORTEST_SECONDS = 0.02


def corrupt(phones: Sequence[Phone], rng: np.random.Generator) -> list[Phone]:
    """Adds a recogniser's errors to exact phones.

    The share of wrong words differs from utterance to utterance, from hardly any to nearly all, as
    it does between clear and unclear speakers: PocketSphinx recognises 42, 61 and 82 % of the
    frames of learners of English (10th, 50th, 90th percentile), and over 85 % of a clear reader's.
    Half of the utterances here are clear. Now and then nothing is recognised for a while.

    Args:
        phones: True phones in order of time, without overlaps.
        rng: Source of randomness.

    Returns:
        Phones with errors over the same time, with a gap where nothing was recognised.
    """
    share = rng.uniform(*(_WRONG_CLEAR if rng.random() < _CLEAR_SHARE else _WRONG_UNCLEAR))
    wrong = _wrong_stretches(len(phones), share, rng)
    recognised: list[Phone] = []
    for phone, is_wrong in zip(phones, wrong, strict=True):
        if is_wrong and phone.symbol != SILENCE:
            recognised += _with_error(phone, bool(recognised), rng)
        elif (
            phone.symbol == SILENCE
            and phone.end_seconds - phone.start_seconds < 0.12
            and recognised
        ):
            recognised[-1] = _until(recognised[-1], phone.end_seconds)
        else:
            recognised.append(phone)
    if recognised:
        recognised[-1] = _until(recognised[-1], phones[-1].end_seconds)
    recognised = merge_silences(_jittered(recognised, rng))
    if recognised and rng.random() < _LOST_SHARE:
        start = rng.uniform(0.0, recognised[-1].end_seconds)
        end = start + rng.uniform(*_LOST_SECONDS)
        recognised = [
            one for one in recognised if one.end_seconds <= start or one.start_seconds >= end
        ]
    return recognised


def _wrong_stretches(count: int, share: float, rng: np.random.Generator) -> list[bool]:
    wrong: list[bool] = []
    while len(wrong) < count:
        length = int(rng.integers(*_STRETCH))
        wrong += [bool(rng.random() < share)] * length
    return wrong[:count]


def _with_error(phone: Phone, may_be_deleted: bool, rng: np.random.Generator) -> list[Phone]:
    """A phone within a wrong word: kept, substituted, split in two, or deleted."""
    draw = rng.random()
    if draw < 0.35 or (draw < 0.45 and not may_be_deleted):
        return [phone]
    choices = _LIKE[phone.symbol]
    other = choices[min(int(rng.exponential(1.3)), len(choices) - 1)]
    start, end = phone.start_seconds, phone.end_seconds
    if draw < 0.45:
        other = ""
    if draw > 0.93 and end - start > 3 * _SHORTEST_SECONDS:
        middle = start + (end - start) * rng.uniform(0.35, 0.65)
        return [Phone(phone.symbol, start, middle), Phone(other, middle, end)]
    return [Phone(other, start, end)] if other else []


def _until(phone: Phone, end: float) -> Phone:
    return Phone(phone.symbol, phone.start_seconds, end)


def _jittered(phones: Sequence[Phone], rng: np.random.Generator) -> list[Phone]:
    """Moves borders a little and closes the gaps of vanished phones."""
    if not phones:
        return []
    starts = np.array([phone.start_seconds for phone in phones])
    starts[1:] += np.clip(rng.normal(0.0, _JITTER_SECONDS, len(starts) - 1), -0.03, 0.03)
    lag = rng.normal(0.0, 0.006)
    starts[1:] = np.maximum.accumulate(starts + lag)[1:]
    ends = [*starts[1:].tolist(), phones[-1].end_seconds]
    moved: list[Phone] = []
    for phone, start, end in zip(phones, starts.tolist(), ends, strict=True):
        if end - start >= _SHORTEST_SECONDS:
            moved.append(Phone(phone.symbol, moved[-1].end_seconds if moved else start, end))
    return [*moved[:-1], _until(moved[-1], ends[-1])] if moved else []
