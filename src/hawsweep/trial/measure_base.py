"""Measures the untuned model like a trial, and opens the test split for the winner."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from hawsweep.data.leaks import Leak
from hawsweep.data.records import Record
from hawsweep.data.tokens import with_examples
from hawsweep.files import replacing
from hawsweep.layout import LOSSES_FILE, SAMPLE_FILES
from hawsweep.scoring.metrics import signatures
from hawsweep.scoring.score import Score, write_samples
from hawsweep.scoring.self_check import check_scoring
from hawsweep.spec.space import apply_settings
from hawsweep.study.attributes import (
    BASE,
    FEW_SHOT,
    NATS_PER_BYTE,
    PERPLEXITY,
    REFERENCE_PERPLEXITY,
    SELF_CHECK,
    TIME_S,
    VAL_LOSS,
)
from hawsweep.training.adapters import adapted, load_adapter
from hawsweep.training.evaluation import Evaluation
from hawsweep.trial.context import Bench


def measure_base(bench: Bench, folder: Path, leaks: Sequence[Leak] = ()) -> dict[str, Any]:
    """Measure the untuned model like a trial: validation loss, translations, score.

    Returns:
        ``base``; ``few_shot``, the same model with examples in its prompt, where there is room for
        one; ``self_check``. Each as a study keeps it.
    """
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    evaluation = bench.evaluator()(0)
    score = bench.score(bench.valid_prompts)
    write_samples(folder / "samples.jsonl", score)
    write_losses(folder, evaluation)
    measured: dict[str, Any] = {
        BASE: {
            **loss_attributes(bench, evaluation),
            PERPLEXITY: evaluation.perplexity,
            REFERENCE_PERPLEXITY: bench.reference_perplexity(evaluation),
            **score.summary(),
            "signatures": signatures(),
            TIME_S: time.perf_counter() - started,
        }
    }
    if bench.few_shot:
        few_shot = score_few_shot(bench, bench.valid_prompts)
        write_samples(folder / SAMPLE_FILES["few_shot"], few_shot)
        measured[FEW_SHOT] = {"n_examples": len(bench.few_shot), **few_shot.summary()}
    spec = bench.spec.scoring
    check = check_scoring(
        bench.scorer, bench.valid_prompts, score, spec.difference, leaks, bench.spec.seed
    )
    return {**measured, SELF_CHECK: asdict(check)}


def loss_attributes(bench: Bench, evaluation: Evaluation) -> dict[str, float]:
    """A validation loss for the study: per token, and with several models also per byte."""
    loss = evaluation.val_loss
    per_byte = (
        {} if bench.targets_per_byte is None else {NATS_PER_BYTE: bench.comparable_loss(loss)}
    )
    return {VAL_LOSS: loss, **per_byte}


def score_few_shot(bench: Bench, records: Sequence[Record]) -> Score:
    """The model's scored answers with examples in its prompt."""
    return bench.score([with_examples(record, bench.few_shot) for record in records])


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


def write_losses(folder: Path, evaluation: Evaluation) -> None:
    """Keep the loss of each validation example, ``[examples]``."""
    with replacing(folder / LOSSES_FILE) as beside:
        np.save(beside, evaluation.example_losses)
