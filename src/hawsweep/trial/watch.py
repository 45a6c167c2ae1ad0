"""Follows one trial's training: writes its metrics, reports to Optuna, prunes."""

import json
import math
from collections.abc import Callable
from copy import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from hawsweep.files import replace_text
from hawsweep.layout import METRICS_FILE
from hawsweep.search.promotion import next_promoted
from hawsweep.search.rungs import rungs
from hawsweep.spec.space import apply_settings
from hawsweep.spec.train import TrainSpec
from hawsweep.study.attributes import (
    BEST_ITERATION,
    CONFIRMS,
    FOOTPRINT_BYTES,
    ITERS,
    PEAK_MEMORY_BYTES,
    REASON,
    STOPPED,
    TARGETS_PER_BYTE,
    TOKENS_PER_S,
)
from hawsweep.training.checkpoints import (
    TrainState,
)
from hawsweep.training.evaluation import Evaluation
from hawsweep.training.train import StepReport
from hawsweep.trial.context import TrialContext
from hawsweep.trial.measure_base import loss_attributes, write_losses

Tell = Callable[..., None]


class TrialWatch:
    """Follows one trial's training: writes metrics, reports to Optuna, prunes, sends events.

    Attributes:
        pauses: Whether the trial is to wait at the rung that it reached.
        is_extended: Whether it was given more iterations.
    """

    def __init__(
        self,
        context: TrialContext,
        trial: optuna.Trial,
        folder: Path,
        tell: Tell,
        train: TrainSpec,
        state: TrainState | None,
    ) -> None:
        self._context, self._trial, self._folder = context, trial, folder
        self._tell, self._train, self._state = tell, train, state
        self._last_report: StepReport | None = None
        self._reported = set(self._frozen().intermediate_values)
        promotes = context.spec.pruning.name == "promote" and CONFIRMS not in trial.user_attrs
        asked = apply_settings(context.spec.train, trial.params)  # rungs are those of all
        self._rungs = set(rungs(asked).values()) if promotes else set()
        self.pauses = self.is_extended = False
        self._footprint_bytes: int = trial.user_attrs.get(FOOTPRINT_BYTES, 0)  # until it paused

    def _frozen(self) -> FrozenTrial:
        trials: list[FrozenTrial] = self._trial.study.get_trials(deepcopy=False)
        return trials[self._trial.number]

    def __enter__(self) -> "TrialWatch":
        path = self._folder / METRICS_FILE
        known = [] if self._state is None else self._repeat(path)
        replace_text(path, "".join(f"{line}\n" for line in known))
        self._metrics = path.open("a", encoding="utf-8")
        if self._context.targets_per_byte is not None:
            self._trial.set_user_attr(TARGETS_PER_BYTE, self._context.targets_per_byte)
        return self

    def _repeat(self, path: Path) -> list[str]:
        """Report the evaluations before the state to Optuna; give their lines."""
        assert self._state is not None
        last, known = self._state.progress.iteration, []
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        for line in text.splitlines():
            try:
                values = json.loads(line)
                iteration, is_eval = values["iteration"], values["type"] == "eval"
                loss = values["val_loss"] if is_eval else 0.0
            except (json.JSONDecodeError, KeyError, TypeError):
                continue  # the last line of a process that was killed
            if iteration <= last:
                known.append(line)
                if is_eval:
                    self._report(loss, iteration)
        if self._state.best is not None:
            self._record_best(self._state.best)
        return known

    def __exit__(self, *_: object) -> None:
        self._metrics.close()
        if self._footprint_bytes:
            self._trial.set_user_attr(FOOTPRINT_BYTES, self._footprint_bytes)

    def on_iteration(self, iteration: int) -> None:
        """Send the iteration."""
        self._tell("iteration", iteration=iteration, iters=self._train.iters)

    def on_report(self, report: StepReport) -> None:
        """Write and send a training report."""
        self._last_report = report
        values = asdict(report)
        memory = {f"{key}_bytes": value for key, value in values.pop("memory").items()}
        self._footprint_bytes = max(self._footprint_bytes, report.memory.footprint)
        self._write("train", {**values, **memory})
        told = ("iteration", "train_loss", "tokens_per_s", "peak_memory_bytes")
        self._tell(
            "train",
            budget_bytes=self._context.budget_bytes,
            footprint_bytes=report.memory.footprint,
            **{key: values[key] for key in told},
        )

    def on_evaluation(self, evaluation: Evaluation, is_best: bool) -> None:
        """Write, record and report a validation loss; end a trial that fell behind, or that a
        person stopped.

        Raises:
            optuna.TrialPruned: It is ended.
        """
        self._write(
            "eval",
            {
                "iteration": evaluation.iteration,
                "val_loss": evaluation.val_loss,
                "perplexity": evaluation.perplexity,
                "time_s": evaluation.time_s,
                "is_best": is_best,
            },
        )
        if is_best:
            self._record_best(evaluation)
        self._tell("eval", iteration=evaluation.iteration, val_loss=evaluation.val_loss)
        self._report(evaluation.val_loss, evaluation.iteration)
        known = self._frozen().user_attrs
        if known.get(STOPPED):
            self._prune(f"stopped by you at iteration {evaluation.iteration}")
        self.is_extended = known.get(ITERS, 0) > self._train.iters
        if evaluation.iteration in self._rungs:
            self.pauses = not self._goes_on()
            if self.pauses:
                self._record_speed()
        elif evaluation.iteration < self._train.iters and self._trial.should_prune():
            name = self._context.spec.pruning.name
            self._prune(f"behind the {name} of earlier trials at iteration {evaluation.iteration}")

    def _goes_on(self) -> bool:
        """Whether the trial would be promoted at once."""
        trials = list(self._trial.study.get_trials(deepcopy=False))
        own = copy(trials[self._trial.number])
        own.state = TrialState.WAITING
        trials[own.number] = own
        return next_promoted(self._context.spec, trials) == own.number

    def _report(self, val_loss: float, iteration: int) -> None:
        if iteration not in self._reported:  # before it paused
            self._trial.report(-self._context.comparable_loss(val_loss), iteration)

    def _record_best(self, evaluation: Evaluation) -> None:
        write_losses(self._folder, evaluation)
        for key, value in loss_attributes(self._context, evaluation).items():
            self._trial.set_user_attr(key, value)
        self._trial.set_user_attr(BEST_ITERATION, evaluation.iteration)

    def _record_speed(self) -> None:
        if self._last_report is not None:
            self._trial.set_user_attr(TOKENS_PER_S, round(self._last_report.tokens_per_s, 1))
            self._trial.set_user_attr(PEAK_MEMORY_BYTES, self._last_report.peak_memory_bytes)

    def _prune(self, reason: str) -> None:
        self._record_speed()
        self._trial.set_user_attr(REASON, reason)
        raise optuna.TrialPruned(reason)

    def _write(self, kind: str, values: dict[str, Any]) -> None:
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in values.items()
        }
        self._metrics.write(json.dumps({"type": kind, **finite}) + "\n")
        self._metrics.flush()
