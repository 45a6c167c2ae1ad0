"""One trial: its settings, training, pruning, scoring, and what is recorded of it."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import yaml

from hawsweep.adapters import load_adapter, lora_layers, mlx_lm_config, replace_text
from hawsweep.data import Splits, choose_subset
from hawsweep.encoding import Encoded, encode
from hawsweep.forward import FrozenBlocks
from hawsweep.memory import available_bytes
from hawsweep.models import LoadedModel
from hawsweep.records import Record, Records
from hawsweep.scoring import Score, Scorer, reference_of, write_samples
from hawsweep.spec import SweepSpec, TrainSpec, apply_settings
from hawsweep.training import (
    Evaluation,
    NonFiniteLoss,
    Report,
    TrainResult,
    make_evaluator,
    make_optimizer,
    train_adapter,
    trainable,
)

Tell = Callable[..., None]
# Of the memory that is free, for what the frozen blocks give.
_FROZEN_SHARE = 0.1


class Interrupted(Exception):  # noqa: N818 - asked for, not an error
    """The trial was asked to stop."""


@dataclass
class Bench:
    """What every trial of a worker shares: the model in memory and the data as tokens.

    Attributes:
        valid: The frozen validation set for the loss.
        valid_prompts: Validation records whose prompts survivors translate.
        mlx_data_dir: Where ``mlx_lm.lora`` finds the same data.
        should_stop: Whether the running trial is asked to stop.
    """

    spec: SweepSpec
    loaded: LoadedModel
    train: Encoded
    valid: Encoded
    valid_prompts: list[Record]
    test_prompts: list[Record]
    scorer: Scorer
    mlx_data_dir: Path
    frozen: FrozenBlocks
    should_stop: Callable[[], bool] = lambda: False

    def evaluator(self) -> Callable[[int], Evaluation]:
        """An evaluation on the frozen validation set."""
        return make_evaluator(
            self.loaded.model, self.valid.examples, self.spec.validation.batch_size, self.frozen
        )


def make_bench(
    spec: SweepSpec, loaded: LoadedModel, splits: Splits, scorer: Scorer, mlx_data_dir: Path
) -> Bench:
    """Tokenize the data and choose the validation subsets.

    Raises:
        DataError: A record cannot be used.
        ModelError: The model cannot be adapted as the spec says.
    """

    def tokens(records: Records) -> Encoded:
        return encode(
            records,
            loaded.tokenizer,
            max_seq_length=spec.train.max_seq_length,
            mask_prompt=spec.train.mask_prompt,
        )

    valid = choose_subset(splits.valid, spec.validation.max_examples, spec.seed)
    prompts = list(choose_subset(splits.valid, spec.scoring.max_examples, spec.seed))
    test = list(choose_subset(splits.test, 2 * spec.scoring.max_examples, spec.seed))
    for record in (*prompts, *test):
        reference_of(record)
    make_optimizer(spec.train)  # this and the next find out now what would fail every trial
    with lora_layers(loaded.model, spec.train):
        pass
    return Bench(
        spec,
        loaded,
        tokens(splits.train),
        tokens(valid),
        prompts,
        test,
        scorer,
        mlx_data_dir,
        FrozenBlocks(loaded.model, int(_FROZEN_SHARE * available_bytes())),
    )


def measure_base(bench: Bench, folder: Path) -> dict[str, Any]:
    """The untuned model, measured as every trial is: validation loss, translations, similarity."""
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    evaluation = bench.evaluator()(0)
    score = bench.scorer.score(bench.loaded, bench.valid_prompts)
    write_samples(folder / "samples.jsonl", score)
    np.save(folder / "valid_losses.npy", evaluation.example_losses)
    return {
        "val_loss": evaluation.val_loss,
        **_scores(score),
        "time_s": time.perf_counter() - started,
    }


def run_trial(bench: Bench, trial: optuna.Trial, folder: Path, tell: Tell) -> float:
    """Train, prune or score one trial.

    Args:
        folder: Is filled with the trial's files.
        tell: Is told of progress, as ``tell(kind, **values)``.

    Returns:
        The mean similarity of its translations.

    Raises:
        optuna.TrialPruned: It fell behind, or its loss was not finite; the attribute ``reason``
        says why.
        Interrupted: It was asked to stop.
    """
    train = apply_settings(bench.spec.train, trial.params)
    folder.mkdir(parents=True, exist_ok=True)
    config = mlx_lm_config(train, bench.loaded.path, bench.mlx_data_dir, folder / "mlx_lm_adapters")
    replace_text(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    watch = _Watch(bench, trial, folder, tell, train)
    with trainable(bench.loaded.model, train), bench.frozen.in_use(), watch:
        try:
            result = train_adapter(
                bench.loaded.model,
                train,
                bench.train.examples,
                bench.evaluator(),
                folder / "adapters",
                watch,
                bench.frozen,
            )
        except NonFiniteLoss as fault:
            trial.set_user_attr("reason", f"{fault}: the settings diverge")
            raise optuna.TrialPruned(str(fault)) from fault
        _record_training(trial, result)
        tell("scoring", n_prompts=len(bench.valid_prompts))
        load_adapter(bench.loaded.model, folder / "adapters")
        score = bench.scorer.score(bench.loaded, bench.valid_prompts)
    write_samples(folder / "samples.jsonl", score)
    for key, value in _scores(score).items():
        trial.set_user_attr(key, value)
    return score.similarity


def score_test(
    bench: Bench, trial: optuna.trial.FrozenTrial, adapter_dir: Path
) -> dict[str, Score]:
    """Open the test split: the base's score and the trial's."""
    base = bench.scorer.score(bench.loaded, bench.test_prompts)
    train = apply_settings(bench.spec.train, trial.params)
    with lora_layers(bench.loaded.model, train):
        load_adapter(bench.loaded.model, adapter_dir)
        tuned = bench.scorer.score(bench.loaded, bench.test_prompts)
    return {"base": base, "trial": tuned}


def _scores(score: Score) -> dict[str, float]:
    return {key: round(getattr(score, key), 6) for key in ("similarity", "chrf", "bleu")}


def _record_training(trial: optuna.Trial, result: TrainResult) -> None:
    trial.set_user_attr("tokens_per_s", round(result.tokens_per_s, 1))
    trial.set_user_attr("train_time_s", round(result.train_time_s, 2))
    trial.set_user_attr("peak_memory_bytes", result.peak_memory_bytes)


class _Watch:
    """Follows one trial's training: writes metrics, reports to Optuna, prunes, tells."""

    def __init__(
        self, bench: Bench, trial: optuna.Trial, folder: Path, tell: Tell, train: TrainSpec
    ) -> None:
        self._bench, self._trial, self._folder = bench, trial, folder
        self._tell, self._train = tell, train
        self._last_report: Report | None = None

    def __enter__(self) -> "_Watch":
        self._metrics = (self._folder / "metrics.jsonl").open("w", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._metrics.close()

    def on_iteration(self, iteration: int) -> None:
        if self._bench.should_stop():
            raise Interrupted
        self._tell("iteration", iteration=iteration, iters=self._train.iters)

    def on_report(self, report: Report) -> None:
        self._last_report = report
        self._write("train", asdict(report))
        self._tell("train", train_loss=report.train_loss, tokens_per_s=report.tokens_per_s)

    def on_evaluation(self, evaluation: Evaluation, is_best: bool) -> None:
        self._write(
            "eval",
            {
                "iteration": evaluation.iteration,
                "val_loss": evaluation.val_loss,
                "time_s": evaluation.time_s,
                "is_best": is_best,
            },
        )
        if is_best:
            np.save(self._folder / "valid_losses.npy", evaluation.example_losses)
            self._trial.set_user_attr("val_loss", evaluation.val_loss)
            self._trial.set_user_attr("best_iteration", evaluation.iteration)
        self._tell("eval", iteration=evaluation.iteration, val_loss=evaluation.val_loss)
        self._trial.report(-evaluation.val_loss, evaluation.iteration)
        if evaluation.iteration < self._train.iters and self._trial.should_prune():
            self._prune(evaluation)

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
        self._metrics.write(json.dumps({"type": kind, **values}) + "\n")
        self._metrics.flush()
