# SPDX-License-Identifier: GPL-3.0-or-later
"""Style encoders: of identity, speech and motion, and the fusion of their codes into one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.model.attention import MaskedConv, TransformerLayer
from backend.model.config import ModelConfig, StyleSource
from backend.model.optimizer_groups import optimised_by_adamw

_RIDGE = 100.0


@dataclass(frozen=True, slots=True)
class StyleCodes:
    """Style codes of a batch from one source.

    Attributes:
        code: Style codes, shape ``(B, D)``; without meaning where not present.
        present: True where the sequence has this source, shape ``(B,)``.
    """

    code: Tensor
    present: Tensor


class IdentityStyle(nn.Module):
    """E_p^s: an embedding, attention over facets of the identity, and a residual.

    Departures: the released code lifts each number of the code to 4 channels and attends over them
    with the batch as the sequence, which does nothing at batch 1 and mixes people above; here the
    identity has several learned facets, and its embedding attends to those of its own.
    """

    _FACETS = 4

    def __init__(self, num_identities: int, style_dim: int) -> None:
        super().__init__()
        self.embedding = optimised_by_adamw(nn.Embedding(num_identities, style_dim))
        self.facets = nn.Embedding(num_identities, self._FACETS * style_dim)
        self.query = nn.Linear(style_dim, style_dim)
        self.key = nn.Linear(style_dim, style_dim, bias=False)
        self.norm = nn.LayerNorm(style_dim)

    def forward(self, speaker: Tensor) -> StyleCodes:
        """Codes of identities, ``(B,)``; those of -1 are not present."""
        present = speaker >= 0
        number = speaker.clamp(min=0)
        embedded = self.embedding(number)
        facets = self.facets(number).unflatten(1, (self._FACETS, -1))  # (B, 4, D)
        query = self.query(embedded).unsqueeze(1)
        attended = F.scaled_dot_product_attention(query, self.key(facets), facets).squeeze(1)
        return StyleCodes(self.norm(embedded + attended), present)


class _SpeechBranch(nn.Module):
    def __init__(self, features: int, width: int, kernel_size: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            MaskedConv(features if number == 0 else width, width, kernel_size=kernel_size)
            for number in range(2)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for conv in self.convs:
            x = F.gelu(conv(x, mask))
        return x


class SpeechStyle(nn.Module):
    """E_a^s: a speaker branch W_S and an emotion branch W_e, maximum over time, linear.

    Departures: the paper has two published speech networks of 315 M parameters and the released
    code only the second; here both branches are small convolutions over one input (the features,
    or the hidden frames of the speech encoder where that takes waveforms). The speaker branch
    looks at single sounds, the emotion branch at half a second, where melody and loudness move.
    """

    def __init__(self, features: int, width: int, style_dim: int) -> None:
        super().__init__()
        self.speaker = _SpeechBranch(features, width, kernel_size=3)
        self.emotion = _SpeechBranch(features, width, kernel_size=13)
        self.code = nn.Linear(2 * width, style_dim)
        self.norm = nn.LayerNorm(style_dim)

    def forward(self, features: Tensor, mask: Tensor) -> tuple[StyleCodes, Tensor]:
        """Encode the style of speech.

        Args:
            features: Shape ``(B, S, features)``.
            mask: True at valid frames, shape ``(B, S)``; a sound without any has no style.

        Returns:
            The style codes, and the style of each frame, shape ``(B, S, D)``.
        """
        hidden = torch.cat((self.speaker(features, mask), self.emotion(features, mask)), dim=-1)
        top = hidden.masked_fill(~mask.unsqueeze(-1), -torch.inf).amax(1)
        present = mask.any(1)
        top = torch.where(present.unsqueeze(1), top, 0.0)
        return StyleCodes(self.norm(self.code(top)), present), self.code(hidden) * mask.unsqueeze(
            -1
        )


class MotionStyle(nn.Module):
    """E_m^s: linear, convolutions with layer norm, linear, transformer, mean over time.

    Departures: the first linear layer is used, padding is left out, layers are residual, and beside
    the mean over time two layers read statistics of the nodes' places (means, spreads, speeds,
    highest and lowest), decorrelated, and of the frames' channels. How far a mouth opens and where
    it rests shows there at once; the mean of a transformer's frames alone took many times the steps
    to learn it. Lead and lag are measured by cross-correlation, see ``lead_lag``.
    """

    _DECORRELATED = 256
    _READER = 256
    _LIMIT = 4.0  # standard deviations: an exemplar may be like nothing in training
    COMPONENTS = 24
    """Principal components of the motion, between which lead and lag are measured."""
    _LAGS_SECONDS = (0.04, 0.08, 0.14)

    def __init__(self, config: ModelConfig, features: int) -> None:
        super().__init__()
        width = config.motion_width
        self.decorrelation = nn.Linear(15 * config.num_nodes, self._DECORRELATED)
        self.components = nn.Linear(3 * config.num_nodes, self.COMPONENTS, bias=False)
        self.components.requires_grad_(config.lip_layers == 0)  # a lip reader relies on them
        self.lags = [max(1, round(lag * config.motion_fps)) for lag in self._LAGS_SECONDS]
        pairs = self.COMPONENTS * (self.COMPONENTS - 1) // 2
        self.linear = nn.Linear(self._DECORRELATED + pairs * len(self.lags), config.style_dim)
        self.reader = nn.Sequential(
            nn.Linear(self._DECORRELATED + 3 * width, self._READER),
            nn.GELU(),
            nn.Linear(self._READER, config.style_dim),
        )
        self.enter = nn.Linear(features, width)
        self.convs = nn.ModuleList(MaskedConv(width, width) for _ in range(config.motion_convs))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(config.motion_convs))
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
        self.token = nn.Linear(width, config.style_dim)
        self.norm = nn.LayerNorm(config.style_dim)

    def forward(
        self, motion: Tensor, mask: Tensor, nodes: Tensor, node_mask: Tensor
    ) -> tuple[StyleCodes, Tensor]:
        """Encode the style of motion.

        Args:
            motion: Features of frames, shape ``(B, T, features)``.
            mask: True at valid frames, shape ``(B, T)``; a motion without any has no style.
            nodes: The nodes' displacements, of about 1, at the motion's own rate ``(B, T', N, 3)``.
            node_mask: True at their valid frames, shape ``(B, T')``.

        Returns:
            The style codes, and the style of each frame, shape ``(B, T, D)``.
        """
        x = self.enter(motion)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = x + F.relu(norm(conv(x, mask)))
        x = self.widen(x)
        for layer in self.layers:
            x = layer(x, mask)
        tokens = self.token(x) * mask.unsqueeze(-1)
        mean = tokens.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        present = mask.any(1)
        top = x.masked_fill(~mask.unsqueeze(-1), -torch.inf).amax(1)
        top = torch.where(present.unsqueeze(1), top, 0.0)
        seen = self.decorrelation(node_statistics(nodes, node_mask)).clamp(
            -self._LIMIT, self._LIMIT
        )
        frames = torch.cat((seen, *_moments(x.float(), mask), top), dim=-1)
        read = self.linear(torch.cat((seen, self._lead_lag(nodes, node_mask)), dim=-1))
        return StyleCodes(self.norm(mean) + read + self.reader(frames), present), tokens

    def components_of(self, nodes: Tensor) -> Tensor:
        """Principal components of a motion, of about 1: ``(B, T', N, 3)`` to ``(B, T', C)``."""
        components: Tensor = self.components(nodes.flatten(2).float())
        return components

    def _lead_lag(self, nodes: Tensor, mask: Tensor) -> Tensor:
        return lead_lag(self.components_of(nodes), mask, self.lags)

    @torch.no_grad()
    def fit(self, examples: Iterable[tuple[Tensor, Tensor, Tensor]]) -> float:
        """Solve what has a closed form: the decorrelation, and a linear reader of the statistics.

        The decorrelation (principal components at variance 1, of the statistics and of the motion)
        stays as it is from then on: gradient steps are slow on statistics that hang together as
        these do. The first dimensions of the code then are least-squares estimates of what is
        known; everything else is left to training.

        Args:
            examples: Batches of ``nodes``, ``node_mask`` as in ``forward``, and what is known of
                their styles, shape ``(B, d)``, ``d`` at most the code's length. The components
                of the motion are those of the first batch.

        Returns:
            The mean squared error of the estimates on these motions.
        """
        seen: list[Tensor] = []
        timed: list[Tensor] = []
        known: list[Tensor] = []
        for nodes, mask, vectors in examples:
            if not seen:
                self._fit_components(nodes.flatten(2)[mask])
            seen.append(node_statistics(nodes, mask))
            timed.append(self._lead_lag(nodes, mask))
            known.append(vectors)
        x = self._fit_decorrelation(torch.cat(seen))
        x = torch.cat((x, torch.cat(timed).double()), dim=1)
        y = torch.cat(known).double()
        mean, spread = x.mean(0), x.std(0) + 1e-3
        scaled = (x - mean) / spread
        gram = scaled.T @ scaled + _RIDGE * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        reader = torch.linalg.solve(gram, scaled.T @ (y - y.mean(0)))
        error = float((scaled @ reader + y.mean(0) - y).square().mean())
        reader /= spread.unsqueeze(1)
        self.linear.weight[: y.shape[1]] = reader.T.float()
        self.linear.bias[: y.shape[1]] = (y.mean(0) - mean @ reader).float()
        for weight in (*self.norm.parameters(), *self.reader[-1].parameters()):
            weight.mul_(0.1)
        return error

    def _fit_components(self, frames: Tensor) -> None:
        """Principal components of frames ``(n, 3 N)`` at variance 1; the mean goes out later."""
        values, vectors = torch.linalg.eigh(frames.double().T.cov())
        count = min(self.COMPONENTS, len(values))
        components = vectors[:, -count:] / (values[-count:] + 1e-6).sqrt()
        self.components.weight.zero_()
        self.components.weight[:count] = components.T.float()
        self.components.requires_grad_(False)

    def _fit_decorrelation(self, statistics: Tensor) -> Tensor:
        """Decorrelates statistics ``(n, 15 N)``; returns them as they are then read, float64."""
        x = statistics.double()
        mean, spread = x.mean(0), x.std(0) + 0.03
        values, vectors = torch.linalg.eigh(((x - mean) / spread).T.cov())
        count = min(self._DECORRELATED, len(values))
        components = vectors[:, -count:] / (values[-count:] + 0.01).sqrt() / spread.unsqueeze(1)
        self.decorrelation.weight.zero_()
        self.decorrelation.bias.zero_()
        self.decorrelation.weight[:count] = components.T.float()
        self.decorrelation.bias[:count] = -(mean @ components).float()
        self.decorrelation.requires_grad_(False)
        return self.decorrelation(statistics.float()).clamp(-self._LIMIT, self._LIMIT).double()


def lead_lag(components: Tensor, mask: Tensor, lags: Sequence[int]) -> Tensor:
    """Lead and lag: which parts of a motion move before which others.

    The odd part of the correlations at a lag, ``r_ij(lag) - r_ji(lag)``: positive where ``j``
    follows ``i``. Lips close when the sound says so, whatever the style; everything else may come
    early or late, which no mean and no spread over time shows.

    Args:
        components: Parts of a motion over time, shape ``(B, T, C)``.
        mask: True at valid frames, shape ``(B, T)``.
        lags: Lags in frames, each above 0.

    Returns:
        One number for each lag and pair ``i < j``, shape ``(B, len(lags) C (C - 1) / 2)``; zeros
        for a lag that is longer than the motion.
    """
    mean, spread = _moments(components, mask)
    x = (components - mean.unsqueeze(1)) / (spread.unsqueeze(1) + 0.1) * mask.unsqueeze(-1)
    count = mask.sum(1).clamp(min=1).to(x.dtype)
    first, second = torch.triu_indices(x.shape[2], x.shape[2], 1, device=x.device)
    parts = []
    for lag in lags:
        moved = torch.einsum("bti,btj->bij", x[:, :-lag], x[:, lag:]) / count[:, None, None]
        parts.append((moved - moved.transpose(1, 2))[:, first, second])
    return torch.cat(parts, dim=-1)


def node_statistics(nodes: Tensor, mask: Tensor) -> Tensor:
    """Statistics of the nodes over time: ``(B, T, N, 3)`` and ``(B, T)`` to ``(B, 15 N)``.

    Means, spreads, ten times the root mean square of the steps, highest and lowest of every
    coordinate; zeros where nothing is valid.
    """
    nodes = nodes.flatten(2).float()
    steps = (nodes.diff(dim=1) * mask[:, 1:, None]).square().sum(1)
    speeds = (steps / mask.sum(1, keepdim=True).clamp(min=1) + 1e-6).sqrt()
    padding, present = ~mask.unsqueeze(-1), mask.any(1, keepdim=True)
    highest = nodes.masked_fill(padding, -torch.inf).amax(1)
    lowest = nodes.masked_fill(padding, torch.inf).amin(1)
    parts = (*_moments(nodes, mask), 10.0 * speeds, highest, lowest)
    return torch.where(present, torch.cat(parts, dim=-1), 0.0)


def _moments(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Means and spreads over time: ``(B, T, C)`` to ``(B, C)`` each."""
    weight = mask.unsqueeze(-1).to(x.dtype)
    count = weight.sum(1).clamp(min=1.0)
    mean = (x * weight).sum(1) / count
    variance = ((x - mean.unsqueeze(1)).square() * weight).sum(1) / count
    return mean, (variance + 1e-6).sqrt()


class StyleFusion(nn.Module):
    """S: a weighted mean of the sources there are, as a step away from a learned neutral code.

    Departures: the released code adds up whatever there is, so a missing source changes the size of
    the sum. Here "no style" is a code of its own, and ``strength`` scales the step away from it.
    """

    def __init__(self, sources: tuple[StyleSource, ...], style_dim: int, *, dropout: float) -> None:
        super().__init__()
        self.sources = sources
        self.dropout = dropout
        self.neutral = nn.Parameter(torch.zeros(style_dim))
        self.preference = nn.Parameter(torch.zeros(max(1, len(sources))))
        self.step = nn.Linear(style_dim, style_dim, bias=False)

    def forward(
        self,
        styles: dict[StyleSource, StyleCodes],
        *,
        batch_size: int,
        strength: Tensor | None = None,
    ) -> Tensor:
        """Fuse.

        Args:
            styles: By source; any may be missing.
            batch_size: ``B``.
            strength: 0 is neutral, 1 the style (the default), more exaggerates; shape ``(B,)``.

        Returns:
            Codes for the decoder, shape ``(B, D)``.
        """
        neutral = self.neutral.expand(batch_size, -1)
        used = [source for source in self.sources if source in styles]
        if not used:
            return neutral
        present = torch.stack([styles[source].present for source in used], dim=1)  # (B, n)
        if self.training:
            present = self._drop(present)
        wanted = self.preference[[self.sources.index(source) for source in used]]
        shares = torch.where(present, wanted.exp(), 0.0)
        shares = shares / shares.sum(1, keepdim=True).clamp(min=1e-6)
        codes = torch.stack([styles[source].code for source in used], dim=1)  # (B, n, D)
        step = self.step(torch.einsum("bn,bnd->bd", shares, codes))
        return neutral + (step if strength is None else strength.unsqueeze(1) * step)

    def _drop(self, present: Tensor) -> Tensor:
        """Drop sources at random, but never the last one: that would teach it to be neutral."""
        luck = torch.rand(present.shape, device=present.device) * present
        best = luck >= luck.amax(1, keepdim=True)
        return present & (best | (torch.rand_like(luck) >= self.dropout))
