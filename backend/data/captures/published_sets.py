# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading of VOCASET, BIWI and 3D-HDTF as published, with their published splits.

A reader lists the clips that are there and those that are missing; the files of a clip are read
when it is prepared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from backend.data.captures import raw_files
from backend.data.captures.prepared import Label, Problem, Split, is_safe_name
from backend.data.captures.raw_files import Faces, RawMotion, RawSound, as_array, as_dict
from backend.errors import UserError

UNITS: Final = {"m": 1.0, "cm": 0.01, "mm": 0.001}
_VOCASET_SPLITS: Final[dict[str, Split]] = {
    **dict.fromkeys(
        (
            "FaceTalk_170728_03272_TA", "FaceTalk_170904_00128_TA", "FaceTalk_170725_00137_TA",
            "FaceTalk_170915_00223_TA", "FaceTalk_170811_03274_TA", "FaceTalk_170913_03279_TA",
            "FaceTalk_170904_03276_TA", "FaceTalk_170912_03278_TA",
        ), "train",
    ),
    **dict.fromkeys(("FaceTalk_170811_03275_TA", "FaceTalk_170908_03277_TA"), "validation"),
    **dict.fromkeys(("FaceTalk_170809_00138_TA", "FaceTalk_170731_00024_TA"), "test"),
}  # fmt: skip
"""In FaceFormer's order, which numbers the identities."""
_BIWI_SEEN: Final = ("F2", "F3", "F4", "M3", "M4", "M5")
_BIWI_UNSEEN: Final = ("F1", "F5", "F6", "F7", "F8", "M1", "M2", "M6")
_MAX_GAP_FRAMES: Final = 5


@dataclass(frozen=True, slots=True)
class RawClip:
    """A sequence of a raw set; ``read`` gives motion, sound and notes or raises `UserError`."""

    label: Label
    read: Callable[[], tuple[RawMotion, RawSound, tuple[str, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RawSet:
    """A data set as published.

    Attributes:
        dataset: Name of the data set on the command line.
        protocol: Where the splits come from.
        source_fps: Frames a second of the published motion.
        step: Factor by which the frame rate is lowered, after a low-pass.
        units: Unit of the positions.
        metres_per_unit: Length of the unit; 0 where it is not known.
        extents: Shortest and longest plausible diagonal of a head, in the set's units.
        topology: Name of the mesh's topology, which has ``num_vertices`` vertices.
        num_vertices: Number of vertices of the topology; 0 for any.
        templates: Faces at rest by subject.
        clips: Sequences that are there.
        missing: Names of sequences that are not there.
        problems: Sequences that cannot be used.
        faces: Faces of the mesh, where the set comes with them.
    """

    dataset: str
    protocol: str
    source_fps: Fraction
    step: int = 1
    units: str = "m"
    metres_per_unit: float = 1.0
    extents: tuple[float, float] = (0.1, 1.5)
    topology: str = ""
    num_vertices: int = 0
    templates: dict[str, NDArray[np.float32]]
    clips: list[RawClip]
    missing: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    faces: Faces | None = None


def read_raw_set(kind: str, raw: Path) -> RawSet:
    """Reads a published data set.

    Args:
        kind: ``vocaset``, ``biwi`` or ``3d-hdtf``.
        raw: Folder of the published files.

    Returns:
        The clips and templates that the folder holds.

    Raises:
        UserError: A file that all depends on is missing or broken.
    """
    return {"vocaset": _vocaset, "biwi": _biwi, "3d-hdtf": _hdtf}[kind](raw)


def _vocaset(raw: Path) -> RawSet:
    """``data_verts.npy``, ``raw_audio_fixed.pkl``, ``templates.pkl``, ``subj_seq_to_idx.pkl``."""
    rows = as_dict(raw_files.load_pickle(raw / "subj_seq_to_idx.pkl"), "subj_seq_to_idx.pkl")
    sounds = as_dict(raw_files.load_pickle(raw / "raw_audio_fixed.pkl"), "raw_audio_fixed.pkl")
    vertices = raw_files.as_frames(raw_files.read_array(raw / "data_verts.npy"), "data_verts.npy")
    templates = raw_files.read_templates(raw)
    clips, names = [], set()
    for subject, sentences in sorted(rows.items(), key=_key):
        for sentence, frames in sorted(as_dict(sentences, str(subject)).items(), key=_key):
            split = _VOCASET_SPLITS.get(subject, "unused")
            if split in ("validation", "test") and _last_number(sentence) not in range(21, 41):
                split = "unused"
            label = Label(f"{subject}_{sentence}", str(subject), str(sentence), split)
            names.add(label.name)
            clips.append(RawClip(label, partial(_vocaset_clip, label, vertices, frames, sounds)))
    expected = [f"{s}_sentence{i:02}" for s in _VOCASET_SPLITS for i in range(1, 41)]
    return RawSet(
        dataset="vocaset",
        protocol="FaceFormer: 8 training subjects, all sentences; 2 + 2 others, sentences 21-40",
        source_fps=Fraction(60),
        step=2,
        topology="flame",
        num_vertices=5023,
        templates=_in_order(templates, _VOCASET_SPLITS),
        clips=clips,
        missing=[name for name in expected if name not in names],
        faces=raw_files.find_faces(raw, templates),
    )  # fmt: skip


def _vocaset_clip(
    label: Label, vertices: NDArray[Any], frames: object, sounds: dict[Any, object]
) -> tuple[RawMotion, RawSound, tuple[str, ...]]:
    """Frames ``{number: row}``; sound starts at frame 0, wherever the motion does."""
    entry = as_dict(sounds.get(label.subject, {}), label.subject).get(label.sentence)
    if entry is None:
        raise UserError("It has no sound in raw_audio_fixed.pkl.")
    entry = as_dict(entry, "its sound")
    pairs = list(as_dict(frames, "its frames").items())
    if not pairs or not all(type(n) is int and 0 <= n < 1 << 40 for pair in pairs for n in pair):
        raise UserError("Its frames in subj_seq_to_idx.pkl are no pairs of numbers.")
    numbers, rows = np.array(sorted(pairs), dtype=np.int64).T
    if rows.max() >= len(vertices):
        raise UserError(f"It names row {rows.max()} of data_verts.npy, which has {len(vertices)}.")
    positions = np.asarray(vertices[rows], np.float32)
    notes: tuple[str, ...] = ()
    gap = int(np.diff(numbers, prepend=numbers[0]).max()) - 1
    if gap > _MAX_GAP_FRAMES:
        raise UserError(f"{gap} frames in a row are missing; up to {_MAX_GAP_FRAMES} are filled.")
    if gap > 0:
        missing = int(numbers[-1] - numbers[0]) + 1 - len(numbers)
        notes = (f"{missing} missing frames were filled in on a straight line.",)
        positions = raw_files.without_gaps(numbers, positions)
    rate = raw_files.as_sample_rate(entry.get("sample_rate"))
    samples = as_array(entry.get("audio"), "its sound")[round(int(numbers[0]) / 60 * rate) :]
    return RawMotion(positions), raw_files.sound_from(samples, rate), notes


def _biwi(raw: Path) -> RawSet:
    """``wav/F1_e01.wav``, ``vertices_npy/F1_e01.npy`` (T, V * 3), ``templates.pkl``.

    As the scripts of FaceFormer and CodeTalker make them. They divide every frame by the square
    root of its area, so a unit is 0.17 to 0.2 m and no metre.
    """
    templates = raw_files.read_templates(raw)
    motions = {path.stem: path for path in (raw / "vertices_npy").glob("*.npy")}
    sounds = {path.stem: path for path in (raw / "wav").glob("*.wav")}
    clips, problems = [], []
    for name in sorted(motions.keys() | sounds.keys()):
        subject, _, sentence = name.rpartition("_")
        label = Label(name, subject, sentence, _biwi_split(subject, sentence))
        if name in motions and name in sounds:
            clips.append(RawClip(label, partial(_file_clip, motions[name], sounds[name])))
        else:
            lacks = "wav" if name in motions else "vertices_npy"
            problems.append(Problem(name, f"It has no file in {lacks}."))
    expected = [f"{s}_e{i:02}" for s in (*_BIWI_SEEN, *_BIWI_UNSEEN) for i in range(1, 41)]
    return RawSet(
        dataset="biwi",
        protocol="FaceFormer: 6 subjects, e01-e32, e33-e36, e37-e40; 8 unseen, e37-e40",
        source_fps=Fraction(25),
        units="square roots of the head's area",
        metres_per_unit=0.0,
        extents=(0.5, 3.0),
        topology="biwi",
        num_vertices=23370,
        templates=_in_order(templates, _BIWI_SEEN),
        clips=clips,
        missing=[name for name in expected if name not in motions and name not in sounds],
        problems=problems,
        faces=raw_files.find_faces(raw, templates),
    )  # fmt: skip


def _biwi_split(subject: str, sentence: str) -> Split:
    number = _last_number(sentence) if sentence.startswith("e") else 0
    if subject in _BIWI_UNSEEN and 37 <= number <= 40:
        return "test_unseen"
    if subject not in _BIWI_SEEN or not 1 <= number <= 40:
        return "unused"
    if number <= 32:
        return "train"
    return "validation" if number <= 36 else "test"


def _hdtf(raw: Path) -> RawSet:
    """3D-HDTF as published with Mimic (Fu et al. 2024).

    ``video_list_id_framenum-train_test.txt`` (lines ``VIDEO ID FRAMES train|test``),
    ``templates.pkl`` by id, ``spectre_processed_25fps_16kHz/VIDEO/verts_new_shape1.npy`` (a boxed
    dict with ``verts``) and ``audio_librosa.npy`` (``speech_array``, ``sampling_rate``).
    """
    templates = raw_files.read_templates(raw)
    held_out = {words[0] for words in _hdtf_list(raw, "val", required=False)}
    clips, missing = [], []
    for words in _hdtf_list(raw, "train_test", required=True):
        video, subject = words[0], words[1]
        split: Split = "train" if _last_number(subject) <= 150 else "unused"
        if words[-1] == "test":
            split = "test"
        elif video in held_out:
            split = "validation"
        label = Label(video, subject, video, split)
        folder = raw / "spectre_processed_25fps_16kHz" / video
        if is_safe_name(video) and folder.is_dir():
            clips.append(RawClip(label, partial(_hdtf_clip, folder, raw, video)))
        else:
            missing.append(video)
    return RawSet(
        dataset="3d-hdtf",
        protocol="Mimic: the set's own lists; training identities 1-150",
        source_fps=Fraction(25),
        topology="flame",
        num_vertices=5023,
        templates=dict(sorted(templates.items(), key=lambda item: _last_number(item[0]))),
        clips=clips,
        missing=missing,
        faces=raw_files.find_faces(raw, templates),
    )  # fmt: skip


def _hdtf_list(raw: Path, name: str, *, required: bool) -> list[list[str]]:
    path = raw / f"video_list_id_framenum-{name}.txt"
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError as error:
        if required:
            raise UserError(f"{path} is not there. It says who speaks in which video.") from error
        return []
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}).") from error
    return [words for words in lines if len(words) >= 2]


def _hdtf_clip(folder: Path, raw: Path, video: str) -> tuple[RawMotion, RawSound, tuple[str, ...]]:
    boxed = as_dict(raw_files.load_boxed(folder / "verts_new_shape1.npy"), "verts_new_shape1.npy")
    motion = RawMotion(raw_files.as_frames(as_array(boxed.get("verts"), "verts"), "verts"))
    if not (folder / "audio_librosa.npy").exists():
        return motion, raw_files.read_sound(raw / "audio_16000Hz_from_video" / f"{video}.wav"), ()
    sound = as_dict(raw_files.load_boxed(folder / "audio_librosa.npy"), "audio_librosa.npy")
    rate = raw_files.as_sample_rate(sound.get("sampling_rate"))
    samples = as_array(sound.get("speech_array"), "speech_array")
    return motion, raw_files.sound_from(samples, rate), ()


def _file_clip(motion: Path, sound: Path) -> tuple[RawMotion, RawSound, tuple[str, ...]]:
    return raw_files.read_motion(motion), raw_files.read_sound(sound), ()


def _in_order(
    templates: dict[str, NDArray[np.float32]], order: Iterable[str]
) -> dict[str, NDArray[np.float32]]:
    """The published order first, then the others by name."""
    names = [name for name in order if name in templates]
    return {name: templates[name] for name in [*names, *sorted(templates.keys() - set(names))]}


def _key(item: tuple[object, object]) -> str:
    return str(item[0])


def _last_number(text: str) -> int:
    digits = re.search(r"(\d+)$", str(text))
    return int(digits[1]) if digits else -1
