# SPDX-License-Identifier: GPL-3.0-or-later
"""Content encoders: of speech with phone input (E_a^c) and of motion (E_m^c)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.errors import Cancelled
from backend.model.attention import MaskedConv, TransformerLayer, frame_mask
from backend.model.config import ModelConfig, SpeechEncoderConfig
from backend.model.conformer import Conformer, conformer_receptive_field
from backend.model.optimizer_groups import optimised_by_adamw
from backend.model.phone_context import CONTEXT_FRAMES, PhoneContext
from backend.model.resample import fit_frames, take_frames
from backend.speech.phones import PHONE_IDS, SILENCE

if TYPE_CHECKING:
    from transformers import HubertModel

_LEAST_CONFIDENCE = 0.35  # probability of a phone above which the encoder decides for it
_AGREEMENT_FROM = 0.2  # mean agreement below which recognised phones get no bonus
_AGREEMENT_GAIN = 20.0  # nats of bonus per agreement above that
AGREEMENT_FRAMES = 75
"""Frames on each side over which the agreement of the phone classifier with recognised phones is
averaged."""


@dataclass(frozen=True, slots=True)
class SpeechContent:
    """Content of speech and what it was computed from.

    Attributes:
        features: Content on the motion's clock, shape ``(B, T, F)``; zero at padding.
        mask: True at valid frames of ``features``, shape ``(B, T)``.
        hidden: Output of the speech encoder on its own clock, shape ``(B, S, H)``.
        hidden_mask: True at valid frames of ``hidden``, shape ``(B, S)``.
        phone_logits: Logits of phone ids on that clock, shape ``(B, S, num_phone_ids)``.
    """

    features: Tensor
    mask: Tensor
    hidden: Tensor
    hidden_mask: Tensor
    phone_logits: Tensor


class SpeechContentEncoder(nn.Module):
    """E_a^c: a speech encoder, then linear layers to content and to phones.

    Departures: the released code knows HuBERT only and interpolates *before* its transformer, which
    gives it a clock it was not trained on; here features are resampled after it. Input phones are
    embedded and added where a conformer's layers begin, so that the layers weigh them against the
    sound; with HuBERT they are added to its output, which is trained elsewhere. The phone
    classifier's logits serve an auxiliary loss and the first stage of training.

    Ids of input phones come in three sets of ``num_phone_ids - 1``, so that the model can tell how
    reliable they are: recognised (1 and on), given, and the encoder's own first decision.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        speech = config.speech
        self.fps = config.motion_fps
        self.rate_hz = speech.rate_hz
        self.offset_seconds = speech.offset_seconds
        self.takes_waveform = speech.kind == "hubert"
        self.receptive_field = 0 if self.takes_waveform else conformer_receptive_field(speech)
        self.encoder = build_speech_encoder(speech)
        self.stacking = speech.stacking
        self.unstack: nn.Module = nn.Identity()
        if speech.stacking > 1:
            self.unstack = nn.Linear(speech.hidden_size, speech.stacking * speech.hidden_size)
        self.num_phones = config.num_phone_ids - 1
        self.phone_embedding = optimised_by_adamw(
            nn.Embedding(
                3 * self.num_phones + 1, speech.hidden_size // speech.stacking, padding_idx=0
            )
        )
        nn.init.normal_(self.phone_embedding.weight, std=0.3)
        with torch.no_grad():
            self.phone_embedding.weight[0].zero_()
        self.phones = nn.Linear(speech.hidden_size, config.num_phone_ids)
        self.content = nn.Linear(speech.hidden_size, config.feature_dim)
        self.spoken_embedding = optimised_by_adamw(
            nn.Embedding(config.num_phone_ids, config.feature_dim, padding_idx=0)
        )
        self.phone_context: PhoneContext | None = None
        if config.phone_context_width:
            self.phone_context = PhoneContext(
                config.feature_dim, speech.input_dim, config.phone_context_width, config.feature_dim
            )
        if speech.frozen == "everything":
            self.encoder.requires_grad_(False)
        elif speech.frozen == "convolutions":
            self.encoder.get_submodule("feature_extractor").requires_grad_(False)

    def forward(
        self,
        speech: Tensor,
        lengths: Tensor,
        *,
        phones: Tensor | None = None,
        num_frames: int | None = None,
        trains_encoder: bool = True,
    ) -> SpeechContent:
        """Encode speech.

        Args:
            speech: Features ``(B, S, input_dim)``, or a waveform at 16 kHz ``(B, N)``.
            lengths: Valid frames, or samples, of each sequence, int64 ``(B,)``.
            phones: Phone input on the encoder's clock, 0 for none, int64 ``(B, S)``; cut or filled
                with 0 to the length of the encoder's output.
            num_frames: Frames ``T`` of the motion; by default those of the longest sound.
            trains_encoder: Whether gradients reach the speech encoder and the phone classifier.

        Returns:
            The content.
        """
        with torch.set_grad_enabled(trains_encoder and torch.is_grad_enabled()):
            prepared = self.prepare(speech, lengths)
            hidden, mask = self.encode(prepared, lengths, phones)
            phone_logits = self.phones(hidden)
        if num_frames is None:
            num_frames = max(1, round(hidden.shape[1] * self.fps / self.rate_hz))
        content = self.content_of(prepared, hidden, mask, phones)
        features, frames = self.to_motion_clock(content, mask, num_frames)
        return SpeechContent(features, frames, hidden, mask, phone_logits)

    def content_of(
        self, speech: Tensor, hidden: Tensor, mask: Tensor, phones: Tensor | None
    ) -> Tensor:
        """Content of hidden frames and of the phone input that they were encoded with.

        The phones also bypass the encoder: its layers, which make one token of two frames, blur
        when a phone begins, and with it when lips close. Which set an id is from does not matter
        here, the hidden frames hold it. ``phone_context`` adds the duration and the loudness of
        whole phones.

        Args:
            speech: Prepared speech, as ``encode`` takes it.
            hidden: Hidden frames, shape ``(B, S, H)``.
            mask: True at valid hidden frames, shape ``(B, S)``.
            phones: Phone input ``(B, S)``, cut or filled with 0 to that length.

        Returns:
            Content on the encoder's clock, shape ``(B, S, F)``.
        """
        content: Tensor = self.content(hidden)
        if phones is None or self.num_phones == 0:
            return content
        phones = fit_frames(phones, hidden.shape[1]) * mask
        symbols = torch.where(phones > 0, (phones - 1) % self.num_phones + 1, 0)
        embedded = self.spoken_embedding(symbols)
        content = content + embedded
        if self.phone_context is not None:
            content = content + self.phone_context(symbols, embedded, speech[:, : hidden.shape[1]])
        return content

    @property
    def full_receptive_field(self) -> int:
        """Feature frames on each side that content depends on, with self-conditioned phones."""
        return self.receptive_field + AGREEMENT_FRAMES + max(self.receptive_field, CONTEXT_FRAMES)

    @torch.no_grad()
    def copy_recognised_embeddings(self) -> None:
        """Let given and self-conditioned phones start from the embeddings of recognised ones."""
        recognised = self.phone_embedding.weight[1 : self.num_phones + 1]
        self.phone_embedding.weight[1:] = recognised.repeat(3, 1)

    def freeze_speech_encoder(self) -> None:
        """Freeze all up to the phone classifier; what turns hidden frames to content stays free."""
        for part in (self.encoder, self.unstack, self.phone_embedding, self.phones):
            part.requires_grad_(requires_grad=False)

    def prepare(self, speech: Tensor, lengths: Tensor) -> Tensor:
        """Waveforms at mean 0 and variance 1, as a pretrained encoder expects; features stay."""
        if not self.takes_waveform or speech.ndim == 3:
            return speech
        mask = frame_mask(lengths, speech.shape[1])
        return masked_instance_norm(speech.unsqueeze(-1), mask).squeeze(-1)

    def encode(
        self, speech: Tensor, lengths: Tensor, phones: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Prepared speech to hidden frames ``(B, S, H)`` on the encoder's clock, and their mask.

        In place of waveforms it takes their cached hidden frames, ``(B, S, H)``, with lengths in
        frames: a frozen encoder need not encode the same again.
        """
        encoder = self.encoder
        if self.takes_waveform and speech.ndim == 3:
            mask = frame_mask(lengths, speech.shape[1])
            return speech * mask.unsqueeze(-1), mask
        if isinstance(encoder, Conformer):
            mask = frame_mask(lengths, speech.shape[1])
            whole = speech.shape[1] + (-speech.shape[1]) % self.stacking
            speech = fit_frames(speech * mask.unsqueeze(-1), whole)
            added = None
            if phones is not None:
                phones = fit_frames(phones[:, : mask.shape[1]] * mask[:, : phones.shape[1]], whole)
                added = self._stack(self.phone_embedding(phones))
            stacked = self._stack(speech)
            tokens = frame_mask((lengths + self.stacking - 1) // self.stacking, stacked.shape[1])
            out = self.unstack(encoder(stacked, tokens, added))
            out = out.unflatten(-1, (self.stacking, -1)).flatten(1, 2)
            return out[:, : mask.shape[1]] * mask.unsqueeze(-1), mask
        from backend.model.pretrained_encoder import encode_waveform  # loads transformers

        out, mask = encode_waveform(encoder, speech, lengths)
        if phones is not None:
            out = out + self.phone_embedding(fit_frames(phones, out.shape[1]))
        return out * mask.unsqueeze(-1), mask

    @torch.no_grad()
    def phone_log_posteriors(
        self,
        speech: Tensor,
        *,
        chunk_frames: int = 3000,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Tensor:
        """The phone classifier's posteriors without phone input, for features of any length.

        Args:
            speech: Features ``(B, S, input_dim)``.
            chunk_frames: Frames encoded at a time; chunks overlap by the receptive field.
            should_stop: Asked before each chunk whether to give up.

        Returns:
            Natural logarithms of the probabilities of phone ids, shape ``(B, S, num_phone_ids)``.

        Raises:
            Cancelled: ``should_stop`` said so.
        """
        num_frames, parts = speech.shape[1], []
        for start in range(0, num_frames, chunk_frames):
            if should_stop():
                raise Cancelled
            end = min(num_frames, start + chunk_frames)
            begin = max(0, start - self.receptive_field) // self.stacking * self.stacking
            around = speech[:, begin : end + self.receptive_field]
            lengths = torch.full((len(speech),), around.shape[1], device=speech.device)
            hidden, _ = self.encode(around, lengths, None)
            parts.append(self.phones(hidden[:, start - begin : end - begin]).log_softmax(-1))
        return torch.cat(parts, dim=1)

    def self_conditioned_phones(
        self,
        speech: Tensor,
        lengths: Tensor,
        phones: Tensor | None,
        *,
        confidence: float = _LEAST_CONFIDENCE,
    ) -> Tensor:
        """Phones that the phone classifier decides for, as input of a second pass.

        A regression settles half way between the lips of two phones it is in doubt about. In a
        second pass with its own decisions the model closes the lips or does not: on held-out speech
        the F1 of closures rises from 0.85 to 0.88 by sound alone, the opening is as good as before.

        Recognised phones may be wrong. They count as a second, independent opinion: a bonus to the
        log-probability of the phone, which depends on how far the classifier agrees with recognised
        phones in the seconds around. docs/findings.md says how the bonus was chosen.

        Args:
            speech: Prepared features ``(B, S, input_dim)``.
            lengths: Valid frames, shape ``(B,)``.
            phones: Phone input on the encoder's clock, 0 for none, ``(B, S)``; given phones stay.
            confidence: Probability above which the classifier decides.

        Returns:
            Phone ids, 0 where no phone is decided for, shape ``(B, S)``.
        """
        hidden, _ = self.encode(speech, lengths, None)
        log_posteriors = self.phones(hidden).log_softmax(-1)
        if phones is None:
            phones = log_posteriors.new_zeros(log_posteriors.shape[:2], dtype=torch.int64)
        phones = fit_frames(phones, log_posteriors.shape[1])
        is_given = phones > self.num_phones
        recognised = torch.where(is_given, 0, phones)
        bonus = self._recognised_bonus(log_posteriors, recognised)
        scores = log_posteriors + bonus * F.one_hot(recognised, log_posteriors.shape[2])
        probability, decided = scores.softmax(-1).max(-1)
        is_decided = (probability > confidence) & (decided > 0)
        return torch.where(
            is_given, phones, torch.where(is_decided, decided + 2 * self.num_phones, 0)
        )

    def _recognised_bonus(self, log_posteriors: Tensor, recognised: Tensor) -> Tensor:
        """Bonus of recognised phones.

        Args:
            log_posteriors: Log-probabilities of the phone classifier, shape ``(B, S, C)``.
            recognised: Ids of recognised phones, 0 for none, shape ``(B, S)``.

        Returns:
            Bonus in nats, shape ``(B, S, 1)``; 0 where no phone was recognised.
        """
        spoken = (recognised > PHONE_IDS[SILENCE]).to(log_posteriors.dtype)
        agreement = log_posteriors.gather(2, recognised.unsqueeze(-1)).squeeze(-1).exp() * spoken
        total, count = (
            F.avg_pool1d(
                x.unsqueeze(1), 2 * AGREEMENT_FRAMES + 1, stride=1, padding=AGREEMENT_FRAMES
            )
            for x in (agreement, spoken)
        )
        mean = (total / count.clamp(min=1e-6)).squeeze(1)  # (B, S)
        bonus = (_AGREEMENT_GAIN * (mean - _AGREEMENT_FROM)).clamp(min=0.0)
        return (bonus * (recognised > 0)).unsqueeze(-1)

    def _stack(self, x: Tensor) -> Tensor:
        """Neighbouring frames side by side: ``(B, S, C)`` to ``(B, S / n, n * C)``."""
        return x.reshape(x.shape[0], -1, self.stacking * x.shape[2])

    def to_motion_clock(
        self,
        content: Tensor,
        mask: Tensor,
        num_frames: int,
        *,
        first_frame: int = 0,
        first_hidden: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Linear interpolation between the two valid neighbours in time, held at the ends.

        Args:
            content: Content on the encoder's clock, shape ``(B, S, C)``.
            mask: True at valid frames of ``content``, shape ``(B, S)``.
            num_frames: Motion frames ``T``.
            first_frame: Number of the first motion frame in the whole motion.
            first_hidden: Number of the first frame of ``content`` in the whole sound.

        Returns:
            Shape ``(B, T, C)``, zero at padding, and the mask ``(B, T)``.
        """
        shift = first_frame - first_hidden
        if self.fps == self.rate_hz and self.offset_seconds == 0.0:
            content = fit_frames((content * mask.unsqueeze(-1))[:, shift:], num_frames)
            return content, fit_frames(mask[:, shift:], num_frames)
        counts = mask.sum(1, keepdim=True)  # (B, 1)
        last = (counts - 1).clamp(min=0)
        frames = torch.arange(num_frames, device=content.device, dtype=torch.float64) + first_frame
        places = (frames / self.fps - self.offset_seconds) * self.rate_hz - first_hidden
        valid = places < counts  # the last hidden frame is held for one more
        places = torch.minimum(places.clamp(min=0.0).unsqueeze(0), last.double())
        low = places.floor().long()
        share = (places - low).unsqueeze(-1).to(content.dtype)
        high = torch.minimum(low + 1, last)
        out = torch.lerp(take_frames(content, low), take_frames(content, high), share)
        return out * valid.unsqueeze(-1), valid


def build_speech_encoder(config: SpeechEncoderConfig) -> Conformer | HubertModel:
    """The speech encoder of a config, with random parameters."""
    if config.kind == "hubert":
        from backend.model.pretrained_encoder import build_hubert  # loads transformers

        return build_hubert(config)
    return Conformer(config)


class MotionContentEncoder(nn.Module):
    """E_m^c: linear, convolutions with instance norm, linear, transformer, linear.

    Instance norm takes the mean and the spread of each channel over time away, and with them much
    of the style. Departures: the first linear layer is used (the released code overwrites its
    result), padding is left out of the norms, the layers are residual, and positions come from
    attention's bias.
    """

    def __init__(self, config: ModelConfig, features: int) -> None:
        super().__init__()
        width = config.motion_width
        self.enter = nn.Linear(features, width)
        self.convs = nn.ModuleList(MaskedConv(width, width) for _ in range(config.motion_convs))
        self.widen = nn.Linear(width, width)
        self.layers = nn.ModuleList(
            TransformerLayer(
                width,
                config.motion_heads,
                window=config.motion_window,
                ff=2 * width,
                dropout=config.dropout,
            )
            for _ in range(config.motion_layers)
        )
        self.content = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.feature_dim))

    def forward(self, motion: Tensor, mask: Tensor) -> Tensor:
        """Shapes ``(B, T, features)`` and ``(B, T)``; returns ``(B, T, F)``, zero at padding."""
        x = self.enter(motion)
        for conv in self.convs:
            x = x + F.relu(masked_instance_norm(conv(x, mask), mask))
        x = self.widen(masked_instance_norm(x, mask))
        for layer in self.layers:
            x = layer(x, mask)
        out: Tensor = self.content(x)
        return out * mask.unsqueeze(-1)


def masked_instance_norm(x: Tensor, mask: Tensor) -> Tensor:
    """Each sequence's channels at mean 0 and variance 1 over valid frames; ``(B, T, C)``."""
    x = x.float()  # sums over thousands of frames
    weight = mask.unsqueeze(-1).to(x.dtype)
    count = weight.sum(1, keepdim=True).clamp(min=1.0)
    centred = (x - (x * weight).sum(1, keepdim=True) / count) * weight
    variance = centred.square().sum(1, keepdim=True) / count
    return centred * torch.rsqrt(variance + 1e-5)
