# SPDX-License-Identifier: GPL-3.0-or-later
import torch

from backend.model.attention import frame_mask, windowed_attention


def test_windowed_attention_equals_full_attention_with_a_band():
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 50, 8) for _ in range(3))
    bias, left = torch.randn(3, 12), 4
    mask = frame_mask(torch.tensor([50, 31]), 50)
    apart = torch.arange(50) - torch.arange(50).unsqueeze(1) + left
    seen = (apart >= 0) & (apart < 12) & mask[:, None, None, :]
    scores = query @ key.transpose(-1, -2) / 8**0.5 + bias[:, apart.clamp(0, 11)]
    expected = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value
    found = windowed_attention(query, key, value, bias, mask, left=left)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1, :, :31], expected[1, :, :31])
