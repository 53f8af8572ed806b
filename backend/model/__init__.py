# SPDX-License-Identifier: GPL-3.0-or-later
"""The network: speech and style in, motion out."""

from backend.model.ptalker import PTalker, TrainingBatch

__all__ = ["PTalker", "TrainingBatch"]
