"""What a trained tiny model keeps of its untuned one's answers, by a worker of a real study."""

import json

import pytest
from click.testing import CliRunner
from harness import Lab
from tried_study import save_model

from hawsweep.cli import main
from hawsweep.files import read_json_lines
from hawsweep.results.verdict import judge_study
from hawsweep.results.what_is_left import find_remaining
from hawsweep.spec.sweep import HOW_IT_RUNS
from hawsweep.study.baselines import prompt_text
from hawsweep.study.confirm import winner
from hawsweep.study.place import Place
from hawsweep.study.trials import misses_retention
from hawsweep.views.json_schema import OUTPUTS

GENTLE, TOO_MUCH = (1e-6, 4), (1e-2, 40)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory, tokenizer):
    return save_model(tmp_path_factory.mktemp("keeping") / "model", tokenizer)


@pytest.fixture
def lab(tmp_path, model_dir, chat_data_dir):
    def make(rate, iters, **changes):
        folder = tmp_path / str(rate)
        folder.mkdir()
        search = {
            "learning_rate": {"low": rate, "high": 1.01 * rate},
            "iters": {"choices": [iters, iters + 4]},
        }
        return Lab(folder, model_dir, chat_data_dir, **{"search": search, "trials": 1, **changes})

    return make


def trained(lab, model_dir):
    """The study of a sweep of one trial that was run to its end, and what is left before and after
    the test.
    """
    worker = lab.worker(model_dir)
    how = worker.spec.model_dump(mode="json", include=set(HOW_IT_RUNS))
    lab.study.set_user_attr("how", how)  # as a start does
    worker.base()
    lab.run_next(worker)
    before = find_remaining(lab.study, worker.spec)
    worker.test()
    return worker, before, find_remaining(lab.study, worker.spec)


@pytest.mark.parametrize(
    ("training", "outcome", "words"),
    [
        (GENTLE, "kept", "Trial 0 keeps what the untuned model could do: on 40 everyday questions"),
        (TOO_MUCH, "lost", "Trial 0 forgets: on 40 everyday questions"),
    ],
)
def test_overtrained_winner_is_said_to_forget_and_a_gentle_one_is_not(
    lab, model_dir, training, outcome, words
):
    made = lab(*training, retention="bundled")
    _, before, after = trained(made, model_dir)
    assert (before.retention_left, after.retention_left, after.test_left) == (True, False, False)
    place = Place(made.studies)
    verdict = judge_study(made.study, place)
    found = verdict.retention
    assert found.outcome == outcome, found
    assert found.prompted is None
    lost = found.lost.mean
    assert lost < 0.05 if outcome == "kept" else lost > 0.5
    (sentence,) = (each for each in verdict.sentences if "retention.most" in each)
    assert sentence.startswith(words)
    assert f"it loses {100 * lost:.0f} % (95 %" in sentence
    assert sentence.endswith(" the 10 % of retention.most.")

    given = ["status", "tiny", "--json", f"--studies-dir={made.studies}"]
    status = json.loads(CliRunner().invoke(main, given).stdout)
    OUTPUTS["status"].validate_python(status)
    assert status["verdict"]["retention"]["outcome"] == outcome
    assert sentence in status["verdict"]["sentences"]
    assert status["left"]["retention"] is False


def test_answers_are_scored_against_the_untuned_models_own(lab, model_dir, tmp_path):
    path = tmp_path / "own.jsonl"
    questions = ["Aloha?", "What is this?", "Why?"]
    lines = [{"prompt": questions[0]}, {"prompt": questions[1], "completion": "unused"}]
    lines.append({"messages": [{"role": "user", "content": questions[2]}]})
    path.write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    asked = {"data": str(path), "most": 0.3}
    scoring = {
        **json.loads((lab(1e-3, 4).folder / "sweep.yaml").read_text())["scoring"],
        "prompt": {"examples": [0, 1], "instructions": ["Say it in English."]},
    }
    made = lab(1e-4, 8, retention=asked, scoring=scoring)
    worker, _, _ = trained(made, model_dir)
    folder = made.studies / "tiny"
    base, few_shot, trial = (
        read_json_lines(folder / each)
        for each in (
            "base/retention_samples.jsonl",
            "base/retention_few_shot_samples.jsonl",
            "trials/0000/retention_samples.jsonl",
        )
    )
    for samples in (base, few_shot, trial):
        assert [each["source"] for each in samples] == questions
        assert [each["reference"] for each in samples] == [each["output"] for each in base]
    assert [each["score"] for each in base] == [100.0] * 3
    found = judge_study(made.study, Place(made.studies)).retention
    assert found.n_prompts == 3
    for lost, samples in ((found.lost, trial), (found.prompted, few_shot)):
        mean = sum(each["score"] for each in samples) / 3
        assert lost.mean == pytest.approx(1 - mean / 100)
    assert found.prompt == prompt_text(made.study.user_attrs["few_shot"]) != ""

    # Asked again, it opens nothing again; other questions are answered, and the test is not.
    worker.test()
    study, best = made.study, winner(made.study)
    assert study.user_attrs["test"]["n_opened"] == study.user_attrs["test_opened"] == 1
    assert not misses_retention(study, worker.spec, best)
    other = worker.spec.retention.model_copy(update={"data": "bundled"})
    assert misses_retention(study, worker.spec.model_copy(update={"retention": other}), best)


def test_sweep_without_retention_asks_nothing(lab, model_dir):
    made = lab(*GENTLE)
    worker, before, _ = trained(made, model_dir)
    assert worker._questions == []
    assert not before.retention_left
    assert "retention" not in made.study.user_attrs
    assert judge_study(made.study, Place(made.studies)).retention is None
    assert not [*made.studies.rglob("retention_*")]


def test_winner_that_is_not_tested_may_be_asked_what_it_keeps(lab, model_dir):
    scoring = json.loads((lab(1e-3, 4).folder / "sweep.yaml").read_text())["scoring"]
    made = lab(*GENTLE, retention="bundled", scoring={**scoring, "test": False})
    _, before, after = trained(made, model_dir)
    assert (before.test_left, before.retention_left, after.is_done) == (False, True, True)
    assert "test" not in made.study.user_attrs
    assert judge_study(made.study, Place(made.studies)).retention.outcome == "kept"


def test_finished_study_is_asked_what_it_keeps_and_trains_and_opens_nothing(lab, model_dir):
    made = lab(*TOO_MUCH)
    made.finish()
    test = made.study.user_attrs["test"]
    run = made.finish("retention=bundled")
    kinds = {event["kind"] for event in run.events}
    assert {"retention_start", "test_end"} <= kinds
    assert not {"test_start", "trial_start", "confirm_start", "base_start"} & kinds
    assert made.study.user_attrs["test"] == test
    assert judge_study(made.study, Place(made.studies)).retention.outcome == "lost"
    again = made.finish("retention=bundled")
    assert "retention_start" not in {event["kind"] for event in again.events}
