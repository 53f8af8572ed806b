# SPDX-License-Identifier: GPL-3.0-or-later
"""Evaluation: metrics, recordings, robustness, style transfer, captured faces."""
