# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists of jobs, shared out among processes or a cluster."""
