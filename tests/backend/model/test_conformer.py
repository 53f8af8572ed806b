# SPDX-License-Identifier: GPL-3.0-or-later

import torch

from backend.model.presets import PRESETS
from tests.backend.model.samples import build

TINY = PRESETS["tiny"]


def test_heard_frame_does_not_lead_or_lag():
    """The convolution of the conformer is centred: what a frame hears is symmetric around it."""
    model = build(TINY, lively=True).eval()
    speech = torch.randn(1, 81, 160, requires_grad=True)
    heard = model.speech_content(speech, torch.tensor([81]))
    heard.features[0, 40].sum().backward()
    reached = speech.grad[0].abs().sum(-1).nonzero().flatten()
    assert reached.max() - 40 == 40 - reached.min() == model.speech_content.receptive_field
