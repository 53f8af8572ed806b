# SPDX-License-Identifier: GPL-3.0-or-later
"""The stages of a job, in the words that are shown for them. Imports nothing of the backend."""

from enum import StrEnum


class Stage(StrEnum):
    """What a job is doing; the value is what the user reads."""

    STARTING = "Starting"
    READING_SOUND = "Reading the sound"
    FINDING_FACE_POINTS = "Finding the face points"
    READING_EXEMPLAR = "Reading the exemplar"
    LOADING_MODEL = "Loading the model"
    RECOGNISING_WORDS = "Recognising words"
    RECOGNISING_SOUNDS = "Recognising sounds"
    ANIMATING = "Animating"
    WRITING_MOTION = "Writing the motion"
