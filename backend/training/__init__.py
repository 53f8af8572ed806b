# SPDX-License-Identifier: GPL-3.0-or-later
"""Training: the loop, its optimisers and ablations; stages for speech and for captured faces."""
