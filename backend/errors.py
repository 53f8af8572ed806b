# SPDX-License-Identifier: GPL-3.0-or-later
"""The two exceptions that end a job on purpose. Imports nothing, so every module can use them."""


class UserError(Exception):
    """A job failed for a reason that the user can act on; the text is one sentence for them."""


class Cancelled(Exception):  # noqa: N818 - no error: the user asked for it
    """The user cancelled the running job; raised where the work is done, caught by the service."""
