# SPDX-License-Identifier: GPL-3.0-or-later
"""Sound strips of the sequencer: finds them, and reads the audible part of a strip's file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import bpy
from bpy.types import Context, Scene

from . import compat, motion, strip_volume
from .protocol import UserError


@dataclass(frozen=True, slots=True)
class SoundSpan:
    """The audible part of a sound file, and its times on the scene's clock (frame 0 is 0 s).

    Attributes:
        name: Name of the sound for the user.
        path: The sound file; for a packed sound only its name counts.
        packed: Bytes of a packed file, None otherwise.
        origin: Clock time at which the file's second 0 lies.
        begin: Clock time at which the audible part begins.
        end: Clock time at which the audible part ends; None: at the file's end.
        gain: Linear volume.
        fade: Pairs of seconds in the file and linear volume, where that is keyed.
        file_seconds: Length of the file as this Blender takes it, where only the backend can tell
            whether the strip's speed was changed.
        notes: What the user should know of it.
        is_temporary: Whether the file was made for this job and is to be deleted after it.
    """

    name: str
    path: Path
    packed: bytes | None
    origin: Fraction
    begin: Fraction
    end: Fraction | None
    gain: float = 1.0
    fade: tuple[tuple[float, float], ...] = ()
    file_seconds: float | None = None
    notes: tuple[str, ...] = ()
    is_temporary: bool = False

    def discard(self) -> None:
        """Delete the file, if it was made for a job that does not come about."""
        if self.is_temporary:
            self.path.unlink(missing_ok=True)


def labelled_strips(context: Context) -> list[tuple[str, Scene, Any]]:
    """Every sound strip of the file: label for a picker, scene, strip; nearest scene first.

    The label is the strip's name, followed by its scene in brackets where that is another one.
    """
    near = compat.sequencer_scene(context)
    scenes = [near, *(s for s in (context.scene, *bpy.data.scenes) if s != near)]
    found: list[tuple[str, Scene, Any]] = []
    seen: set[str] = set()
    for scene in scenes:
        if scene.name in seen:
            continue
        seen.add(scene.name)
        for strip in compat.all_strips(scene):
            if strip.type == 'SOUND' and strip.sound:
                label = strip.name if scene == near else f"{strip.name} [{scene.name}]"
                found.append((label, scene, strip))
    return found


def find_strip(context: Context, label: str) -> tuple[Scene, Any]:
    """The strip with a label or name; with an empty label the active or the only one.

    Args:
        context: For its scene and the sequencer's.
        label: Label from :func:`labelled_strips`, bare name of a strip, or empty.

    Returns:
        The strip's scene and the strip.

    Raises:
        UserError: There is no such strip, or there are several and none was chosen.
    """
    strips = labelled_strips(context)
    if not strips:
        raise UserError(
            "There is no sound strip. Add the speech in the Video Sequencer, or choose a file."
        )
    if not label:
        active = [(s, t) for _, s, t in strips if t == compat.active_strip(s)]
        if len(strips) == 1 or active:
            return active[0] if active else strips[0][1:]
        raise UserError(f"Choose one of the {len(strips)} sound strips.")
    for found, scene, strip in strips:
        if found == label:
            return scene, strip
    for _, scene, strip in strips:  # a script may give the bare name
        if strip.name == label:
            return scene, strip
    raise UserError(f'There is no sound strip "{label}" any more. Choose another one.')


def strip_problem(scene: Scene, strip: Any) -> str:
    """Why a strip cannot be used, as one sentence with its remedy; empty where it can."""
    sound = strip.sound
    if sound.packed_file is None:
        path = Path(bpy.path.abspath(sound.filepath, library=sound.library))
        if not path.is_file():
            return (
                f'The sound file of the strip "{strip.name}" is missing ({path}). '
                "Use File > External Data > Find Missing Files, or choose another strip."
            )
    if strip_volume.loudest(scene, strip) <= 0:
        return f'The volume of the strip "{strip.name}" is 0. Raise it to let the head hear it.'
    if compat.seems_retimed(scene, strip):
        return (
            f'The speed of the strip "{strip.name}" was changed. This Blender does not tell how: '
            "mix it down to a file (Render > Render Audio) and use that."
        )
    return ""


def read_strip(scene: Scene, strip: Any, *, shown_in: Scene) -> SoundSpan:
    """The audible part of a strip by its trim, offset, volume and the meta strips around it.

    Args:
        scene: The strip's scene.
        strip: The sound strip.
        shown_in: The head's scene. Where a scene strip of its sequencer plays the strip's scene,
            that says when the sound is heard.

    Returns:
        The audible part; of a strip with a changed speed, of a temporary file.

    Raises:
        UserError: The strip cannot be used.
    """
    if problem := strip_problem(scene, strip):
        raise UserError(problem)
    first, end, file_start = compat.strip_frames(strip)
    for meta in _metas_of(strip):
        meta_first, meta_end, _ = compat.strip_frames(meta)
        first, end = max(first, meta_first), min(end, meta_end)
    if end <= first:
        raise UserError(f'The strip "{strip.name}" cannot be heard: its meta strip hides it.')
    fps = motion.frame_rate(scene.render.fps, scene.render.fps_base)
    begin_time, end_time = Fraction(first) / fps, Fraction(end) / fps
    if compat.is_retimed(strip):
        path = _mix_down(scene, strip, first=int(first), end=int(end))
        span = SoundSpan(
            strip.name, path, None, begin_time, begin_time, end_time, is_temporary=True
        )
    else:
        sound = strip.sound
        origin = Fraction(file_start) / fps + Fraction(strip.sound_offset)
        gain, fade = strip_volume.over_time(scene, strip, origin=origin, fps=fps)
        span = SoundSpan(
            name=strip.name,
            path=Path(bpy.path.abspath(sound.filepath, library=sound.library)),
            packed=bytes(sound.packed_file.data) if sound.packed_file is not None else None,
            origin=origin,
            begin=max(begin_time, origin),
            end=end_time,
            gain=gain,
            fade=fade,
            file_seconds=compat.unverified_seconds(scene, strip),
        )
    span = replace(span, notes=tuple(_notes(scene, strip)))
    scene_strip = _scene_strip(scene, shown_in)
    return span if scene_strip is None else _through(span, scene, scene_strip, shown_in)


def _metas_of(strip: Any) -> Iterator[Any]:
    """The meta strips around a strip, from the inside out."""
    parent = strip.parent_meta()
    while parent is not None:
        yield parent
        parent = parent.parent_meta()


def _notes(scene: Scene, strip: Any) -> Iterator[str]:
    """What an artist may have overlooked about a strip."""
    if compat.is_muted(scene, strip) or any(compat.is_muted(scene, m) for m in _metas_of(strip)):
        yield f'The strip "{strip.name}" is muted; the head speaks it all the same.'


def _scene_strip(scene: Scene, shown_in: Scene) -> Any:
    """The scene strip by which one scene's sound is heard in another; None without one."""
    if scene == shown_in:
        return None
    found = (s for s in compat.all_strips(shown_in) if s.type == 'SCENE' and s.scene == scene)
    return min(found, key=lambda strip: compat.strip_frames(strip)[0], default=None)


def _through(span: SoundSpan, scene: Scene, scene_strip: Any, shown_in: Scene) -> SoundSpan:
    """A sound on the clock of the scene that plays its scene as a strip.

    Args:
        span: The sound on its own scene's clock.
        scene: Its own scene.
        scene_strip: The strip that plays that scene.
        shown_in: The scene of that strip.

    Returns:
        What is heard of it there.

    Raises:
        UserError: Nothing is heard of it there.
    """
    own = motion.frame_rate(scene.render.fps, scene.render.fps_base)
    there = motion.frame_rate(shown_in.render.fps, shown_in.render.fps_base)
    first, end, content_start = compat.strip_frames(scene_strip)
    shift = Fraction(content_start) / there - Fraction(scene.frame_start) / own
    begin = max(span.begin + shift, Fraction(first) / there)
    last = Fraction(end) / there
    last = last if span.end is None else min(span.end + shift, last)
    if last <= begin:
        raise UserError(
            f'The strip "{span.name}" cannot be heard in the scene "{shown_in.name}": the scene '
            f'strip "{scene_strip.name}" hides it.'
        )
    volume = strip_volume.loudest(shown_in, scene_strip)
    return replace(span, origin=span.origin + shift, begin=begin, end=last, gain=span.gain * volume)


def _mix_down(scene: Scene, strip: Any, *, first: int, end: int) -> Path:
    """Have Blender mix one strip with its retiming into a temporary file.

    Args:
        scene: The strip's scene.
        strip: The sound strip.
        first: First frame to mix.
        end: Frame after the last one to mix.

    Returns:
        The WAV file.

    Raises:
        UserError: This Blender cannot mix sound down.
    """
    with tempfile.NamedTemporaryFile(prefix="ptalker-", suffix=".wav", delete=False) as file:
        path = Path(file.name)
    copy = scene.copy()
    try:
        for child in list(copy.collection.children):
            copy.collection.children.unlink(child)
        for obj in list(copy.collection.objects):
            copy.collection.objects.unlink(obj)
        names = {strip.name, *(meta.name for meta in _metas_of(strip))}
        for other in compat.top_level_strips(copy):
            if other.name not in names:
                compat.remove_strip(copy, other)
        for other in compat.all_strips(copy):
            other.mute = other.name not in names
        copy.frame_start, copy.frame_end = first, end - 1
        compat.mix_down(copy, path)
    except RuntimeError:
        path.unlink(missing_ok=True)
    finally:
        bpy.data.scenes.remove(copy)
    if not path.is_file() or path.stat().st_size <= 44:  # a bare WAV header
        path.unlink(missing_ok=True)
        raise UserError(
            f'The speed of the strip "{strip.name}" was changed, and this Blender cannot mix it '
            "down. Remove the strip's retiming, or use a sound file with the right speed."
        )
    return path


def file_span(path: Path, *, at: Fraction, start_seconds: float = 0.0,
              end_seconds: float | None = None) -> SoundSpan:  # fmt: skip
    """A sound file, or a part of it, that begins at a clock time.

    Args:
        path: The sound file.
        at: Clock time at which the used part begins.
        start_seconds: Time in the file at which the used part begins.
        end_seconds: Time in the file at which the used part ends; None: at the file's end.

    Returns:
        The used part.

    Raises:
        UserError: There is no such file, or the part is empty.
    """
    if not path.is_file():
        raise UserError(f"The sound file {path} does not exist. Choose another one.")
    if start_seconds < 0 or (end_seconds is not None and end_seconds <= start_seconds):
        raise UserError(
            f"The sound is to go from {start_seconds} s to {end_seconds} s. "
            "The start must not be negative and the end must come after it."
        )
    origin = at - Fraction(start_seconds)
    end = None if end_seconds is None else origin + Fraction(end_seconds)
    return SoundSpan(path.stem, path, None, origin, at, end)
