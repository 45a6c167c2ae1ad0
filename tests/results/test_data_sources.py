"""What the records of one source are worth in those of another."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_sweep import tiny_sweep

from hawsweep import load_sweep, run_sweep
from hawsweep.cli import main
from hawsweep.data.load import count_by_source, load_data
from hawsweep.errors import DataError
from hawsweep.results.data_curve import PowerLaw
from hawsweep.results.data_sources import DataSources, SourceWorth, Worth
from hawsweep.spec.sweep import DataSpec
from hawsweep.views.json_schema import OUTPUTS

SIZES = (20, 62, 193, 598, 1854)
N_SMALL = 8


def falling(size, floor, power):
    return 2 * (floor + (1 - floor) * (np.asarray(size) / SIZES[0]) ** -power)


def test_worth_is_held_as_often_as_it_says():
    generator = np.random.default_rng(0)
    held, n_studies = 0, 150
    for study in range(n_studies):
        floor, power = generator.uniform(0, 0.8), np.exp(generator.uniform(-1.6, 0))
        noise = np.exp(generator.uniform(-6.2, -4))
        worth = np.exp(generator.uniform(np.log(40), np.log(1500)))
        known = falling(SIZES, floor, power) * (1 + noise * generator.normal(size=len(SIZES)))
        reached = falling(worth, floor, power) * (1 + noise * generator.normal())
        law = PowerLaw(SIZES, known, seed=study)
        low, high = np.quantile(np.minimum(law.size_at(reached), 1e6), (0.025, 0.975))
        held += low <= worth <= high
    assert 0.91 <= held / n_studies <= 0.99


def test_loss_below_the_floor_is_reached_by_no_number():
    law = PowerLaw(SIZES, falling(SIZES, 0.5, 0.7))
    assert np.median(law.size_at(falling(300, 0.5, 0.7))) == pytest.approx(300, rel=0.02)
    assert np.isinf(np.median(law.size_at(0.5)))


def test_worth_is_said_in_words():
    largest = SourceWorth("book.csv", 2264, None)
    by_hand = SourceWorth(
        "hand.csv", 20, None, Worth(183.2, 121.0, 264.9), Worth(None, 4100.0, None)
    )
    assert DataSources("pairs", 3, (largest, by_hand)).sentences() == [
        "20 of hand.csv alone are worth 180 (95 % 120 to 260) of book.csv, by validation loss.",
        "Beside all 2,264 of book.csv they are worth more than 4,100 more of it.",
    ]
    assert str(Worth(900.0, 310.0, None)) == "900 (95 % 310 to any number)"


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "hand.csv"
    rows = [f"ka puke {n},the book {n}" for n in range(N_SMALL + 2)]
    path.write_text("\n".join(["hawaiian,english", *rows, ""]), encoding="utf-8")
    return str(path)


def test_source_of_weight_0_keeps_its_validation_and_test_records(small, chat_data_dir):
    specs = [DataSpec(path=str(chat_data_dir)), DataSpec(path=small)]
    both = load_data(specs)
    assert count_by_source(specs) == [len(both.train) - N_SMALL, N_SMALL]
    one = load_data([specs[0].model_copy(update={"weight": 0.0}), specs[1]])
    assert (len(one.train), one.weights) == (N_SMALL, None)
    for split in ("valid", "test"):
        assert getattr(one, split).fingerprint == getattr(both, split).fingerprint
    with pytest.raises(DataError, match="train"):
        load_data([DataSpec(path=small, weight=0)])


def test_two_sources_are_trained_alone_and_together(tmp_path, small, tiny_model_dir, chat_data_dir):
    sweep = tiny_sweep(tiny_model_dir, chat_data_dir)
    sweep["data"] = [str(chat_data_dir), small]
    spec = load_sweep(sweep, {"trials": 1, "search.iters.choices": (8,), "train.steps_per_eval": 4})
    place = tmp_path / "studies"
    with ThreadPoolExecutor() as threads:
        threads.submit(run_sweep, spec, "tiny", studies_dir=place).result(timeout=1800)
    command = ["data-curve", "tiny", "--studies-dir", str(place), "--sizes", "4,8", "--plain"]
    shown = CliRunner().invoke(main, [*command, "--sources"])
    assert shown.exit_code == 0, shown.output
    again = CliRunner().invoke(main, [*command[:4], "--sources", "--json"])
    found = json.loads(again.stdout)
    OUTPUTS["data-curve"].validate_python(found)
    largest, other = found["sources"]["sources"]
    assert (other["name"], other["n"], other["curve"]) == (small, N_SMALL, None)
    assert largest["n"] + N_SMALL == found["rows"][-1]["size"]
    assert [row["size"] for row in largest["curve"]["rows"]] == [4, 8, largest["n"]]
    assert largest["curve"]["rows"][-1]["val_loss"] != found["rows"][-1]["val_loss"]
    said = " ".join(shown.output.split())
    assert all(" ".join(each.split()) in said for each in found["sources"]["sentences"])


def test_data_of_one_source_are_refused_before_training(tmp_path, tiny_model_dir, chat_data_dir):
    changes = {"trials": 1, "search.iters.choices": (8,), "train.steps_per_eval": 4}
    spec = load_sweep(tiny_sweep(tiny_model_dir, chat_data_dir), changes)
    with ThreadPoolExecutor() as threads:
        threads.submit(run_sweep, spec, "tiny", studies_dir=tmp_path).result(timeout=1800)
    command = ["data-curve", "tiny", "--studies-dir", str(tmp_path), "--sources"]
    shown = CliRunner().invoke(main, command)
    assert shown.exit_code == 1
    assert "have one source" in " ".join(shown.output.split())
