"""The sweeps that come with hawsweep: each is valid, as are the commands in its comments, and each
trains: every kind of trial it can ask for, on the tiny model.
"""

import csv
import itertools
import re
import shlex

import pytest

from hawsweep.cli.start import overrides_of, start
from hawsweep.data.load import load_data
from hawsweep.data.tokens import encode
from hawsweep.models.load import load_model
from hawsweep.search.distributions import distributions, first_settings
from hawsweep.spec.read import bundled_dir, find_sweep, read_sweep
from hawsweep.spec.space import apply_settings, corners
from hawsweep.spec.sweep import DataSpec
from hawsweep.spec.train import TrainSpec
from hawsweep.training.evaluation import make_evaluator
from hawsweep.training.optimizers import check_optimizer
from hawsweep.training.train import TrainCallback, train_adapter, trainable

SWEEPS = {path.stem: path for path in sorted(bundled_dir().glob("*.yaml"))}
LLAMA = {"model_type": "llama", "hidden_size": 2048}


def commands(path):
    """The `hawsweep start` commands in a sweep's comments."""
    text = path.read_text(encoding="utf-8")
    comments = re.findall(r"^#(.*)$", text, re.MULTILINE)
    joined = re.sub(r" \\\n +", " ", "\n".join(comments))
    return re.findall(r"hawsweep start .*", joined)


def overrides(command):
    """What a command line of `hawsweep start` changes."""
    words = shlex.split(command)[2:]
    given = start.make_context("start", words).params
    keys = ("model", "data", "trials", "timeout", "seed", "workers")
    return overrides_of(given["settings"], {key: given[key] for key in keys})


@pytest.mark.parametrize("name", SWEEPS)
def test_sweep_is_valid_and_asks_a_question_in_its_description(name):
    spec = read_sweep(find_sweep(name))
    assert len(spec.description) > 40
    assert first_settings(spec, LLAMA)
    if spec.pruning.name != "none" and "iters" not in spec.search:
        assert spec.pruning.n_warmup_steps < spec.train.iters


@pytest.mark.parametrize("name", SWEEPS)
def test_commands_in_its_comments_are_valid(name):
    for command in commands(SWEEPS[name]):
        assert shlex.split(command)[2] == name
        changes = overrides(command)
        spec = read_sweep(SWEEPS[name], changes)
        assert spec.pruning.n_warmup_steps < spec.train.iters
        assert spec.model == changes["model"]


def test_open_questions_can_be_tried_on_what_comes_with_hawsweep():
    for name in ("high-rank", "long-run", "effective-batch", "schedules"):
        assert "--model smollm2-135m-instruct --data phrasebook" in commands(SWEEPS[name])[0]
    assert "gemma-3-4b-it-bf16 --data pairs.csv" in commands(SWEEPS["full-finetune"])[0]


def test_small_data_learns_from_twenty_of_the_pairs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open("pairs.csv", "w", newline="") as file:
        csv.writer(file).writerows([("haw", "en"), *((f"a{i}", f"b{i}") for i in range(2831))])
    splits = load_data(read_sweep(SWEEPS["small-data"]).data)
    assert len(splits.train) == 20
    assert (len(splits.valid), len(splits.test)) == (1416, 1395)


@pytest.mark.parametrize("name", SWEEPS)
def test_every_kind_of_trial_trains_on_the_tiny_model(
    name, tiny_model_dir, chat_data_dir, tmp_path
):
    spec = read_sweep(SWEEPS[name], {"train.steps_per_eval": 4})
    loaded = load_model(tiny_model_dir)
    records = load_data([DataSpec(path=str(chat_data_dir))]).train
    examples = encode(
        records, loaded.template, TrainSpec(max_seq_length=128, mask_prompt=True)
    ).examples
    kinds = ("fine_tune_type", "optimizer", "lr_schedule.name", "grad_accumulation_steps")
    middle = first_settings(spec, LLAMA, len(records))[0]  # the highest rank is above its width
    assert len(records) < 100
    for number, kind in enumerate(corners(spec.search, kinds)):
        settings = {**middle, **kind, "iters": 4} if "iters" in spec.search else {**middle, **kind}
        train = apply_settings(spec.train, settings)
        layers = min(train.num_layers, len(loaded.model.layers))
        train = train.model_copy(update={"iters": 4, "num_layers": layers, "batch_size": 4})
        check_optimizer(train)
        evaluate = make_evaluator(loaded.model, examples, 4)
        order = itertools.cycle([tuple(range(at, at + 4)) for at in range(0, 16, 4)])
        folder = tmp_path / str(number)
        with trainable(loaded.model, train):
            result = train_adapter(
                loaded.model, train, examples, order, evaluate, folder, TrainCallback()
            )
        assert result.best.val_loss > 0
    assert {*distributions(spec.search)} == {*spec.search}
