# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the motion of an exemplar frame by frame, as Blender evaluates it, in short slices of time.

Between two slices the scene is as the artist has it: its frame and the modifiers are put back, and
data-blocks are looked up anew. So cancelling needs no tidying up, and the artist may go to another
frame, undo, or delete the exemplar meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import bpy
import numpy as np
from bpy.types import Object, Scene

from . import head_mesh, rig_mapping, rig_target, scene_inputs
from .motion import Floats
from .protocol import UserError
from .rig_mapping import Rig
from .scene_inputs import ExemplarRange, Head

SLICE_SECONDS: Final = 0.05
"""Blender's window stands still for so long at a time."""
BACKGROUND_SLICE_SECONDS: Final = 2.0
_STILL: Final = 1e-5
"""An exemplar that moves less than this part of its size does not move."""
_MOVED_KEY: Final = 0.02
"""Keys that stay within this are not what moves the head: its vertices tell."""
_GENERATING_MODIFIERS: Final = {'SUBSURF', 'MULTIRES'}


@dataclass(frozen=True, slots=True)
class Exemplar:
    """The motion of a head that shows a speaking style.

    Attributes:
        vertices: ``(T, V, 3)`` positions in the head's own space, one row per scene frame.
        head: The head's neutral shape and faces.
        fps: Frames per second, exact.
        weights: ``(T, 52)`` weights of ARKit's names that its shape keys stand for; None where
            these do not tell how the head moves.
        names: Those of ARKit's names that its keys know.
    """

    vertices: Floats
    head: Head
    fps: Fraction
    weights: Floats | None = None
    names: tuple[str, ...] = ()


class ExemplarReader:
    """Reads an exemplar a slice of time after the other.

    Attributes:
        num_read: How many frames were read so far.
    """

    num_read: int

    def __init__(self, wanted: ExemplarRange) -> None:
        """Read nothing yet.

        Args:
            wanted: Which head, and which frames of it.
        """
        self.num_read = 0
        self._wanted = wanted
        self._vertices = np.empty((wanted.num_frames, len(wanted.head.vertices), 3), np.float32)
        self._rig: Rig | None = None
        self._keys = np.empty((wanted.num_frames, 0), np.float32)

    @property
    def is_done(self) -> bool:
        """Whether all frames were read."""
        return self.num_read == self._wanted.num_frames

    def read_slice(self) -> None:
        """Read at least one frame; none while Blender renders, which goes by the scene's frame.

        Raises:
            UserError: The exemplar cannot be read.
        """
        if bpy.app.is_job_running('RENDER'):  # type: ignore[func-returns-value]  # stub's lack
            return
        obj, scene = _look_up(self._wanted)
        seconds = BACKGROUND_SLICE_SECONDS if bpy.app.background else SLICE_SECONDS
        deadline = time.monotonic() + seconds
        if self.num_read == 0 and (rig := rig_target.shown_by_keys(obj)) is not None:
            self._rig = rig
            self._keys = np.zeros((self._wanted.num_frames, len(rig.names)), np.float32)
        with _modifiers_off(obj), _frame_kept(scene):
            while not self.is_done:
                scene.frame_set(self._wanted.first_frame + self.num_read)
                _read_frame(obj, scene, self._vertices[self.num_read])
                if self._rig is not None:
                    _read_keys(obj, scene, self._rig.names, self._keys[self.num_read])
                self.num_read += 1
                if time.monotonic() > deadline:
                    break

    def exemplar(self) -> Exemplar:
        """What was read.

        Returns:
            The motion of the exemplar.

        Raises:
            UserError: It does not move.
        """
        wanted, vertices = self._wanted, self._vertices
        size = float(np.ptp(vertices[0], axis=0).max())
        if float(np.ptp(vertices, axis=0).max()) < _STILL * size:
            raise UserError(
                f'The exemplar "{wanted.head.name}" does not move from frame {wanted.first_frame} '
                f"to {wanted.last_frame}. Choose the frames in which it speaks."
            )
        if wanted.head.is_mirrored:
            vertices = head_mesh.mirrored(vertices)
        weights: Floats | None = None
        names: tuple[str, ...] = ()
        if self._rig is not None and float(np.ptp(self._keys, axis=0).max()) > _MOVED_KEY:
            weights, names = rig_mapping.weights_of_keys(self._rig, self._keys)
        return Exemplar(vertices, wanted.head, wanted.fps, weights, names)


def _look_up(wanted: ExemplarRange) -> tuple[Object, Scene]:
    """The exemplar and its scene as they are now.

    Args:
        wanted: Which head, and which frames of it.

    Returns:
        The object and the scene.

    Raises:
        UserError: One is gone, or the exemplar has changed so that it cannot be read.
    """
    obj = next((o for o in bpy.data.objects if o.session_uid == wanted.head.uid), None)
    scene = next((s for s in bpy.data.scenes if s.session_uid == wanted.scene_uid), None)
    if obj is None or scene is None:
        raise UserError(f'The exemplar "{wanted.head.name}" was deleted in the meantime.')
    if problem := scene_inputs.exemplar_problem(obj):
        raise UserError(f"{problem} Then try again.")
    if len(obj.data.vertices) != len(wanted.head.vertices):
        raise UserError(
            f'The exemplar "{obj.name}" was changed in the meantime: it has '
            f"{len(obj.data.vertices)} vertices instead of {len(wanted.head.vertices)}. Try again."
        )
    if _is_disabled(obj, _layer_of(scene)):
        raise UserError(
            f'The exemplar "{obj.name}" is disabled in viewports or in an excluded collection. '
            "Enable it in the Outliner."
        )
    return obj, scene


def _layer_of(scene: Scene) -> Any:
    """The view layer in which objects of a scene are evaluated."""
    context = bpy.context
    return context.view_layer if context.scene == scene else scene.view_layers[0]


def _is_disabled(obj: Object, layer: Any) -> bool:
    """Whether an object is not evaluated: a hidden eye does not matter.

    ``is_evaluated`` does not tell, since the head's property that names the exemplar keeps it.
    """
    return bool(
        obj.hide_viewport
        or obj.name not in layer.objects
        or all(collection.hide_viewport for collection in obj.users_collection)
    )


def _read_frame(obj: Object, scene: Scene, row: Floats) -> None:
    """Read the vertices of an object at a scene's present frame.

    Args:
        obj: The exemplar.
        scene: Where it is evaluated.
        row: ``(V, 3)``, filled in the object's own space.

    Raises:
        UserError: Its modifiers add vertices.
    """
    with bpy.context.temp_override(scene=scene, view_layer=_layer_of(scene)):
        evaluated = obj.evaluated_get(bpy.context.evaluated_depsgraph_get())
    positions = evaluated.data.attributes["position"].data
    if len(positions) != len(row):
        raise UserError(
            f'The exemplar "{obj.name}" has {len(positions)} vertices after its modifiers '
            f"instead of {len(row)}. Switch those off in the viewport that add some."
        )
    positions.foreach_get("vector", row.ravel())


def _read_keys(obj: Object, scene: Scene, names: tuple[str, ...], row: Floats) -> None:
    """Read the values of shape keys at a scene's present frame, drivers and Actions evaluated.

    Args:
        obj: The exemplar.
        scene: Where it is evaluated.
        names: Names of the keys.
        row: ``(len(names),)``, filled; 0 where a key is muted or gone.
    """
    with bpy.context.temp_override(scene=scene, view_layer=_layer_of(scene)):
        evaluated = obj.data.shape_keys.evaluated_get(bpy.context.evaluated_depsgraph_get())
    blocks: Any = evaluated.key_blocks
    for column, name in enumerate(names):
        block = blocks.get(name)
        row[column] = 0.0 if block is None or block.mute else block.value


@contextmanager
def _frame_kept(scene: Scene) -> Iterator[None]:
    """Bring a scene back to the frame at which it is now."""
    frame, subframe = scene.frame_current, scene.frame_subframe
    try:
        yield
    finally:
        scene.frame_set(frame, subframe=subframe)


@contextmanager
def _modifiers_off(obj: Object) -> Iterator[None]:
    """Switch off the modifiers that add vertices, then on again."""
    shown = [m for m in obj.modifiers if m.type in _GENERATING_MODIFIERS and m.show_viewport]
    try:
        for modifier in shown:
            modifier.show_viewport = False
        yield
    finally:
        for modifier in shown:
            modifier.show_viewport = True
