# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics of style transfer from exemplars and voices, on styles that no model was trained on.

The articulation model can say any sentence in any style, so the reference is known: the same
sentence in that style.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from backend.articulation.speaking_style import (
    SpeakingStyle,
    style_for_voice,
    training_styles,
    unseen_styles,
)
from backend.audio.features import stacked_log_mel
from backend.audio.prosody import measure_prosody, voice_character
from backend.audio.rates import FEATURE_RATE_HZ, SAMPLE_RATE_HZ
from backend.evaluation import curve_metrics
from backend.evaluation.clips import SpokenClip
from backend.evaluation.curve_metrics import closures
from backend.heads.lip_measures import MeasuredHead
from backend.heads.topology import INTEROCULAR_MM
from backend.model import generate as model_generate
from backend.model.ptalker import PTalker
from backend.model.style_inversion import style_of_motion
from backend.speech.phones import phone_frames

NUM_STYLES: Final = 32
EXEMPLAR_SECONDS: Final = 5.0
_NUM_SENTENCES: Final = 3
_BACKGROUND_STYLES: Final = 48

Motion = NDArray[np.float32]


def style_transfer_metrics(
    model: PTalker, clips: Sequence[SpokenClip], mouth: MeasuredHead
) -> dict[str, float]:
    """Metrics of the transfer of unseen styles.

    Args:
        model: The model, in evaluation mode, on the CPU.
        clips: Recorded sentences; the first few are animated, exemplars come from the others.
        mouth: Head on which motion is measured.

    Returns:
        ``error_ratio``: error to the reference over that of the neutral reference, in millimetres
        at the face points, phones given; ``error_ratio_to_own_neutral`` over that of the model's
        own neutral motion, which is what an artist gets who gives no style; ``error_ratio_sound``
        by sound alone;
        ``retrieval`` among the styles by an independent classifier, and its accuracy on the
        references ``retrieval_of_truth``; ``closures_f1_neutral``, ``closures_f1_worst`` and
        ``closures_recall_worst`` over styles, phones given, and those of the references
        (``…_of_truth``: who hardly parts the lips shows closures where there are none);
        ``error_ratio_half_strength`` and so on at other strengths.
    """
    styles = unseen_styles(NUM_STYLES)
    said, shown = clips[:_NUM_SENTENCES], clips[_NUM_SENTENCES:] or clips
    neutral_truth = [clip.articulated(clip.phones, SpeakingStyle.neutral()) for clip in said]
    neutral_code = model.neutral_style()
    neutral = [generate(model, clip, neutral_code, with_phones=True) for clip in said]
    truths, made, by_sound, exemplars = [], [], [], []
    strengths: dict[float, list[float]] = {0.5: [], 1.5: []}
    for number, style in enumerate(styles):
        exemplar = _exemplar(shown, style, number)
        exemplars.append(exemplar)
        shown_motion = torch.from_numpy(exemplar)[None]
        code = style_of_motion(model, shown_motion)
        truths.append([clip.articulated(clip.phones, style) for clip in said])
        made.append([generate(model, clip, code, with_phones=True) for clip in said])
        by_sound.append([generate(model, clip, code, with_phones=False) for clip in said])
        for strength, ratios in strengths.items():
            scaled = model.scaled_style(code, strength)
            motion = generate(model, said[0], scaled, with_phones=True)
            wanted = said[0].articulated(
                said[0].phones, SpeakingStyle.neutral().blend(style, strength)
            )
            ratios.append(_ratio([motion], [wanted], neutral_truth[:1], mouth))
    classifier = _Classifier(clips)
    gallery = np.stack([classifier.embed(exemplar) for exemplar in exemplars])
    closed = [_closures(motions, said, mouth) for motions in made]
    closed_truth = [_closures(motions, said, mouth) for motions in truths]
    return {
        "error_ratio": _mean_ratio(made, truths, neutral_truth, mouth),
        "error_ratio_to_own_neutral": _mean_ratio(made, truths, neutral, mouth),
        "error_ratio_sound": _mean_ratio(by_sound, truths, neutral_truth, mouth),
        "error_ratio_half_strength": float(np.mean(strengths[0.5])),
        "error_ratio_one_and_a_half": float(np.mean(strengths[1.5])),
        "retrieval": curve_metrics.retrieval_accuracy(_embed(classifier, made), gallery),
        "retrieval_of_truth": curve_metrics.retrieval_accuracy(_embed(classifier, truths), gallery),
        "closures_f1_neutral": _closures(neutral, said, mouth).f1,
        "closures_f1_mean": float(np.mean([counts.f1 for counts in closed])),
        "closures_f1_worst": min(counts.f1 for counts in closed),
        "closures_recall_worst": min(counts.recall for counts in closed),
        "closures_f1_mean_of_truth": float(np.mean([counts.f1 for counts in closed_truth])),
        "closures_f1_worst_of_truth": min(counts.f1 for counts in closed_truth),
    }


def voice_style_metrics(
    model: PTalker, clips: Sequence[SpokenClip], mouth: MeasuredHead
) -> dict[str, float]:
    """Whether the style that is read from a voice is nearer to its speaker's style than neutral.

    Styles are tied to voices as in training: half of what a voice shows is chance, and the rest of
    a style cannot be by_sound at all, so that no code of a voice comes near to a speaker's own.

    Args:
        model: The model, in evaluation mode, on the CPU.
        clips: Recorded sentences, which also give the voices.
        mouth: Head on which motion is measured.

    Returns:
        ``error_ratio_voice_to_own_neutral``: mean over styles of the error to the reference over
        that of the model's own neutral motion, phones given; ``voice_nearer_share``: share of the
        styles for which it is below 1.
    """
    rng = np.random.default_rng(48)
    ratios = []
    for number in range(NUM_STYLES):
        clip = clips[number % len(clips)]
        prosody = measure_prosody(
            clip.samples,
            sample_rate=SAMPLE_RATE_HZ,
            num_frames=clip.num_frames,
            fps=FEATURE_RATE_HZ,
        )
        style = style_for_voice(voice_character(clip.samples, prosody, clip.phones), rng)
        sound = torch.from_numpy(stacked_log_mel(clip.samples))[None]
        codes = model.encode_audio_style(sound), model.neutral_style()
        voiced, unstyled = (generate(model, clip, code, with_phones=True) for code in codes)
        truth = clip.articulated(clip.phones, style)
        ratios.append(_ratio([voiced], [truth], [unstyled], mouth))
    return {
        "error_ratio_voice_to_own_neutral": float(np.mean(ratios)),
        "voice_nearer_share": float(np.mean(np.array(ratios) < 1.0)),
    }


def generate(model: PTalker, clip: SpokenClip, code: torch.Tensor, *, with_phones: bool) -> Motion:
    """Weights of a clip in a code's style, with its true phones as input or by sound alone."""
    speech = torch.from_numpy(stacked_log_mel(clip.samples))[None]
    phones = torch.from_numpy(
        phone_frames(clip.phones, clip.num_frames, FEATURE_RATE_HZ, source="given")
    )[None]
    weights = model_generate.generate(
        model,
        speech,
        code,
        num_frames=clip.num_frames,
        phones=phones if with_phones else None,
        mode="parallel",
    )
    return np.asarray(weights[0].numpy(), np.float32)


def _exemplar(clips: Sequence[SpokenClip], style: SpeakingStyle, number: int) -> Motion:
    """Five seconds of another sentence in the style."""
    clip = clips[number % len(clips)]
    motion = clip.articulated(clip.phones, style)
    return motion[: round(EXEMPLAR_SECONDS * FEATURE_RATE_HZ)]


def _ratio(
    made: Sequence[Motion], truth: Sequence[Motion], neutral: Sequence[Motion], mouth: MeasuredHead
) -> float:
    points = mouth.basis.reshape(len(mouth.basis), -1) * INTEROCULAR_MM
    joined = [np.concatenate(motions) @ points for motions in (made, truth, neutral)]
    return curve_metrics.style_error_ratio(*joined)


def _mean_ratio(
    made: Sequence[Sequence[Motion]],
    truths: Sequence[Sequence[Motion]],
    neutral: Sequence[Motion],
    mouth: MeasuredHead,
) -> float:
    pairs = zip(made, truths, strict=True)
    return float(np.mean([_ratio(ours, truth, neutral, mouth) for ours, truth in pairs]))


def _closures(
    motions: Sequence[Motion], clips: Sequence[SpokenClip], mouth: MeasuredHead
) -> curve_metrics.ClosureCounts:
    counts = curve_metrics.ClosureCounts()
    for motion, clip in zip(motions, clips, strict=True):
        counts += closures(clip.phones, mouth.opening_mm(motion))
    return counts


class _Classifier:
    """Linear discriminant analysis of motion statistics, fitted on references of other styles.

    It shares nothing with the model.
    """

    def __init__(self, clips: Sequence[SpokenClip]) -> None:
        spread, every = [], []
        for style in training_styles(_BACKGROUND_STYLES):
            seen = [self._statistics(clip.articulated(clip.phones, style)) for clip in clips[:6]]
            every += seen
            spread += list(np.stack(seen) - np.mean(seen, axis=0))
        self.mean = np.mean(every, axis=0)
        within = np.cov(np.stack(spread).T)
        shrunk = 0.9 * within + 0.1 * np.diag(np.diag(within)) + 1e-6 * np.eye(len(within))
        values, vectors = np.linalg.eigh(shrunk)
        self.whiten = vectors / np.sqrt(values)

    def embed(self, motion: Motion) -> NDArray[np.float64]:
        """Whitened statistics of a motion."""
        return np.asarray((self._statistics(motion) - self.mean) @ self.whiten)

    @staticmethod
    def _statistics(motion: Motion) -> NDArray[np.float64]:
        moving = motion.astype(np.float64)
        return np.concatenate([moving.mean(0), moving.std(0), np.quantile(moving, 0.95, axis=0)])


def _embed(classifier: _Classifier, motions: Sequence[Sequence[Motion]]) -> NDArray[np.float64]:
    return np.stack([classifier.embed(np.concatenate(parts)) for parts in motions])
