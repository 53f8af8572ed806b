# SPDX-License-Identifier: GPL-3.0-or-later
"""Synthetic captures: speech of a corpus, articulated in the styles of subjects on one head.

There is no capture of speaking faces that may be passed on. A synthetic set is like one in
everything but the truth of its faces: subjects with a style and a head of their own, held-out
sentences, held-out people, one topology. With it the same code trains and compares models that
later see VOCASET or BIWI. It compares models with the articulation model, not with people.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backend.articulation.coarticulation import articulate
from backend.articulation.speaking_style import SpeakingStyle, style_for_voice
from backend.audio.prosody import measure_prosody, voice_character
from backend.audio.rates import SAMPLE_RATE_HZ
from backend.data.captures.prepare import Progress, prepare_set
from backend.data.captures.prepared import Label, Manifest, Split
from backend.data.captures.published_sets import RawClip, RawSet
from backend.data.captures.raw_files import RawMotion, RawSound
from backend.data.speech.corpus import Corpus, Utterance, load_corpus
from backend.errors import UserError
from backend.heads.mesh_files import read_head
from backend.heads.solve import solve_shapes
from backend.heads.topology import INTEROCULAR_MM, face_frame, identify

FPS: Final = 30
_UNSEEN_SHARE: Final = 0.25
_HEAD_SPREAD: Final = 0.04
_SECONDS: Final = (1.0, 8.0)
_SOURCES: Final = ("flite", "espeak", "festival", "recorded")
"""English sources of a corpus; recordings among them, since people's voices differ most."""


def prepare_synthetic(
    speech: Path,
    head: Path,
    out: Path,
    *,
    num_subjects: int,
    sentences: int,
    seed: int,
    progress: Progress,
) -> Manifest:
    """Makes a synthetic set in the prepared format, or goes on where it was interrupted.

    Args:
        speech: Corpus that ``prepare speech`` made; each subject has one of its voices.
        head: Mesh file of known topology; all subjects are variations of this head.
        out: Folder of the prepared set.
        num_subjects: Number of subjects, at least 4; a quarter of them is held out whole, as
            ``test_unseen``.
        sentences: Number of sentences of each subject, at least 5; of the subjects that are not
            held out a fifth is ``test``, a tenth ``validation``, the rest ``train``.
        seed: Seed of voices, styles and heads.
        progress: Called after each sequence.

    Returns:
        The manifest of the prepared set.

    Raises:
        UserError: The corpus has too few voices or sentences, or the head is no head.
    """
    if num_subjects < 4 or sentences < 5:
        raise UserError(
            f"{num_subjects} subjects with {sentences} sentences are too few to split: take at "
            "least 4 with 5 each."
        )
    source = synthetic_set(
        load_corpus(speech), head, num_subjects=num_subjects, sentences=sentences, seed=seed
    )
    return prepare_set(source, speech, out, precision="float16", progress=progress)


def synthetic_set(
    corpus: Corpus, head: Path, *, num_subjects: int, sentences: int, seed: int
) -> RawSet:
    """A synthetic set that is not written yet; see `prepare_synthetic`."""
    mesh = identify(*read_head(head))
    frame = face_frame(mesh)
    metres = INTEROCULAR_MM / 1000.0 / frame.interocular
    shapes = solve_shapes(mesh).offsets
    rng = np.random.default_rng([seed, 5])
    templates: dict[str, NDArray[np.float32]] = {}
    clips: list[RawClip] = []
    unseen = max(1, round(num_subjects * _UNSEEN_SHARE))
    for number, spoken in enumerate(_voices(corpus, num_subjects, sentences, rng)):
        subject = f"subject_{number + 1:02d}"
        # Wider, taller or deeper heads by a few percent; their shapes stretch with them.
        stretch = np.diag(1.0 + _HEAD_SPREAD * np.clip(rng.normal(size=3), -1.5, 1.5))
        extended = metres * (frame.axes.T @ stretch @ frame.axes)
        templates[subject] = (mesh.vertices @ extended).astype(np.float32)
        style = _style_of(corpus, spoken, rng)
        basis = (shapes @ extended).astype(np.float32)
        splits = _splits(sentences, is_unseen=number >= num_subjects - unseen)
        for place, (utterance, split) in enumerate(zip(spoken, splits, strict=True)):
            label = Label(f"{subject}_{place + 1:02d}", subject, f"{place + 1:02d}", split)
            read = partial(_clip, corpus, utterance, style, templates[subject], basis)
            clips.append(RawClip(label, read))
    return RawSet(
        dataset="synthetic",
        protocol=(
            f"synthetic, seed {seed}, corpus {corpus.content_hash}: {num_subjects - unseen} "
            f"subjects with held-out sentences (test), {unseen} held out whole (test_unseen)"
        ),
        source_fps=Fraction(FPS),
        topology=mesh.topology.name,
        num_vertices=len(mesh.vertices),
        templates=templates,
        clips=clips,
        faces=(mesh.corners, mesh.sizes),
    )


def _voices(
    corpus: Corpus, count: int, sentences: int, rng: np.random.Generator
) -> list[list[Utterance]]:
    """Voices of the corpus, each with sentences that no other voice says, in turn by source."""
    low, high = (seconds * SAMPLE_RATE_HZ for seconds in _SECONDS)
    spoken: dict[tuple[str, str], list[Utterance]] = {}
    for one in corpus.utterances:
        if one.source in _SOURCES and low <= one.num_samples <= high:
            spoken.setdefault((one.source, one.speaker), []).append(one)
    texts: set[str] = set()
    pools: dict[str, list[list[Utterance]]] = {source: [] for source in _SOURCES}
    keys = sorted(spoken)
    for index in rng.permutation(len(keys)):
        new = [one for one in spoken[keys[index]] if one.text not in texts][:sentences]
        if len(new) == sentences and len({one.text for one in new}) == sentences:
            pools[keys[index][0]].append(new)
            texts |= {one.text for one in new}
    found: list[list[Utterance]] = []
    while len(found) < count and any(pools.values()):
        found += [pool.pop() for pool in pools.values() if pool]
    if len(found) < count:
        raise UserError(
            f"{corpus.folder} has {len(found)} voices with {sentences} sentences of "
            f"{_SECONDS[0]:g} to {_SECONDS[1]:g} s, {count} are needed. Take fewer subjects or "
            "sentences, or a larger corpus."
        )
    return found[:count]


def _style_of(
    corpus: Corpus, spoken: Sequence[Utterance], rng: np.random.Generator
) -> SpeakingStyle:
    """A style that suits the voice in part, as in the training of the bundled model."""
    first = spoken[0]
    samples = corpus.samples(first)
    prosody = measure_prosody(
        samples, sample_rate=SAMPLE_RATE_HZ, num_frames=_num_frames(samples), fps=FPS
    )
    return style_for_voice(voice_character(samples, prosody, first.phones), rng)


def _splits(sentences: int, *, is_unseen: bool) -> list[Split]:
    if is_unseen:
        return ["test_unseen"] * sentences
    test, validation = max(1, sentences // 5), max(1, sentences // 10)
    train = sentences - test - validation
    return [*["train"] * train, *["validation"] * validation, *["test"] * test]  # type: ignore[list-item]


def _num_frames(samples: NDArray[np.float32]) -> int:
    return max(1, len(samples) * FPS // SAMPLE_RATE_HZ)


def _clip(
    corpus: Corpus,
    utterance: Utterance,
    style: SpeakingStyle,
    template: NDArray[np.float32],
    shapes: NDArray[np.float32],
) -> tuple[RawMotion, RawSound, tuple[str, ...]]:
    """Motion and sound of a subject that says an utterance; nothing is random here."""
    samples = corpus.samples(utterance)
    count = _num_frames(samples)
    prosody = measure_prosody(samples, sample_rate=SAMPLE_RATE_HZ, num_frames=count, fps=FPS)
    weights = articulate(
        utterance.phones, style=style, num_frames=count, fps=FPS, energy=prosody.energy,
        f0=prosody.f0, blinks=False,
    )  # fmt: skip
    vertices = template + np.tensordot(weights, shapes, axes=1)
    sound = RawSound(samples, SAMPLE_RATE_HZ)
    return RawMotion(vertices.astype(np.float32), fps=float(FPS)), sound, ()
