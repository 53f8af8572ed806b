# SPDX-License-Identifier: GPL-3.0-or-later
"""Model surgery: a trained model with more layers or parts, from which training goes on."""

from dataclasses import replace
from typing import Final

import torch
from torch import nn

from backend.model.config import ModelConfig
from backend.model.ptalker import PTalker

_OUTPUTS: Final = (
    "ffn1.output_dense", "self_attn.linear_out", "conv_module.pointwise_conv2", "ffn2.output_dense",
)  # fmt: skip
"""Output layers of a conformer layer's four residual branches."""


def can_extend(config: ModelConfig, wanted: ModelConfig) -> bool:
    """Whether a config differs from the wanted one in nothing but fewer conformer layers."""
    speech = config.speech
    return speech.kind == "wav2vec2-bert" and (
        speech.num_layers < wanted.speech.num_layers <= 2 * speech.num_layers
        and replace(config, speech=replace(speech, num_layers=wanted.speech.num_layers)) == wanted
    )


def with_lip_reader(model: PTalker, config: ModelConfig) -> PTalker:
    """The same model with a lip reader of random parameters.

    Args:
        model: A model without a lip reader; it is left as it is.
        config: Config with the sizes of the lip reader.

    Returns:
        The model with the lip reader, in evaluation mode.
    """
    layers, width = config.lip_layers, config.lip_width
    return _with_more(model, replace(model.config, lip_layers=layers, lip_width=width))


def with_phone_context(model: PTalker, config: ModelConfig) -> PTalker:
    """The same function with a phone context that adds nothing yet.

    Args:
        model: The model; it is left as it is.
        config: Config with the width of the phone context.

    Returns:
        The model with phone context, in evaluation mode; the same model where it has one or the
        config has none.
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
        model: The trained model; it is left as it is.
        config: Config of the deeper model; ``can_extend`` must hold for it.

    Returns:
        The deeper model, in evaluation mode.

    Raises:
        ValueError: The model cannot be extended to this.
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
