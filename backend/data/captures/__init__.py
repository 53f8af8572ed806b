# SPDX-License-Identifier: GPL-3.0-or-later
"""Captured faces to train on: published sets and folders, the prepared format, and batches."""
