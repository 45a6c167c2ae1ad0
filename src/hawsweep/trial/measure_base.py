"""Measures the untuned model like a trial, and opens the test split for the winner."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from hawsweep.data.leaks import Leak
from hawsweep.data.records import Record
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
    TRIED,
    VAL_LOSS,
)
from hawsweep.training.adapters import adapted, load_adapter
from hawsweep.training.evaluation import Evaluation
from hawsweep.trial.context import TrialContext
from hawsweep.trial.prompts import Prompt, pick, room_in


def measure_base(context: TrialContext, folder: Path, leaks: Sequence[Leak] = ()) -> dict[str, Any]:
    """Measure the untuned model like a trial: validation loss, translations, score.

    Returns:
        ``base``; ``few_shot``, the same model with the best of its prompts, where it has others
        than the data's own; ``self_check``. Each as a study keeps it.
    """
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    evaluation = context.evaluator()(0)
    score = context.score(context.valid_prompts)
    write_samples(folder / "samples.jsonl", score)
    write_losses(folder, evaluation)
    measured: dict[str, Any] = {
        BASE: {
            **loss_attributes(context, evaluation),
            PERPLEXITY: evaluation.perplexity,
            REFERENCE_PERPLEXITY: context.reference_perplexity(evaluation),
            **score.summary(),
            "signatures": signatures(),
            TIME_S: time.perf_counter() - started,
        }
    }
    if context.prompts:
        best, few_shot, tried = _try_prompts(context)
        write_samples(folder / SAMPLE_FILES["few_shot"], few_shot)
        measured[FEW_SHOT] = {**best.about, **few_shot.summary(), **tried}
    spec = context.spec.scoring
    check = check_scoring(
        context.scorer, context.valid_prompts, score, spec.difference, leaks, context.spec.seed
    )
    return {**measured, SELF_CHECK: asdict(check)}


def loss_attributes(context: TrialContext, evaluation: Evaluation) -> dict[str, float]:
    """A validation loss for the study: per token, and with several models also per byte."""
    loss = evaluation.val_loss
    per_byte = (
        {} if context.targets_per_byte is None else {NATS_PER_BYTE: context.comparable_loss(loss)}
    )
    return {VAL_LOSS: loss, **per_byte}


def _try_prompts(context: TrialContext) -> tuple[Prompt, Score, dict[str, Any]]:
    """The best prompt by the validation prompts, its score, and the scores of all if they are
    several; of equal ones the first.
    """
    scores = [score_prompt(context, each, context.valid_prompts) for each in context.prompts]
    best = max(range(len(scores)), key=lambda i: scores[i].score)
    tried = [
        {**prompt.about, **{key: score.summary()[key] for key in ("score", "low", "high")}}
        for prompt, score in zip(context.prompts, scores, strict=True)
    ]
    return context.prompts[best], scores[best], {TRIED: tried} if len(tried) > 1 else {}


def score_prompt(context: TrialContext, prompt: Prompt, records: Sequence[Record]) -> Score:
    """The model's scored answers with one of its prompts."""
    has_room = room_in(context.spec, context.loaded)
    return context.score([prompt.of(record, has_room) for record in records])


def score_test(
    context: TrialContext,
    trial: optuna.trial.FrozenTrial,
    adapter_dir: Path,
    chosen: Mapping[str, Any],
) -> dict[str, Score]:
    """Open the test split: the score of the base, of the base with its best prompt, and the
    trial's.

    Args:
        chosen: The study's measurements of the base with its best prompt.
    """
    scores = {"base": context.score(context.test_prompts)}
    if context.prompts:
        prompt = pick(context.prompts, chosen)
        scores["few_shot"] = score_prompt(context, prompt, context.test_prompts)
    train = apply_settings(context.spec.train, trial.params)
    with adapted(context.loaded.model, train):
        load_adapter(context.loaded.model, adapter_dir)
        scores["trial"] = context.score(context.test_prompts)
    return scores


def write_losses(folder: Path, evaluation: Evaluation) -> None:
    """Keep the loss of each validation example, ``[examples]``."""
    with replacing(folder / LOSSES_FILE) as beside:
        np.save(beside, evaluation.example_losses)
