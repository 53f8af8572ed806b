# SPDX-License-Identifier: GPL-3.0-or-later
"""The last stage of training: what a model that goes on from a trained one does otherwise."""

import pytest
import torch

from backend.articulation.speaking_style import STYLE_DIM
from backend.heads.lip_measures import measured_demo_head
from backend.model.presets import PRESETS
from backend.model.ptalker import PTalker
from backend.model.style_encoders import StyleCodes
from backend.training.speech.init import new_model
from backend.training.speech.stage_motion import (
    WEIGHTS,
    MotionTrainingModule,
    absolute_loss_factor,
    geometry_of,
)


def test_only_layers_after_the_frozen_speech_encoder_are_trained():
    encoder = PTalker(PRESETS["base"]).speech_content  # whose frames are stacked, as tiny's are not
    encoder.freeze_speech_encoder()
    trained = {name for name, value in encoder.named_parameters() if value.requires_grad}
    context = {
        f"phone_context.{part}.{name}" for part in ("enter", "leave") for name in ("weight", "bias")
    }
    assert trained == {"content.weight", "content.bias", "spoken_embedding.weight"} | context


def test_every_other_style_is_given_by_its_own_code():
    mouth = measured_demo_head()
    model = new_model(PRESETS["tiny"], mouth)
    training_module = MotionTrainingModule(model, geometry_of(mouth), WEIGHTS, is_pretrained=True)
    read = torch.randn(4, model.config.style_dim)
    vectors = torch.randn(4, STYLE_DIM)
    present = torch.tensor([True, True, False, True])
    shown = training_module._with_true_codes({"motion": StyleCodes(read, present)}, vectors)[
        "motion"
    ]
    assert torch.equal(shown.code[::2], read[::2])
    assert torch.equal(shown.code[1::2], training_module.style_codes(vectors)[1::2])
    assert torch.equal(shown.present, present)


def test_absolute_terms_weigh_most_at_the_end_of_a_new_models_motion_stage():
    progress = (0.0, 0.6, 0.65, 0.7, 1.0)
    factors = [absolute_loss_factor(share, is_new=True) for share in progress]
    assert factors == pytest.approx([1.0, 1.0, 5.5, 10.0, 10.0])
    assert [absolute_loss_factor(share, is_new=False) for share in progress] == [1.0] * 5
