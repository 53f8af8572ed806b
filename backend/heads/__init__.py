# SPDX-License-Identifier: GPL-3.0-or-later
"""Heads: meshes, topologies with face points (landmarks), and the 52 shapes solved on them."""
