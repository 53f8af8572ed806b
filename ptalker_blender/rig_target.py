# SPDX-License-Identifier: GPL-3.0-or-later
"""A character's own shape keys and poses as targets: which are driven, and what hinders it.

Keys with known names take a motion's weights whatever the mesh is. So a head with such keys needs
no face points: where PTalker does not know it, the motion is made on the demo head.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from bpy.types import Object

from . import (
    bone_poses,
    face_points,
    key_map,
    rig_drivers,
    rig_mapping,
    shape_keys,
    speech_action,
)
from .key_map import Row
from .rig_mapping import Rig
from .rig_names import ARKIT_NAMES
from .typed import mesh_of


def find(obj: Object, key_target: str,
         motion_names: tuple[str, ...] = ARKIT_NAMES) -> Rig | None:  # fmt: skip
    """The artist's own keys that a motion can drive: by their table, else by their names.

    It is fast enough for drawing.

    Args:
        obj: A mesh object.
        key_target: ``AUTO``, ``NEW`` or ``EXISTING``.
        motion_names: Names of the motion's shapes.

    Returns:
        None where new keys are to be made.
    """
    if key_target == 'NEW':
        return None
    if rows := table_rows(obj):
        poses = [row.key for row in rows if bone_poses.is_there(row.key)]
        return key_map.rig_of(rows, (*key_names(obj), *poses), motion_names)
    return find_by_names(obj, motion_names)


def find_by_names(obj: Object, motion_names: tuple[str, ...] = ARKIT_NAMES) -> Rig | None:
    """The artist's own keys that a motion can drive, as their names tell."""
    return _find_rig(key_names(obj), motion_names)


def key_names(obj: Object) -> tuple[str, ...]:
    """Names of the artist's own keys: neither the basis nor those that PTalker made."""
    keys = mesh_of(obj).shape_keys
    if keys is None:
        return ()
    not_theirs = {keys.reference_key.name, *shape_keys.own_key_names(obj)}
    return tuple(block.name for block in keys.key_blocks if block.name not in not_theirs)


def shown_by_keys(obj: Object) -> Rig | None:
    """The shape keys of a mesh that say how it speaks, PTalker's own among them.

    Args:
        obj: A mesh object.

    Returns:
        By its table, else by the keys' names; None where neither tells: poses and FLAME's
        expressions do not.
    """
    keys = mesh_of(obj).shape_keys
    if keys is None:
        return None
    names = tuple(b.name for b in keys.key_blocks if b.name != keys.reference_key.name)
    rows = table_rows(obj)
    rig = key_map.rig_of(rows, names) if rows else _find_rig(names, ARKIT_NAMES)
    return None if rig is None or rig.needs_head else rig


def table_rows(obj: Object) -> list[Row]:
    """The rows of the artist's table; empty where the keys' names decide."""
    rows: Any = obj
    return [Row(row.name, row.source, row.gain) for row in rows.ptalker_key_rows]


@lru_cache(maxsize=64)
def _find_rig(key_names: tuple[str, ...], motion_names: tuple[str, ...]) -> Rig | None:
    return rig_mapping.find_rig(key_names, motion_names)


def problem(obj: Object, key_target: str) -> str:
    """Why the chosen keys cannot be animated, with the remedy; empty where they can.

    New keys of an overridden mesh are gone when the file is loaded again; values and animation of
    keys that it has stay.
    """
    rig, rows = find(obj, key_target), table_rows(obj)
    if key_target != 'NEW' and rows and rig is None:
        return (
            f'The mapping drives no shape key or pose of "{obj.name}". Choose in Shape Keys > '
            "Mapping what drives them, or clear it."
        )
    mesh = mesh_of(obj)
    if mesh.library or mesh.override_library:
        kind = "a library override" if mesh.override_library else "linked from another file"
        if key_target == 'NEW':
            return (
                f'New shape keys of "{obj.name}" would be lost, since its mesh is {kind}. '
                "Set Shape Keys to Existing, or make the mesh local."
            )
        if rig is None:
            return (
                f'"{obj.name}" has no shape keys for speech, and new ones would be lost, since its '
                f"mesh is {kind}. Make it local first (Object > Relations > Make Local)."
            )
    elif key_target == 'EXISTING' and rig is None:
        return (
            f'"{obj.name}" has no ARKit, viseme or FLAME shape keys. '
            "Set Shape Keys to New to have them made."
        )
    return "" if rig is None else bone_poses.problem(obj, rig.names)


def _driven(obj: Object, key_target: str) -> rig_drivers.Driven:
    return rig_drivers.find(mesh_of(obj).shape_keys, _names(obj, find(obj, key_target)))


def _owners(obj: Object, driven: rig_drivers.Driven) -> list[Any]:
    """The data-blocks whose Actions a run may replace: shape keys, armature, owners of controls."""
    controls = (channel.owner for channel, _ in driven.controls.values())
    owners = [mesh_of(obj).shape_keys, bone_poses.armature_of(obj), *controls]
    return [owner for owner in dict.fromkeys(owners) if owner is not None]


def _names(obj: Object, rig: Rig | None) -> tuple[str, ...]:
    """Names of the keys that a run drives, as far as they are there before it."""
    if rig is not None:
        return rig.names
    keys, own = mesh_of(obj).shape_keys, shape_keys.own_key_names(obj)
    return () if keys is None else tuple(b.name for b in keys.key_blocks if b.name in own)


def tweak_problem(obj: Object, key_target: str) -> str:
    """What is in the way of a new Action where a strip of the NLA is being edited, else empty."""
    for owner in _owners(obj, _driven(obj, key_target)):
        if owner.animation_data is not None and owner.animation_data.use_tweak_mode:
            return "Leave Tweak Mode in the Nonlinear Animation editor first (Tab)."
    return ""


def advice(obj: Object, key_target: str) -> str:
    """Which of the head's own keys will be driven, where those make the head's points needless."""
    rig = find(obj, key_target)
    if rig is None or rig.needs_head:
        return ""
    poses = sum(key_map.pose_of(name) is not None for name in rig.names)
    return rig.summary + (f" Poses of the armature among them: {poses}." if poses else "")


def notes(obj: Object, key_target: str, fps: float) -> list[str]:
    """What the artist should know of the rig and of earlier lines before a run.

    Args:
        obj: The head.
        key_target: ``AUTO``, ``NEW`` or ``EXISTING``.
        fps: Frames per second of the scene.

    Returns:
        Sentences.
    """
    found = []
    driven = _driven(obj, key_target)
    if driven.controls:
        found.append(
            f"{rig_mapping.listed([*driven.controls])}: keyed by their controls in the rig."
        )
    if driven.others:
        found.append(
            f"The drivers of {rig_mapping.listed(driven.others)} will be muted, so that the speech "
            "can be seen; Restore Drivers switches them on again."
        )
    if driven.followers:
        found.append(f"{rig_mapping.listed([*driven.followers])}: follow other keys by drivers.")
    lines = {
        name: rate
        for owner in _owners(obj, driven)
        for name, rate in speech_action.lines_at_another_rate(owner, fps)
    }
    if lines:
        rate = next(iter(lines.values()))
        found.append(
            f"Lines made at {rate:g} frames a second no longer fit the scene's {fps:g}: "
            f"{rig_mapping.listed([*lines])}. Generate them again."
        )
    return found


def goes_by_name(obj: Object, *, key_target: str, topology: str, checkpoint: str,
                 backend_root: Path) -> bool:  # fmt: skip
    """Whether a motion of the demo head is to drive the keys of another head.

    Weights that are taken by name hardly depend on the head, so marked points, which the backend
    may find wanting, are used for visemes only.

    Args:
        obj: The head.
        key_target: ``AUTO``, ``NEW`` or ``EXISTING``.
        topology: ``auto``, or the topology that the head is said to have.
        checkpoint: Name or folder of the model.
        backend_root: Where the backend's files lie.

    Returns:
        False where the head's own mesh is given to the backend.
    """
    rig = find(obj, key_target)
    return (
        rig is not None
        and not rig.needs_head
        and topology == "auto"
        and _is_unknown(obj, rig, backend_root)
        and _has_arkit_weights(checkpoint, backend_root)
    )


def _is_unknown(obj: Object, rig: Rig, backend_root: Path) -> bool:
    if face_points.is_unknown(obj, backend_root):
        return True
    return rig.kind == 'ARKIT' and bool(face_points.marked_names(obj))


def demo_head_file(backend_root: Path) -> Path:
    """The demo head, which the backend knows."""
    return backend_root / "backend" / "demo" / "head.npz"


def _has_arkit_weights(checkpoint: str, backend_root: Path) -> bool:
    """Whether a model gives weights of ARKit's blendshapes; learned shapes belong to one mesh."""
    bundled = backend_root / "backend" / "checkpoints" / checkpoint
    folder = bundled if bundled.is_dir() else Path(checkpoint)
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        return bool(config["model"]["shape_kind"] != "learned")
    except (OSError, ValueError, KeyError, TypeError):
        return True  # what is wrong with the model is for the backend to say
