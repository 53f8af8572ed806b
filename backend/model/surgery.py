# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives a trained model a deeper ear or further parts; training goes on from what it knows.

Apart from ``train.py`` because it changes weights where no gradient does.
"""

from dataclasses import replace
from typing import Final

import torch
from torch import nn

from backend.model.config import ModelConfig
from backend.model.ptalker import PTalker

_OUTPUTS: Final = (
    "ffn1.output_dense", "self_attn.linear_out", "conv_module.pointwise_conv2", "ffn2.output_dense",
)  # fmt: skip
"""Of a conformer layer's four branches, what adds to the frames."""


def can_extend(config: ModelConfig, wanted: ModelConfig) -> bool:
    """Whether a model differs from the wanted one in nothing but fewer layers of its conformer."""
    speech = config.speech
    return speech.kind == "wav2vec2-bert" and (
        speech.num_layers < wanted.speech.num_layers <= 2 * speech.num_layers
        and replace(config, speech=replace(speech, num_layers=wanted.speech.num_layers)) == wanted
    )


def with_lip_reader(model: PTalker, config: ModelConfig) -> PTalker:
    """The same model with a lip reader of random weights, as a config has it.

    Args:
        model: Without one; it is left as it is.
        config: Says how large the reader is.

    Returns:
        The model with it, in evaluation mode.
    """
    layers, width = config.lip_layers, config.lip_width
    return _with_more(model, replace(model.config, lip_layers=layers, lip_width=width))


def with_phone_context(model: PTalker, config: ModelConfig) -> PTalker:
    """The same function with a part that sees told phones as wholes, which adds nothing yet.

    Args:
        model: It is left as it is.
        config: Says how wide the part is.

    Returns:
        The model with it, in evaluation mode; itself where it has one or the config wants none.
    """
    if model.config.phone_context_width or not config.phone_context_width:
        return model
    return _with_more(model, replace(model.config, phone_context_width=config.phone_context_width))


def _with_more(model: PTalker, config: ModelConfig) -> PTalker:
    extended = PTalker(config)
    extended.load_state_dict({**extended.state_dict(), **model.state_dict()})
    return extended.eval()


@torch.no_grad()
def with_deeper_speech_encoder(model: PTalker, config: ModelConfig) -> PTalker:
    """The same function with more layers (Net2Net, Chen et al. 2016; here with silent branches).

    The new layers are spread evenly. Each is a copy of the one before it whose branches add
    nothing yet. As a conformer layer ends in a norm, the scale and shift of the one before move
    into the new one: the norm of what is normed already changes nothing.

    Args:
        model: Trained; it is left as it is.
        config: What it shall be built like; ``can_extend`` holds for it.

    Returns:
        The deeper model, in evaluation mode.

    Raises:
        ValueError: The model cannot grow to this.
    """
    if not can_extend(model.config, config):
        raise ValueError("only a conformer's layers can be added, up to twice as many")
    before, after = model.config.speech.num_layers, config.speech.num_layers
    sources = [place * before // after for place in range(after)]
    extended = PTalker(config)
    own = extended.state_dict()
    layers = "speech_content.encoder.encoder.layers."
    for name, value in model.state_dict().items():
        if not name.startswith(layers):
            own[name] = value
            continue
        number, rest = name.removeprefix(layers).split(".", 1)
        for place, source in enumerate(sources):
            if source == int(number):
                own[f"{layers}{place}.{rest}"] = value.clone()
    extended.load_state_dict(own)
    for place in range(1, after):
        if sources[place] == sources[place - 1]:
            last = extended.get_submodule(f"{layers}{place - 1}.final_layer_norm")
            assert isinstance(last, nn.LayerNorm)
            last.weight.fill_(1.0)
            last.bias.zero_()
            for output in _OUTPUTS:
                for weight in extended.get_submodule(f"{layers}{place}.{output}").parameters():
                    weight.zero_()
    return extended.eval()
