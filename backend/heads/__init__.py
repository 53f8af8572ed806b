# SPDX-License-Identifier: GPL-3.0-or-later
"""What a head is: its mesh, topology and face points, and the 52 shapes solved on it."""
