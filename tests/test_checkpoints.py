"""A run that goes on from a state ends as one that was never interrupted, bit for bit."""

from hawsweep.backend import mx

import numpy as np
import pytest
from tiny_training import EndsAt, Recorder, run, settings

from hawsweep.checkpoints import load_state

OPTIMIZERS = ["adam", "adamw", "sgd", "adafactor", "muon"]


@pytest.fixture
def model(tiny_model):
    return tiny_model.model


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "state.safetensors"
    }


def interrupted_then_resumed(model, train, examples, folder, at):
    with pytest.raises(InterruptedError):
        run(model, train, examples, folder, recorder=EndsAt(at))
    state = load_state(folder, train)
    recorder = Recorder()
    adapter, _, result = run(model, train, examples, folder, recorder=recorder, state=state)
    return adapter, recorder, result, state


def assert_same_end(one, two):
    (adapter, result), (other_adapter, other) = one, two
    assert adapter.keys() == other_adapter.keys()
    assert all(mx.array_equal(adapter[name], other_adapter[name]) for name in adapter)
    assert result.best.val_loss == other.best.val_loss
    assert result.best.iteration == other.best.iteration
    assert np.array_equal(result.best.example_losses, other.best.example_losses)
    assert result.n_tokens == other.n_tokens
    for name, values in vars(result.example_losses).items():
        assert np.array_equal(values, getattr(other.example_losses, name)), name


VARIANTS = [
    *({"optimizer": name, "learning_rate": 1e-3} for name in OPTIMIZERS),
    {"lora_parameters": {"dropout": 0.3}},
    {"grad_accumulation_steps": 4, "optimizer": "adam", "learning_rate": 1e-3},
    {"grad_accumulation_steps": 3, "optimizer": "adam", "learning_rate": 1e-3},  # amid an update
    {"lr_schedule": {"name": "cosine", "warmup": 2}},
    {"lora_parameters": {"loraplus_lr_ratio": 4.0}, "optimizer": "adam", "learning_rate": 1e-3},
    {"fine_tune_type": "dora"},
    {"fine_tune_type": "full", "learning_rate": 1e-2},
    {"steps_per_report": 3, "max_grad_norm": 0.5},
    {"grad_accumulation_steps": 3, "max_grad_norm": 0.5},
    {"keep_checkpoints": 2},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_resumed_run_ends_as_one_that_was_not_interrupted(model, train_examples, tmp_path, changes):
    train = settings(**{"iters": 9, "steps_per_eval": 2, **changes})
    adapter, whole, result = run(model, train, train_examples, tmp_path / "whole")
    # Ended in the evaluation at 6, before its state was written: goes on from 4.
    again, resumed, second, state = interrupted_then_resumed(
        model, train, train_examples, tmp_path / "parts", at=6
    )
    assert state.progress.iteration == 4
    assert resumed.iterations == [5, 6, 7, 8, 9]
    assert_same_end((adapter, result), (again, second))
    told = [(r.iteration, r.train_loss, r.grad_norm, r.learning_rate) for r in whole.reports]
    assert [(r.iteration, r.train_loss, r.grad_norm, r.learning_rate) for r in resumed.reports] == [
        each for each in told if each[0] > 4
    ]
    assert [e.val_loss for e, _ in resumed.evaluations] == [
        e.val_loss for e, _ in whole.evaluations if e.iteration > 4
    ]
    assert files_of(tmp_path / "whole") == files_of(tmp_path / "parts")
