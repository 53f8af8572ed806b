# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs one job at a time: polled by a timer in the window, to its end in the background.

Not a modal operator: while one runs, Blender does not auto-save. :func:`_finish` is the only way
out of a job, however it ends.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
from typing import Any, Final

import bpy

from . import backend_job, backend_status, compat, job_folders, protocol
from .typed import Results, persistent, settings_of

POLL_SECONDS: Final = 0.2
BUSY_POLL_SECONDS: Final = 0.01
"""Pause between two polls of a job that works inside Blender, for redraws and clicks."""
IDLE_SECONDS: Final = 900.0
"""A backend without a job is ended after this time, to free its memory."""
_WAIT_SECONDS: Final = 0.2
_BUG: Final = "Something went wrong inside the add-on. The system console has more."


class _Running:
    """The one running job, and what the panel shows of it."""

    job: backend_job.Job | None = None
    shown: tuple[object, ...] = ()


def is_running() -> bool:
    """Whether a job runs."""
    return _Running.job is not None


def start(job: backend_job.Job) -> None:
    """Start a job and let it run on, polled by a timer.

    Args:
        job: A job that was not started.

    Raises:
        UserError: Another job runs, or the job cannot be started.
    """
    _begin(job)
    bpy.app.timers.register(_tick, first_interval=0.05)


def run(job: backend_job.Job) -> backend_job.Outcome:
    """Run a job from start to end; for scripts, tests and the command line.

    Args:
        job: A job that was not started.

    Returns:
        How it ended.

    Raises:
        UserError: Another job runs, or the job cannot be started.
    """
    _begin(job)
    try:
        while job.outcome is None:
            job.poll(wait=_WAIT_SECONDS)
    except Exception:  # as in :func:`_tick`
        logger = _logger()
        logger.exception("A job of PTalker failed")
    finally:
        outcome = _finish()
    return outcome


def carry_out(operator: bpy.types.Operator, build: Callable[[], backend_job.Job], *,
              wait: bool) -> Results:  # fmt: skip
    """Build a job and carry it out for an operator, which reports how it ended or began.

    Args:
        operator: Where to report.
        build: Makes the job; may raise UserError.
        wait: Whether to wait for its end; otherwise a timer polls it.

    Returns:
        What the operator's method is to return.
    """
    try:
        if not wait:
            start(build())
            return {'FINISHED'}
        outcome = run(build())
    except protocol.UserError as error:
        job_folders.remove_unclaimed()  # where the job could not be built
        operator.report({'ERROR'}, str(error))
        return {'CANCELLED'}
    except Exception:  # a bug: it must not leave files behind
        logger = _logger()
        logger.exception("A job of PTalker failed")
        job_folders.remove_unclaimed()
        operator.report({'ERROR'}, _BUG)
        return {'CANCELLED'}
    for warning in outcome.warnings:
        operator.report({'WARNING'}, warning)
    operator.report({'ERROR'} if outcome.kind == 'FAILED' else {'INFO'}, outcome.text)
    return {'FINISHED' if outcome.kind == 'DONE' else 'CANCELLED'}


def cancel() -> None:
    """Ask the running job to end."""
    if _Running.job is not None:
        _Running.job.cancel()
        _show(_Running.job)


def _begin(job: backend_job.Job) -> None:
    if _Running.job is not None:
        job.close()
        raise protocol.UserError("Another job of PTalker is running. Wait for it or cancel it.")
    try:
        job.start()
    except BaseException:
        job.close()
        raise
    _Running.job = job
    _show(job)


def _tick() -> float | None:
    job = _Running.job
    if job is None:
        return None
    try:
        job.poll()
    except Exception:  # a bug: it must not leave a job behind
        logger = _logger()
        logger.exception("A job of PTalker failed")
        _finish()
        return None
    if job.outcome is not None:
        _finish()
        return None
    _show(job)
    return BUSY_POLL_SECONDS if job.is_busy else POLL_SECONDS


def _logger() -> Any:
    """The logger; what it writes comes to the system console."""
    import logging  # here, since it costs a tenth of Blender's start with the add-on

    return logging.getLogger(__name__)


def _finish() -> backend_job.Outcome:
    """Release the running job, push its undo step, and show how it ended."""
    job, _Running.job = _Running.job, None
    if job is None:
        raise RuntimeError("no job is running")
    outcome = job.outcome or backend_job.Outcome('FAILED', _BUG)
    job.close()
    backend_status.refresh()  # the job may have been a setup, or have found the backend gone
    _show_outcome(outcome)
    undo: Any = bpy.ops.ed
    if outcome.undo_text and undo.undo_push.poll():  # not in the background
        undo.undo_push(message=outcome.undo_text)
    if not bpy.app.background:
        _forget_timer(_end_idle_backend)
        bpy.app.timers.register(_end_idle_backend, first_interval=IDLE_SECONDS, persistent=True)
    return outcome


def _end_idle_backend() -> None:
    if _Running.job is None:
        backend_job.release_backend(grace_seconds=0.2)


def _forget_timer(timer: Callable[[], float | None]) -> None:
    if bpy.app.timers.is_registered(timer):
        bpy.app.timers.unregister(timer)


def _state() -> Any:
    return settings_of(bpy.context.window_manager)


def _show(job: backend_job.Job) -> None:
    state = _state()
    shown = (job.title, job.stage, job.fraction, job.seconds_left)
    if state.is_running and shown == _Running.shown:
        return
    _Running.shown = shown
    state.is_running = True
    state.title, state.stage = job.title, job.stage
    state.is_setup = job.is_setup
    state.fraction = job.fraction or 0.0
    state.seconds_left = -1.0 if job.seconds_left is None else job.seconds_left
    redraw()


def _show_outcome(outcome: backend_job.Outcome) -> None:
    state = _state()
    state.is_running = False
    state.result_kind = outcome.kind
    state.result_text = _shown(outcome.text)
    state.result_action = str(outcome.action or "")
    state.words, state.words_head = _shown(outcome.words), str(outcome.head or "")
    state.warnings.clear()
    for text in outcome.warnings:
        state.warnings.add().text = _shown(text)
    redraw()


def _shown(text: str) -> str:
    """A text that Blender can hold: names of files may have letters that no encoding has."""
    return text.encode("utf-8", "replace").decode("utf-8")


def has_result() -> bool:
    """Whether there is a last result to show: not where it was undone or deleted."""
    state = _state()
    written = state.result_action
    if not written:
        return bool(state.result_kind != 'NONE')
    return any(str(action.session_uid) == written for action in bpy.data.actions)


def redraw() -> None:
    """Have the sidebars and the preferences drawn anew."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            for region in area.regions:
                if (area.type, region.type) in {('VIEW_3D', 'UI'), ('PREFERENCES', 'WINDOW')}:
                    region.tag_redraw()


def _watch_backend() -> float:
    """Read whether the backend is ready, so that drawing need not."""
    if backend_status.refresh():
        redraw()
    return backend_status.REFRESH_SECONDS


@persistent
def _abandon(*_: object) -> None:
    """A file is loaded, Blender quits, the add-on is disabled: end everything now."""
    job, _Running.job = _Running.job, None
    if job is not None:
        job.close()
        if job.outcome is not None:  # it stays in view where the file cannot be loaded
            _show_outcome(job.outcome)
    _forget_timer(_tick)


@persistent
def _reset_state(*_: object) -> None:
    """A file may hold the state of the Blender that saved it in the middle of a job."""
    backend_status.refresh()
    state = _state()
    state.is_running = False
    state.result_kind = 'NONE'
    state.result_text = state.result_action = state.words = ""
    state.warnings.clear()


@persistent
def _stop(*_: object) -> None:
    _abandon()
    backend_job.release_backend()


def register() -> None:
    """Add handlers for everything that ends a job, and watch the backend's environment."""
    bpy.app.handlers.load_pre.append(_abandon)
    bpy.app.handlers.load_post.append(_reset_state)
    if (quitting := compat.quit_handlers()) is not None:
        quitting.append(_stop)
    atexit.register(_stop_at_exit)
    if not bpy.app.background:
        bpy.app.timers.register(_watch_backend, first_interval=0.1, persistent=True)


def unregister() -> None:
    """End the running job and the backend."""
    _stop()
    _forget_timer(_end_idle_backend)
    _forget_timer(_watch_backend)
    atexit.unregister(_stop_at_exit)
    if (quitting := compat.quit_handlers()) is not None:
        quitting.remove(_stop)
    bpy.app.handlers.load_post.remove(_reset_state)
    bpy.app.handlers.load_pre.remove(_abandon)


def _stop_at_exit() -> None:
    job, _Running.job = _Running.job, None
    if job is not None:
        job.close()
    job_folders.remove_unclaimed()
    backend_job.release_backend()
