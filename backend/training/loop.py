# SPDX-License-Identifier: GPL-3.0-or-later
"""The training loop of every stage: optimisers, averaging, validation, logs, exact resume.

Batches and random numbers depend on the seed and the step alone, so a run that is stopped and
started again ends with the same parameters as one that was not. Nothing in a run folder is deleted.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, send_to_device
from torch import Tensor, nn

from backend.model.optimizer_groups import muon_parameters
from backend.training.muon import Muon

_log = logging.getLogger(__name__)
_WARM_UP_STEPS = 100
_LAST_RATE = 0.02
_LOG_EVERY = 20
_LARGEST_NORM = 1.0
_FINE_TUNING_SHARE = 0.02
BATCHES_PER_STEP = 2
"""Batches in a step of the speech stages, and so the most processes that can share a step."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of training.

    Attributes:
        name: Name of the stage and of its files in the run folder.
        module: Module to train.
        terms: Weighted loss terms of the module on the batch of a number.
        validate: Metrics of the module on held-out data; the highest ``score`` decides.
        num_steps: Length of the stage.
        learning_rate: Peak of the learning rate.
        num_validations: Number of validations, evenly spaced.
        batches_per_step: Batches of which a step takes the mean gradient, shared out among the
            processes, so that their number changes nothing; 0 is one for each process.
        patience: Validations without a better score after which the stage ends early; 0 is never.
        fine_tuned: Prefix of the names of pretrained parameters, which AdamW moves at 2 % of the
            learning rate; empty for none.
    """

    name: str
    module: nn.Module
    terms: Callable[[nn.Module, int], Mapping[str, Tensor]]
    validate: Callable[[nn.Module], Mapping[str, float]]
    num_steps: int
    learning_rate: float
    num_validations: int = 8
    batches_per_step: int = 0
    patience: int = 0
    fine_tuned: str = ""

    @property
    def validates_every(self) -> int:
        """Steps between two validations."""
        return max(1, self.num_steps // self.num_validations)


def learning_rate_share(step: int, num_steps: int) -> float:
    """Learning rate over its peak: linear warm-up, then half a cosine down to 2 %."""
    warm_up = min(_WARM_UP_STEPS, max(1, num_steps // 10))
    if step < warm_up:
        return (step + 1) / warm_up
    progress = (step - warm_up) / max(1, num_steps - warm_up)
    return _LAST_RATE + (1.0 - _LAST_RATE) * 0.5 * (1.0 + math.cos(math.pi * progress))


def run_stage(
    stage: Stage, accelerator: Accelerator, *, folder: Path, seed: int, stop_at: int | None = None
) -> dict[str, float]:
    """Trains a stage, or the rest of it, and loads the best parameters into the module.

    Args:
        stage: The stage.
        accelerator: Device, precision and processes.
        folder: Folder of the run; gets ``NAME-state.pt`` to go on from, ``NAME-best.pt``,
            ``NAME-log.jsonl`` and TensorBoard's events.
        seed: Seed of the run.
        stop_at: Number of steps after which to stop as if interrupted.

    Returns:
        Metrics of the best parameters, with ``step`` and the ``seconds`` that training took.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(stage, accelerator, folder)
    every = stage.validates_every
    last = min(stage.num_steps, stop_at or stage.num_steps)
    with _Scalars(folder, stage.name, is_kept=accelerator.is_main_process) as scalars:
        while run.step < last and not run.is_converged:
            started = time.monotonic()
            run.train_one(seed, scalars)
            if run.step % every == 0 or run.step == stage.num_steps:
                metrics = run.validate()
                scalars.write(run.step, metrics)
                _log.info(
                    "%s step %d of %d: %s", stage.name, run.step, stage.num_steps, _line(metrics)
                )
            run.seconds += time.monotonic() - started
            if run.step % every == 0 or run.step == last:
                run.save()
    accelerator.wait_for_everyone()
    run.end()
    best = torch.load(run.best_path, map_location="cpu", weights_only=True)
    stage.module.load_state_dict(best)
    return {**run.best, "seconds": run.seconds}


class _Run:
    """The state of a stage under way."""

    def __init__(self, stage: Stage, accelerator: Accelerator, folder: Path) -> None:
        self.stage = stage
        self.accelerator = accelerator
        self.state_path = folder / f"{stage.name}-state.pt"
        self.best_path = folder / f"{stage.name}-best.pt"
        self.step = 0
        self.seconds = 0.0
        self.best: dict[str, float] = {"score": -math.inf}
        optimizers = _optimizers(stage.module, stage.learning_rate, stage.fine_tuned)
        self.batches = stage.batches_per_step or accelerator.num_processes
        if self.batches % accelerator.num_processes:
            raise ValueError(
                f"{self.batches} batches per step cannot be shared by {accelerator.num_processes} "
                "processes"
            )
        self.module, *self.optimizers = accelerator.prepare(stage.module, *optimizers)
        self._inputs = stage.module.register_forward_pre_hook(self._on_device, with_kwargs=True)
        weights = stage.module.state_dict()
        self.average = {name: value.detach().clone() for name, value in weights.items()}
        if self.state_path.exists():
            self._resume()

    def _on_device(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Moves batches, which are made on the CPU, to the device."""
        moved: tuple[tuple[Any, ...], dict[str, Any]]
        moved = send_to_device((args, kwargs), self.accelerator.device)
        return moved

    def end(self) -> None:
        """Removes the loop's hook from the module."""
        self._inputs.remove()

    @property
    def is_converged(self) -> bool:
        """Whether too many validations have passed since the best one."""
        patience = self.stage.patience * self.stage.validates_every
        return 0 < patience <= self.step - self.best.get("step", self.step)

    def train_one(self, seed: int, scalars: "_Scalars") -> None:
        """Takes one step: batches, loss, gradients, parameters, their average."""
        rate = self.stage.learning_rate * learning_rate_share(self.step, self.stage.num_steps)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("share", 1.0)
            optimizer.zero_grad()
        self.module.train()
        terms = self._add_gradients(seed)
        norm = self.accelerator.clip_grad_norm_(self.module.parameters(), _LARGEST_NORM)
        for optimizer in self.optimizers:
            optimizer.step()
        self._update_average()
        self.step += 1
        if self.step % _LOG_EVERY == 0 and self.accelerator.is_main_process:
            scalars.write(
                self.step,
                {"loss": sum(terms.values()), "gradient_norm": float(norm), "learning_rate": rate}
                | terms
                | _norms_by_part(self.stage.module, float(norm)),
            )

    def _add_gradients(self, seed: int) -> dict[str, float]:
        """Adds the gradients of this process's batches; returns the means of their loss terms."""
        processes = self.accelerator.num_processes
        numbers = range(self.accelerator.process_index, self.batches, processes)
        means: dict[str, Tensor] = {}
        for place in numbers:
            number = self.step * self.batches + place
            torch.manual_seed(seed * 1_000_003 + number)
            is_last = place + processes >= self.batches
            with nullcontext() if is_last else self.accelerator.no_sync(self.module):
                with self.accelerator.autocast():
                    terms = self.stage.terms(self.module, number)
                total = torch.stack([term.float() for term in terms.values()]).sum()
                self.accelerator.backward(total / len(numbers))
            for name, term in terms.items():
                means[name] = means.get(name, 0.0) + term.detach() / len(numbers)
        is_logged = (self.step + 1) % _LOG_EVERY == 0  # reading a value makes a GPU wait
        return {name: value.item() for name, value in means.items()} if is_logged else {}

    def validate(self) -> dict[str, float]:
        """Validates the averaged parameters and keeps them if they are the best so far.

        One process validates for all, so that all agree on the best and on the end.
        """
        module = self.stage.module
        trained = {name: value.clone() for name, value in module.state_dict().items()}
        module.load_state_dict(self.average)
        module.eval()
        metrics: dict[str, float] = {}
        if self.accelerator.is_main_process:
            with torch.no_grad():
                found = self.stage.validate(module)
            metrics = {name: float(value) for name, value in found.items()}
        if self.accelerator.num_processes > 1:
            (metrics,) = broadcast_object_list([metrics])
        module.load_state_dict(trained)
        if metrics["score"] > self.best["score"]:
            self.best = {**metrics, "step": float(self.step)}
            self._save(self.average, self.best_path)
        return metrics

    def save(self) -> None:
        """Writes the state of the run, atomically."""
        if not self.best_path.exists():
            self._save(self.average, self.best_path)
        state = {
            "weights": self.stage.module.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
        }
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        self._save(state, self.state_path)

    def _save(self, state: Mapping[str, Any], path: Path) -> None:
        if self.accelerator.is_main_process:
            unfinished = path.with_suffix(".partial")
            torch.save(state, unfinished)
            unfinished.replace(path)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        state = torch.load(self.state_path, map_location="cpu", weights_only=True)
        self.stage.module.load_state_dict(state["weights"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        device = self.accelerator.device
        self.average = {name: value.to(device) for name, value in state["average"].items()}
        self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        _log.info("%s goes on at step %d", self.stage.name, self.step)

    def _update_average(self) -> None:
        share = 1.0 - min(0.998, (self.step + 1.0) / (self.step + 20.0))
        with torch.no_grad():
            for name, value in self.stage.module.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, share)
                else:
                    self.average[name].copy_(value)


class _Scalars:
    """Logs the scalar metrics of a stage as JSON lines and, where installed, to TensorBoard."""

    def __init__(self, folder: Path, name: str, *, is_kept: bool) -> None:
        self._name = name
        self._file: IO[str] | None = None
        self._board: Any = None
        if not is_kept:
            return
        self._file = (folder / f"{name}-log.jsonl").open("a", encoding="utf-8")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._board = SummaryWriter(str(folder / "tensorboard"))

    def __enter__(self) -> "_Scalars":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs the metrics of a step."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in metrics.items():
                self._board.add_scalar(f"{self._name}/{name}", value, step)


def _optimizers(
    module: nn.Module, learning_rate: float, fine_tuned: str
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside, AdamW for all else.

    Muon (Jordan et al. 2024) orthogonalises the momentum of a matrix; with its steps scaled to the
    size of AdamW's, one learning rate serves both. Layers declare for which they are, see
    ``optimizer_groups.py``; what is fine-tuned stays with AdamW.
    """
    matrices = {id(value) for value in muon_parameters(module)}
    inner: list[Tensor] = []
    outer: list[Tensor] = []
    tuned: list[Tensor] = []
    for name, value in module.named_parameters():
        if not value.requires_grad:
            continue
        if fine_tuned and name.startswith(fine_tuned):
            tuned.append(value)
        else:
            (inner if id(value) in matrices else outer).append(value)
    groups: list[dict[str, Any]] = [{"params": outer}]
    if tuned:
        groups.append({"params": tuned, "share": _FINE_TUNING_SHARE})
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.02)
    ]
    if inner:
        optimizers.append(Muon(inner, lr=learning_rate, weight_decay=0.02))
    return optimizers


def _norms_by_part(module: nn.Module, norm: float) -> dict[str, float]:
    """Gradient norm of each part of a model before all were clipped together."""
    squares: dict[str, Tensor] = {}
    for name, value in module.named_parameters():
        if value.grad is not None:
            part = name.removeprefix("model.").split(".")[0]
            squares[part] = squares.get(part, 0.0) + value.grad.float().square().sum()
    factor = max(1.0, norm / _LARGEST_NORM)
    return {f"gradient_norm_{part}": factor * float(s) ** 0.5 for part, s in squares.items()}


def _line(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
