# SPDX-License-Identifier: GPL-3.0-or-later
import json
from dataclasses import replace

import pytest

from backend.io import from_json, to_json
from backend.model.config import ModelConfig, SpeechEncoderConfig, TrainConfig
from backend.model.presets import PRESETS
from tests.backend.model.samples import TRAIN_CONFIG


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_preset_survives_json(name):
    assert from_json(ModelConfig, to_json(PRESETS[name])) == PRESETS[name]
    assert PRESETS[name].preset == name


def test_train_config_survives_json():
    config = replace(TRAIN_CONFIG, guard_frames=7)
    assert from_json(TrainConfig, to_json(config)) == config


def test_config_cannot_be_changed():
    with pytest.raises(AttributeError):
        PRESETS["base"].feature_dim = 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"feature_dim": 0}, "feature_dim is 0"),
        ({"motion_fps": float("nan")}, "motion_fps is nan"),
        ({"feature_dim": 31}, "not a multiple of decoder_heads"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"modes": ()}, "modes is empty"),
        ({"modes": ("parallel", "parallel")}, "twice"),
        ({"num_vertices": 10}, "solved"),
        ({"shape_names": ()}, "solved"),
        ({"style_sources": ("motion",), "speakers": ("a",)}, "identity"),
    ],
)
def test_config_rejects_nonsense(change, reason):
    with pytest.raises(ValueError, match=reason):
        replace(PRESETS["tiny"], **change)


@pytest.mark.parametrize(
    "change",
    [
        {"kernel_size": 4},
        {"kind": "hubert"},
        {"num_heads": 3},
        {"hub_id": "some/thing"},
        {"frozen": "convolutions"},
        {"stacking": 0},
    ],
)
def test_speech_config_rejects_nonsense(change):
    with pytest.raises(ValueError, match=r"\w"):
        replace(SpeechEncoderConfig(), **change)


def test_train_config_rejects_nonsense():
    with pytest.raises(ValueError, match="positive_frames"):
        replace(TRAIN_CONFIG, positive_frames=9)
    with pytest.raises(ValueError, match="cycle"):
        replace(TRAIN_CONFIG.weights, cycle=-1.0)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("feature_dim", "wide", "feature_dim"),
        ("feature_dim", 1.5, "feature_dim"),
        ("feature_dim", True, "feature_dim"),
        ("shape_kind", "other", "solved"),
        ("speakers", "abc", "expected a list"),
        ("speech", 3, "expected an object"),
        ("colour", 3, "colour"),
    ],
)
def test_json_of_wrong_fields_is_rejected(key, value, reason):
    data = json.loads(to_json(PRESETS["tiny"])) | {key: value}
    with pytest.raises(ValueError, match=reason):
        from_json(ModelConfig, json.dumps(data))


def test_json_with_a_missing_field_is_rejected():
    data = json.loads(to_json(PRESETS["tiny"]))
    del data["feature_dim"]
    with pytest.raises(ValueError, match="feature_dim"):
        from_json(ModelConfig, json.dumps(data))
