# SPDX-License-Identifier: GPL-3.0-or-later
"""What build.py runs: environments, the demo and the benchmark. Not part of the extension."""
