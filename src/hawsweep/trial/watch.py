"""Follows one trial's training: writes its metrics, reports to Optuna, prunes.

While a shared database does not answer, the training goes on: what is to be written waits.
"""

import json
import math
import random
import time
from collections.abc import Callable
from contextlib import nullcontext
from copy import copy
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from hawsweep.errors import StorageOutageError
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
from hawsweep.study.optuna_door import storage_of, trial_id
from hawsweep.study.patience import StorageAwayError, at_once
from hawsweep.training.checkpoints import (
    TrainState,
)
from hawsweep.training.evaluation import Evaluation
from hawsweep.training.train import StepReport, TrainCallback
from hawsweep.trial.context import TrialContext
from hawsweep.trial.measure_base import loss_attributes, write_losses

Tell = Callable[..., None]

# Seconds until a database that did not answer is asked again between evaluations.
_TRY_AGAIN_S = (5.0, 15.0)


class TrialWatch(TrainCallback):
    """Follows one trial's training: writes metrics, reports to Optuna, prunes, sends events.

    Attributes:
        pauses: Whether the trial is to wait at the rung that it reached.
        is_extended: Whether it was given more iterations.
        outage: Raised where the database did not answer for too long.
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
        self.outage: StorageOutageError | None = None
        self._unwritten: list[Callable[[], object]] = []
        self._next_try = 0.0
        self._footprint_bytes: int = trial.user_attrs.get(FOOTPRINT_BYTES, 0)  # until it paused

    def _frozen(self) -> FrozenTrial:
        return storage_of(self._trial.study).get_trial(trial_id(self._trial))

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
        self._send()
        return known

    def __exit__(self, *_: object) -> None:
        self._metrics.close()
        self._send()
        if self._footprint_bytes:
            self._trial.set_user_attr(FOOTPRINT_BYTES, self._footprint_bytes)

    @property
    def stops(self) -> bool:
        """Whether the training is to end at this iteration, and its state to be kept."""
        return self.pauses or self.is_extended or self.outage is not None

    def on_iteration(self, iteration: int) -> None:
        """Send the iteration, and what waits to be written."""
        self._tell("iteration", iteration=iteration, iters=self._train.iters)
        if self._unwritten and time.monotonic() >= self._next_try:
            self._try_to(self._send)

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
        self._try_to(partial(self._decide, evaluation), waits=evaluation.iteration in self._rungs)

    def _try_to(self, do: Callable[[], None], *, waits: bool = False) -> None:
        """Use the database; if it does not answer now, that is left for a later try."""
        try:
            with nullcontext() if waits else at_once():
                do()
        except StorageAwayError:
            self._next_try = time.monotonic() + random.uniform(*_TRY_AGAIN_S)
        except StorageOutageError as fault:
            self.outage = fault

    def _send(self) -> None:
        """Write what waits, in order."""
        while self._unwritten:
            self._unwritten[0]()
            del self._unwritten[0]

    def _decide(self, evaluation: Evaluation) -> None:
        """Write what waits; then end the trial, or let it pause, by what others reached."""
        self._send()
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
            loss = self._context.comparable_loss(val_loss)
            self._unwritten.append(partial(self._trial.report, -loss, iteration))

    def _record_best(self, evaluation: Evaluation) -> None:
        write_losses(self._folder, evaluation)
        found = loss_attributes(self._context, evaluation)
        for key, value in {**found, BEST_ITERATION: evaluation.iteration}.items():
            self._unwritten.append(partial(self._trial.set_user_attr, key, value))

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
