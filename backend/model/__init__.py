# SPDX-License-Identifier: GPL-3.0-or-later
"""The network: speech and style in, motion out; its config, losses and files."""
