# SPDX-License-Identifier: GPL-3.0-or-later
"""Training on speech whose motion is articulated by rules: stages, validation, export."""
