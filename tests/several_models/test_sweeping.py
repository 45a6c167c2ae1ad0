"""A sweep of two tiny models, from start to export."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml
from harness import kill
from optuna.trial import TrialState
from several import lab_of

from hawsweep.export.export import Request, export_trial
from hawsweep.results.compare_systems import score_checkpoints
from hawsweep.results.compare_trials import compare
from hawsweep.results.groups import groups
from hawsweep.results.leaderboard import leaderboard
from hawsweep.results.one_trial import describe_trial
from hawsweep.results.study_results import end_of_study
from hawsweep.results.verdict import judge_study
from hawsweep.study import confirm
from hawsweep.study.baselines import base_dir, best_other
from hawsweep.study.place import Place
from hawsweep.study.study import spec_of


@pytest.fixture(scope="module")
def swept(tmp_path_factory, tiny_model_dir, other_model_dir, chat_data_dir):
    """A finished sweep of two models, killed while it measured the second one untuned."""
    folder = tmp_path_factory.mktemp("swept")
    dirs = [str(tiny_model_dir), str(other_model_dir)]
    enqueued = [
        {"model": model, "learning_rate": rate, "iters": 24, "lora_parameters.rank": 4}
        for rate in (1e-2, 1e-4)
        for model in dirs
    ]
    lab = lab_of(
        folder,
        chat_data_dir,
        dirs,
        enqueue=enqueued,
        pruning={"name": "median", "n_startup_trials": 2, "n_min_trials": 2},
        confirm={"top": 1, "seeds": 1},
        scoring={
            "metric": "chrf",
            "max_examples": 4,
            "max_tokens": 8,
            "prompt": {"examples": 1},
        },
        trials=4,
    )
    path = folder / "sweep.yaml"
    content = json.loads(path.read_text())
    content["train"]["keep_checkpoints"] = 2
    path.write_text(json.dumps(content))
    with lab.start() as run:
        run.next(("base_end",))
        for pid in [*run.workers().values(), run.process.pid]:
            kill(pid, signal.SIGKILL)
        run.wait()
    first = [e for e in run.events if e["kind"] == "base_end"]
    run = lab.finish()
    return lab, dirs, first, run.events


def test_each_untuned_model_is_measured_once_whatever_happens(swept):
    lab, dirs, first, later = swept
    again = [event for event in later if event["kind"] == "base_end"]
    assert [event["values"]["model"] for event in (*first, *again)] == dirs
    assert list(lab.study.user_attrs["bases"]) == dirs
    best = max(dirs, key=lambda each: lab.study.user_attrs["bases"][each]["base"]["score"])
    assert lab.study.user_attrs["base"]["model"] == best


def test_leaderboard_has_a_base_of_each_model(swept):
    lab, dirs, _, _ = swept
    labels = {row.label for row in leaderboard(lab.study) if row.state == "base"}
    names = [Path(each).name for each in dirs]
    assert labels == {f"{kind} {name}" for kind in ("base", "1-shot base") for name in names}


def test_trials_of_both_models_are_trained_and_pruned_by_nats_per_byte(swept):
    lab, dirs, _, _ = swept
    lab.check(4)
    trials = lab.trials()
    assert [trial.params["model"] for trial in trials] == dirs * 2
    assert [trial.state for trial in trials[:2]] == [TrialState.COMPLETE] * 2
    assert TrialState.PRUNED in [trial.state for trial in trials]
    place = Place(lab.studies)
    for trial in trials:
        text = (place.trial_dir("tiny", trial.number) / "metrics.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        losses = {e["iteration"]: e["val_loss"] for e in lines if e["type"] == "eval"}
        scale = trial.user_attrs["targets_per_byte"]
        assert trial.intermediate_values == {at: -loss * scale for at, loss in losses.items()}
        shown = describe_trial(lab.study, place, trial.number)
        assert shown["evaluations"] == pytest.approx(losses)
        assert shown["val_loss"] == min(losses.values())
        assert shown["nats_per_byte"] == pytest.approx(min(losses.values()) * scale)


def test_every_trial_has_the_config_of_its_own_model(swept):
    lab, _, _, _ = swept
    for trial in lab.trials():
        path = Place(lab.studies).trial_dir("tiny", trial.number) / "config.yaml"
        assert yaml.safe_load(path.read_text())["model"] == trial.params["model"]
        assert spec_of(lab.study, trial).model == trial.params["model"]


def test_winner_is_confirmed_and_tested_with_its_own_model(swept):
    lab, _, _, later = swept
    confirming = [e["values"] for e in later if e["kind"] == "confirm_start"]
    winner = confirm.winner(lab.study)
    assert [each["settings"] for each in confirming] == [winner.params]
    test = lab.study.user_attrs["test"]
    assert (test["trial_number"], test["n_opened"]) == (winner.number, 1)
    place, model = Place(lab.studies), winner.params["model"]
    answers = base_dir(place, "tiny", model) / "test_samples.jsonl"
    scores = [json.loads(line)["score"] for line in answers.read_text().splitlines()]
    assert test["base"]["score"] == pytest.approx(np.mean(scores))
    own = {label for label in verdict_labels(lab) if label.endswith(Path(model).name)}
    assert own == {f"base {Path(model).name}", f"1-shot base {Path(model).name}"}
    best = best_other(lab.study, model)
    assert verdict_labels(lab) == own | (set() if best is None else {best.label})
    assert all(each.on_test for each in judge_study(lab.study, place).baselines)


def verdict_labels(lab):
    return {each.label for each in judge_study(lab.study, Place(lab.studies)).baselines}


def test_answers_are_shown_beside_those_of_the_models_own_base(swept):
    lab, _, _, _ = swept
    place = Place(lab.studies)
    winner = confirm.winner(lab.study)
    folder = base_dir(place, "tiny", winner.params["model"])
    lines = (folder / "test_samples.jsonl").read_text().splitlines()
    shown = end_of_study(lab.study, place).samples
    assert [base["output"] for base, _ in shown] == [json.loads(e)["output"] for e in lines[:5]]
    for trial in lab.trials()[:2]:
        found = compare(lab.study, place, None, trial.number)
        assert found.labels[0] == f"base {Path(trial.params['model']).name}"
    assert isinstance(groups(lab.study, place), list)


def test_trials_of_either_model_are_exported_with_it(swept):
    lab, _, _, _ = swept
    place = Place(lab.studies)
    for trial in lab.trials()[:2]:
        exported = export_trial(lab.study, place, Request(trial.number, force=True))
        (adapters,) = exported.parts
        assert adapters.check.score == pytest.approx(trial.value, abs=0.01)
        assert exported.base == trial.params["model"]
        card = (exported.folder / "README.md").read_text()
        assert trial.params["model"] in card
        ranking = score_checkpoints(lab.study, place, trial.number)
        assert len(ranking.systems) == 2


def test_sweep_goes_on_where_one_model_does_not_fit(
    tmp_path, tiny_model_dir, giant_dir, chat_data_dir
):
    copied = tmp_path / "tiny-giant"
    shutil.copytree(giant_dir, copied)
    dirs = [str(tiny_model_dir), str(copied)]
    small = {"learning_rate": 1e-3, "lora_parameters.rank": 2, "iters": 24}
    enqueued = [{**small, "model": model} for model in reversed(dirs)]
    lab = lab_of(tmp_path, chat_data_dir, dirs, enqueue=enqueued, trials=1)
    with lab.start() as run:
        assert run.wait() == 0, run.events
    (left_out,) = [e["values"] for e in run.events if e["kind"] == "left_out"]
    assert left_out["model"] == str(copied)
    assert "of it weights" in left_out["reason"]
    assert list(lab.study.user_attrs["bases"]) == [dirs[0]]
    giant, tiny = lab.trials()
    assert (giant.state, giant.user_attrs["infeasible"]) == (TrialState.PRUNED, True)
    assert tiny.state == TrialState.COMPLETE
    assert lab.study.user_attrs["test"]["trial_number"] == tiny.number
    # Another model under a name that the study knows.
    with (copied / "config.json").open("a") as file:
        file.write("\n")
    with lab.start("trials=2") as run:
        assert run.wait() == 1
    assert run.error["error"] == "SpecChangedError"
    assert f"the content of model {copied} has changed" in run.error["message"]
