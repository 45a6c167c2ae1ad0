"""One trial: its settings, training, pruning, scoring, and records."""

import shutil
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from hawsweep.files import HALF_WRITTEN, remove_half_written, replace_text
from hawsweep.layout import (
    ADAPTER_DIR,
    CHECKPOINT_DIR,
    LOSSES_FILE,
    METRICS_FILE,
    WEIGHTS_FILE,
)
from hawsweep.planning.calibration import note_trial
from hawsweep.planning.measured_steps import Observation
from hawsweep.planning.peak import training_peak
from hawsweep.planning.trial_plan import Plan, describe
from hawsweep.scoring.score import write_samples
from hawsweep.spec.train import TrainSpec
from hawsweep.study.attributes import (
    ADAPTER_BYTES,
    BELOW_BYTES,
    CONTINUES,
    EVAL_TIME_S,
    FAULT,
    INFEASIBLE,
    INTERRUPTED,
    MEMORY_CONSTRAINT,
    PEAK_MEMORY_BYTES,
    PERPLEXITY,
    PLAN,
    REASON,
    REFERENCE_PERPLEXITY,
    SCORE_TIME_S,
    SEED,
    SMALLEST_VIOLATION,
    TIME_S,
    TOKENS_PER_S,
    TRAIN_TIME_S,
)
from hawsweep.study.trials import train_of
from hawsweep.text import counted
from hawsweep.training.adapters import (
    beyond_mlx_lm,
    load_adapter,
    mlx_lm_config,
    with_count_of_blocks,
)
from hawsweep.training.checkpoints import (
    TrainState,
    can_be_extended,
    load_state,
    remove_state,
    take_state,
)
from hawsweep.training.train import (
    Interrupted,
    NonFiniteLoss,
    TrainResult,
    train_adapter,
    trainable,
)
from hawsweep.trial.context import TrialContext
from hawsweep.trial.watch import Tell, TrialWatch


class Paused(Exception):  # noqa: N818 - part of its course, not an error
    """A trial waits at a rung until it is promoted."""


class _Extended(Exception):  # noqa: N818 - part of its course, not an error
    """A trial was given more iterations."""


def run_trial(context: TrialContext, trial: optuna.Trial, folder: Path, tell: Tell) -> float:
    """Train, prune or score one trial; it resumes from an earlier trial with the same settings.

    Args:
        folder: Gets the trial's files.
        tell: Called with progress, as ``tell(kind, **values)``.

    Returns:
        Its score by ``scoring.metric``.

    Raises:
        optuna.TrialPruned: It fell behind, its loss was not finite, or it does not fit into memory;
            the attribute ``reason`` says why.
        Paused: It waits at a rung; its state is kept.
        Interrupted: It was asked to stop; its state is kept.
    """
    while True:
        try:
            return _run(context, trial, folder, tell)
        except _Extended:
            continue  # from its state, with more iterations


def _run(context: TrialContext, trial: optuna.Trial, folder: Path, tell: Tell) -> float:
    # What a trial at hand says of itself is as old as it.
    known = trial.study.get_trials(deepcopy=False)[trial.number]
    train = train_of(context.spec, known)
    train = train.model_copy(update={"seed": trial.user_attrs.get(SEED, train.seed)})
    context.cut(train.max_seq_length)
    plan = _plan(context, trial, train)
    train = train.model_copy(update={"grad_checkpoint": plan.execution.grad_checkpoint})
    folder.mkdir(parents=True, exist_ok=True)
    waited = bool(known.intermediate_values) or INTERRUPTED in known.user_attrs
    state = load_state(folder, train) if waited else None
    if state is None:
        remove_state(folder)  # left from an earlier study of that name
        shutil.rmtree(folder / CHECKPOINT_DIR, ignore_errors=True)
        state = _take_over(context, trial, train, folder)
    _write_config(context, train, folder)
    watch = TrialWatch(context, trial, folder, tell, train, state)
    with trainable(context.loaded.model, train), context.frozen.in_use(), watch:
        try:
            result = train_adapter(
                context.loaded.model,
                train,
                context.train.examples,
                context.order(train),
                context.evaluator(),
                folder,
                watch,
                frozen=context.frozen,
                micro_batch=plan.execution.micro_batch,
                tokens_at_once=plan.execution.tokens_at_once,
                state=state,
                should_stop=lambda: watch.stops or context.should_stop(),
            )
        except Interrupted:
            if watch.outage is not None:
                raise watch.outage from None
            if watch.pauses:
                raise Paused from None
            if watch.is_extended:
                raise _Extended from None
            raise
        except (NonFiniteLoss, optuna.TrialPruned) as fault:
            remove_state(folder)
            if isinstance(fault, NonFiniteLoss):
                trial.set_user_attr(REASON, f"{fault}: the settings diverge")
            raise optuna.TrialPruned(str(fault)) from fault
        _record_training(trial, result, train)
        weights = folder / ADAPTER_DIR / WEIGHTS_FILE
        trial.set_user_attr(ADAPTER_BYTES, weights.stat().st_size)
        _note_peak(context, train, plan, result)
        tell("scoring", n_prompts=len(context.valid_prompts))
        load_adapter(context.loaded.model, folder / ADAPTER_DIR)
        score = context.score(context.valid_prompts)
        trial.set_user_attr(REFERENCE_PERPLEXITY, context.reference_perplexity(result.best))
    write_samples(folder / "samples.jsonl", score)
    for key, value in score.summary().items():
        trial.set_user_attr(SCORE_TIME_S if key == TIME_S else key, value)
    if not (_may_be_continued(context, train) and result.iteration == train.iters):
        remove_state(folder)
    return score.score


def _plan(context: TrialContext, trial: optuna.Trial, train: TrainSpec) -> Plan:
    """Choose and record the trial's plan; end the trial if no plan fits."""
    below_bytes = trial.user_attrs.get(BELOW_BYTES)
    plan = context.plan(train, below_bytes)
    if (other := _that_ran_out(trial)) is not None:
        end_infeasible(trial, SMALLEST_VIOLATION, f"ran out of memory as trial {other}")
    if plan is None:
        short = context.shortfall_bytes(train)
        if below_bytes is not None and short <= 0:
            reason = "ran out of memory, and there is no smaller way to execute it"
        else:
            needed = (context.budget_bytes + short) / 1e9
            reason = f"needs {needed:.2f} GB, the budget is {context.budget_bytes / 1e9:.2f} GB"
        end_infeasible(trial, max(short / 1e9, SMALLEST_VIOLATION), reason)
    if MEMORY_CONSTRAINT not in trial.constraints:  # it did not wait
        trial.set_constraint(MEMORY_CONSTRAINT, 0.0)
    recorded = {"peak_bytes": plan.peak_bytes, "text": describe(plan, train)}
    trial.set_user_attr(PLAN, {**asdict(plan.execution), **recorded})
    context.execute(plan)
    return plan


def end_infeasible(trial: optuna.Trial, violation: float, reason: str) -> NoReturn:
    """End a trial that does not fit into memory.

    Args:
        violation: By how many GB.

    Raises:
        optuna.TrialPruned: Always.
    """
    trial.set_constraint(MEMORY_CONSTRAINT, violation)
    trial.set_user_attr(INFEASIBLE, True)
    trial.set_user_attr(REASON, reason)
    raise optuna.TrialPruned(reason)


def _that_ran_out(trial: optuna.Trial) -> int | None:
    """An earlier trial of the same settings that ran out of memory with every plan."""
    for other in trial.study.get_trials(deepcopy=False, states=(TrialState.PRUNED,)):
        if other.params == trial.params and other.user_attrs.get(FAULT) == "out_of_memory":
            return other.number
    return None


def _note_peak(context: TrialContext, train: TrainSpec, plan: Plan, result: TrainResult) -> None:
    """Fit the memory model to a whole trial, if its peak is its largest training step's."""
    is_split = plan.execution.micro_batch < train.batch_size
    if plan.execution.grad_checkpoint or is_split or context.frozen.kept_bytes:
        return  # the peak may be an evaluation's, or include outputs kept for other trials
    if context.memory is None or result.iteration < train.iters:
        return
    shape, known = context.memory.shape, context.memory.coefficients
    # Perhaps without the longest examples.
    steps = context.workload().steps(train, context.order(train), plan.execution.micro_batch)
    largest = max(
        set(steps),
        key=lambda step: training_peak(shape, train, step, plan.execution, known).total,
    )
    observed = Observation(train, largest, plan.execution, result.peak_memory_bytes)
    note_trial(context.loaded.path, observed)


def _may_be_continued(context: TrialContext, train: TrainSpec) -> bool:
    """Whether longer trials of the search space pass through this one's end."""
    _, most = context.spec.ends_of("iters")
    return train.iters < most and can_be_extended(train)


def _write_config(context: TrialContext, train: TrainSpec, folder: Path) -> None:
    config = mlx_lm_config(
        with_count_of_blocks(train, context.loaded.model),
        context.loaded.path.absolute(),
        context.mlx_data_dir.absolute(),
        folder / "mlx_lm_adapters",
    )
    text = yaml.safe_dump(config, sort_keys=False)
    weighted = ["data.weight"] if context.train.weights is not None else []
    if missing := beyond_mlx_lm(train) + weighted:
        text = f"# mlx_lm.lora has no key for: {'; '.join(missing)}\n{text}"
    replace_text(folder / "config.yaml", text)


def _take_over(
    context: TrialContext, trial: optuna.Trial, train: TrainSpec, folder: Path
) -> TrainState | None:
    """Copy the files of the furthest earlier trial with these settings, and give its state."""
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
            continue  # it was removed
        remove_half_written(source)
        if take_state(source, folder, keep=other.state == TrialState.COMPLETE):
            trial.set_user_attr(CONTINUES, {"trial": other.number, "iteration": iteration})
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
            except shutil.Error as fault:  # files were removed meanwhile
                raise FileNotFoundError(str(fault)) from fault
    for name in (METRICS_FILE, LOSSES_FILE):
        with suppress(FileNotFoundError):  # stopped before the first evaluation
            shutil.copy2(source / name, folder / name)


def _record_training(trial: optuna.Trial, result: TrainResult, train: TrainSpec) -> None:
    trial.set_user_attr(TOKENS_PER_S, round(result.tokens_per_s, 1))
    trial.set_user_attr(TRAIN_TIME_S, round(result.train_time_s, 2))
    trial.set_user_attr(EVAL_TIME_S, round(result.eval_time_s, 2))
    trial.set_user_attr(PEAK_MEMORY_BYTES, result.peak_memory_bytes)
    trial.set_user_attr(PERPLEXITY, result.best.perplexity)
    if result.iteration < train.iters:
        trial.set_user_attr(
            REASON,
            f"stopped at iteration {result.iteration}: no improvement in "
            f"{counted(train.early_stopping_patience or 0, 'evaluation')}",
        )
