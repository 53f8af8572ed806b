# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures the decoder against the released way, and an hour of speech. For the backend's Python.

Sizes are the released ones for FLAME with random weights: decoding does not depend on what was
learned. Decoders are timed from the sound's content to vertices, as the released way is: what
hearing takes by itself is left out of the autoregressive one's time.
"""

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from backend.model import generate
from backend.model.config import ModelConfig
from backend.model.graph_encoder import coarse_mesh_graph
from backend.model.presets import PRESETS
from backend.model.ptalker import PTalker
from tools.released_decoding import ReleasedDecoding

SECONDS, FPS, VERTICES, WIDTH, LAYERS, HEADS = 10, 30, 5023, 128, 6, 4
FEATURES_PER_SECOND = 50
HOUR = 3600


def report(name: str, value: float, unit: str, goal: str = "") -> None:
    """One line of the table."""
    print(f"| {name:58} {value:10,.3f} {unit:4} {goal}", flush=True)


def best_seconds(run: Callable[[], object], times: int) -> float:
    """Shortest of several runs, after one to warm up."""
    run()
    found = []
    for _ in range(times):
        started = time.perf_counter()
        run()
        found.append(time.perf_counter() - started)
    return min(found)


def released_size_model() -> PTalker:
    """A model of learned shapes with the released code's sizes."""
    config = ModelConfig(
        preset="benchmark",
        shape_kind="learned",
        topology="flame",
        shape_names=(),
        motion_fps=FPS,
        num_vertices=VERTICES,
        num_nodes=400,
        feature_dim=WIDTH,
        decoder_layers=LAYERS,
        decoder_heads=HEADS,
        decoder_ff=2 * WIDTH,
    )
    model = PTalker(config).eval()
    vertices = torch.rand(VERTICES, 3)
    model.set_graph(
        coarse_mesh_graph(
            vertices,
            torch.ones(VERTICES),
            num_nodes=config.num_nodes,
            num_neighbours=config.num_neighbours,
        )
    )
    return model


@torch.no_grad()
def decoders() -> None:
    """Both ways to decode against the released way, same sizes, same length."""
    num_frames = SECONDS * FPS
    model = released_size_model()
    style = model.neutral_style()
    content = torch.randn(1, num_frames, WIDTH)
    mask = torch.ones(1, num_frames, dtype=torch.bool)
    speech = torch.randn(1, SECONDS * FEATURES_PER_SECOND, model.config.speech.input_dim)
    sound = generate.PreparedSpeech(speech, torch.tensor([speech.shape[1]]), None)
    shapes = model.shapes().flatten(1)

    def parallel() -> Tensor:
        queries = model.decoder.queries(style, num_frames)
        hidden = model.decoder(queries, content, mask, style, causal=False)
        vertices: Tensor = model.weights(hidden) @ shapes
        return vertices

    def cached() -> Tensor:
        weights = generate.generate(
            model, speech, style, num_frames=num_frames, mode="autoregressive"
        )
        vertices: Tensor = weights @ shapes
        return vertices

    released = ReleasedDecoding(
        width=WIDTH,
        num_layers=LAYERS,
        style_layers=LAYERS,
        num_heads=HEADS,
        num_vertices=VERTICES,
        period=FPS,
    ).eval()
    parallel_seconds = best_seconds(parallel, 10)
    hearing_seconds = best_seconds(lambda: generate.content_between(model, sound, 0, num_frames), 5)
    cached_seconds = best_seconds(cached, 5) - hearing_seconds
    started = time.perf_counter()
    released(content)
    released_seconds = time.perf_counter() - started
    report(f"released way of decoding, {SECONDS} s of speech", released_seconds, "s")
    report("  parallel decoder against it", released_seconds / parallel_seconds, "x", "> 200")
    report("  autoregressive, cached, against it", released_seconds / cached_seconds, "x", "> 30")


@torch.no_grad()
def an_hour() -> None:
    """The bundled model's sizes on one minute and on one hour."""
    model = PTalker(PRESETS["base"]).eval()
    style = model.neutral_style()

    def seconds_for(length: int, times: int) -> float:
        frames = length * FEATURES_PER_SECOND
        speech = torch.randn(1, frames, model.config.speech.input_dim)
        return best_seconds(
            lambda: generate.generate(model, speech, style, num_frames=frames), times
        )

    ten_minutes = seconds_for(600, 1)
    hour = seconds_for(HOUR, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    report("an hour of speech against ten minutes", hour / ten_minutes, "x", "about 6")
    report("  memory at its peak", peak, "GB", "< 2")


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)  # on a busy machine more threads measure how they wait
    decoders()
    an_hour()
