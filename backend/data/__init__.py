# SPDX-License-Identifier: GPL-3.0-or-later
"""Data to train on: speech with phone times, and captured faces."""
