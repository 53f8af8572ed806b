# SPDX-License-Identifier: GPL-3.0-or-later
"""Which phones are spoken when: recognition of words and phones, their times, their confidence."""
