"""Winners of two studies on the same prompts."""

import json

import pytest
from click.testing import CliRunner
from optuna.trial import TrialState, create_trial
from reported_study import answers, write_samples

from hawsweep.cli import main
from hawsweep.errors import ScoringError, StudyError
from hawsweep.results.compare_studies import compare_studies
from hawsweep.search.distributions import distributions
from hawsweep.spec.read import check_sweep
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study

CONTENT = {
    "model": "some/small",
    "data": "phrasebook",
    "search": {"learning_rate": {"low": 1e-5, "high": 2e-3, "log": True}},
}
PRINTS = {"train": "90:ab", "valid": "16:cd", "test": "16:ef"}


def record(place, name, scores, *, tested=None, n_train=90, **changed):
    """A study of one trial for each score, the best one perhaps with a score on the test split."""
    spec = check_sweep({**CONTENT, **changed}, "a sweep")
    storage = open_storage(place, create=True)
    prints = {**PRINTS, "train": f"{n_train}:ab"}
    study, _ = create_study(storage, place, name, spec, prints)
    for number, score in enumerate(scores):
        trial = create_trial(
            state=TrialState.COMPLETE,
            value=score,
            params={"learning_rate": 10.0 ** -(3 + number)},
            distributions=distributions(spec.search),
        )
        study.add_trial(trial)
        write_samples(place.trial_dir(name, number) / "samples.jsonl", answers(score))
    if tested is not None:
        best = max(range(len(scores)), key=scores.__getitem__)
        write_samples(place.trial_dir(name, best) / "test_samples.jsonl", answers(tested))
        study.set_user_attr("test", {"trial_number": best, "n_opened": 1})
    return study


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "studies")


def test_winners_are_paired_on_validation_and_test_prompts(place):
    first = record(place, "small", [0.4, 0.5], tested=0.45)
    second = record(place, "large", [0.6, 0.3], tested=0.5, model="some/large", n_train=2264)
    found = compare_studies(first, second, place)
    assert found.labels == ("small trial 1", "large trial 0")
    assert found.gain.mean == pytest.approx(0.1)
    assert found.test.mean == pytest.approx(0.05)
    assert (found.n_better, found.n_worse, len(found.items)) == (16, 0, 16)
    assert found.differing == {
        "model": ("some/small", "some/large"),
        "number of training records": (90, 2264),
        "learning_rate": (1e-4, 1e-3),
    }


def test_test_prompts_are_compared_only_if_both_winners_answered_the_same(place):
    first = record(place, "one", [0.4], tested=0.45)
    assert compare_studies(first, record(place, "untested", [0.5]), place).test is None
    other = record(place, "other", [0.5], tested=0.5)
    path = place.trial_dir("other", 0) / "test_samples.jsonl"
    write_samples(path, answers(0.5)[1:])
    assert compare_studies(first, other, place).test is None


def test_studies_that_cannot_be_paired_are_refused_with_the_reason(place):
    first = record(place, "one", [0.4])
    shorter = record(place, "shorter", [0.5])
    write_samples(place.trial_dir("shorter", 0) / "samples.jsonl", answers(0.5)[2:])
    said = r"validation prompts differ \(16 and 14, 14 in both\)"
    with pytest.raises(ScoringError, match=f"'one' and 'shorter' cannot be compared: .*{said}"):
        compare_studies(first, shorter, place)
    chrf = record(place, "chrf", [0.5], scoring={"metric": "chrf"})
    said = "scoring.metric is semantic_similarity in the first and chrf in the second"
    with pytest.raises(ScoringError, match=said):
        compare_studies(first, chrf, place)
    with pytest.raises(StudyError, match="'empty' has no complete trial"):
        compare_studies(first, record(place, "empty", []), place)


def test_command_compares_two_studies(place):
    record(place, "small", [0.4, 0.5], tested=0.45)
    record(place, "large", [0.6], tested=0.5, model="some/large")

    def run(*arguments):
        options = ["--studies-dir", str(place.studies_dir)]
        return CliRunner().invoke(main, ["compare", "small", *arguments, *options])

    printed = run("large")
    assert printed.exit_code == 0, printed.output
    text = " ".join(printed.output.split())
    assert text.startswith("large trial 0 against small trial 1 on 16 validation prompts: +0.100")
    assert "On the test prompts: +0.050" in text
    assert "large trial 0 has model some/large (not some/small), lr 1.00e-03 (not 1.00e-04)" in text
    assert json.loads(run("large", "--json").output)["test"]["mean"] == pytest.approx(0.05)
    refused = run("large", "--trial", "1")
    assert refused.exit_code == 2
    assert "leave out --trial and --base" in " ".join(refused.output.split())
