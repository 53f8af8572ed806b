# SPDX-License-Identifier: GPL-3.0-or-later
"""Loss and accuracy of the classification of phones frame by frame."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from backend.data.speech.batches import IGNORED
from backend.speech.phones import PHONE_IDS, SILENCE


def phone_cross_entropy(logits: Tensor, phones: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy of phone logits.

    Args:
        logits: Logits of the phone ids, shape ``(B, T, C)``.
        phones: Target phone ids, ``IGNORED`` in the padding, shape ``(B, T)``, on any device.
        label_smoothing: Share of the target that is spread over all phones.

    Returns:
        The mean over all frames that are not ignored.
    """
    return nn.functional.cross_entropy(
        logits.float().flatten(0, 1),
        phones.flatten().to(logits.device),
        ignore_index=IGNORED,
        label_smoothing=label_smoothing,
    )


@dataclass
class PhoneAccuracy:
    """Share of the frames of speech, without silence, whose phone is right.

    Attributes:
        right: Number of frames of speech whose phone is right.
        total: Number of frames of speech.
    """

    right: int = 0
    total: int = 0

    def add(self, predicted: NDArray[np.int64], phones: NDArray[np.int64]) -> None:
        """Counts the frames of a clip or batch; both arrays hold phone ids of one shape."""
        is_speech = phones > PHONE_IDS[SILENCE]
        self.right += int((predicted == phones)[is_speech].sum())
        self.total += int(is_speech.sum())

    @property
    def share(self) -> float:
        """The accuracy, 0 to 1; 0 without any speech."""
        return self.right / max(1, self.total)
