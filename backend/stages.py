# SPDX-License-Identifier: GPL-3.0-or-later
"""Stages of a job, as the user reads them. Imports nothing of the backend."""

from enum import StrEnum


class Stage(StrEnum):
    """Stage of a running job; the value is the text that the user reads."""

    STARTING = "Starting"
    READING_SOUND = "Reading the sound"
    FINDING_FACE_POINTS = "Finding the face points"
    READING_EXEMPLAR = "Reading the exemplar"
    LOADING_MODEL = "Loading the model"
    RECOGNISING_WORDS = "Recognising words"
    RECOGNISING_SOUNDS = "Recognising sounds"
    ANIMATING = "Animating"
    WRITING_MOTION = "Writing the motion"
