# SPDX-License-Identifier: GPL-3.0-or-later
"""Training on captured faces: what is derived from the set, validation, export."""
