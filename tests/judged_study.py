"""Finished studies on disk: with a clear winner, a tie, none to use, and of two models."""

from optuna.trial import TrialState, create_trial
from reported_study import SELF_CHECK, answers, write_samples

from hawsweep.search.distributions import distributions
from hawsweep.spec.read import check_sweep
from hawsweep.spec.space import MODEL
from hawsweep.study.baselines import base_dir
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study

SEARCH = {
    "learning_rate": {"low": 1e-5, "high": 2e-3, "log": True},
    "lora_parameters.rank": {"choices": [4, 8, 16]},
}
# The scores of three trials, and what new seeds gave of two; of the base.
STUDIES = {
    "clear": ((0.4, 0.62, 0.5), {1: 0.6, 2: 0.5}, 0.11),
    "tie": ((0.600, 0.601, 0.599), {0: 0.61, 1: 0.6}, 0.11),
    "nothing": ((0.11, 0.12, 0.1), {1: 0.115, 0: 0.11}, 0.12),
    "models": ((0.4, 0.62, 0.5), {1: 0.6, 2: 0.5}, 0.11),
}


def record(kind, place):
    scores, again, base_score = STUDIES[kind]
    models = ("some/one", "some/two") if kind == "models" else ("",)
    search = {"model": {"choices": models}} if kind == "models" else {}
    content = {"model": "some/one", "data": "phrasebook", "search": {**SEARCH, **search}}
    if search:
        del content["model"]
    spec = check_sweep({**content, "trials": len(scores)}, "a sweep")
    study, _ = create_study(open_storage(place, create=True), place, "rates", spec, {"data": "a"})
    base = {"score": base_score, "similarity": base_score, "val_loss": 3.0}
    study.set_user_attr("base", base)
    study.set_user_attr("self_check", SELF_CHECK)
    if search:
        study.set_user_attr("bases", {model: {"base": base} for model in models})
    for model in models:
        folder = base_dir(place, "rates", model)
        for split in ("", "test_"):
            write_samples(folder / f"{split}samples.jsonl", answers(base_score))
    space = distributions(spec.search)
    for number, score in enumerate(scores):
        model = {MODEL: models[number % 2]} if search else {}
        rank = (16, 4, 8)[number]
        peak = (3 - number) * 10**9
        attributes = {
            "score": score,
            "val_loss": 1.0,
            "plan": {"peak_bytes": peak, "text": "whole"},
        }
        rate = 10.0 ** -(3 + number / 2)
        trial = create_trial(
            state=TrialState.COMPLETE,
            value=score,
            params={"learning_rate": rate, "lora_parameters.rank": rank, **model},
            distributions=space,
            user_attrs=attributes,
        )
        study.add_trial(trial)
        write_samples(place.trial_dir("rates", number) / "samples.jsonl", unsteady(score, number))
    confirmed = [
        {"trial_number": number, "selected": scores[number], "scores": [score]}
        for number, score in again.items()
    ]
    study.set_user_attr("confirm", confirmed)
    best = confirmed[0]["trial_number"]
    write_samples(place.trial_dir("rates", best) / "test_samples.jsonl", answers(scores[best]))
    known = {"chrf": 44.0, "bleu": 20.0, "similarity": 0.5}
    study.set_user_attr(
        "test",
        {
            "trial_number": best,
            "n_prompts": 16,
            "n_opened": 1,
            "base": {**known, "score": base_score},
            "trial": {**known, "score": scores[best]},
        },
    )
    return study


def unsteady(score, trial):
    """Answers of which some are better than another trial's, and some worse."""
    made = answers(score)
    for at, each in enumerate(made):
        each["score"] += 0.01 * (at * (trial + 2) % 5 - 2)
    return made
