# SPDX-License-Identifier: GPL-3.0-or-later
"""PTalker, assembled from its blocks: the forward pass of training and style codes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backend.model.adversary import SpeakerAdversary
from backend.model.attention import frame_mask
from backend.model.batch import CycleOutputs, TrainingBatch, TrainingOutputs
from backend.model.config import ModelConfig, StyleSource
from backend.model.content_encoders import (
    MotionContentEncoder,
    SpeechContent,
    SpeechContentEncoder,
)
from backend.model.decoder import MotionDecoder
from backend.model.graph_encoder import GraphEncoder, MotionGraph
from backend.model.lip_reader import LipReader
from backend.model.optimizer_groups import optimised_by_adamw
from backend.model.resample import average_frames, stretch_frames
from backend.model.style_encoders import (
    IdentityStyle,
    MotionStyle,
    SpeechStyle,
    StyleCodes,
    StyleFusion,
)


class PTalker(nn.Module):
    """The blocks of the paper's figure; ``set_graph`` completes a new model.

    Departures from the released code: the decoder is fed audio content *and*, in a second branch of
    training, motion content, as the figure shows; style comes from another clip than the one that
    is to be predicted, which a bidirectional encoder would simply leak; identity, speech and
    motion are all optional; the adversary works on both contents; motion and speech may be of any
    length.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.speech_content = SpeechContentEncoder(config)
        self.graph_encoder = GraphEncoder(config)
        self.motion_content = MotionContentEncoder(config, self.graph_encoder.width)
        self.motion_style = MotionStyle(config, self.graph_encoder.width)
        self.lip_reader = LipReader(config) if config.lip_layers else None
        features = config.speech.input_dim
        if self.speech_content.takes_waveform:
            features = config.speech.hidden_size
        self.speech_style = SpeechStyle(features, config.speech_style_width, config.style_dim)
        speakers = max(1, len(config.speakers))
        self.identity_style = IdentityStyle(speakers, config.style_dim)
        self.fusion = StyleFusion(
            config.style_sources, config.style_dim, dropout=config.style_dropout
        )
        self.audio_adversary = SpeakerAdversary(config.feature_dim, speakers)
        self.motion_adversary = SpeakerAdversary(config.feature_dim, speakers)
        self.decoder = MotionDecoder(config, self.graph_encoder.width)
        solved = config.shape_kind == "solved"
        num_outputs = len(config.shape_names) if solved else 3 * config.num_vertices
        self.output_layer = optimised_by_adamw(nn.Linear(config.feature_dim, num_outputs))
        nn.init.normal_(self.output_layer.weight, std=0.02 if solved else 1e-4)
        nn.init.zeros_(self.output_layer.bias)

    def set_graph(self, graph: MotionGraph) -> None:
        """Give a new model its graph; a loaded one has it.

        Args:
            graph: The graph of the face.

        Raises:
            ValueError: The graph has other sizes than the config says.
        """
        self.graph_encoder.set_graph(graph)

    @property
    def num_speakers(self) -> int:
        """Identities that have a style."""
        return len(self.config.speakers)

    def forward(
        self,
        batch: TrainingBatch,
        *,
        reversal: float = 1.0,
        autoregressive: bool | None = None,
        own_feedback_share: float = 0.0,
        with_cycle: bool = False,
    ) -> TrainingOutputs:
        """Everything that is trained, in one pass.

        Args:
            batch: The batch.
            reversal: Strength of the reversed gradient of the adversaries.
            autoregressive: Feed motion back instead of decoding in parallel; by default the
                config's first mode decides.
            own_feedback_share: Share of frames whose feedback is the model's own motion.
            with_cycle: Also decode with swapped styles and encode the result.

        Returns:
            The outputs.
        """
        if autoregressive is None:
            autoregressive = self.config.modes[0] == "autoregressive"
        T = batch.motion.shape[1]
        mask = frame_mask(batch.motion_lengths, T)
        speech = self.speech_content(
            batch.speech, batch.speech_lengths, phones=batch.phones, num_frames=T
        )
        both = speech.mask & mask
        nodes = self.graph_encoder.displacements(batch.motion) * mask[:, :, None, None]
        features, reduced_mask = self._motion_features(nodes, mask)
        reduced_content = self.motion_content(features, reduced_mask)
        own_style, motion_style_frames = self.motion_style(
            features, reduced_mask, nodes * self.config.motion_scale, mask
        )
        seen = stretch_frames(reduced_content, reduced_mask, self.config.motion_stride, T)
        seen = seen * mask.unsqueeze(-1)
        styles = self.styles_of(batch)
        style = self.fusion(styles, batch_size=len(mask), strength=batch.style_strength)
        queries = self.decoder.queries(style, T)
        if autoregressive:
            queries = self._fed_back(nodes, speech.features, both, style, own_feedback_share)
        return TrainingOutputs(
            motion=self.motion(
                self.decoder(queries, speech.features, both, style, causal=autoregressive)
            ),
            motion_from_motion=self.motion(
                self.decoder(queries, seen, mask, style, causal=autoregressive)
            ),
            mask=mask,
            audio_content=speech.features,
            motion_content=seen,
            content_mask=both,
            audio_style_frames=self._audio_style_frames(batch, speech, T),
            reduced_content=reduced_content,
            motion_style_frames=motion_style_frames,
            reduced_mask=reduced_mask,
            phone_logits=speech.phone_logits,
            styles=styles,
            own_style=own_style,
            speaker_logits_audio=self.audio_adversary(speech.features, both, reversal),
            speaker_logits_motion=self.motion_adversary(reduced_content, reduced_mask, reversal),
            cycle=self._cycle(speech.features, both, style, own_style) if with_cycle else None,
        )

    def motion(self, hidden: Tensor) -> Tensor:
        """Output layer: hidden frames to weights ``(B, T, K)`` or offsets ``(B, T, V, 3)``."""
        out: Tensor = self.output_layer(hidden)
        return out if self.config.shape_kind == "solved" else out.unflatten(-1, (-1, 3))

    def _motion_features(self, nodes: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """E_G at the motion encoders' rate: ``(B, T', features)`` and the mask ``(B, T')``."""
        nodes, mask = average_frames(nodes, mask, self.config.motion_stride)
        return self.graph_encoder(nodes), mask

    def styles_of(
        self, batch: TrainingBatch, *, trains_motion_style: bool = True
    ) -> dict[StyleSource, StyleCodes]:
        """Style codes of the sources that the batch has and the config names.

        Args:
            batch: The batch.
            trains_motion_style: Whether gradients reach E_m^s, which is most of the work.

        Returns:
            Style codes by source.
        """
        wanted = self.config.style_sources
        styles: dict[StyleSource, StyleCodes] = {}
        if "identity" in wanted and self.config.speakers:
            styles["identity"] = self.identity_style(batch.speaker)
        if "speech" in wanted and batch.style_speech is not None:
            assert batch.style_speech_lengths is not None
            styles["speech"] = self._speech_style(batch.style_speech, batch.style_speech_lengths)
        if "motion" in wanted and batch.style_motion is not None:
            assert batch.style_motion_lengths is not None
            with torch.set_grad_enabled(trains_motion_style and torch.is_grad_enabled()):
                styles["motion"] = self.encode_style(batch.style_motion, batch.style_motion_lengths)
        return styles

    def _speech_style(self, speech: Tensor, lengths: Tensor) -> StyleCodes:
        """E_a^s of a clip; of waveforms, on hidden frames that get no gradient from it."""
        if not self.speech_content.takes_waveform:
            return self.speech_style(speech, frame_mask(lengths, speech.shape[1]))[0]
        with torch.no_grad():
            prepared = self.speech_content.prepare(speech, lengths)
            hidden, mask = self.speech_content.encode(prepared, lengths, None)
        return self.speech_style(hidden, mask)[0]

    def encode_style(self, motion: Tensor, lengths: Tensor) -> StyleCodes:
        """E_m^s of clips, ``(B, T, K)`` or ``(B, T, V, 3)`` with their lengths ``(B,)``."""
        mask = frame_mask(lengths, motion.shape[1])
        nodes = self.graph_encoder.displacements(motion) * mask[:, :, None, None]
        features = self._motion_features(nodes, mask)
        return self.motion_style(*features, nodes * self.config.motion_scale, mask)[0]

    def _audio_style_frames(
        self, batch: TrainingBatch, speech: SpeechContent, num_frames: int
    ) -> Tensor:
        """Style of each frame's sound, on the motion's clock, ``(B, T, D)``."""
        features = speech.hidden.detach() if self.speech_content.takes_waveform else batch.speech
        frames = self.speech_style(features, speech.hidden_mask)[1]
        return self.speech_content.to_motion_clock(frames, speech.hidden_mask, num_frames)[0]

    def _fed_back(
        self, nodes: Tensor, content: Tensor, mask: Tensor, style: Tensor, own_share: float
    ) -> Tensor:
        """Queries of autoregressive training: each frame gets the truth of the frame before.

        A share of frames gets what the model itself made of it in a first pass without gradient
        (scheduled sampling in two passes, Mihaylova and Martins 2019), and all get some noise. The
        released code means to sample but never does: its model only ever learns to copy the last
        frame.
        """
        if own_share > 0.0:
            with torch.no_grad():
                is_parallel = "parallel" in self.config.modes
                queries = self.decoder.queries(style, nodes.shape[1])
                if not is_parallel:
                    queries = self.decoder.fed_back(style, self._encode_before(nodes))
                hidden = self.decoder(queries, content, mask, style, causal=not is_parallel)
                own = torch.einsum('btk,kni->btni', self.weights(hidden), self.node_shapes())
                chosen = torch.rand(nodes.shape[:2], device=nodes.device) < own_share
                nodes = torch.where(chosen[:, :, None, None], own, nodes)
        features = self._encode_before(nodes)
        if self.training and self.config.feedback_noise > 0.0:
            spread = features.detach().std() * self.config.feedback_noise
            features = features + spread * torch.randn_like(features)
        return self.decoder.fed_back(style, features)

    def _encode_before(self, nodes: Tensor) -> Tensor:
        """E_G of the frame before each; before the first one the face is at rest."""
        return self.graph_encoder(torch.cat((torch.zeros_like(nodes[:, :1]), nodes[:, :-1]), dim=1))

    def weights(self, hidden: Tensor) -> Tensor:
        """Hidden frames to weights ``(B, T, K)`` of the shapes.

        Solved: in the range that shapes are made for; the clamp lets closed lips be exactly closed.
        Learned: the hidden frame itself and 1 for the bias, see ``shapes``.
        """
        if self.config.shape_kind == "solved":
            return self.motion(hidden).clamp(0.0, self.config.max_weight)
        return torch.cat((hidden, torch.ones_like(hidden[..., :1])), dim=-1)

    def node_shapes(self) -> Tensor:
        """Displacement of the graph's nodes by each weight, shape ``(K, N, 3)``."""
        if self.config.shape_kind == "solved":
            return self.graph_encoder.basis
        return self.graph_encoder.displacements(self.shapes().unsqueeze(0))[0]

    def _cycle(self, content: Tensor, mask: Tensor, style: Tensor, own: StyleCodes) -> CycleOutputs:
        """Decode with the next sequence's style, then encode the motion that was made (Mimic)."""
        style = style.roll(-1, 0)
        queries = self.decoder.queries(style, content.shape[1])
        motion = self.motion(self.decoder(queries, content, mask, style, causal=False))
        nodes = self.graph_encoder.displacements(motion) * mask[:, :, None, None]
        features, reduced_mask = self._motion_features(nodes, mask)
        found, _ = self.motion_style(features, reduced_mask, nodes * self.config.motion_scale, mask)
        return CycleOutputs(
            content=self.motion_content(features, reduced_mask),
            style=found.code,
            wanted_style=own.code.detach().roll(-1, 0),
            wanted=own.present.roll(-1, 0) & mask.any(1),
        )

    def shapes(self) -> Tensor:
        """Learned shapes: the output layer's matrix, and its bias, whose weight is 1.

        Returns:
            Shapes in offsets of the vertices, ``(F + 1, V, 3)``.

        Raises:
            ValueError: The model's shapes are solved on each head.
        """
        if self.config.shape_kind == "solved":
            raise ValueError("This model's shapes are solved on each head; it holds none")
        columns = torch.cat((self.output_layer.weight.T, self.output_layer.bias.unsqueeze(0)))
        return columns.detach().unflatten(-1, (-1, 3))

    def neutral_style(self, batch_size: int = 1) -> Tensor:
        """The code of no style in particular, shape ``(B, D)``."""
        return self.fusion.neutral.detach().expand(batch_size, -1)

    @torch.no_grad()
    def fuse(self, styles: dict[StyleSource, StyleCodes], *, batch_size: int = 1) -> Tensor:
        """A style code for ``generate`` from any sources, shape ``(B, D)``."""
        return self.fusion(styles, batch_size=batch_size)

    def scaled_style(self, style: Tensor, strength: float) -> Tensor:
        """A code between neutral (0) and itself (1), or beyond; shapes as given."""
        neutral = self.fusion.neutral.detach()
        return neutral + strength * (style - neutral)

    @torch.no_grad()
    def encode_motion_style(self, motion: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Style codes of exemplars.

        Args:
            motion: Weights ``(B, T, K)`` or offsets ``(B, T, V, 3)``, at the model's rate.
            lengths: Valid frames, int64 ``(B,)``; all by default.

        Returns:
            Codes for ``generate``, shape ``(B, D)``.
        """
        style = self.encode_style(motion, _all_of(motion) if lengths is None else lengths)
        return self.fuse({"motion": style}, batch_size=len(motion))

    @torch.no_grad()
    def encode_audio_style(self, speech: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Style codes of voices, from speech as in ``generate``; shape ``(B, D)``."""
        style = self._speech_style(speech, _all_of(speech) if lengths is None else lengths)
        return self.fuse({"speech": style}, batch_size=len(speech))

    @torch.no_grad()
    def encode_identity_style(self, speaker: str) -> Tensor:
        """The style code of a speaker of training.

        Args:
            speaker: One of the config's ``speakers``.

        Returns:
            Style code for ``generate``, shape ``(1, D)``.

        Raises:
            ValueError: The config has no such speaker.
        """
        number = self.config.speakers.index(speaker)
        numbers = torch.tensor([number], device=self.fusion.neutral.device)
        return self.fuse({"identity": self.identity_style(numbers)})


def _all_of(x: Tensor) -> Tensor:
    return torch.full((x.shape[0],), x.shape[1], device=x.device)
