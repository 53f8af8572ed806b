# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders the demo scene with sound: a film and one picture. Runs in Blender's Python.

Usage: ``demo_render.py FOLDER workbench|cycles|portrait``; FOLDER holds demo.blend and takes the
results; ``portrait`` is the picture alone, at its best, as in the README. A missing graphics driver
aborts the process, so this is a process of its own.
"""

import os
import sys
from pathlib import Path

import bpy

FILM_SAMPLES = 6
PICTURE_SAMPLES = 16
PORTRAIT_SAMPLES = 64


def set_engine(scene: bpy.types.Scene, engine: str, samples: int) -> None:
    """Choose Workbench, which is quick, or Cycles, which needs no graphics driver."""
    if engine == "workbench":
        scene.render.engine = 'BLENDER_WORKBENCH'  # type: ignore[assignment]  # stub lists one
        scene.display.render_aa = 'FXAA' if samples == FILM_SAMPLES else '16'
        return
    scene.render.engine = 'CYCLES'  # type: ignore[assignment]  # stub lists one
    scene.cycles.samples = samples
    scene.cycles.use_denoising = True
    scene.cycles.max_bounces = 4
    scene.render.use_persistent_data = True


def render_picture(scene: bpy.types.Scene, path: Path, engine: str, samples: int) -> None:
    """The frame that the scene names."""
    set_engine(scene, engine, samples)
    scene.frame_set(int(scene.get("ptalker_demo_frame", scene.frame_start)))
    scene.render.image_settings.file_format = 'PNG'
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)


def render_film(scene: bpy.types.Scene, path: Path, engine: str) -> None:
    """All frames with the sequencer's sound, H.264 and AAC in MP4."""
    set_engine(scene, engine, FILM_SAMPLES)
    image = scene.render.image_settings
    if hasattr(image, "media_type"):  # 5.0
        image.media_type = 'VIDEO'
    image.file_format = 'FFMPEG'
    scene.render.ffmpeg.format = 'MPEG4'
    scene.render.ffmpeg.codec = 'H264'
    scene.render.ffmpeg.constant_rate_factor = 'HIGH'
    scene.render.ffmpeg.audio_codec = 'AAC'
    scene.render.ffmpeg.audio_bitrate = 160
    scene.render.use_sequencer = True  # or the sound track is silent
    scene.render.filepath = str(path)
    bpy.ops.render.render(animation=True)


def _tell(scene: bpy.types.Scene, *_: object) -> None:
    """A line for every second of the film."""
    if scene.frame_current % scene.render.fps == 0:
        print(f"| frame {scene.frame_current} of {scene.frame_end}", flush=True)


def main() -> int:
    """Render; the results appear under their names only when they are whole."""
    folder, engine = Path(sys.argv[1]), sys.argv[2]
    bpy.ops.wm.open_mainfile(filepath=str(folder / "demo.blend"))
    scene = bpy.data.scenes[0]
    num_frames = scene.frame_end - scene.frame_start + 1
    print(f"| rendering {num_frames} frames with {engine}", flush=True)
    bpy.app.handlers.render_write.append(_tell)
    picture = folder / "demo.part.png"
    if engine == "portrait":
        render_picture(scene, picture, "cycles", PORTRAIT_SAMPLES)
    else:
        render_picture(scene, picture, engine, PICTURE_SAMPLES)
        film = folder / "demo.part.mp4"
        render_film(scene, film, engine)
        film.replace(folder / "demo.mp4")
    picture.replace(folder / "demo.png")
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # bpy's own exit may hang
