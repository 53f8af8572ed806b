# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the gallery: real recordings on heads, performed in several ways, to be looked at.

For each recording and head a film with sound in which the performances stand side by side: neutral,
named styles, emotions, and the style of an exemplar, with eyes, brows and head. For each a strip of
moments: closures, teeth on lips, wide and rounded vowels, from the front and as a close-up, with
the phone beneath. Runs in the backend's Python; draws without Blender.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


from backend.articulation.speaking_style import SpeakingStyle
from backend.audio.rates import FEATURE_RATE_HZ, SAMPLE_RATE_HZ
from backend.bundled import checkpoint_folder
from backend.errors import UserError
from backend.evaluation.clips import SpokenClip, read_clips
from backend.evaluation.speech import predicted
from backend.heads.lip_measures import measure_head
from backend.heads.mesh_files import read_face_points, read_head
from backend.heads.render import part_colours, render, sheet
from backend.heads.topology import Head, face_frame, identify
from backend.inference.emotion_layer import Emotion, parse_emotion
from backend.inference.predictor import Predictor, open_predictor
from backend.inference.style_files import Exemplar, StyleCode
from backend.life.layers import LifeAmounts
from backend.motion import Motion
from backend.speech.phones import BILABIALS, LABIODENTALS, SILENCE, Phone

ROOT = Path(__file__).resolve().parents[1]
DEMO_HEAD = ROOT / "backend" / "demo" / "head.npz"
PERFORMANCES: Final = ("neutral", "broad", "pout", "joy", "anger", "exemplar")
EXEMPLAR_STYLE: Final = SpeakingStyle(
    articulation=0.6, jaw=0.8, asymmetry=0.9, mouth_side=0.6, rounding=0.7, brow_raise=0.6
)
"""Speaking style of the made-up exemplar: the recording after the one that is shown, by the rules,
not by the model."""
FILM_FPS: Final = 25
_FILM_PIXELS: Final = 320
_STRIP_PIXELS: Final = 230
_STRIP_COLUMNS: Final = 6
_LABEL_PIXELS: Final = 22
_NECK_MM: Final = np.array([0.0, -75.0, -85.0])
"""About where a head turns, in the face's axes."""
_MOMENTS: Final[tuple[tuple[frozenset[str], int], ...]] = (
    (BILABIALS, 4),
    (LABIODENTALS, 1),
    (frozenset({"AA", "AE", "AO", "AW", "AY", "EH"}), 2),
    (frozenset({"IY", "EY"}), 1),
    (frozenset({"UW", "OW", "W"}), 1),
    (frozenset({"SH", "CH", "JH", "ZH"}), 1),
    (frozenset({SILENCE}), 1),
)
"""Phones worth looking at, and how many of each kind."""

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Portrait:
    """A head in the face's axes, in mm, ready to be drawn.

    Attributes:
        name: Name of the mesh file.
        head: The head as it was read.
        colours: RGB per vertex, 0..1, ``(V, 3)``.
        aims: What the picture's middle shows and its height in mm, for the whole face and for the
            mouth.
    """

    name: str
    head: Head
    colours: NDArray[np.float64]
    aims: tuple[tuple[tuple[float, float, float], float], ...]

    def draw(self, points: NDArray[np.floating], *, size: int, is_close_up: bool) -> Picture:
        """One picture of the head with its vertices at ``points``, ``(V, 3)`` in mm."""
        centre, extent = self.aims[is_close_up]
        return render(
            points, self.head.triangles, self.colours, size=size, centre=centre, extent=extent,
            view="three_quarter" if is_close_up else "front",
            oversampling=2 if size < _FILM_PIXELS else 1,
        )  # fmt: skip


def read_portrait(path: Path) -> Portrait:
    """Reads a head to draw from a mesh file.

    Args:
        path: The mesh file.

    Returns:
        The head, with its vertex colours and what the pictures are aimed at.

    Raises:
        UserError: The file cannot be read, or its mesh has no known topology.
    """
    head = identify(*read_head(path), face_points=read_face_points(path))
    frame = face_frame(head)
    mouth = frame.to_face_mm(head.point("lip_lower_inner_center"))
    face = (0.0, float(mouth[1]) * 0.45, float(mouth[2]))
    close_up = (0.0, float(mouth[1]) - 6.0, float(mouth[2]))
    aims = ((face, 270.0), (close_up, 85.0))
    name = "demo" if path == DEMO_HEAD else path.stem
    return Portrait(name, head, part_colours(head), aims)


def moments(phones: Sequence[Phone]) -> list[tuple[str, float]]:
    """The longest phones of each kind that is worth looking at: symbol and middle, in order."""
    chosen: list[Phone] = []
    for symbols, count in _MOMENTS:
        kind = [phone for phone in phones if phone.symbol in symbols]
        kind.sort(key=lambda phone: phone.start_seconds - phone.end_seconds)
        chosen += kind[:count]
    chosen.sort(key=lambda phone: phone.start_seconds)
    return [(phone.symbol, (phone.start_seconds + phone.end_seconds) / 2) for phone in chosen]


def posed(motion: Motion, portrait: Portrait, frame: int) -> NDArray[np.float64]:
    """Vertices of a frame in the face's axes, in mm."""
    offsets = np.tensordot(motion.weights[frame], motion.shapes, axes=1)
    points = face_frame(portrait.head).to_face_mm(portrait.head.vertices + offsets)
    if motion.layers is None:
        return np.asarray(points)
    turned = Rotation.from_euler("xyz", motion.layers.head_rotation[frame], degrees=True)
    return np.asarray(turned.apply(points - _NECK_MM) + _NECK_MM)


def strip(motion: Motion, portrait: Portrait, clip: SpokenClip) -> Picture:
    """Moments of a clip in rows, each a face over its close-up over its phone."""
    cells = []
    for symbol, seconds in moments(clip.phones):
        frame = min(round(seconds * FEATURE_RATE_HZ), len(motion.weights) - 1)
        points = posed(motion, portrait, frame)
        views = [
            portrait.draw(points, size=_STRIP_PIXELS, is_close_up=near) for near in (False, True)
        ]
        cells.append(np.concatenate([*views, label(f"{symbol}  {seconds:.2f} s", _STRIP_PIXELS)]))
    return sheet(cells, _STRIP_COLUMNS)


def label(text: str, width: int) -> Picture:
    """A line of text on white."""
    image = Image.new("RGB", (width, _LABEL_PIXELS), (255, 255, 255))
    font = ImageFont.load_default(size=15)
    ImageDraw.Draw(image).text((width / 2, 2), text, fill=(0, 0, 0), font=font, anchor="ma")
    return np.asarray(image)


def performed(
    predictor: Predictor, clip: SpokenClip, head: Head, name: str, listen: str, shown: SpokenClip
) -> Motion:
    """A recording in a way to perform.

    Args:
        predictor: The model.
        clip: The recording.
        head: Head that speaks.
        name: ``neutral``, a named style, ``exemplar``, or an emotion as ``--emotion`` takes it.
        listen: Recognition mode.
        shown: Recording that the exemplar speaks.

    Returns:
        The motion on the head, at ``FEATURE_RATE_HZ``.

    Raises:
        UserError: There is no such style or emotion.
    """
    style: StyleCode | None = None
    emotion = Emotion()
    if name == "exemplar":
        offsets = np.tensordot(
            shown.articulated(shown.phones, EXEMPLAR_STYLE), measure_head(head).shapes, axes=1
        )
        style = predictor.exemplar_style(
            Exemplar(offsets.astype(np.float32), head, FEATURE_RATE_HZ), warn=lambda _: None
        )
    elif name == "neutral" or name in predictor.style_names:
        style = predictor.named_style(name)
    else:
        emotion = Emotion(parse_emotion(name))
    return predicted(
        predictor, clip, head, listen, style=style, emotion=emotion, life=LifeAmounts()
    )


def film(path: Path, motions: dict[str, Motion], portrait: Portrait, clip: SpokenClip) -> None:
    """All performances side by side with the sound, H.264 and AAC; appears when it is whole."""
    partial = path.with_suffix(".part.mp4")
    names = np.concatenate([label(name, _FILM_PIXELS) for name in motions], axis=1)
    step = FEATURE_RATE_HZ // FILM_FPS
    spoken = {round(phone.start_seconds * FEATURE_RATE_HZ): phone.symbol for phone in clip.phones}
    with av.open(str(partial), "w") as container:
        video = container.add_stream("h264", rate=FILM_FPS, options={"crf": "20"})
        video.width, video.height = _FILM_PIXELS * len(motions), _FILM_PIXELS + 2 * _LABEL_PIXELS
        video.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
        symbol = SILENCE
        for frame in range(0, min(len(motion.weights) for motion in motions.values()), step):
            for past in range(frame, frame + step):
                symbol = spoken.get(past, symbol)
            faces = [
                portrait.draw(posed(motion, portrait, frame), size=_FILM_PIXELS, is_close_up=False)
                for motion in motions.values()
            ]
            below = label(symbol, _FILM_PIXELS * len(motions))
            picture = np.concatenate([names, np.concatenate(faces, axis=1), below])
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        loud = np.clip(clip.samples * 32767.0, -32768, 32767).astype(np.int16)
        samples = av.AudioFrame.from_ndarray(loud[None], format="s16", layout="mono")
        samples.sample_rate = SAMPLE_RATE_HZ
        container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
    partial.replace(path)


def make(arguments: argparse.Namespace) -> None:
    """Writes films and strips of all recordings, heads and performances.

    Args:
        arguments: Options of the command line.

    Raises:
        UserError: A head, a performance, the checkpoint or the recordings cannot be used.
    """
    recordings = read_clips(arguments.speech, arguments.alignment)
    heads = [read_portrait(path) for path in (DEMO_HEAD, *arguments.head)]
    predictor = open_predictor(checkpoint_folder(arguments.checkpoint))
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        for number, clip in enumerate(recordings[: arguments.clips]):
            shown = recordings[(number + 1) % len(recordings)]
            for portrait in heads:
                stem = f"{clip.name}-{portrait.name}"
                motions = {
                    name: performed(
                        predictor, clip, portrait.head, name, arguments.listen, shown
                    )
                    for name in arguments.performances
                }  # fmt: skip
                for name, motion in motions.items():
                    picture = Image.fromarray(strip(motion, portrait, clip))
                    picture.save(arguments.out / f"{stem}-{name}.png")
                if not arguments.strips:
                    film(arguments.out / f"{stem}.mp4", motions, portrait, clip)
                print(f"| {stem}", flush=True)
    finally:
        predictor.close()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speech", type=Path, required=True)
    parser.add_argument("--alignment", default="alignment.json")
    parser.add_argument("--head", type=Path, action="append", default=[])
    parser.add_argument("--checkpoint", default="base")
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--listen", choices=["sound", "words", "text"], default="words")
    parser.add_argument("--performances", nargs="+", default=list(PERFORMANCES))
    parser.add_argument("--strips", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    try:
        make(parser.parse_args())
    except UserError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
