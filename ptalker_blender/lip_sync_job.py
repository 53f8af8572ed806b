# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job: a head's inputs become a request, the backend's motion becomes shape keys."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from . import (
    backend_job,
    motion,
    options,
    paths,
    rig_mapping,
    scene_inputs,
    shape_keys,
    speech_action,
)
from .backend_job import BackendJob, Outcome
from .motion import KeyedMotion, Motion
from .preferences import Settings
from .protocol import GenerateRequest, Result, StyleRequest, StyleSource, UserError
from .scene_inputs import Exemplar, Head, SceneInputs
from .untyped import Object

logger = logging.getLogger(__name__)

TITLE = "Generate Lip Sync"


def generate_job(inputs: SceneInputs, settings: Settings) -> BackendJob:
    """Start the main job.

    Args:
        inputs: Head, sound and choices.
        settings: The preferences.

    Returns:
        The running job.

    Raises:
        UserError: There is no backend, or the job's files cannot be written.
    """
    command = paths.backend_command(settings.ready_python)
    folder = backend_job.new_job_folder()
    choices = inputs.choices
    try:
        _write_head(folder / "template.npz", inputs.head)
        style = choices.style
        if inputs.exemplar is not None:
            style = StyleSource(kind="exemplar", value=str(folder / "exemplar.npz"))
            write_exemplar(Path(style.value), inputs.exemplar)
        audio = inputs.sound.path
        if inputs.sound.packed is not None:
            audio = folder / f"sound{audio.suffix}"
            audio.write_bytes(inputs.sound.packed)
        elif inputs.sound.is_temporary:
            audio = audio.replace(folder / f"sound{audio.suffix}")
    except OSError as error:
        raise UserError(
            f"The job's files cannot be written to {folder}: {error.strerror or error}."
        ) from error
    request = GenerateRequest(
        job=folder.name,
        head=str(folder / "template.npz"),
        audio=str(audio),
        out=str(folder / "motion.npz"),
        fps_numerator=inputs.fps.numerator,
        fps_denominator=inputs.fps.denominator,
        start_seconds=inputs.start_seconds,
        num_frames=inputs.num_frames,
        gain=inputs.sound.gain,
        style=style,
        options=choices.options,
    )

    def apply(result: Result) -> Outcome:
        found = motion.load(
            Path(result.path), num_vertices=len(inputs.head.vertices), fps=inputs.fps
        )
        return write_motion(inputs, found)

    return BackendJob(
        TITLE,
        request,
        command=command,
        folder=folder,
        apply=apply,
        keep_folder=settings.keep_job_files,
    )


def style_job(
    exemplar: Exemplar, *, settings: Settings, finish: Callable[[Path], str]
) -> BackendJob:
    """Have the backend turn an exemplar into a style code.

    Args:
        exemplar: The animated head.
        settings: The preferences.
        finish: Called with the file of the style code; keeps it and says what was done.

    Returns:
        The running job.

    Raises:
        UserError: There is no backend.
    """
    command = paths.backend_command(settings.ready_python)
    folder = backend_job.new_job_folder()
    write_exemplar(folder / "exemplar.npz", exemplar)
    preferred = options.gather(settings)
    request = StyleRequest(
        job=folder.name,
        exemplar=str(folder / "exemplar.npz"),
        out=str(folder / "style.json"),
        checkpoint=preferred["checkpoint"],
        device=preferred["device"],
    )

    def apply(result: Result) -> Outcome:
        return Outcome('DONE', finish(Path(result.path)), _report_warnings(result.report))

    return BackendJob("Save Style", request, command=command, folder=folder, apply=apply)


def write_motion(inputs: SceneInputs, found: Motion) -> Outcome:
    """Write a motion onto the head that it was made for.

    Args:
        inputs: What the motion was made from.
        found: The motion.

    Returns:
        What was done, for the user.

    Raises:
        UserError: The head is gone or can no longer take it; nothing was changed.
    """
    obj = next((o for o in bpy.data.objects if o.session_uid == inputs.head.uid), None)
    if obj is None:
        raise UserError(f'The head "{inputs.head.name}" was deleted in the meantime.')
    if problem := scene_inputs.head_problem(obj):
        raise UserError(f"{problem} Then generate again.")
    keyed = _keyed(obj, found, inputs.choices.key_target)
    line = speech_action.Line(line_name(inputs), inputs.first_frame, float(inputs.fps))
    written = shape_keys.write(obj, keyed, line=line, action_name=inputs.sound.name)
    num_frames = len(keyed.weights)
    last_frame = inputs.first_frame + num_frames - 1
    text = (
        f"Keyed {written.num_keys} shape keys of {obj.name} from frame "
        f"{inputs.first_frame} to {last_frame}"
    )
    if source := motion.RECOGNITION_MODES.get(str(found.report.get("listen"))):
        text += f", by {source}"
    if written.other_lines:
        count = len(written.other_lines)
        text += f", beside {count} other line{'s' if count > 1 else ''}"
    if keyed.residual_mean > 0:
        unit = (
            1000.0
            * bpy.context.scene.unit_settings.scale_length
            * max(abs(obj.scale[axis]) for axis in range(3))
        )
        text += (
            f"; they miss the motion by {keyed.residual_mean * unit:.2f} mm on average, "
            f"{keyed.residual_max * unit:.1f} mm at most"
        )
    warnings = [*_report_warnings(found.report), *written.warnings]
    scene = bpy.data.scenes.get(inputs.scene_name)
    if scene is not None and last_frame > scene.frame_end:
        warnings.append(
            f"The animation goes on to frame {last_frame}, the scene ends at {scene.frame_end}."
        )
    return Outcome('DONE', f"{text}.", tuple(warnings), undo_text=TITLE, action=written.action)


def line_name(inputs: SceneInputs) -> str:
    """What tells a line of dialogue from others: its strip, or what is used of its file."""
    choices, name = inputs.choices, inputs.sound.name
    if choices.sound_source == 'STRIP' or (not choices.start_seconds and not choices.end_seconds):
        return name
    end = "" if choices.end_seconds is None else f"{choices.end_seconds:g}"
    return f"{name} {choices.start_seconds:g}-{end} s"


def _keyed(obj: Object, found: Motion, key_target: str) -> KeyedMotion:
    """The motion as new shape keys, or on those that the head has."""
    if key_target != 'NEW' and obj.data.shape_keys is not None:
        own = shape_keys.own_key_names(obj)
        reference = obj.data.shape_keys.reference_key.name
        foreign = [
            block.name
            for block in obj.data.shape_keys.key_blocks
            if block.name not in own and block.name != reference
        ]
        rig = rig_mapping.find_rig(foreign, found.names)
        if rig is not None:
            return rig_mapping.drive(found, rig, shape_keys.read_offsets(obj, rig.names))
    if key_target == 'EXISTING':
        raise UserError(
            f'"{obj.name}" has no ARKit, viseme or FLAME shape keys. '
            "Set Shape Keys to New to have them made."
        )
    return motion.keyed_as_new(found, limit=shape_keys.VALUE_LIMIT)


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


def _write_head(path: Path, head: Head) -> None:
    np.savez(path, vertices=head.vertices, **_head_arrays(head))


def write_exemplar(path: Path, exemplar: Exemplar) -> None:
    """Write ``exemplar.npz``."""
    np.savez(
        path,
        vertices=exemplar.vertices,
        template=exemplar.head.vertices,
        fps=np.float64(exemplar.fps),
        topology=np.array("auto"),
        **_head_arrays(exemplar.head),
    )
