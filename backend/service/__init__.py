# SPDX-License-Identifier: GPL-3.0-or-later
"""The service: requests in, messages out, one job or a list of them."""
