# SPDX-License-Identifier: GPL-3.0-or-later
"""The speakers that are held out for validation."""

import hashlib
from typing import Final

_ONE_IN: Final = 10


def is_held_out(speaker: str) -> bool:
    """Whether a speaker's utterances are for validation and never trained on.

    About one speaker in ten is. The name alone decides, so a speaker is on the same side in every
    folder, corpus and run, whatever their seeds, and training on several folders cannot leak. What
    a corpus on disk says of its own splits is not used.

    Checkpoints that were trained before this rule, the bundled one among them, held out others:
    those that ``validation_speakers`` of their ``config.json`` lists. Where training goes on from
    such a checkpoint, some of today's validation speakers were trained on, so its scores on
    validation are too good.

    Args:
        speaker: The speaker's name in the folder or corpus.

    Returns:
        Whether the speaker is held out.
    """
    digest = hashlib.sha256(speaker.encode()).digest()
    return int.from_bytes(digest[:8], "big") % _ONE_IN == 0
