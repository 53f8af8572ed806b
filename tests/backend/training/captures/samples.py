# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder of made-up captures of two subjects."""

import numpy as np
import soundfile

V, FPS, FRAMES = 40, 30, 36
SENTENCES = 6


def write_captures(raw, subjects=("anna", "ben"), sentences=SENTENCES):
    """Two mouths that open by a centimetre with the loudness, each in its own way."""
    rng = np.random.default_rng(0)
    template = rng.uniform(-0.1, 0.1, (V, 3)).astype(np.float32)
    ways = rng.normal(0, 1, (len(subjects), 2, V, 3))
    ways *= 0.01 / np.linalg.norm(ways, axis=-1, keepdims=True)
    for subject, way in zip(subjects, ways, strict=True):
        (raw / subject).mkdir(parents=True)
        for number in range(sentences):
            frames = FRAMES + 4 * number
            beats = 2 + number % 3 + 0.5 * (number % 2)
            times = np.arange(frames) / FPS
            opening = np.stack([np.sin(np.pi * beats * times) ** 2, np.cos(9 * times) ** 2])
            vertices = template + np.einsum("kt,kvi->tvi", opening, way)
            samples = np.arange(round(frames / FPS * 16000)) / 16000
            loud = np.interp(samples, times, opening[0])
            hiss = np.interp(samples, times, opening[1])
            sound = 0.3 * loud * np.sin(2 * np.pi * 200 * samples)
            sound += 0.1 * hiss * rng.normal(size=len(samples))
            base = raw / subject / f"{number:02d}"
            np.savez(f"{base}.npz", vertices=vertices.astype(np.float32), template=template, fps=30)
            soundfile.write(f"{base}.wav", sound, 16000)
    return raw
