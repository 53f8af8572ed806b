# SPDX-License-Identifier: GPL-3.0-or-later
"""Property groups: choices on Scene and Object, the job's state on WindowManager."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import bpy
from bpy.props import (
    BoolProperty,
    CollectionProperty,
    EnumProperty,
    FloatProperty,
    IntProperty,
    PointerProperty,
    StringProperty,
)
from bpy.types import Context, Object

from . import paths, preferences, sound_strips
from .emotions import EMOTIONS, LARGEST_AMOUNT
from .languages import LANGUAGES
from .typed import classes_factory

ATTRIBUTE: Final = "ptalker"
"""Where the groups hang on their owners."""
_OVERRIDABLE: Final[Any] = {'LIBRARY_OVERRIDABLE'}
"""A character of a library keeps its choices where it is overridden."""

_EMOTION_ITEMS: Final = tuple((name.upper(), label, text) for name, label, text in EMOTIONS)


def _is_mesh(_owner: bpy.types.ID, obj: Object) -> bool:
    return bool(obj.type == 'MESH')


def _may_turn(owner: Any, obj: Object) -> bool:
    return bool(owner.head_target != 'BONE' or obj.type == 'ARMATURE')


def _search_strips(_owner: Any, context: Context,
                   text: str) -> Iterator[str]:  # fmt: skip
    for label, _, _ in sound_strips.labelled_strips(context):
        if text.casefold() in label.casefold():
            yield label


def _search_styles(_owner: Any, context: Context,
                   text: str) -> Iterator[str]:  # fmt: skip
    checkpoint = preferences.read(context).checkpoint
    names = [*paths.model_style_names(checkpoint), *paths.saved_style_names()]
    for name in dict.fromkeys(names):
        if text.casefold() in name.casefold():
            yield name


def _redraw_viewports(_owner: Any, context: Context) -> None:
    for window in context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == 'VIEW_3D':
                area.tag_redraw()


class PTALKER_PG_head(bpy.types.PropertyGroup):
    """Choices for one head: its sound, words, style and shape keys."""

    sound_source: EnumProperty(
        name="Sound",
        description="Where the speech comes from",
        items=(
            ('STRIP', "Strip", "A sound strip of the Video Sequencer, as it is trimmed there"),
            ('FILE', "File", "A sound or video file"),
        ),
        default='STRIP',
        override=_OVERRIDABLE,
    )
    strip_name: StringProperty(
        name="Strip",
        description="Sound strip to speak; when empty, the active or the only one",
        search=_search_strips,
        search_options={'SORT'},
        override=_OVERRIDABLE,
    )
    sound_file: StringProperty(
        name="File",
        description="Sound or video file to speak",
        subtype='FILE_PATH',
        override=_OVERRIDABLE,
    )
    sound_frame: IntProperty(
        name="Start Frame",
        description="Frame at which the file starts",
        default=1,
        override=_OVERRIDABLE,
    )
    listen: EnumProperty(
        name="Listen",
        description="How the speech is understood",
        items=(
            ('AUTO', "Automatic", "Recognize English words, go by the sound where that fails"),
            ('WORDS', "Recognize Words", "Recognize English words and go by them and the sound"),
            ('TEXT', "Given Words", "Go by the sound and the words that you give: the best way"),
            ('SOUND', "Sound Only", "Go by the sound alone: the fastest way, for any language"),
        ),
        default='AUTO',
        override=_OVERRIDABLE,
    )
    language: EnumProperty(
        name="Language",
        description="Language of the given words; English words alone can be recognized",
        items=(
            ('auto', "Automatic", "Go by the given words, else recognize English"),
            *((code, name, f"The speech is {name}") for code, name in LANGUAGES),
        ),
        default='auto',
        override=_OVERRIDABLE,
    )
    text: StringProperty(
        name="Words",
        description="The words that are spoken",
        override=_OVERRIDABLE,
    )
    text_block: PointerProperty(
        name="Text",
        description="Text data-block with the words that are spoken; used instead of the field",
        type=bpy.types.Text,
        override=_OVERRIDABLE,
    )
    style_source: EnumProperty(
        name="Style",
        description="How the head speaks",
        items=(
            ('NEUTRAL', "Neutral", "An average speaker"),
            ('EXEMPLAR', "Exemplar", "The way another animated head speaks"),
            ('SAVED', "Library", "A style of the model, or one that was saved"),
        ),
        default='NEUTRAL',
        override=_OVERRIDABLE,
    )
    exemplar: PointerProperty(
        name="Exemplar",
        description="Animated head whose way of speaking is taken",
        type=bpy.types.Object,
        poll=_is_mesh,
        override=_OVERRIDABLE,
    )
    exemplar_file: StringProperty(
        name="Or Capture",
        description="A .csv of Live Link Face, a .txt of Face Cap, an .npz of weights, or a folder "
        "of them; used instead of the object",
        subtype='FILE_PATH',
        override=_OVERRIDABLE,
    )
    use_exemplar_neutral: BoolProperty(
        name="Neutral Frame",
        description="Name a frame in which the exemplar's face is at rest; otherwise its quietest "
        "frames are taken for it",
        default=False,
        override=_OVERRIDABLE,
    )
    exemplar_neutral_frame: IntProperty(
        name="Frame",
        description="Frame of the scene, or of the capture counted from 0",
        default=1,
        min=0,
        override=_OVERRIDABLE,
    )
    use_exemplar_range: BoolProperty(
        name="Frame Range",
        description="Read only a part of the exemplar's animation; otherwise the scene's range",
        default=False,
        override=_OVERRIDABLE,
    )
    exemplar_start: IntProperty(
        name="Start",
        description="First frame of the exemplar to read",
        default=1,
        override=_OVERRIDABLE,
    )
    exemplar_end: IntProperty(
        name="End",
        description="Last frame of the exemplar to read",
        default=250,
        override=_OVERRIDABLE,
    )
    saved_style: StringProperty(
        name="Style",
        description="Style of the model or saved style to speak in",
        search=_search_styles,
        search_options={'SORT'},
        override=_OVERRIDABLE,
    )
    style_strength: FloatProperty(
        name="Strength",
        description="0 is neutral, 1 the style as it is, more exaggerates it",
        default=1.0,
        min=0.0,
        soft_max=1.5,
        max=3.0,
        subtype='FACTOR',
        override=_OVERRIDABLE,
    )
    upper_face_strength: FloatProperty(
        name="Brows and Lids",
        description="Part of the strength that brows and lids get",
        default=1.0,
        min=0.0,
        soft_max=1.5,
        max=3.0,
        subtype='FACTOR',
        override=_OVERRIDABLE,
    )
    first_emotion: EnumProperty(
        name="Emotion",
        description="What the face shows while it speaks",
        items=(('NONE', "None", "Nothing besides the style"), *_EMOTION_ITEMS),
        default='NONE',
        override=_OVERRIDABLE,
    )
    emotion_amount: FloatProperty(
        name="Amount",
        description="How much of the emotion; can be animated, Generate reads its keys",
        default=0.7,
        min=0.0,
        soft_max=1.0,
        max=LARGEST_AMOUNT,
        subtype='FACTOR',
        override=_OVERRIDABLE,
    )
    second_emotion: EnumProperty(
        name="Second Emotion",
        description="Emotion that the first is blended with",
        items=(('NONE', "None", "The first alone"), *_EMOTION_ITEMS),
        default='NONE',
        override=_OVERRIDABLE,
    )
    emotion_mix: FloatProperty(
        name="Mix",
        description="0 is the first emotion alone, 1 the second",
        default=0.5,
        min=0.0,
        max=1.0,
        subtype='FACTOR',
        override=_OVERRIDABLE,
    )
    emotion_from_voice: FloatProperty(
        name="From Voice",
        description="How far the voice sets the strength: louder, higher and livelier is more",
        default=0.0,
        min=0.0,
        max=1.0,
        subtype='FACTOR',
        override=_OVERRIDABLE,
    )
    key_target: EnumProperty(
        name="Shape Keys",
        description="Which shape keys are animated",
        items=(
            ('AUTO', "Automatic", "Those for speech that the head has, otherwise new ones"),
            ('NEW', "New", "New shape keys, made for this head; other keys are left alone"),
            ('EXISTING', "Existing", "The ARKit, viseme or FLAME keys that the head has"),
        ),
        default='AUTO',
        override=_OVERRIDABLE,
    )
    with_character: BoolProperty(
        name="Character",
        description="Key the other meshes of the character too: teeth, tongue, eyes, lashes",
        default=True,
        override=_OVERRIDABLE,
    )
    goes_along: BoolProperty(
        name="Goes Along",
        description="Key this mesh together with the head",
        default=True,
        override=_OVERRIDABLE,
    )
    life: FloatProperty(
        name="Life",
        description="Blinks, gaze, brows, head and breath together: 1 is what people do",
        default=1.0,
        min=0.0,
        max=2.0,
        subtype='FACTOR',
        override=_OVERRIDABLE,
    )
    blinks: FloatProperty(
        name="Blinks",
        description="How many blinks: 1 is some 20 a minute",
        default=1.0,
        min=0.0,
        max=2.0,
        subtype='FACTOR',
        override=_OVERRIDABLE,
    )
    gaze: FloatProperty(
        name="Gaze",
        description="How far the eyes go; at 0 they stay where they are",
        default=1.0,
        min=0.0,
        max=2.0,
        subtype='FACTOR',
        override=_OVERRIDABLE,
    )
    brows: FloatProperty(
        name="Brows",
        description="How far the brows rise and frown by themselves, beside those of the style",
        default=1.0,
        min=0.0,
        max=2.0,
        subtype='FACTOR',
        override=_OVERRIDABLE,
    )
    head_motion: FloatProperty(
        name="Head",
        description="How far the head nods and turns",
        default=1.0,
        min=0.0,
        max=2.0,
        subtype='FACTOR',
        override=_OVERRIDABLE,
    )
    breath: FloatProperty(
        name="Breath",
        description="How far the lips part to breathe before a phrase",
        default=1.0,
        min=0.0,
        max=2.0,
        subtype='FACTOR',
        override=_OVERRIDABLE,
    )
    seed: IntProperty(
        name="Seed",
        description="Chooses when and where: another number gives another life",
        default=0,
        min=0,
        override=_OVERRIDABLE,
    )
    head_target: EnumProperty(
        name="Head Target",
        description="What turns with the head's motion",
        items=(
            ('NONE', "None", "The head does not turn"),
            ('OBJECT', "Object", "An object, such as an empty that the head hangs on"),
            ('BONE', "Bone", "A bone of an armature"),
        ),
        default='NONE',
        override=_OVERRIDABLE,
    )
    head_object: PointerProperty(
        name="Object",
        description="Object, or armature, that the head turns with",
        type=bpy.types.Object,
        poll=_may_turn,
        override=_OVERRIDABLE,
    )
    head_bone: StringProperty(
        name="Bone",
        description="Bone that the head turns with, usually that of the head or the neck",
        override=_OVERRIDABLE,
    )
    face_point: IntProperty(
        name="Face Point",
        description="Number of the face point that is set next",
        min=0,
        update=_redraw_viewports,
        override=_OVERRIDABLE,
    )


class PTALKER_PG_scene(bpy.types.PropertyGroup):
    """Choices for the whole scene."""

    head: PointerProperty(
        name="Head",
        description="Head to animate; when empty, the active object",
        type=bpy.types.Object,
        poll=_is_mesh,
    )
    show_face_points: BoolProperty(
        name="Show Points",
        description="Draw the head's face points over it: doubtful ones yellow, set ones green",
        default=False,
        update=_redraw_viewports,
    )
    mirror_face_points: BoolProperty(
        name="Mirror",
        description="Set the same point on the other side of the face too",
        default=False,
    )


class PTALKER_PG_face_point_name(bpy.types.PropertyGroup):
    """A row of the list of face points; it has a name alone."""


class PTALKER_PG_warning(bpy.types.PropertyGroup):
    """One warning of the last run."""

    text: StringProperty()


class PTALKER_PG_job(bpy.types.PropertyGroup):
    """The running job and the result of the last one; undo leaves it alone."""

    is_running: BoolProperty()
    is_setup: BoolProperty()
    title: StringProperty()
    stage: StringProperty()
    fraction: FloatProperty()
    seconds_left: FloatProperty(default=-1.0)
    result_kind: EnumProperty(
        items=(
            ('NONE', "None", "Nothing was run yet"),
            ('DONE', "Done", "The last run did what it should"),
            ('CANCELLED', "Cancelled", "The last run was cancelled"),
            ('FAILED', "Failed", "The last run failed"),
        ),
        default='NONE',
    )
    result_text: StringProperty()
    result_action: StringProperty()
    words: StringProperty()
    words_head: StringProperty()
    warnings: CollectionProperty(type=PTALKER_PG_warning)
    face_point_names: CollectionProperty(type=PTALKER_PG_face_point_name)


_classes = (
    PTALKER_PG_head,
    PTALKER_PG_scene,
    PTALKER_PG_warning,
    PTALKER_PG_face_point_name,
    PTALKER_PG_job,
)
_owners: dict[type, type] = {
    bpy.types.Object: PTALKER_PG_head,
    bpy.types.Scene: PTALKER_PG_scene,
    bpy.types.WindowManager: PTALKER_PG_job,
}
_pointer: Any = PointerProperty
_register_classes, _unregister_classes = classes_factory(_classes)


def register() -> None:
    """Register the groups and hang them on their owners."""
    _register_classes()
    for owner, group in _owners.items():
        setattr(owner, ATTRIBUTE, _pointer(type=group, override=_OVERRIDABLE))


def unregister() -> None:
    """Take them off again."""
    for owner in _owners:
        delattr(owner, ATTRIBUTE)
    _unregister_classes()
