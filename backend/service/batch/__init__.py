# SPDX-License-Identifier: GPL-3.0-or-later
"""Batch jobs: a list of jobs, shared out among processes or a cluster."""
