# SPDX-License-Identifier: GPL-3.0-or-later
"""Data: speech, articulation, heads, and the format for training."""
