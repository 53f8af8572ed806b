# SPDX-License-Identifier: GPL-3.0-or-later
"""Acoustic model that lets PocketSphinx decode phone posteriors of a network.

In a hybrid recogniser (Bourlard and Morgan 1994) a network says how likely each phone is in each
frame, and the decoder knows words and sentences. PocketSphinx scores features by Gaussians. With
logarithms of scaled likelihoods as features, and Gaussians of variance 1 whose means are unit
vectors, the logarithm of a phone's density is its feature, up to a term that all phones share. So
nothing of PocketSphinx is changed, and any classifier of these phones can be used.
"""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.speech.phones import PHONES, SILENCE

_STATES = 3
_STAY, _NEXT, _SKIP = 0.5, 0.3, 0.2
"""Transition probabilities of a state: to itself, to the next, and past the next."""
_PRIORS = (
    383.7, 14.4, 23.1, 45.6, 12.6, 6.1, 24.0, 6.8, 2.8, 16.0, 12.9, 17.4, 13.0, 14.3, 12.5, 5.4,
    14.0, 32.5, 39.5, 2.4, 19.1, 16.9, 18.9, 31.5, 7.5, 15.8, 0.5, 8.4, 15.0, 28.4, 6.1, 47.2,
    5.2, 4.5, 24.0, 6.9, 18.2, 7.1, 19.9, 0.2,
)  # fmt: skip
"""Frames per thousand of each phone in the training recordings, in the order of ``PHONES``."""
_PRIOR_SCALE = 0.6
_FLOOR = -12.0


def as_features(log_posteriors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scaled log likelihoods of phones, the features of ``write_acoustic_model``.

    Args:
        log_posteriors: Natural logarithms of phone posteriors by phone id (id 0 stands for no
            phone), shape ``(T, 1 + len(PHONES))``, at ``FEATURE_RATE_HZ``.

    Returns:
        Log posteriors minus ``_PRIOR_SCALE`` times the log priors, shape ``(T, len(PHONES))``; the
        greatest of each frame is 0, and none is below ``_FLOOR``.
    """
    scaled = log_posteriors[:, 1:] - _PRIOR_SCALE * np.log(_PRIORS)
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    return np.maximum(scaled, _FLOOR).astype(np.float32)


def write_acoustic_model(folder: Path) -> None:
    """Writes the acoustic model for features of ``as_features``.

    Args:
        folder: An existing folder, in which the model's files are written.
    """
    num_phones, num_states = len(PHONES), _STATES * len(PHONES)
    rows = [
        "0.3",
        f"{num_phones} n_base",
        "0 n_tri",
        f"{num_phones * (_STATES + 1)} n_state_map",
        f"{num_states} n_tied_state",
        f"{num_states} n_tied_ci_state",
        f"{num_phones} n_tied_tmat",
        "#base lft rt p attrib tmat ... state id's ...",
    ]
    for symbol in sorted(PHONES):  # PocketSphinx reads them in this order only
        number = PHONES.index(symbol)
        states = " ".join(str(number * _STATES + state) for state in range(_STATES))
        kind = "filler" if symbol == SILENCE else "n/a"
        rows.append(f"{symbol} - - - {kind} {number} {states} N")
    (folder / "mdef").write_text("\n".join(rows) + "\n", encoding="ascii")
    shape = (num_states, 1, 1, num_phones, num_states * num_phones)
    _write(folder / "means", shape, np.repeat(np.eye(num_phones), _STATES, axis=0))
    _write(folder / "variances", shape, np.ones((num_states, num_phones)))
    _write(folder / "mixture_weights", (num_states, 1, 1, num_states), np.ones(num_states))
    moves = np.zeros((_STATES, _STATES + 1))
    for state in range(_STATES):
        moves[state, state : state + 3] = (_STAY, _NEXT, _SKIP)[: _STATES + 1 - state]
    moves /= moves.sum(axis=1, keepdims=True)
    moves = np.repeat(moves[None], num_phones, axis=0)
    _write(folder / "transition_matrices", (*moves.shape, moves.size), moves)
    fillers = "".join(f"{word} {SILENCE}\n" for word in ("<s>", "</s>", "<sil>"))
    (folder / "noisedict").write_text(fillers, encoding="ascii")
    sizes = "".join(f"-{name} {num_phones}\n" for name in ("feat", "ceplen", "ncep", "nfilt"))
    (folder / "feat.params").write_text(sizes + "-cmn none\n-agc none\n", encoding="ascii")


def _write(path: Path, sizes: Sequence[int], values: NDArray[np.floating]) -> None:
    """Writes an array in the Sphinx-3 format: text header, byte-order mark, sizes, values."""
    header = b"s3\nversion 1.0\nendhdr\n" + struct.pack("<I", 0x11223344)
    path.write_bytes(header + np.asarray(sizes, "<i4").tobytes() + values.astype("<f4").tobytes())
