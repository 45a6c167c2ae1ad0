"""A study of many trials, as full as real ones, made in seconds: written past Optuna."""

import json
from collections import defaultdict
from datetime import datetime, timedelta

import numpy as np
from optuna import get_all_study_summaries
from optuna.distributions import distribution_to_json
from optuna.storages._rdb import models
from sqlalchemy import insert

from hawsweep.search.distributions import distributions
from hawsweep.spec.read import check_sweep
from hawsweep.spec.sweep import HOW_IT_RUNS
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study

N_PROMPTS = 40
SPEC = check_sweep(
    {
        "model": "some/model",
        "data": "phrasebook",
        "search": {
            "learning_rate": {"low": 1e-5, "high": 2e-3, "log": True},
            "lora_parameters.rank": {"choices": [4, 8, 16, 32]},
            "iters": {"low": 60, "high": 140, "step": 40},
            "grad_accumulation_steps": {"choices": [1, 2, 4]},
        },
        "pruning": {"name": "median"},
        "trials": 10**5,
    },
    "a sweep",
)


BASE_SCORE = 0.1


def make_study(place, n_trials, *, scores=None, name="long"):
    """Make a study: two in five trials are complete, the others pruned.

    Args:
        scores: Of the complete trials; random ones by default.
    """
    storage = open_storage(place, create=True)
    study, _ = create_study(storage, place, name, SPEC, {"test": "80:abc"})
    how = SPEC.model_dump(mode="json", include=set(HOW_IT_RUNS))
    study.set_user_attr("how", how)
    n_before = sum(each.n_trials for each in get_all_study_summaries(storage))
    random = np.random.default_rng(0)
    base = np.full(N_PROMPTS, BASE_SCORE)
    write_samples(place.study_dir(name) / "base", base)
    study.set_user_attr("base", {"score": BASE_SCORE, "val_loss": 3.7, "time_s": 50.0})
    difficulty = random.normal(0, 0.2, N_PROMPTS)
    difficulty -= difficulty.mean()
    rows = defaultdict(list)
    for number in range(n_trials):
        score = None
        if number % 5 < 2:
            score = random.normal(0.5, 0.02) if scores is None else scores[number]
            write_samples(place.trial_dir(name, number), score + difficulty)
        add_trial(rows, study._study_id, number, score, n_before)
    with storage.engine.begin() as connection:
        for table, values in rows.items():
            connection.execute(insert(table), values)
    storage.engine.dispose()


def add_trial(rows, study_id, number, score, n_before):
    """Add a trial's rows to those of each table; pruned without a score."""
    of = {"trial_id": n_before + number + 1}
    at = datetime(2026, 1, 1) + timedelta(minutes=number)
    rows[models.TrialModel.__table__].append(
        {
            **of,
            "number": number,
            "study_id": study_id,
            "state": "PRUNED" if score is None else "COMPLETE",
            "datetime_start": at,
            "datetime_complete": at + timedelta(minutes=1),
        }
    )
    for place, (name, each) in enumerate(distributions(SPEC.search).items()):
        value = {"learning_rate": 1e-3, "iters": 100.0}.get(name, float((number + place) % 3))
        setting = {"param_name": name, "param_value": value}
        setting["distribution_json"] = distribution_to_json(each)
        rows[models.TrialParamModel].append({**of, **setting})
    for step in (20,) if score is None else (20, 40, 60):
        value = {"step": step, "intermediate_value": -3.0 + step / 100}
        rows[models.TrialIntermediateValueModel].append(
            {**of, **value, "intermediate_value_type": "FINITE"}
        )
    for key, value in attributes_of(score).items():
        attribute = {**of, "key": key, "value_json": json.dumps(value)}
        rows[models.TrialUserAttributeModel].append(attribute)
    if score is not None:
        value = {"objective": 0, "value": float(score), "value_type": "FINITE"}
        rows[models.TrialValueModel].append({**of, **value})


def attributes_of(score):
    """What a real trial has."""
    known = {"val_loss": 1.1416852179140147, "best_iteration": 60, "tokens_per_s": 55.0}
    known |= {"peak_memory_bytes": 977112276, "time_s": 242.454, "train_time_s": 176.27}
    known |= {"perplexity": 3.132042093690919, "eval_time_s": 46.22}
    known["plan"] = {"micro_batch": 4, "grad_checkpoint": False, "tokens_at_once": 0}
    known["plan"] |= {"peak_bytes": 10**9, "text": "whole"}
    known["worker"] = {"host": "elsewhere", "boot": "1", "pid": 7, "started": 1.0}
    if score is None:
        return {**known, "reason": "behind the median of earlier trials at iteration 20"}
    score = float(score)
    known |= {"score": score, "low": score - 0.1, "high": score + 0.1, "similarity": score}
    known |= {"chrf": 29.914982, "bleu": 8.416652, "exact_match": 0.0, "length_ratio": 1.031196}
    return {**known, "faults": {}, "score_time_s": 10.092826}


def write_samples(folder, scores):
    """Answers to the prompts, with their scores."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {"source": "Ua heluhelu ʻo Leilani i ka puke.", "reference": "Leilani read the book."}
    record |= {"output": "Leilani read a book.", "faults": [], "group": "past"}
    lines = (json.dumps({**record, "similarity": s, "score": s}) for s in scores.tolist())
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
