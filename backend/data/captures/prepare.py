# SPDX-License-Identifier: GPL-3.0-or-later
"""Conversion of captured data sets to the prepared format (`prepared`).

The raw folder is only read. Missing and broken sequences are listed in the manifest and left out;
finished ones are not prepared again.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Final

import numpy as np
import scipy.signal
from numpy.typing import NDArray

from backend.audio.rates import SAMPLE_RATE_HZ
from backend.data.captures import prepared, raw_files
from backend.data.captures.folder import read_folder
from backend.data.captures.prepared import Label, Manifest, Precision, Problem, Subject
from backend.data.captures.published_sets import RawClip, RawSet, read_raw_set
from backend.data.captures.raw_files import Faces, RawMotion, RawSound
from backend.errors import UserError
from backend.heads import topology
from backend.motion import frame_rate

FILTERING: Final = "zero-phase Kaiser FIR, -6 dB at the new Nyquist frequency, then every second"

Progress = Callable[[int, int, str, float | None], None]
"""Called with sequences done, sequences in all, their name, seconds left (None while unknown)."""


def prepare(
    kind: str,
    raw: Path,
    out: Path,
    *,
    precision: Precision = "float16",
    fps: str = "",
    units: str = "m",
    blender: str = "blender",
    progress: Progress = lambda done, total, unit, seconds_left: None,
) -> Manifest:
    """Prepares a data set, or goes on where it was interrupted.

    Args:
        kind: ``vocaset``, ``biwi``, ``3d-hdtf`` or ``folder``.
        raw: Folder of the published files, which is not written to.
        out: Folder of the prepared set.
        precision: Type of the stored offsets.
        fps: Frame rate of a ``folder`` whose files do not say it, as `frame_rate` reads it.
        units: Unit of a ``folder``: ``m``, ``cm`` or ``mm``.
        blender: Program that reads the Alembic files of a ``folder``.
        progress: Called after each sequence.

    Returns:
        The manifest of the prepared set.

    Raises:
        UserError: A file that all depends on is missing or broken, no sequence can be used, or
            ``out`` holds something else or cannot be written.
    """
    raw, out = Path(raw).resolve(), Path(out).resolve()
    if not raw.is_dir():
        raise UserError(f"There is no folder {raw}. Give the one with the downloaded files.")
    if raw.is_relative_to(out) or out.is_relative_to(raw):
        raise UserError("The raw folder is not written to: choose --out neither in nor around it.")
    rate = frame_rate(fps) if fps else None
    source = (
        read_folder(raw, fps=rate, units=units, blender=blender)
        if kind == "folder"
        else read_raw_set(kind, raw)
    )
    return prepare_set(source, raw, out, precision=precision, progress=progress)


def prepare_set(
    source: RawSet, raw: Path, out: Path, *, precision: Precision, progress: Progress
) -> Manifest:
    """Prepares a data set that was read from ``raw``; arguments and errors as `prepare`."""
    source = _checked(source, raw)
    return _work(source, out, _begin(source, out, precision), progress)


def _checked(source: RawSet, raw: Path) -> RawSet:
    """Moves the clips of a data set that cannot be used to its problems.

    Args:
        source: The data set as it was read.
        raw: Folder of the published files, for messages.

    Returns:
        The data set with the usable clips and their templates.

    Raises:
        UserError: No clip can be used.
    """
    counts = Counter(template.shape for template in source.templates.values())
    usual = counts.most_common(1)[0][0] if counts else (0, 3)
    unfit = {
        name: reason
        for name, template in source.templates.items()
        if (reason := _flaw(name, template, usual, source))
    }
    usable: dict[str, RawClip] = {}
    refused: list[Problem] = []
    for clip in source.clips:
        name, subject = clip.label.name, clip.label.subject
        reason = unfit.get(subject, "")
        if not (prepared.is_safe_name(name) and prepared.is_safe_name(subject)):
            reason = "Its name cannot be a file's: use letters, digits, '_', '.' and '-'."
        elif name in usable:
            reason = "Another sequence has this name too."
        elif subject not in source.templates:
            reason = f"There is no template of {subject or 'its subject'}."
        if reason:
            refused.append(Problem(name, reason))
        else:
            usable[name] = clip
    if not usable:
        why = [problem.reason for problem in (*refused, *source.problems)][:1]
        said = f"{raw} holds no sequence of '{source.dataset}' that can be used."
        raise UserError(" ".join([said, *why]))
    used = {clip.label.subject for clip in usable.values()}
    templates = {name: value for name, value in source.templates.items() if name in used}
    problems = [*source.problems, *refused]
    return replace(source, clips=list(usable.values()), templates=templates, problems=problems)


def _flaw(name: str, template: NDArray[np.float32], usual: tuple[int, ...], source: RawSet) -> str:
    """Why a template cannot be used; empty where it can."""
    if template.ndim != 2 or template.shape[1] != 3 or not len(template):
        return f"The template of {name} is no face: it has shape {template.shape}."
    if template.shape != usual:
        return f"The template of {name} has {len(template)} vertices, the others {usual[0]}."
    if not np.isfinite(template).all():
        return f"The template of {name} holds positions that are not numbers."
    low, high = source.extents
    if low <= (size := _extent(template)) <= high:
        return ""
    return (
        f"The head of {name} measures {size:.3g} {source.units} from corner to corner, expected "
        f"{low:g} to {high:g}. Is it in another unit? Prepare it as 'folder' with its --units."
    )


def _extent(template: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(template.max(axis=0) - template.min(axis=0)))


def _begin(source: RawSet, out: Path, precision: Precision) -> Manifest:
    """Writes an unfinished manifest; checks that ``out`` is empty or of the same set."""
    first = next(iter(source.templates.values()))
    fps = source.source_fps / source.step
    # A power of two, so that dividing is exact. Three centimetres keep a hundredth of a millimetre.
    scale = 2.0 ** round(math.log2(_extent(first) / 8)) if precision == "float16" else 1.0
    mark = ""
    if source.faces is not None:
        mark = topology.fingerprint(*source.faces, len(first))
    manifest = Manifest(
        dataset=source.dataset,
        protocol=source.protocol,
        fps_numerator=fps.numerator,
        fps_denominator=fps.denominator,
        source_fps=float(source.source_fps),
        filtering=FILTERING if source.step > 1 else "",
        units=source.units,
        metres_per_unit=source.metres_per_unit,
        num_vertices=len(first),
        topology=_topology_name(source, len(first), mark),
        fingerprint=mark,
        precision=precision,
        scale=scale,
    )
    old = prepared.read_unfinished(out)
    if old is not None:
        if differing := _differing_settings(old, manifest):
            raise UserError(
                f"{out} holds a set prepared with another {', '.join(differing)}. Choose an empty "
                "folder."
            )
        manifest = replace(manifest, scale=old.scale)
    try:
        for name in ("sequences", "templates"):
            (out / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} cannot be made ({error.strerror}). Choose another.") from error
    prepared.write_manifest(out, manifest)
    return manifest


def _differing_settings(old: Manifest, new: Manifest) -> list[str]:
    """Names of the fields on which finished sequences depend and that differ."""
    depends = {"dataset", "protocol", "fps_numerator", "fps_denominator", "source_fps", "units",
               "num_vertices", "precision", "audio_rate_hz"}  # fmt: skip
    return sorted(name for name in depends if getattr(old, name) != getattr(new, name))


def _topology_name(source: RawSet, num_vertices: int, mark: str) -> str:
    """The shipped topology with these faces; without faces, the name the set is known by."""
    shipped = [topology.load_topology(name) for name in topology.shipped_topologies()]
    for known in shipped:
        if mark and (known.num_vertices, known.fingerprint) == (num_vertices, mark):
            return known.name
    if num_vertices == source.num_vertices and not (
        mark and source.topology in {known.name for known in shipped}
    ):
        return source.topology
    return "custom" if mark else ""


def _work(source: RawSet, out: Path, manifest: Manifest, progress: Progress) -> Manifest:
    subjects = {
        name: _write_template(out, name, template) for name, template in source.templates.items()
    }
    sequences: list[prepared.Sequence] = []
    problems = list(source.problems)
    started, worked = time.monotonic(), 0
    for number, clip in enumerate(source.clips):
        done = prepared.finished_sequence(out, clip.label.name)
        if done is None:
            try:
                motion, sound, notes = clip.read()
                offsets, notes = _offsets(source, manifest, clip.label, motion, sound, notes)
            except UserError as error:
                problems.append(Problem(clip.label.name, str(error)))
            else:
                done = prepared.write_sequence(
                    out, clip.label, offsets=offsets, samples=sound.samples, notes=notes,
                    source_audio_rate_hz=sound.source_rate_hz,
                )  # fmt: skip
            worked += 1
        if done is not None:  # more clips in a folder may have moved it to another split
            sequences.append(replace(done, split=clip.label.split))
        left = len(source.clips) - number - 1
        seconds_left = (time.monotonic() - started) / worked * left if worked else None
        progress(number + 1, len(source.clips), "sequences", seconds_left)
    if not sequences:
        raise UserError(
            f"None of {len(source.clips)} sequences could be used; the first, {problems[0].name}: "
            f"{problems[0].reason}"
        )
    used = {sequence.subject for sequence in sequences}
    manifest = replace(
        manifest,
        faces=_write_faces(out, source.faces),
        subjects=tuple(one for name, one in subjects.items() if name in used),
        sequences=tuple(sequences),
        missing=tuple(source.missing),
        problems=tuple(problems),
        complete=True,
    )
    prepared.write_manifest(out, manifest)
    return manifest


def _write_template(out: Path, name: str, template: NDArray[np.float32]) -> Subject:
    path = f"templates/{name}.npy"
    if (out / path).exists() and not np.array_equal(raw_files.read_array(out / path), template):
        raise UserError(
            f"The template of {name} is another than when {out} was begun. Choose an empty folder."
        )
    return Subject(name, prepared.write_array(out, path, template))


def _write_faces(out: Path, faces: Faces | None) -> tuple[prepared.StoredFile, ...]:
    if faces is None:
        return ()
    corners, sizes = faces

    def save(file: IO[bytes]) -> None:
        np.savez(file, face_corners=corners, face_sizes=sizes)

    return (prepared.write_file(out, "faces.npz", save),)


def _offsets(
    source: RawSet,
    manifest: Manifest,
    label: Label,
    motion: RawMotion,
    sound: RawSound,
    notes: tuple[str, ...],
) -> tuple[NDArray[np.floating], tuple[str, ...]]:
    """Offsets at the set's rate, scaled and of the type to store, and notes on their length."""
    template = source.templates[label.subject]
    if motion.vertices.shape[1:] != template.shape:
        raise UserError(
            f"It has {motion.vertices.shape[1]} vertices, its template {len(template)}."
        )
    offsets = motion.vertices.astype(np.float32) - template
    if not np.isfinite(offsets).all():
        raise UserError("It holds positions that are not numbers.")
    if len(offsets) < 2 * source.step:
        raise UserError(f"It has {len(offsets)} frames; at least {2 * source.step} are needed.")
    farthest = float(np.linalg.norm(offsets, axis=2).max())
    if farthest > _extent(template):
        raise UserError(
            f"A vertex is {farthest:.3g} {source.units} from where the template has it: the motion "
            "is in another unit or place than the template."
        )
    motion_seconds = len(offsets) / float(source.source_fps)
    sound_seconds = len(sound.samples) / SAMPLE_RATE_HZ
    if abs(motion_seconds - sound_seconds) > max(0.5, 0.1 * motion_seconds):
        notes += (f"The motion lasts {motion_seconds:.2f} s, the sound {sound_seconds:.2f} s.",)
    if source.step > 1:
        offsets = decimate(offsets, source.step)
    return (offsets / np.float32(manifest.scale)).astype(manifest.precision), notes


def decimate(offsets: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """Every ``step``-th frame, after a low-pass: the released code aliases by ``[::2]``.

    Frame ``i`` of the result is at the time of frame ``i * step``. The filter has zero phase and
    passes a constant and a steady slope unchanged, ends included.

    Args:
        offsets: Motion, shape ``(T, ...)``.
        step: Factor by which the frame rate falls, at least 1.

    Returns:
        The motion at the lower rate, shape ``(ceil(T / step), ...)``.
    """
    filtered = scipy.signal.resample_poly(offsets, 1, step, axis=0, padtype="line")
    return np.asarray(filtered, np.float32)


def summary(manifest: Manifest) -> str:
    """Text about a prepared set: its sequences, and those that could not be used."""
    counts = Counter(sequence.split for sequence in manifest.sequences)
    splits = ", ".join(f"{name.replace('_', ' ')} {counts[name]}" for name in sorted(counts))
    hours = float(sum(one.num_frames for one in manifest.sequences) / manifest.fps / 3600)
    lines = [
        f"{len(manifest.sequences)} sequences of {len(manifest.subjects)} subjects, "
        f"{hours:.2f} hours ({splits})"
    ]
    lines += [f"not used: {problem.name}: {problem.reason}" for problem in manifest.problems]
    if manifest.missing:
        lines.append(
            f"{len(manifest.missing)} of the published sequences are not there: "
            f"{', '.join(manifest.missing[:5])}{', ...' if len(manifest.missing) > 5 else ''}"
        )
    return "\n".join(lines)
