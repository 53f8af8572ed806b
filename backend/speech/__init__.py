# SPDX-License-Identifier: GPL-3.0-or-later
"""Speech recognition: words, phones and their times, and whether they can be trusted."""
