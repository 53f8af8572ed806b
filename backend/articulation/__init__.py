# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of articulation: phones, prosody and a speaking style to the 52 weights."""
