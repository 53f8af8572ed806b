# SPDX-License-Identifier: GPL-3.0-or-later
"""What a face does besides speaking: blinks, gaze, brows, head and breath, from a seed."""
