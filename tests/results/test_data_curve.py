"""Runs on parts of the data, and what their curve says."""

import json
import math
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import optuna
import pytest
from click.testing import CliRunner
from tiny_sweep import tiny_sweep

from hawsweep import load_sweep, run_sweep
from hawsweep.cli import main
from hawsweep.errors import StudyError
from hawsweep.results import data_curve
from hawsweep.results.data_curve import PowerLaw, curve_spec, read_curve
from hawsweep.scoring.intervals import Interval
from hawsweep.spec.read import check_sweep
from hawsweep.study.attributes import BEST_ITERATION, VAL_LOSS
from hawsweep.study.confirm import chosen_trial
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study, load_study, spec_of
from hawsweep.study.trials import n_test_opened
from hawsweep.views.figures import loss_by_data
from hawsweep.views.json_schema import OUTPUTS
from hawsweep.views.report.content import make_report
from hawsweep.views.report.page import report_page

SIZES = (20, 62, 193, 598, 1854)


# Measured: SmolLM2-135M at rank 32 on the phrase book, batch 4, the lowest of 480 iterations.
PHRASEBOOK = (3.3044, 1.7362, 0.5153, 0.0861, 0.0543)


def falling(size, floor=0.3, power=0.5, scale=2.0, late=0.0):
    falls = ((np.asarray(size) + late) / (SIZES[0] + late)) ** -power
    return scale * (floor + (1 - floor) * falls)


def band(draws):
    return np.quantile(draws, (0.025, 0.975))


def test_curve_without_noise_is_found():
    law = PowerLaw(SIZES, falling(SIZES))
    for size in (20, 300, 1854, 4000):
        assert np.median(law.at(size)) == pytest.approx(falling(size), rel=0.01)
    gain = np.median(law.at(1854) - law.at(2781))
    assert gain == pytest.approx(falling(1854) - falling(2781), rel=0.05)


def test_curve_that_falls_late_is_followed():
    law = PowerLaw(SIZES, PHRASEBOOK)
    assert law.misfit < 0.05
    for size, loss in zip(SIZES, PHRASEBOOK, strict=True):
        assert np.median(law.at(size)) == pytest.approx(loss, rel=0.1)
    low, high = band(PowerLaw(SIZES[:4], PHRASEBOOK[:4]).run_at(SIZES[4]))
    assert low < PHRASEBOOK[4] < high


def test_bands_hold_as_often_as_they_say():
    """The largest of five sizes, predicted from four; and the worth of half as much again."""
    generator = np.random.default_rng(0)
    held = gained = 0
    n_studies = 150
    for study in range(n_studies):
        floor, power = generator.uniform(0, 0.95), np.exp(generator.uniform(-2.3, 0.2))
        late = 0.0
        if study % 2:
            late, power = 20 * np.exp(generator.uniform(0, 4.6)), np.exp(generator.uniform(-1, 1.6))
        noise = np.exp(generator.uniform(-6.2, -3.5))
        true = [falling(size, floor, power, late=late) for size in (*SIZES, 2781)]
        known = np.array(true[:-1]) * (1 + noise * generator.normal(size=len(SIZES)))
        low, high = band(PowerLaw(SIZES[:4], known[:4], seed=study).run_at(SIZES[4]))
        held += low <= known[4] <= high
        law = PowerLaw(SIZES, known, seed=study)
        low, high = band(law.at(1854) - law.at(2781))
        gained += low <= true[4] - true[5] <= high
    assert 0.91 <= held / n_studies <= 0.99
    assert 0.91 <= gained / n_studies <= 0.99


@pytest.fixture
def study(tmp_path):
    content = {
        "model": "tiny",
        "data": "phrasebook",
        "train": {"batch_size": 4, "iters": 40},
        "search": {"learning_rate": {"low": 1e-4, "high": 1e-2}},
        "timeout": "1h",
    }
    place = Place(tmp_path / "studies")
    spec = check_sweep(content, "a sweep")
    prints = {"train": "1854:abc", "valid": "100:abc", "test": "100:abc"}
    made, _ = create_study(open_storage(place, create=True), place, "pairs", spec, prints)
    made.enqueue_trial({"learning_rate": 2e-3})
    trial = made.ask()
    trial.suggest_float("learning_rate", 1e-4, 1e-2)
    made.tell(trial, 0.5)
    return made


def runs_of(losses):
    for size, loss in zip(SIZES, losses, strict=True):
        distributions = {"max_train_samples": optuna.distributions.IntDistribution(1, 10_000)}
        yield (
            size,
            optuna.trial.create_trial(
                params={"max_train_samples": size},
                distributions=distributions,
                value=1 - loss / 4,
                user_attrs={VAL_LOSS: loss},
            ),
        )


def test_largest_size_is_predicted_from_the_smaller_ones(study, monkeypatch):
    study.set_user_attr("base", {"val_loss": 3.7239})
    monkeypatch.setattr(data_curve, "_runs", lambda _: list(runs_of(PHRASEBOOK)))
    curve = read_curve(study, "pairs", 0)
    assert curve.largest_loss.low < 0.0543 < curve.largest_loss.high
    told = curve.sentences()
    assert told[0].startswith("598 examples give 99% (95 % 99% to 99%) of what 1,854 give")
    assert re.fullmatch(
        r"The smaller sizes alone predict a loss of 0\.0\d+ \(95 % 0\.0\d+ to 0\.\d+\) with 1,854; "
        r"it is 0\.0543\.",
        told[1],
    )
    gained = (3.7239 - np.array(PHRASEBOOK)) / (3.7239 - 0.0543)
    assert [row.share.mean for row in curve.rows] == pytest.approx(gained, abs=0.04)


def test_data_that_do_not_help_give_no_share(study, monkeypatch):
    study.set_user_attr("base", {"val_loss": 1.0})
    losses = (1.21, 1.14, 1.10, 1.07, 1.05)
    monkeypatch.setattr(data_curve, "_runs", lambda _: list(runs_of(losses)))
    with pytest.raises(StudyError, match=r"All 1,854 examples do not surely lower .* \(1\.0000\)"):
        read_curve(study, "pairs", 0)


def test_score_that_can_be_zero_at_best_has_a_curve(study, monkeypatch):
    study.set_user_attr("base", {"val_loss": 3.7239})
    study.set_user_attr("self_check", {"ceiling": 0.0})
    runs = list(runs_of(PHRASEBOOK))
    for _, each in runs:
        each.values = [min(0.0, each.value - 1 + 0.0543 / 4)]
    monkeypatch.setattr(data_curve, "_runs", lambda _: runs)
    assert math.isfinite(read_curve(study, "pairs", 0).score_gain.mean)


def test_losses_that_follow_no_curve_are_not_given_one(study, monkeypatch):
    study.set_user_attr("base", {"val_loss": 3.7239})
    monkeypatch.setattr(data_curve, "_runs", lambda _: list(runs_of((1.0, 2.0, 0.4, 1.5, 0.9))))
    with pytest.raises(StudyError, match=r"5 sizes follow no curve .* are in study 'pairs'"):
        read_curve(study, "pairs", 0)


def test_sizes_are_trained_with_the_settings_of_the_best_trial(study, tmp_path):
    place = Place(tmp_path / "studies")
    spec = curve_spec(study, chosen_trial(study), place, None, n_seeds=1)
    assert spec.search["max_train_samples"].choices == (20, 62, 190, 600, 1854)
    assert [each["max_train_samples"] for each in spec.enqueue] == [1854, 600, 190, 62, 20]
    assert (spec.train.learning_rate, spec.train.iters, spec.trials) == (2e-3, 40, 5)
    assert (spec.pruning.name, spec.confirm.top, spec.timeout) == ("none", 0, None)
    assert spec.train.early_stopping_patience == 3
    assert not spec.scoring.test
    again = curve_spec(study, chosen_trial(study, 0), place, [90, 400], n_seeds=3)
    assert again.search["max_train_samples"].choices == (90, 400, 1854)
    assert (again.confirm.top, again.confirm.seeds) == (3, 2)


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ([20, 5000], "must be from 4, which is a batch, to 1854, the training records of study"),
        ([2, 90], "must be from 4"),
        ([90], "takes 3 sizes or more. Study 'pairs' has 1854 training records, for these: 90"),
    ],
)
def test_sizes_that_make_no_curve_are_refused(study, tmp_path, sizes, says):
    place = Place(tmp_path / "studies")
    with pytest.raises(StudyError, match=says):
        curve_spec(study, chosen_trial(study), place, sizes, 1)


def test_study_without_a_complete_trial_has_no_curve(study):
    study.ask()
    with pytest.raises(StudyError, match=r"Trial 1 of study .pairs. is running"):
        chosen_trial(study, 1)
    done = CliRunner().invoke(main, ["data-curve", "none", "--sizes", "a,b"])
    assert done.exit_code != 0
    assert "Traceback" not in done.output


def test_curve_is_trained_shown_and_shown_again(
    tmp_path, tiny_model_dir, chat_data_dir, monkeypatch
):
    changes = {"trials": 1, "search.iters.choices": (8,), "train.steps_per_eval": 4}
    spec = load_sweep(tiny_sweep(tiny_model_dir, chat_data_dir), changes)
    with ThreadPoolExecutor() as threads:
        threads.submit(run_sweep, spec, "tiny", studies_dir=tmp_path).result(timeout=1800)
    command = ["data-curve", "tiny", "--studies-dir", str(tmp_path), "--sizes", "4,8", "--plain"]
    shown = CliRunner().invoke(main, command)
    assert shown.exit_code == 0, shown.output
    assert "more are expected to lower the loss by" in shown.output
    other = CliRunner().invoke(main, [*command[:-2], "4,12"])
    assert "other sizes or settings. Leave --sizes out" in other.output
    without_sizes = [*command[:4], "--json"]
    again = CliRunner().invoke(main, without_sizes)
    found = json.loads(again.stdout)
    OUTPUTS["data-curve"].validate_python(found)
    assert [row["size"] for row in found["rows"]][:2] == [4, 8]
    assert len({row["val_loss"] for row in found["rows"]}) == 3
    assert all(sentence in " ".join(shown.output.split()) for sentence in found["sentences"])
    of_sizes = load_study(open_storage(Place(tmp_path)), "tiny-sizes-0")
    assert n_test_opened(of_sizes) == 0
    check_report_has(found, load_study(open_storage(Place(tmp_path)), "tiny"), Place(tmp_path))
    check_unseen_examples_bring_nothing(of_sizes, monkeypatch)


def check_unseen_examples_bring_nothing(study, monkeypatch):
    """With best evaluations after one batch all sizes but the smallest have seen the same."""
    batch_size, runs = spec_of(study).train.batch_size, data_curve._runs(study)
    for _, each in runs:
        each.user_attrs[BEST_ITERATION] = 1
    monkeypatch.setattr(data_curve, "_runs", lambda _: runs)
    runs[1][1].user_attrs[BEST_ITERATION] = 2  # later than that of the whole
    curve = read_curve(study, "tiny", 0)
    assert (curve.n_seen, curve.more) == (batch_size, 0)
    assert curve.loss_gain == curve.score_gain == Interval(0, 0, 0)
    assert [row.share.mean for row in curve.rows] == [1, 1, 1]
    whole = curve.rows[-1].size
    assert curve.sentences() == [
        f"4 examples give what {whole} give: a run sees no more of them.",
        f"By its best evaluation a run on all {whole} has seen {batch_size} of them: until then "
        "more examples change nothing. More iterations may tell.",
    ]


def check_report_has(curve, study, place):
    report = make_report(study, place)
    assert list(report.data_said) == curve["sentences"]
    assert [row[0] for row in report.data_curve.rows] == [str(r["size"]) for r in curve["rows"]]
    page = report_page(report, study)
    assert '<section id="data">' in page
    around, line, runs = loss_by_data(study).data
    assert list(runs.y) == [row["val_loss"] for row in curve["rows"]]
    assert line.y[-1] == curve["expected_loss"]["mean"]
    assert (max(around.y), min(around.y)) == (
        max(row["fitted_loss"]["high"] for row in curve["rows"]),
        min(curve["expected_loss"]["low"], *(row["fitted_loss"]["low"] for row in curve["rows"])),
    )
