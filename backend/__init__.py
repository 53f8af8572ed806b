# SPDX-License-Identifier: GPL-3.0-or-later
"""PTalker's backend: speech in, facial motion out, in a Python of its own, never in Blender's."""
