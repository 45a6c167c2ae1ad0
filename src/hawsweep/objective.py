"""One trial: its settings, training, pruning, scoring, and what is recorded of it."""

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from hawsweep.adapters import adapted, beyond_mlx_lm, load_adapter, mlx_lm_config
from hawsweep.bench import Bench
from hawsweep.calibration import note_trial
from hawsweep.checkpoints import TrainState, can_be_extended, load_state, remove_state, take_state
from hawsweep.confirm import SEED
from hawsweep.encoding import with_examples
from hawsweep.evaluation import Evaluation
from hawsweep.examples import write_example_losses
from hawsweep.files import HALF_WRITTEN, remove_half_written, replace_text, replacing
from hawsweep.leaks import Leak
from hawsweep.measuring import Observation
from hawsweep.metrics import signatures
from hawsweep.peak import training_peak
from hawsweep.planning import Plan, describe
from hawsweep.records import Record
from hawsweep.scoring import Score, write_samples
from hawsweep.selfcheck import check_scoring
from hawsweep.settings import apply_settings
from hawsweep.study import SAMPLE_FILES
from hawsweep.training import NonFiniteLoss, Report, TrainResult, train_adapter, trainable
from hawsweep.trainspec import TrainSpec
from hawsweep.trialfiles import ADAPTER_DIR, CHECKPOINT_DIR, METRICS_FILE
from hawsweep.trials import MEMORY_CONSTRAINT, SMALLEST_VIOLATION, TARGETS_PER_BYTE
from hawsweep.validation import value_ends

Tell = Callable[..., None]
_LOSSES_FILE = "valid_losses.npy"


def measure_base(bench: Bench, folder: Path, leaks: Sequence[Leak] = ()) -> dict[str, Any]:
    """The untuned model, measured as every trial is: validation loss, translations, score.

    Returns:
        ``base``; ``few_shot``, the same model with examples in its prompt, where there is room for
        one; ``self_check``. Each as a study keeps it.
    """
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    evaluation = bench.evaluator()(0)
    score = bench.score(bench.valid_prompts)
    write_samples(folder / "samples.jsonl", score)
    _write_losses(folder, evaluation)
    measured: dict[str, Any] = {
        "base": {
            **_losses(bench, evaluation),
            "perplexity": evaluation.perplexity,
            "reference_perplexity": bench.reference_perplexity(evaluation),
            **score.summary(),
            "signatures": signatures(),
            "time_s": time.perf_counter() - started,
        }
    }
    if bench.few_shot:
        few_shot = score_few_shot(bench, bench.valid_prompts)
        write_samples(folder / SAMPLE_FILES["few_shot"], few_shot)
        measured["few_shot"] = {"n_examples": len(bench.few_shot), **few_shot.summary()}
    spec = bench.spec.scoring
    check = check_scoring(
        bench.scorer, bench.valid_prompts, score, spec.difference, leaks, bench.spec.seed
    )
    return {**measured, "self_check": asdict(check)}


def _losses(bench: Bench, evaluation: Evaluation) -> dict[str, float]:
    """A validation loss as studies keep it: per token, and where models differ per byte too."""
    loss = evaluation.val_loss
    per_byte = (
        {} if bench.targets_per_byte is None else {"nats_per_byte": bench.comparable_loss(loss)}
    )
    return {"val_loss": loss, **per_byte}


def score_few_shot(bench: Bench, records: Sequence[Record]) -> Score:
    """What the model as it is answers with examples in its prompt, judged."""
    return bench.score([with_examples(record, bench.few_shot) for record in records])


def run_trial(bench: Bench, trial: optuna.Trial, folder: Path, tell: Tell) -> float:
    """Train, prune or score one trial; it goes on where an earlier trial with its settings stopped.

    Args:
        folder: Is filled with the trial's files.
        tell: Is told of progress, as ``tell(kind, **values)``.

    Returns:
        Its score by ``scoring.metric``.

    Raises:
        optuna.TrialPruned: It fell behind, its loss was not finite, or it does not fit into memory;
            the attribute ``reason`` says why.
        Interrupted: It was asked to stop; its state is kept.
    """
    train = apply_settings(bench.spec.train, trial.params)
    train = train.model_copy(update={"seed": trial.user_attrs.get(SEED, train.seed)})
    plan = _plan(bench, trial, train)
    train = train.model_copy(update={"grad_checkpoint": plan.execution.grad_checkpoint})
    folder.mkdir(parents=True, exist_ok=True)
    remove_state(folder)  # of an earlier study of that name
    shutil.rmtree(folder / CHECKPOINT_DIR, ignore_errors=True)
    _write_config(bench, train, folder)
    state = _take_over(bench, trial, train, folder)
    watch = _Watch(bench, trial, folder, tell, train, state)
    with trainable(bench.loaded.model, train), bench.frozen.in_use(), watch:
        try:
            result = train_adapter(
                bench.loaded.model,
                train,
                bench.train.examples,
                bench.order(train),
                bench.evaluator(),
                folder,
                watch,
                frozen=bench.frozen,
                micro_batch=plan.execution.micro_batch,
                tokens_at_once=plan.execution.tokens_at_once,
                state=state,
                should_stop=bench.should_stop,
            )
        except (NonFiniteLoss, optuna.TrialPruned) as fault:
            remove_state(folder)
            if isinstance(fault, NonFiniteLoss):
                trial.set_user_attr("reason", f"{fault}: the settings diverge")
            raise optuna.TrialPruned(str(fault)) from fault
        _record_training(trial, result, train)
        _note_peak(bench, train, plan, result)
        write_example_losses(folder, result.example_losses, bench.train.record_indices)
        tell("scoring", n_prompts=len(bench.valid_prompts))
        load_adapter(bench.loaded.model, folder / ADAPTER_DIR)
        score = bench.score(bench.valid_prompts)
        trial.set_user_attr("reference_perplexity", bench.reference_perplexity(result.best))
    write_samples(folder / "samples.jsonl", score)
    for key, value in score.summary().items():
        trial.set_user_attr("score_time_s" if key == "time_s" else key, value)
    if not (_may_be_continued(bench, train) and result.iteration == train.iters):
        remove_state(folder)
    return score.score


def _plan(bench: Bench, trial: optuna.Trial, train: TrainSpec) -> Plan:
    """Choose how the trial is executed and record it; end it where nothing fits."""
    below_bytes = trial.user_attrs.get("below_bytes")
    plan = bench.plan(train, below_bytes)
    if (other := _that_ran_out(trial)) is not None:
        end_infeasible(trial, SMALLEST_VIOLATION, f"ran out of memory as trial {other}")
    if plan is None:
        short = bench.shortfall_bytes(train)
        if below_bytes is not None and short <= 0:
            reason = "ran out of memory, and there is no smaller way to execute it"
        else:
            needed = (bench.budget_bytes + short) / 1e9
            reason = f"needs {needed:.2f} GB, the budget is {bench.budget_bytes / 1e9:.2f} GB"
        end_infeasible(trial, max(short / 1e9, SMALLEST_VIOLATION), reason)
    trial.set_constraint(MEMORY_CONSTRAINT, 0.0)
    recorded = {"peak_bytes": plan.peak_bytes, "text": describe(plan, train)}
    trial.set_user_attr("plan", {**asdict(plan.execution), **recorded})
    bench.execute(plan)
    return plan


def end_infeasible(trial: optuna.Trial, violation: float, reason: str) -> NoReturn:
    """End a trial that does not fit into memory.

    Args:
        violation: By how many GB.

    Raises:
        optuna.TrialPruned: Always.
    """
    trial.set_constraint(MEMORY_CONSTRAINT, violation)
    trial.set_user_attr("infeasible", True)
    trial.set_user_attr("reason", reason)
    raise optuna.TrialPruned(reason)


def _that_ran_out(trial: optuna.Trial) -> int | None:
    """An earlier trial of the same settings that ran out of memory in every way to execute it."""
    for other in trial.study.get_trials(deepcopy=False, states=(TrialState.PRUNED,)):
        if other.params == trial.params and other.user_attrs.get("fault") == "out_of_memory":
            return other.number
    return None


def _note_peak(bench: Bench, train: TrainSpec, plan: Plan, result: TrainResult) -> None:
    """Let the memory model learn from a whole trial whose peak is its largest training step's."""
    is_split = plan.execution.micro_batch < train.batch_size
    if plan.execution.grad_checkpoint or is_split or bench.frozen.kept_bytes:
        return  # then the peak may be an evaluation's, or what is kept for other trials
    if bench.memory is None or result.iteration < train.iters:
        return
    shape, known = bench.memory.shape, bench.memory.coefficients
    batches = islice(bench.order(train), train.iters)  # perhaps not those of the longest examples
    largest = max(
        bench.workload().steps(batches, plan.execution.micro_batch),
        key=lambda step: training_peak(shape, train, step, plan.execution, known).total,
    )
    observed = Observation(train, largest, plan.execution, result.peak_memory_bytes)
    note_trial(bench.loaded.path, observed)


def _may_be_continued(bench: Bench, train: TrainSpec) -> bool:
    """Whether the space has trials that pass through this one's end."""
    _, most = value_ends(bench.spec, "iters")
    return train.iters < most and can_be_extended(train)


def score_test(
    bench: Bench, trial: optuna.trial.FrozenTrial, adapter_dir: Path
) -> dict[str, Score]:
    """Open the test split: the score of the base, of the base with examples, and the trial's."""
    scores = {"base": bench.score(bench.test_prompts)}
    if bench.few_shot:
        scores["few_shot"] = score_few_shot(bench, bench.test_prompts)
    train = apply_settings(bench.spec.train, trial.params)
    with adapted(bench.loaded.model, train):
        load_adapter(bench.loaded.model, adapter_dir)
        scores["trial"] = bench.score(bench.test_prompts)
    return scores


def _write_config(bench: Bench, train: TrainSpec, folder: Path) -> None:
    config = mlx_lm_config(train, bench.loaded.path, bench.mlx_data_dir, folder / "mlx_lm_adapters")
    text = yaml.safe_dump(config, sort_keys=False)
    weighted = ["data.weight"] if bench.train.weights is not None else []
    if missing := beyond_mlx_lm(train) + weighted:
        text = f"# What mlx_lm.lora has no key for: {'; '.join(missing)}\n{text}"
    replace_text(folder / "config.yaml", text)


def _take_over(
    bench: Bench, trial: optuna.Trial, train: TrainSpec, folder: Path
) -> TrainState | None:
    """Copy what an earlier trial with these settings left, and give its state, the furthest."""
    found: list[tuple[int, FrozenTrial, Path]] = []
    for other in trial.study.get_trials(
        deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL)
    ):
        source = folder.parent / f"{other.number:04d}"
        same = {**other.params, "iters": 0} == {**trial.params, "iters": 0}
        if same and (state := load_state(source, train)) is not None:
            found.append((state.progress.iteration, other, source))
    for iteration, other, source in sorted(found, key=lambda each: -each[0]):
        try:
            _copy_files(source, folder)
        except FileNotFoundError:
            continue  # no longer kept
        remove_half_written(source)
        if take_state(source, folder, keep=other.state == TrialState.COMPLETE):
            trial.set_user_attr("continues", {"trial": other.number, "iteration": iteration})
            return load_state(folder, train)
    return None


def _copy_files(source: Path, folder: Path) -> None:
    for name in (ADAPTER_DIR, CHECKPOINT_DIR):
        if (source / name).is_dir():
            half_written = shutil.ignore_patterns(f"{HALF_WRITTEN}*")
            try:
                shutil.copytree(
                    source / name, folder / name, ignore=half_written, dirs_exist_ok=True
                )
            except shutil.Error as fault:  # files that went while it copied
                raise FileNotFoundError(str(fault)) from fault
    for name in (METRICS_FILE, _LOSSES_FILE):
        with suppress(FileNotFoundError):  # stopped before the first evaluation
            shutil.copy2(source / name, folder / name)


def _record_training(trial: optuna.Trial, result: TrainResult, train: TrainSpec) -> None:
    trial.set_user_attr("tokens_per_s", round(result.tokens_per_s, 1))
    trial.set_user_attr("train_time_s", round(result.train_time_s, 2))
    trial.set_user_attr("eval_time_s", round(result.eval_time_s, 2))
    trial.set_user_attr("peak_memory_bytes", result.peak_memory_bytes)
    trial.set_user_attr("perplexity", result.best.perplexity)
    if result.iteration < train.iters:
        trial.set_user_attr(
            "reason",
            f"stopped at iteration {result.iteration}: no improvement in "
            f"{train.early_stopping_patience} evaluations",
        )


def _write_losses(folder: Path, evaluation: Evaluation) -> None:
    with replacing(folder / _LOSSES_FILE) as beside:
        np.save(beside, evaluation.example_losses)


class _Watch:
    """Follows one trial's training: writes metrics, reports to Optuna, prunes, tells."""

    def __init__(
        self,
        bench: Bench,
        trial: optuna.Trial,
        folder: Path,
        tell: Tell,
        train: TrainSpec,
        state: TrainState | None,
    ) -> None:
        self._bench, self._trial, self._folder = bench, trial, folder
        self._tell, self._train, self._state = tell, train, state
        self._last_report: Report | None = None

    def __enter__(self) -> "_Watch":
        path = self._folder / METRICS_FILE
        known = [] if self._state is None else self._repeat(path)
        replace_text(path, "".join(f"{line}\n" for line in known))
        self._metrics = path.open("a", encoding="utf-8")
        if self._bench.targets_per_byte is not None:
            self._trial.set_user_attr(TARGETS_PER_BYTE, self._bench.targets_per_byte)
        return self

    def _repeat(self, path: Path) -> list[str]:
        """Tell Optuna what was measured before the state; give those lines."""
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

    def on_iteration(self, iteration: int) -> None:
        self._tell("iteration", iteration=iteration, iters=self._train.iters)

    def on_report(self, report: Report) -> None:
        self._last_report = report
        self._write("train", asdict(report))
        told = ("train_loss", "tokens_per_s", "peak_memory_bytes")
        budget_bytes = self._bench.budget_bytes
        self._tell("train", budget_bytes=budget_bytes, **{k: getattr(report, k) for k in told})

    def on_evaluation(self, evaluation: Evaluation, is_best: bool) -> None:
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
        if evaluation.iteration < self._train.iters and self._trial.should_prune():
            self._prune(evaluation)

    def _report(self, val_loss: float, iteration: int) -> None:
        self._trial.report(-self._bench.comparable_loss(val_loss), iteration)

    def _record_best(self, evaluation: Evaluation) -> None:
        _write_losses(self._folder, evaluation)
        for key, value in _losses(self._bench, evaluation).items():
            self._trial.set_user_attr(key, value)
        self._trial.set_user_attr("best_iteration", evaluation.iteration)

    def _prune(self, evaluation: Evaluation) -> None:
        if self._last_report is not None:
            self._trial.set_user_attr("tokens_per_s", round(self._last_report.tokens_per_s, 1))
            self._trial.set_user_attr("peak_memory_bytes", self._last_report.peak_memory_bytes)
        reason = (
            f"behind the {self._bench.spec.pruning.name} of earlier trials "
            f"at iteration {evaluation.iteration}"
        )
        self._trial.set_user_attr("reason", reason)
        raise optuna.TrialPruned(reason)

    def _write(self, kind: str, values: dict[str, Any]) -> None:
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in values.items()
        }
        self._metrics.write(json.dumps({"type": kind, **finite}) + "\n")
        self._metrics.flush()
