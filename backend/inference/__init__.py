# SPDX-License-Identifier: GPL-3.0-or-later
"""Inference: sound, head and style as arrays in, a motion out."""
