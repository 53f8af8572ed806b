# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job: a head's inputs become a request, the backend's motion becomes shape keys."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from bpy.types import Object

from . import (
    backend_job,
    character,
    face_point_results,
    head_mesh,
    head_motion,
    motion,
    options,
    paths,
    rig_channels,
    rig_mapping,
    rig_names,
    rig_target,
    scene_inputs,
    shape_keys,
    speech_action,
)
from .backend_job import BackendJob, Outcome
from .character import Companion
from .exemplar_reader import Exemplar, ExemplarReader
from .motion import KeyedMotion, Motion
from .options import GenerateOptions
from .preferences import Settings
from .protocol import GenerateRequest, Progress, Result, StyleRequest, StyleSource, UserError
from .scene_inputs import Choices, ExemplarRange, Head, SceneInputs
from .typed import mesh_of

TITLE = "Generate Lip Sync"


def generate_job(inputs: SceneInputs, settings: Settings) -> BackendJob:
    """Build the main job and write its files; the runner starts it.

    Args:
        inputs: What the job takes from the scene.
        settings: The preferences.

    Returns:
        A job that was not started.

    Raises:
        UserError: There is no backend, or the job's files cannot be written.
    """
    try:
        command = paths.backend_command(settings)
        folder = backend_job.new_job_folder()
    except UserError:
        inputs.sound.discard()
        raise
    choices, prepare = inputs.choices, None
    by_name = _goes_by_name(inputs)
    head_file = folder / "template.npz"
    try:
        if by_name:
            head_file = rig_target.demo_head_file(paths.backend_root())
        else:
            write_head(head_file, inputs.head, inputs.companions)
        style = choices.style
        if inputs.exemplar is not None:
            style = StyleSource(kind="exemplar", value=str(folder / "exemplar.npz"))
            prepare = _read_exemplar(inputs.exemplar, Path(style.value))
        audio = inputs.sound.path
        if inputs.sound.packed is not None:
            audio = folder / f"sound{audio.suffix}"
            audio.write_bytes(inputs.sound.packed)
        elif inputs.sound.is_temporary:
            audio = Path(shutil.move(audio, folder / f"sound{audio.suffix}"))
    except OSError as error:
        inputs.sound.discard()
        raise UserError(
            f"The job's files cannot be written to {folder}: {error.strerror or error}."
        ) from error
    request = GenerateRequest(
        job=folder.name,
        head=str(head_file),
        audio=str(audio),
        out=str(folder / "motion.npz"),
        fps_numerator=inputs.fps.numerator,
        fps_denominator=inputs.fps.denominator,
        start_seconds=inputs.start_seconds,
        num_frames=inputs.num_frames,
        gain=inputs.sound.gain,
        fade=[list(pair) for pair in inputs.sound.fade],
        file_seconds=inputs.sound.file_seconds,
        style=style,
        options=_options(choices),
    )

    def apply(result: Result) -> Outcome:
        num_vertices = _num_vertices(head_file)
        found = motion.load(Path(result.path), num_vertices=num_vertices, fps=inputs.fps)
        if inputs.head.is_mirrored and not by_name:
            found = replace(found, shapes=head_mesh.mirrored(found.shapes))
        outcome = write_motion(inputs, found, by_name=by_name)
        notes = face_point_results.keep(inputs.head, found.report)
        return replace(outcome, warnings=(*outcome.warnings, *notes))

    return BackendJob(
        TITLE,
        request,
        command=command,
        folder=folder,
        apply=apply,
        prepare=prepare,
        hold=lambda: _what_to_leave(inputs),
        keep_folder=settings.keep_job_files,
    )


def _what_to_leave(inputs: SceneInputs) -> str:
    """The mode that has to be left before the result is written; empty where none has.

    In the modes of other objects too: these have an undo of their own, which would not take back
    what is written. Pose mode has not.
    """
    head = _object(inputs.head)
    active = bpy.context.view_layer.objects.active if bpy.context.view_layer else None
    companions = (_object(companion) for companion in inputs.companions)
    for obj in (head, *companions, active):
        if obj is not None and obj.mode != 'POSE' and (text := scene_inputs.mode_problem(obj)):
            return f"Done. {text}"
    tweaked = rig_target.tweak_problem(head, inputs.choices.key_target) if head is not None else ""
    return f"Done. {tweaked}" if tweaked else ""


def style_job(
    exemplar: ExemplarRange | Path,
    *,
    neutral: int = -1,
    settings: Settings,
    finish: Callable[[Path], str],
) -> BackendJob:
    """Build a job in which the backend turns an exemplar into a style code.

    Args:
        exemplar: The animated head, and which frames of it to read; or a file or folder.
        neutral: Frame of it in which its face is at rest, counted from 0; -1 estimates it.
        settings: The preferences.
        finish: Called with the file of the style code; keeps it and says what was done.

    Returns:
        A job that was not started.

    Raises:
        UserError: There is no backend.
    """
    command = paths.backend_command(settings)
    folder = backend_job.new_job_folder()
    path = exemplar if isinstance(exemplar, Path) else folder / "exemplar.npz"
    preferred = options.values_of(settings)
    request = StyleRequest(
        job=folder.name,
        exemplar=str(path),
        out=str(folder / "style.json"),
        exemplar_neutral=neutral,
        checkpoint=preferred["checkpoint"],
        engine=preferred["engine"],
        device=preferred["device"],
    )

    def apply(result: Result) -> Outcome:
        return Outcome('DONE', finish(Path(result.path)), _report_warnings(result.report))

    return BackendJob(
        "Save Style",
        request,
        command=command,
        folder=folder,
        apply=apply,
        prepare=None if isinstance(exemplar, Path) else _read_exemplar(exemplar, path),
    )


def _read_exemplar(wanted: ExemplarRange, path: Path) -> Generator[Progress, None, None]:
    """Read an exemplar and write it for the backend, a slice of time at each step.

    Args:
        wanted: The animated head, and which frames of it to read.
        path: File in the job's folder.

    Yields:
        How far it is.

    Raises:
        UserError: It cannot be read or written, or does not move.
    """
    reader = ExemplarReader(wanted)
    while not reader.is_done:
        reader.read_slice()
        yield Progress(
            job=path.parent.name,
            stage="Reading the exemplar",
            done=reader.num_read,
            total=wanted.num_frames,
            unit="frames",
        )
    exemplar = reader.exemplar()
    try:
        write_exemplar(path, exemplar)
    except OSError as error:
        raise UserError(
            f"The exemplar cannot be written to {path}: {error.strerror or error}."
        ) from error


def _options(choices: Choices) -> GenerateOptions:
    """The options of a job; the eyes do not make up for a head that nothing turns."""
    if choices.head_target is not None:
        return choices.options
    return replace(choices.options, head_motion=0.0)


def _goes_by_name(inputs: SceneInputs) -> bool:
    """Whether the head's own keys suffice, so that the backend need not know the head."""
    obj, choices = _object(inputs.head), inputs.choices
    return obj is not None and rig_target.goes_by_name(
        obj,
        key_target=choices.key_target,
        topology=choices.options.topology,
        checkpoint=choices.options.checkpoint,
        backend_root=paths.backend_root(),
    )


def _object(read: Head | Companion) -> Object | None:
    """The object that something was read from; None where it was deleted."""
    return next((o for o in bpy.data.objects if o.session_uid == read.uid), None)


def _num_vertices(head_file: Path) -> int:
    with np.load(head_file, allow_pickle=False) as data:
        return len(data["vertices"])


def write_motion(inputs: SceneInputs, found: Motion, *, by_name: bool = False) -> Outcome:
    """Write a motion onto the head that it was made for.

    Args:
        inputs: What the job took from the scene.
        found: The motion.
        by_name: Whether it was made on the demo head and goes to the keys of this one by name.

    Returns:
        What was done, for the user.

    Raises:
        UserError: The head is gone or can no longer take it; nothing was changed.
    """
    obj = _object(inputs.head)
    if obj is None:
        raise UserError(f'The head "{inputs.head.name}" was deleted in the meantime.')
    if problem := scene_inputs.head_problem(obj, inputs.choices.key_target):
        raise UserError(f"{problem} Then generate again.")
    of_head = found if by_name else character.of_head(found, len(inputs.head.vertices))
    keyed = _keyed(obj, of_head, inputs.choices.key_target, by_name=by_name)
    line = line_of(inputs)
    with ExitStack() as undo:
        turned, problem = _turn_head(obj, inputs, found, line=line, undo=undo, by_name=by_name)
        written = shape_keys.write(obj, keyed, line=line, action_name=inputs.sound.name, undo=undo)
        others, left = _write_companions(inputs, found, keyed, undo=undo, by_name=by_name)
        undo.pop_all()
    num_frames = len(keyed.weights)
    last_frame = inputs.first_frame + num_frames - 1
    text = (
        f"Keyed {_what_was_keyed(written)} of {obj.name}"
        f"{f', with {character.listed(others)},' if others else ''} from frame "
        f"{inputs.first_frame} to {last_frame}"
    )
    text += turned
    if source := motion.followed(found.report):
        text += f", by {source}"
    if written.other_lines:
        count = len(written.other_lines)
        text += f", beside {count} other line{'s' if count > 1 else ''}"
    if by_name:
        text += "; the lips were computed on the demo head, so whether these meet was not checked"
    if keyed.residual_mean > 0:
        unit = 1000.0  # the demo head is in metres
        if not by_name:
            unit *= bpy.context.scene.unit_settings.scale_length
            unit *= max(abs(obj.scale[axis]) for axis in range(3))
        text += (
            f"; they miss the motion by {keyed.residual_mean * unit:.2f} mm on average, "
            f"{keyed.residual_max * unit:.1f} mm at most"
        )
    warnings = [
        *_changes(obj, inputs),
        *inputs.sound.notes,
        *_report_warnings(found.report),
        *dict.fromkeys([*written.warnings, *left, *([problem] if problem else [])]),
    ]
    scene = bpy.data.scenes.get(inputs.scene_name)
    if scene is not None and last_frame > scene.frame_end:
        warnings.append(
            f"The animation goes on to frame {last_frame}, the scene ends at {scene.frame_end}."
        )
    return Outcome(
        'DONE', f"{text}.", tuple(warnings), undo_text=TITLE, action=written.action,
        words=_recognised_words(found.report), head=inputs.head.uid,
    )  # fmt: skip


def _changes(obj: Object, inputs: SceneInputs) -> Iterator[str]:
    """What was changed of the head while the job ran, and so is not in its result."""
    now = head_mesh.seen(obj)[0]
    if now.shape == inputs.head.vertices.shape and not np.array_equal(now, inputs.head.vertices):
        yield f'The mesh of "{obj.name}" was changed in the meantime; generate again for its shape.'


def _turn_head(obj: Object, inputs: SceneInputs, found: Motion, *, line: speech_action.Line,
               undo: ExitStack, by_name: bool) -> tuple[str, str]:  # fmt: skip
    """Key the head's rotation, where it goes somewhere.

    Args:
        obj: The head.
        inputs: What the job took from the scene.
        found: The motion.
        line: The line of dialogue and its place.
        undo: Stack that takes the callbacks by which everything is undone.
        by_name: Whether the motion was made on the demo head.

    Returns:
        How to say what turns, and why nothing does; empty where there is nothing to say.
    """
    target = inputs.choices.head_target
    if target is None or found.layers is None:
        return "", ""
    problem = head_motion.write(
        target, obj, found.layers, line=line, action_name=f"{inputs.sound.name} head",
        are_axes_known=not by_name, undo=undo,
    )  # fmt: skip
    return ("", problem) if problem else (f", and the rotation of {target.title}", "")


def _write_companions(inputs: SceneInputs, found: Motion, on_head: KeyedMotion, *,
                      undo: ExitStack, by_name: bool) -> tuple[list[str], list[str]]:  # fmt: skip
    """Key the other meshes of the character, each with the same line of dialogue.

    Args:
        inputs: What the job took from the scene.
        found: The motion of head and other meshes.
        on_head: What the head is keyed with.
        undo: Stack that takes the callbacks by which everything is undone.
        by_name: Whether the motion was made on the demo head, so that no other mesh is in it.

    Returns:
        Names of the meshes that were keyed, and sentences about those that were not.
    """
    names, warnings = [], []
    start = len(inputs.head.vertices)
    for companion in inputs.companions:
        count = len(companion.vertices)
        first, start = start, start + count
        obj = _object(companion)
        if obj is None or (count and len(mesh_of(obj).vertices) != count):
            what = "was deleted" if obj is None else "has other vertices now, so it was left out"
            warnings.append(f'"{companion.name}" {what}.')
            continue
        if count and by_name:
            warnings.append(
                f'"{obj.name}" has no shape keys of known names and stays behind. Set Shape Keys '
                "to New to have the head and all its parts solved."
            )
            continue
        keyed = character.keyed(companion, obj, found, first, on_head)
        if keyed is None:
            continue
        written = shape_keys.write(
            obj, keyed, line=line_of(inputs), action_name=f"{inputs.sound.name} {obj.name}",
            undo=undo,
        )  # fmt: skip
        shape_keys.mark_companion(obj, undo)
        names.append(obj.name)
        warnings += [text for text in written.warnings if text not in warnings]
    return names, warnings


def _what_was_keyed(written: shape_keys.Written) -> str:
    counted = (
        (written.num_keys, "shape key", ""),
        (written.num_controls, "control", " of the rig"),
        (written.num_poses, "pose", ""),
    )
    return " and ".join(
        f"{count} {what}{'s' if count > 1 else ''}{of}" for count, what, of in counted if count
    )


def line_of(inputs: SceneInputs) -> speech_action.Line:
    """The line of dialogue that a job writes.

    Two files of one name are two lines; a file's place is kept as a digest, which tells nobody
    about the artist's folders.
    """
    choices, name = inputs.choices, inputs.sound.name
    if choices.sound_source == 'STRIP':
        key, follows = f"strip {name}", True
    else:
        path = os.path.normcase(os.path.realpath(choices.sound_file or inputs.sound.path))
        key, follows = f"file {hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}", False
        if choices.start_seconds or choices.end_seconds:
            end = "" if choices.end_seconds is None else f"{choices.end_seconds:g}"
            used = f" {choices.start_seconds:g}-{end} s"
            name, key = name + used, key + used
    return speech_action.Line(name, inputs.first_frame, float(inputs.fps), key, follows)


def _keyed(obj: Object, found: Motion, key_target: str, *, by_name: bool) -> KeyedMotion:
    """The motion as new shape keys, or on those that the head has."""
    rig = rig_target.find(obj, key_target, found.names)
    if rig is not None:
        has_poses = any(rig_channels.is_pose(obj, name) for name in rig.names)
        offsets = None if by_name or has_poses else shape_keys.read_offsets(obj, rig.names)
        return rig_mapping.drive(found, rig, offsets)
    data = obj.data
    if by_name or key_target == 'EXISTING' or data.library or data.override_library:
        raise UserError(
            f'"{obj.name}" has no shape keys that this motion can drive. '
            "Set Shape Keys to New to have them made."
        )
    return motion.keyed_as_new(found, limit=shape_keys.VALUE_LIMIT)


def _recognised_words(report: dict[str, object]) -> str:
    """Words that were recognised; none where they were given, or the sound alone was followed."""
    words = report.get("words", "")
    return words if report.get("listen") == "words" and isinstance(words, str) else ""


def _report_warnings(report: dict[str, object]) -> tuple[str, ...]:
    warnings = report.get("warnings", [])
    return tuple(map(str, warnings)) if isinstance(warnings, list) else ()


def _head_arrays(head: Head) -> dict[str, Any]:
    arrays: dict[str, Any] = {
        "face_corners": head.face_corners,
        "face_sizes": head.face_sizes,
    }
    if head.face_points:
        arrays["face_point_names"] = np.array(list(head.face_points))
        arrays["face_point_indices"] = np.array(list(head.face_points.values()), np.int32)
    return arrays


def write_head(path: Path, head: Head, companions: Sequence[Companion] = ()) -> None:
    """Write a head for the backend, with other meshes after it as parts of one mesh.

    Args:
        path: The file.
        head: The head.
        companions: Meshes of its character, in its space.
    """
    arrays = _head_arrays(head)
    meshes = [(head.vertices, head.face_corners, head.face_sizes)]
    meshes += [(c.vertices, c.face_corners, c.face_sizes) for c in companions if len(c.vertices)]
    sizes = np.array([len(vertices) for vertices, _, _ in meshes])
    starts = np.cumsum(sizes) - sizes
    corners = [mesh[1] + np.int32(start) for mesh, start in zip(meshes, starts, strict=True)]
    arrays["face_corners"] = np.concatenate(corners)
    arrays["face_sizes"] = np.concatenate([mesh[2] for mesh in meshes])
    vertices = np.concatenate([mesh[0] for mesh in meshes])
    np.savez(path, vertices=vertices, object_sizes=sizes, **arrays)


def write_exemplar(path: Path, exemplar: Exemplar) -> None:
    """Write ``exemplar.npz``: weights where the head's keys tell them, else its vertices."""
    if exemplar.weights is not None:
        columns = [rig_names.ARKIT_NAMES.index(name) for name in exemplar.names]
        np.savez(
            path,
            weights=exemplar.weights[:, columns],
            names=np.array(exemplar.names),
            fps=np.float64(exemplar.fps),
        )
        return
    np.savez(
        path,
        vertices=exemplar.vertices,
        template=exemplar.head.vertices,
        fps=np.float64(exemplar.fps),
        topology=np.array("auto"),
        **_head_arrays(exemplar.head),
    )
