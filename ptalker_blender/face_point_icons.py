# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures of face points for the panel, each drawn when it is first asked for."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Final

import bpy
import bpy.utils.previews

from . import face_point_picture, paths, protocol
from .face_point_picture import PIXELS, Model

_log = logging.getLogger(__name__)
_SECONDS: Final = 0.01


class _Pictures:
    """The pictures that were drawn, and the head that they are drawn from."""

    previews: Any = None
    model: Model | None = None
    waiting: str = ""
    is_broken: bool = False


def icon(name: str) -> int:
    """The icon of a face point's picture.

    Args:
        name: Name of the point.

    Returns:
        Its number; 0 while it is drawn, which a timer does, since a panel must not.
    """
    if _Pictures.previews is not None and name in _Pictures.previews:
        return int(_Pictures.previews[name].icon_id)
    if not (bpy.app.background or _Pictures.is_broken or _Pictures.waiting == name):
        _Pictures.waiting = name
        bpy.app.timers.register(partial(_make, name), first_interval=_SECONDS)
    return 0


def _make(name: str) -> None:
    if _Pictures.waiting != name:  # another one is looked at by now
        return
    _Pictures.waiting = ""
    try:
        make(name)
    except (protocol.UserError, OSError, ValueError, KeyError):
        _Pictures.is_broken = True  # the panel does without
        _log.exception("The picture of %s cannot be drawn", name)
        return
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == 'VIEW_3D':
                area.tag_redraw()


def make(name: str) -> int:
    """Draw a picture now.

    Args:
        name: Name of the point.

    Returns:
        The number of its icon.

    Raises:
        UserError: The backend's files are missing.
        OSError: The demo head cannot be read.
        ValueError: It is damaged.
        KeyError: It lacks something.
    """
    if _Pictures.model is None:
        path = paths.backend_root() / "backend" / "demo" / "head.npz"
        _Pictures.model = face_point_picture.load(path)
    if _Pictures.previews is None:
        _Pictures.previews = bpy.utils.previews.new()
    pixels = face_point_picture.draw(_Pictures.model, name)
    preview = _Pictures.previews.new(name)
    preview.image_size = (PIXELS, PIXELS)
    preview.image_pixels_float.foreach_set(pixels.ravel())
    return int(preview.icon_id)


def release() -> None:
    """Free the pictures."""
    if _Pictures.previews is not None:
        bpy.utils.previews.remove(_Pictures.previews)
    _Pictures.previews = _Pictures.model = None
    _Pictures.waiting, _Pictures.is_broken = "", False
