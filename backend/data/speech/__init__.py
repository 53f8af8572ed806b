# SPDX-License-Identifier: GPL-3.0-or-later
"""Speech to train on: corpora with phone times, their features, and batches."""
