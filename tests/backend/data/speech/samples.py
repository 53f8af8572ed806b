# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder of recordings with phone times, made up."""

import json

import numpy as np
import soundfile

SECONDS = 1.5


def write_recordings(folder, num_speakers=10, seed=0):
    """Noise bursts with made-up phones, in the format of the recordings."""
    (folder / "audio").mkdir(parents=True)
    entries = {}
    rng = np.random.default_rng(seed)
    for speaker in range(num_speakers):
        sound = rng.normal(0, 0.1, int(SECONDS * 16000)).astype(np.float32)
        sound[: 16000 // 2] *= 0.001
        soundfile.write(folder / "audio" / f"u{speaker}.wav", sound, 16000)
        entries[f"u{speaker}"] = {
            "file": f"audio/u{speaker}.wav",
            "text": "map",
            "speaker": f"s{speaker}",
            "align_score": -20.0,
            "phones": [["SIL", 0.0, 0.5], ["M", 0.5, 0.7], ["AE", 0.7, 1.2], ["P", 1.2, 1.5]],
        }
    (folder / "alignment.json").write_text(json.dumps(entries))
    return folder
