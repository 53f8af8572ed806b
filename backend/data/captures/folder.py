# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading of a plain folder of captures: sounds, and the motions beside them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.data.captures import raw_files
from backend.data.captures.alembic import read_alembic
from backend.data.captures.prepared import Label, Problem, Split
from backend.data.captures.published_sets import UNITS, RawClip, RawSet
from backend.data.captures.raw_files import RawMotion, RawSound
from backend.errors import UserError
from backend.heads.topology import read_head


def read_folder(raw: Path, *, fps: Fraction | None, units: str, blender: str) -> RawSet:
    """Reads ``CLIP.wav`` beside ``CLIP.npz|.npy|.abc`` or a folder ``CLIP`` of .ply or .obj frames.

    The subject is the folder that the clip is in, else its name up to the last underscore. Faces at
    rest are ``templates/SUBJECT.npy|.ply|.obj``, ``template.npy|.ply|.obj``, ``templates.pkl``, the
    npz's own, or, with a note, the first frame.

    Args:
        raw: Folder of the captures.
        fps: Frames a second, where the files do not say it.
        units: Unit of the positions, one of ``UNITS``.
        blender: Program that reads Alembic, see ``alembic.read_alembic``.

    Returns:
        The clips and templates that the folder holds.

    Raises:
        UserError: The folder holds no clip that can be used, or the frame rate is not known.
    """
    if units not in UNITS:
        raise UserError(f"The unit '{units}' is not known. Choose one of {', '.join(UNITS)}.")
    files: dict[Label, tuple[Path, Path]] = {}
    problems = []
    for sound in sorted(raw.rglob("*.wav")):
        label = _label(sound.relative_to(raw).with_suffix(""))
        options = (sound.with_suffix(suffix) for suffix in (".npz", ".npy", "", ".abc"))
        motion = next((path for path in options if path.exists()), None)
        if motion is not None:
            files[label] = (motion, sound)
            continue
        reason = "There is no motion beside it: .npz, .npy, .abc, or a folder of .ply or .obj."
        problems.append(Problem(label.name, reason))
    if not files:
        raise UserError(
            f"{raw} holds no .wav with a motion beside it. See the help of this command."
        )
    templates: dict[str, NDArray[np.float32]] = {}
    faces, origins = None, {}
    for label in sorted(files, key=lambda one: files[one][0].suffix != ".npz"):  # they say most
        motion = files[label][0]
        with suppress(UserError):  # the clip's turn comes, and then it is listed
            says_faces = motion.is_dir() or motion.suffix == ".abc"
            if label.subject in templates and fps and (faces or not says_faces):
                continue
            first = _read(motion, fps, blender, max_frames=1)
            fps = fps or (Fraction(first.fps).limit_denominator(1001) if first.fps > 0 else None)
            faces = faces or first.faces
            if label.subject not in templates:
                found, origins[label.subject] = _template(raw, label, first)
                templates[label.subject] = np.asarray(found, np.float32)
    if fps is None:
        raise UserError("The files do not say their frame rate. Give it with --fps.")
    clips = [
        RawClip(label, partial(_clip, *paths, fps, blender, origins.get(label.subject, ())))
        for label, paths in zip(_splits(files), files.values(), strict=True)
    ]
    return RawSet(
        dataset="folder",
        protocol="of each subject's clips the last tenth test, the tenth before it validation",
        source_fps=fps,
        units=units,
        metres_per_unit=UNITS[units],
        extents=(0.1 / UNITS[units], 1.5 / UNITS[units]),
        templates=templates,
        clips=clips,
        problems=problems,
        faces=faces or raw_files.find_faces(raw, templates),
    )  # fmt: skip


def _label(place: Path) -> Label:
    parts = [re.sub(r"[^A-Za-z0-9_.-]", "-", part) for part in place.parts]
    subject, _, sentence = parts[-1].rpartition("_")
    if len(parts) > 1:
        subject, sentence = "_".join(parts[:-1]), parts[-1]
    return Label("_".join(parts), subject or "speaker", sentence, "train")


def _splits(labels: Iterable[Label]) -> list[Label]:
    """The labels with their splits; each split has a clip of every subject with three or more."""
    labels = list(labels)
    of_subject: dict[str, list[Label]] = {}
    for label in labels:
        of_subject.setdefault(label.subject, []).append(label)
    splits: dict[Label, Split] = {}
    for group in of_subject.values():
        share = max(1, len(group) // 10) if len(group) >= 3 else 0
        splits |= dict.fromkeys(group[len(group) - 2 * share :], "validation")
        splits |= dict.fromkeys(group[len(group) - share :], "test")
    return [replace(label, split=splits.get(label, "train")) for label in labels]


def _template(raw: Path, label: Label, first: RawMotion) -> tuple[NDArray[Any], tuple[str, ...]]:
    for base in (raw / "templates" / label.subject, raw / "template"):
        if (path := base.with_name(f"{base.name}.npy")).exists():
            return raw_files.read_array(path), ()
        for suffix in (".ply", ".obj"):
            if (path := base.with_name(base.name + suffix)).exists():
                return read_head(path)[0], ()
    if (raw / "templates.pkl").exists() and label.subject in (
        known := raw_files.read_templates(raw)
    ):
        return known[label.subject], ()
    if first.template is not None:
        return first.template, ()
    note = f"No template was found; the first frame of {label.name} stands for it."
    return first.vertices[0], (note,)


def _clip(
    motion_path: Path, sound_path: Path, fps: Fraction, blender: str, notes: tuple[str, ...]
) -> tuple[RawMotion, RawSound, tuple[str, ...]]:
    motion = _read(motion_path, fps, blender)
    if motion.fps > 0 and abs(motion.fps - float(fps)) > 0.01:
        raise UserError(f"It has {motion.fps:g} frames a second, the set {float(fps):g}.")
    return motion, raw_files.read_sound(sound_path), notes


def _read(
    path: Path, fps: Fraction | None, blender: str, *, max_frames: int | None = None
) -> RawMotion:
    if path.suffix == ".abc":
        return read_alembic(path, fps=fps or Fraction(24), blender=blender, max_frames=max_frames)
    return raw_files.read_motion(path, max_frames=max_frames)
