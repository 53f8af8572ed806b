# SPDX-License-Identifier: GPL-3.0-or-later
"""The network: speech and style in, motion out."""

from backend.model.attention import frame_mask
from backend.model.content_encoders import SpeechContentEncoder
from backend.model.graph_encoder import MotionGraph, coarse_mesh_graph, face_point_graph
from backend.model.ptalker import PTalker
from backend.model.records import CycleOutputs, TrainingBatch, TrainingOutputs
from backend.model.speech_encoders import load_published_weights
from backend.model.style_encoders import Style, lead_lag, node_statistics

__all__ = [
    "CycleOutputs",
    "MotionGraph",
    "PTalker",
    "SpeechContentEncoder",
    "Style",
    "TrainingBatch",
    "TrainingOutputs",
    "coarse_mesh_graph",
    "face_point_graph",
    "frame_mask",
    "lead_lag",
    "load_published_weights",
    "node_statistics",
]
