# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads choices, head, exemplar and sound of a job from the scene into plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import bpy
import numpy as np
from bpy.types import Context, Object, Scene
from numpy.typing import NDArray

from . import (
    character,
    compat,
    emotions,
    face_points,
    head_mesh,
    head_motion,
    motion,
    options,
    preferences,
    rig_target,
    sound_strips,
    style_library,
)
from .character import Character, Companion
from .emotions import EmotionChoice
from .head_motion import HeadTarget
from .motion import Floats
from .options import GenerateOptions
from .protocol import StyleSource, UserError
from .sound_strips import SoundSpan
from .typed import scene_of, settings_of

MAX_EXEMPLAR_SECONDS: Final = 40
MIN_EXEMPLAR_FRAMES: Final = 12
AMOUNT_PATH: Final = "ptalker.emotion_amount"
"""Data path of the emotion's amount on its head."""
EXEMPLAR_SUFFIXES: Final = (".npz", ".csv", ".txt")
"""Of files that show a style; a folder of them does too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the artist, or the command line, asked for.

    Attributes:
        sound_source: ``STRIP`` or ``FILE``.
        strip: Label of the strip; empty for the active or only one.
        sound_file: Sound file, where that is the source.
        sound_frame: Scene frame at which the used part of the file starts.
        start_seconds: Where in the file the used part starts.
        end_seconds: Where in the file the used part ends; None: at the file's end.
        style: Speaking style, where no object shows it.
        exemplar: Object whose animation shows the style; None for ``style``.
        exemplar_frames: First and last frame of the exemplar to read; None: the scene's range.
        key_target: ``AUTO``, ``NEW`` or ``EXISTING`` shape keys.
        head_target: What the head's rotation goes to; None: nowhere.
        options: How the head is animated.
        emotion: What the face shows, where the options do not say it; None: nothing.
        with_character: Whether the other meshes of the character are keyed too.
    """

    sound_source: str = 'STRIP'
    strip: str = ""
    sound_file: Path | None = None
    sound_frame: int = 1
    start_seconds: float = 0.0
    end_seconds: float | None = None
    style: StyleSource = field(default=StyleSource())
    exemplar: str | None = None
    exemplar_frames: tuple[int, int] | None = None
    key_target: str = 'AUTO'
    head_target: HeadTarget | None = None
    options: GenerateOptions = field(default=GenerateOptions())
    emotion: EmotionChoice | None = None
    with_character: bool = True


@dataclass(frozen=True, slots=True)
class Head:
    """A head's neutral shape and faces.

    Attributes:
        uid: ``session_uid`` of the object, which survives renaming and undo.
        name: Its name at the start of the job.
        vertices: ``(V, 3)`` in mesh space, mirrored where the object is.
        face_corners: Vertex number of each face corner.
        face_sizes: Number of corners of each face.
        face_points: Vertex number of each marked face point; may be empty.
        is_mirrored: Whether the object mirrors its mesh.
    """

    uid: int
    name: str
    vertices: Floats
    face_corners: NDArray[np.int32]
    face_sizes: NDArray[np.int32]
    face_points: dict[str, int]
    is_mirrored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExemplarRange:
    """An animated head, and the frames of it that show a speaking style.

    Attributes:
        head: The head's neutral shape and faces.
        scene_uid: ``session_uid`` of the scene in which it is animated.
        first_frame: First scene frame to read.
        last_frame: Last scene frame to read.
        fps: Frame rate of that scene.
    """

    head: Head
    scene_uid: int
    first_frame: int
    last_frame: int
    fps: Fraction

    @property
    def num_frames(self) -> int:
        """How many frames are read."""
        return self.last_frame - self.first_frame + 1


@dataclass(frozen=True, slots=True)
class SceneInputs:
    """All that a job takes from the scene; nothing is read from it afterwards.

    Attributes:
        head: The head to animate.
        companions: The other meshes of its character that are keyed with it.
        sound: Sound that is used, and its time in the scene.
        fps: Frame rate of the head's scene.
        first_frame: Scene frame of the motion's frame 0.
        start_seconds: File time of that frame.
        num_frames: Number of frames to animate; None: up to the file's end.
        exemplar: Frames that show the style; None where a style is named. A job reads them.
        choices: The rest.
        scene_name: The head's scene.
    """

    head: Head
    companions: tuple[Companion, ...]
    sound: SoundSpan
    fps: Fraction
    first_frame: int
    start_seconds: float
    num_frames: int | None
    exemplar: ExemplarRange | None
    choices: Choices
    scene_name: str


def find_head(context: Context) -> Object | None:
    """The head that the panel is about: the pinned one, or the active object."""
    return settings_of(context.scene).head or context.active_object


def find_character(context: Context, head: Object) -> Character:
    """The other meshes of a head's character; those that are selected besides are of it."""
    selected = tuple(context.view_layer.objects.selected)  # without a window the context has none
    return character.find(head, selected if head in selected else ())


def head_problem(obj: Object | None, key_target: str | None = None) -> str:
    """Why an object cannot be animated, as one sentence with its remedy; empty where it can.

    Args:
        obj: The head.
        key_target: Which shape keys; None for what is chosen in the panel.

    Returns:
        The sentence.
    """
    if obj is None:
        return "Select the head to animate."
    if obj.type != 'MESH':
        return f'"{obj.name}" is not a mesh. Select the mesh of the head.'
    if obj.library:
        return (
            f'"{obj.name}" is linked from another file. Make it local (Object > Relations > Make '
            "Local), or override it where it has shape keys for speech (Object > Library Override "
            "> Make)."
        )
    if problem := mode_problem(obj):
        return problem
    keys = obj.data.shape_keys
    if keys is not None and not keys.use_relative:
        return f'Switch on Relative in the shape keys of "{obj.name}".'
    if len(obj.data.vertices) == 0 or len(obj.data.polygons) == 0:
        return f'The mesh "{obj.name}" has no faces. Select the mesh of the head.'
    target = key_target or settings_of(obj).key_target
    needs_head = not rig_target.advice(obj, target)
    return (
        rig_target.tweak_problem(obj, target)
        or (head_mesh.problem(obj) if needs_head else "")
        or rig_target.problem(obj, target)
    )


def mode_problem(obj: Object) -> str:
    """Which mode an object has to leave before it is written to; empty where none."""
    if obj.mode == 'OBJECT':
        return ""
    name = obj.mode.replace("_", " ").title()
    key = " (Tab)" if obj.mode in ('EDIT', 'SCULPT') else ""
    return f"Leave {name if name.endswith('Paint') else name + ' Mode'} first{key}."


def missing(context: Context) -> str:
    """The one thing that is missing before the head can be animated; empty where none is."""
    obj = find_head(context)
    if (problem := head_problem(obj)) or obj is None:
        return problem
    settings = settings_of(obj)
    if settings.sound_source == 'FILE':
        if not settings.sound_file:
            return "Choose a sound file."
        if not Path(bpy.path.abspath(settings.sound_file)).is_file():
            return f"The sound file {settings.sound_file} does not exist. Choose another one."
    else:
        try:
            scene, strip = sound_strips.find_strip(context, settings.strip_name)
        except UserError as error:
            return str(error)
        if problem := sound_strips.strip_problem(scene, strip):
            return problem
    if settings.listen == 'TEXT' and not spoken_text(settings):
        return "Type the spoken words, choose a Text data-block, or listen another way."
    if settings.style_source == 'EXEMPLAR' and (problem := chosen_exemplar_problem(settings)):
        return problem
    if settings.style_source == 'SAVED' and not settings.saved_style:
        return "Choose a style, or speak neutrally."
    return head_motion.target_problem(settings)


def exemplar_file(settings: Any) -> Path | None:
    """The file or folder that shows the style; None where an object does."""
    return Path(bpy.path.abspath(settings.exemplar_file)) if settings.exemplar_file else None


def chosen_exemplar_problem(settings: Any) -> str:
    """Why what the artist chose as exemplar cannot show a style; empty where it can."""
    path = exemplar_file(settings)
    if path is None:
        return exemplar_problem(settings.exemplar)
    if path.is_dir() or (path.is_file() and path.suffix.lower() in EXEMPLAR_SUFFIXES):
        return ""
    if not path.exists():
        return f"The exemplar {settings.exemplar_file} does not exist. Choose another one."
    return (
        f'The exemplar "{path.name}" is no capture: choose a .csv of Live Link Face, a .txt of '
        "Face Cap, an .npz, or a folder of them."
    )


def neutral_frame(settings: Any, scene: Scene) -> int:
    """The frame in which the exemplar is at rest, counted from its first; -1 to estimate."""
    if not settings.use_exemplar_neutral:
        return -1
    if settings.exemplar_file:
        return int(settings.exemplar_neutral_frame)
    frames = exemplar_frames(settings)
    first = frames[0] if frames is not None else scene.frame_start
    frame = int(settings.exemplar_neutral_frame) - first
    if frame < 0:
        raise UserError(
            f"The exemplar's neutral frame {settings.exemplar_neutral_frame} lies before the "
            f"frames that are read, which begin at {first}. Choose one of these."
        )
    return frame


def exemplar_problem(obj: Object | None) -> str:
    """Why an object cannot show a style; empty where it can."""
    if obj is None:
        return "Choose an animated head as the exemplar, or speak neutrally."
    if obj.type != 'MESH':
        return f'The exemplar "{obj.name}" is not a mesh.'
    if obj.mode == 'EDIT':
        return f'Leave Edit Mode of the exemplar "{obj.name}" first (Tab).'
    return ""


def spoken_text(settings: Any) -> str:
    """The words that the artist gave: the Text data-block's, else the field's."""
    block = settings.text_block
    return str(block.as_string() if block is not None else settings.text).strip()


def exemplar_frames(settings: Any) -> tuple[int, int] | None:
    """First and last frame of the exemplar that the artist chose; None: the scene's range."""
    if not settings.use_exemplar_range:
        return None
    return settings.exemplar_start, settings.exemplar_end


def choices_of(context: Context, obj: Object) -> Choices:
    """Read what the artist chose for a head, in the panel and in the preferences.

    Args:
        context: For the preferences.
        obj: The head.

    Returns:
        The choices.

    Raises:
        UserError: The saved style is gone, or the neutral frame is not read.
    """
    settings, prefs = settings_of(obj), preferences.read(context)
    style, exemplar, frames = StyleSource(), None, None
    options_read = _options_of(settings, prefs)
    if settings.style_source == 'EXEMPLAR':
        neutral = neutral_frame(settings, scene_of(context))
        options_read = replace(options_read, exemplar_neutral=neutral)
    if settings.style_source == 'EXEMPLAR' and (path := exemplar_file(settings)) is not None:
        style = StyleSource(kind="exemplar", value=str(path))
    elif settings.style_source == 'EXEMPLAR':
        exemplar = settings.exemplar.name if settings.exemplar is not None else ""
        frames = exemplar_frames(settings)
    elif settings.style_source == 'SAVED':
        style = style_library.find(settings.saved_style, checkpoint=prefs.checkpoint)
    sound_file = bpy.path.abspath(settings.sound_file) if settings.sound_file else ""
    return Choices(
        sound_source=settings.sound_source,
        strip=settings.strip_name,
        sound_file=Path(sound_file) if sound_file else None,
        sound_frame=settings.sound_frame,
        style=style,
        exemplar=exemplar,
        exemplar_frames=frames,
        key_target=settings.key_target,
        head_target=head_motion.target_of(settings),
        options=options_read,
        emotion=emotions.choose(
            settings.first_emotion,
            settings.second_emotion,
            settings.emotion_mix,
            settings.emotion_amount,
        ),
        with_character=settings.with_character,
    )


def _options_of(settings: Any, prefs: preferences.Settings) -> GenerateOptions:
    """The options that a head's properties or else the preferences hold."""
    values = options.values_of(settings, prefs)
    values["text"] = ""
    if values["listen"] == "text":  # words that were typed before are kept, but used here only
        values |= {"listen": "auto", "text": spoken_text(settings)}
    return options.GenerateOptions(**values)


def collect(context: Context, obj: Object | None,
            choices: Choices) -> SceneInputs:  # fmt: skip
    """Read everything that a job needs.

    Args:
        context: For its scene and the sequencer's.
        obj: The head.
        choices: What was asked for.

    Returns:
        Head, sound and choices as plain values.

    Raises:
        UserError: Something is missing or cannot be used.
    """
    if (problem := head_problem(obj, choices.key_target)) or obj is None:
        raise UserError(problem)
    scene = scene_of(context)
    fps = motion.frame_rate(scene.render.fps, scene.render.fps_base)
    exemplar = None
    if choices.exemplar is not None:
        exemplar = exemplar_range(
            bpy.data.objects.get(choices.exemplar), scene=scene, frames=choices.exemplar_frames
        )
    sound = _sound(context, choices, fps=fps)
    first_frame = motion.first_frame_at(float(sound.begin), fps=fps)
    start = Fraction(first_frame) / fps - sound.origin
    num_frames = None
    if sound.end is not None:
        num_frames = motion.first_frame_at(float(sound.end), fps=fps) - first_frame
        if num_frames < 1:
            sound.discard()
            raise UserError(f'"{sound.name}" is shorter than one frame. Use a longer sound.')
    choices = _with_emotion(obj, choices, first_frame, num_frames, fps=fps)
    along = find_character(context, obj).along if choices.with_character else ()
    return SceneInputs(
        head=read_head(obj),
        companions=character.read(obj, along),
        sound=sound,
        fps=fps,
        first_frame=first_frame,
        start_seconds=max(0.0, float(start)),
        num_frames=num_frames,
        exemplar=exemplar,
        choices=choices,
        scene_name=scene.name,
    )


def _with_emotion(obj: Object, choices: Choices, first_frame: int, num_frames: int | None, *,
                  fps: Fraction) -> Choices:  # fmt: skip
    """The choices with the emotion among their options, frame by frame where it has keys."""
    if choices.emotion is None:
        return choices
    amounts = None
    curve = compat.animation_curve(obj, AMOUNT_PATH)
    if curve is not None and not curve.mute:
        if num_frames is None:  # up to the file's end: what comes after the last key is as there
            num_frames = max(1, int(curve.range()[1]) - first_frame + 2)
        amounts = [curve.evaluate(first_frame + index) for index in range(num_frames)]
    text = emotions.as_option(choices.emotion, amounts, fps=float(fps))
    return replace(choices, options=replace(choices.options, emotion=text))


def _sound(context: Context, choices: Choices, *, fps: Fraction) -> SoundSpan:
    if choices.sound_source == 'STRIP':
        scene, strip = sound_strips.find_strip(context, choices.strip)
        return sound_strips.read_strip(scene, strip, shown_in=scene_of(context))
    if choices.sound_file is None:
        raise UserError("Choose a sound file.")
    return sound_strips.file_span(
        choices.sound_file,
        at=Fraction(choices.sound_frame) / fps,
        start_seconds=choices.start_seconds,
        end_seconds=choices.end_seconds,
    )


def read_head(obj: Object) -> Head:
    """The neutral shape, the faces and the face points of a mesh object."""
    vertices, corners, sizes = head_mesh.seen(obj)
    return Head(
        uid=obj.session_uid,
        name=obj.name,
        vertices=vertices,
        face_corners=corners,
        face_sizes=sizes,
        face_points=face_points.marked(obj),
        is_mirrored=head_mesh.is_mirrored(obj),
    )


def exemplar_range(obj: Object | None, *, scene: Scene,
                   frames: tuple[int, int] | None) -> ExemplarRange:  # fmt: skip
    """The frames of an animated head that a job is to read.

    Args:
        obj: The head that shows the style.
        scene: Its scene.
        frames: First and last frame; None: the scene's range.

    Returns:
        Those frames, at most the first 40 s of them.

    Raises:
        UserError: The head cannot show a style, or there are too few frames.
    """
    if (problem := exemplar_problem(obj)) or obj is None:
        raise UserError(problem)
    fps = motion.frame_rate(scene.render.fps, scene.render.fps_base)
    first, last = frames or (scene.frame_start, scene.frame_end)
    last = min(last, first + int(MAX_EXEMPLAR_SECONDS * fps) - 1)
    if last - first + 1 < MIN_EXEMPLAR_FRAMES:
        raise UserError(
            f"The exemplar's range has {max(0, last - first + 1)} frames. "
            f"Choose at least {MIN_EXEMPLAR_FRAMES}, better a few seconds of speech."
        )
    return ExemplarRange(
        head=read_head(obj),
        scene_uid=scene.session_uid,
        first_frame=first,
        last_frame=last,
        fps=fps,
    )
