# SPDX-License-Identifier: GPL-3.0-or-later
"""Sound: a file to samples, samples to features, prosody and stretches of speech."""
