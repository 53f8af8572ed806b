# SPDX-License-Identifier: GPL-3.0-or-later
"""The head's rotation of a motion, keyed on an object or a bone beside the shape keys.

The rotation is about the face's axes and the target's own origin, on top of the rotation that the
target had before: a bone lies where the neck turns, an empty where the artist puts it.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import bpy
import numpy as np
from bpy.types import Object
from mathutils import Euler, Matrix, Quaternion
from numpy.typing import NDArray

from . import compat, speech_action
from .motion import Layers
from .speech_action import Curve, Line

RESTS: Final = "ptalker_head_rests"
"""Property on an Action: data path of a rotation -> its value without the head's motion."""
_CHANNELS: Final = {'QUATERNION': "rotation_quaternion", 'AXIS_ANGLE': "rotation_axis_angle"}


@dataclass(frozen=True, slots=True)
class HeadTarget:
    """What the head's rotation goes to.

    Attributes:
        object: Name of the object; of the armature, for a bone.
        bone: Name of the bone; empty for the object itself.
    """

    object: str
    bone: str = ""

    @property
    def title(self) -> str:
        """What messages call it."""
        return f'bone "{self.bone}" of "{self.object}"' if self.bone else f'"{self.object}"'


def target_of(settings: Any) -> HeadTarget | None:
    """The target that is chosen for a head; None where its motion goes nowhere."""
    if settings.head_target == 'NONE':
        return None
    obj = settings.head_object
    bone = settings.head_bone if settings.head_target == 'BONE' else ""
    return HeadTarget(obj.name if obj is not None else "", bone)


def target_problem(settings: Any) -> str:
    """Why the chosen target cannot take the head's rotation; empty where it can."""
    target = target_of(settings)
    if target is None:
        return ""
    if settings.head_target == 'BONE' and target.object and not target.bone:
        return f'Choose the bone of "{target.object}" that the head turns with, or no head motion.'
    return problem(target)


def problem(target: HeadTarget) -> str:
    """Why a target cannot take the head's rotation; empty where it can."""
    if not target.object:
        return "Choose the object that the head turns with, or set Head to None."
    obj = bpy.data.objects.get(target.object)
    if obj is None:
        return f'There is no object "{target.object}" for the head to turn with. Choose another.'
    if target.bone and (obj.pose is None or target.bone not in obj.pose.bones):
        return f'"{target.object}" has no bone "{target.bone}". Choose another.'
    if obj.library:
        return (
            f'"{target.object}" is linked from another file. '
            "Override it first (Object > Library Override > Make)."
        )
    return ""


def write(target: HeadTarget, head: Object, layers: Layers, *, line: Line, action_name: str,
          are_axes_known: bool, undo: ExitStack) -> str:  # fmt: skip
    """Key the head's rotation, one keyframe per frame, in an Action of the target.

    Args:
        target: What turns.
        head: The speaking head, which tells where the face looks.
        layers: Layers of the motion.
        line: The line of dialogue and its place.
        action_name: Name for the new Action.
        are_axes_known: Whether ``layers.face_axes`` are this head's; otherwise the head is taken to
            stand upright and to look along -Y of its object, as Blender's characters do.
        undo: Stack that takes the callbacks by which everything is undone.

    Returns:
        Why the rotation was not keyed; empty where it was.
    """
    if reason := problem(target):
        return f"The head was not turned: {reason}"
    obj = bpy.data.objects[target.object]
    owner: Any = obj.pose.bones[target.bone] if target.bone else obj
    path = _path(owner, target.bone)
    action, _ = compat.assigned_action(obj)
    rests = action.get(RESTS, {}) if action is not None else {}
    if path not in rests and path in compat.fcurve_paths(obj):
        return (
            f"The head was not turned: the rotation of {target.title} has keyframes of its own. "
            "Choose a parent of it, such as an empty, or another bone."
        )
    rest = [float(x) for x in rests[path]] if path in rests else list(_channel(owner))
    undo.callback(_set_channel, owner, list(_channel(owner)))
    _set_channel(owner, rest)  # else the axes were turned by the motion at the present frame
    bpy.context.view_layer.update()
    axes = _world_axes(head, layers.face_axes if are_axes_known else None)
    values = _rotations(owner, obj, rest, layers.head_rotation, axes)
    curves = {(path, n): Curve(column, rest[n]) for n, column in enumerate(values.T)}
    written: Any = speech_action.write_curves(obj, curves, line, name=action_name, undo=undo)
    written[RESTS] = {**{key: list(value) for key, value in rests.items()}, path: rest}
    obj.update_tag()
    return ""


def _path(owner: Any, bone: str) -> str:
    channel = _CHANNELS.get(owner.rotation_mode, "rotation_euler")
    return f'pose.bones["{bpy.utils.escape_identifier(bone)}"].{channel}' if bone else channel


def _channel(owner: Any) -> Any:
    return getattr(owner, _CHANNELS.get(owner.rotation_mode, "rotation_euler"))


def _set_channel(owner: Any, values: list[float]) -> None:
    setattr(owner, _CHANNELS.get(owner.rotation_mode, "rotation_euler"), values)


def _world_axes(head: Object, face_axes: NDArray[np.float32] | None) -> Matrix:
    """The face's axes in the world as columns x, y and z of a rotation."""
    turned = head.matrix_world.to_quaternion()
    if face_axes is not None:
        return turned.to_matrix() @ Matrix(face_axes.tolist()).transposed()
    # The turn about the vertical alone: imported meshes lie on their backs in their own space.
    heading = Quaternion((turned.w, 0.0, 0.0, turned.z))
    heading = heading.normalized() if heading.magnitude > 1e-6 else Quaternion()
    upright = Matrix(((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)))
    return heading.to_matrix() @ upright


def _rotations(owner: Any, obj: Object, rest: list[float], degrees: NDArray[np.float32],
               axes: Matrix) -> NDArray[np.float32]:  # fmt: skip
    """Values of the target's rotation channel, ``(T, 3 or 4)``.

    Args:
        owner: Object or pose bone.
        obj: The object, or the bone's armature.
        rest: The channel's value without the head's motion.
        degrees: Rotation about the face's axes, ``(T, 3)``.
        axes: The face's axes in the world, as columns.

    Returns:
        Values per frame; neighbours differ as little as they can.
    """
    mode = owner.rotation_mode
    own = _as_quaternion(rest, mode)
    world = obj.matrix_world
    space = owner.matrix if owner != obj else Matrix()
    frame = (world @ space @ owner.matrix_basis.inverted_safe()).to_quaternion()
    if owner == obj:
        frame = (world @ obj.matrix_basis.inverted_safe()).to_quaternion()
    to_face = axes.to_quaternion().inverted() @ frame  # from the channel's space to the face's
    values = []
    last = own
    for row in np.radians(degrees).tolist():
        turn = to_face.inverted() @ Euler(row, 'XYZ').to_quaternion() @ to_face
        found = turn @ own
        if found.dot(last) < 0.0:
            found.negate()
        last = found
        values.append(found)
    return np.array(_as_channel(values, mode), np.float32)


def _as_quaternion(values: list[float], mode: str) -> Quaternion:
    if mode == 'QUATERNION':
        return Quaternion(values).normalized()
    if mode == 'AXIS_ANGLE':
        return Quaternion(values[1:], values[0])
    order: Any = mode
    return Euler(values, order).to_quaternion()


def _as_channel(rotations: list[Quaternion], mode: str) -> list[list[float]]:
    if mode == 'QUATERNION':
        return [[q.w, q.x, q.y, q.z] for q in rotations]
    if mode == 'AXIS_ANGLE':
        pairs = [rotation.to_axis_angle() for rotation in rotations]
        return [[angle, axis.x, axis.y, axis.z] for axis, angle in pairs]
    order: Any = mode
    values: list[list[float]] = []
    last = rotations[0].to_euler(order)
    for rotation in rotations:
        last = rotation.to_euler(order, last)
        values.append([last.x, last.y, last.z])
    return values
