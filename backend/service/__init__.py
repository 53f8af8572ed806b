# SPDX-License-Identifier: GPL-3.0-or-later
"""The service: does jobs, one that a request describes or a list of them."""
