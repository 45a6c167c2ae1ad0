"""What a run leaves on disk; one that goes on from it ends as one that was never interrupted."""

import json

from hawsweep.machine.backend import mx

import numpy as np
import pytest
from tiny_training import EndsAt, Recorder, assert_same_adapter, run, settings

from hawsweep.layout import STATE_FILE
from hawsweep.training.adapters import adapted, load_adapter, replace_safetensors
from hawsweep.training.checkpoints import load_state
from hawsweep.training.evaluation import make_evaluator
from hawsweep.training.train import Interrupted

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


@pytest.mark.parametrize("n_steps", range(1, 8))
def test_run_of_joined_batches_stopped_anywhere_ends_as_one_that_was_not(
    model, train_examples, tmp_path, n_steps
):
    train = settings(
        iters=14,
        batch_size=1,
        steps_per_eval=5,
        grad_accumulation_steps=4,
        optimizer="adam",
        learning_rate=1e-3,
    )
    train = train.model_copy(update={"steps_per_report": 7})
    parts = tmp_path / "parts"
    parts.mkdir()
    adapter, whole, result = run(model, train, train_examples, tmp_path / "whole", micro_batch=3)
    ends = [3, 4, 5, 7, 8, 10, 11, 12, 14]
    assert whole.iterations == ends
    calls = iter(range(1, 100))
    with pytest.raises(Interrupted):
        run(
            model,
            train,
            train_examples,
            parts,
            micro_batch=3,
            should_stop=lambda: next(calls) == n_steps,
        )
    state = load_state(parts, train)
    assert state.progress.iteration == ends[n_steps - 1]
    again, resumed, second = run(model, train, train_examples, parts, micro_batch=3, state=state)
    assert resumed.iterations == ends[n_steps:]
    assert_same_end((adapter, result), (again, second))
    assert files_of(tmp_path / "whole") == files_of(parts)


def test_run_goes_on_with_joined_batches_from_amid_what_would_be_joined(
    model, train_examples, tmp_path
):
    train = settings(iters=8, batch_size=1, grad_accumulation_steps=4, steps_per_report=8)
    expected, _, _ = run(model, train, train_examples, tmp_path / "whole")
    calls = iter(range(1, 100))
    with pytest.raises(Interrupted):
        run(model, train, train_examples, tmp_path, should_stop=lambda: next(calls) == 1)
    state = load_state(tmp_path, train)
    adapter, recorder, _ = run(model, train, train_examples, tmp_path, micro_batch=4, state=state)
    assert recorder.iterations == [4, 8]
    assert_same_adapter(adapter, expected, 1e-5)


@pytest.mark.parametrize(("keep", "n_kept"), [(0, 0), (2, 2), ("every", 4)])
def test_checkpoints_kept_are_those_of_the_best_evaluations(
    model, train_examples, tmp_path, keep, n_kept
):
    train = settings(iters=8, steps_per_eval=2, keep_checkpoints=keep, learning_rate=1)
    _, recorder, _ = run(model, train, train_examples, tmp_path)
    losses = {each.iteration: each.val_loss for each, _ in recorder.evaluations}
    assert list(losses) == [2, 4, 6, 8]
    assert sorted(losses, key=losses.get) != [8, 6, 4, 2]  # else the last would do
    wanted = sorted(losses, key=losses.get)[:n_kept]
    kept = {int(path.name): path for path in (tmp_path / "checkpoints").glob("*")}
    assert kept.keys() == set(wanted)
    evaluate = make_evaluator(model, train_examples[:4], 4)
    for iteration, folder in kept.items():
        with adapted(model, train):
            load_adapter(model, folder)
            assert evaluate(0).val_loss == losses[iteration]


ADAM = {"optimizer": "adam", "learning_rate": 1e-3, "steps_per_eval": 2}


@pytest.mark.parametrize(
    "changes",
    [
        {"lora_parameters": {"dropout": 0.3}, "keep_checkpoints": 2},
        {"lr_schedule": {"name": "linear", "warmup": 1, "decay_steps": 3}},
        {"grad_accumulation_steps": 2},
    ],
    ids=str,
)
def test_finished_run_with_more_iterations_ends_as_a_longer_one(
    model, train_examples, tmp_path, changes
):
    short = settings(**ADAM, iters=4, **changes)
    long = short.model_copy(update={"iters": 8})
    adapter, recorder, result = run(model, long, train_examples, tmp_path / "long")
    run(model, short, train_examples, tmp_path / "short")
    state = load_state(tmp_path / "short", long)
    again, resumed, second = run(model, long, train_examples, tmp_path / "short", state=state)
    assert resumed.iterations == [5, 6, 7, 8]
    assert resumed.losses == recorder.losses[4:]
    assert_same_end((adapter, result), (again, second))
    assert files_of(tmp_path / "long") == files_of(tmp_path / "short")


@pytest.mark.parametrize(
    "changes",
    [
        {"lr_schedule": {"name": "cosine"}},
        {"lr_schedule": {"name": "constant", "warmup_ratio": 0.5}},
        {"order": "curriculum"},
        {"iters": 3},
        {"grad_accumulation_steps": 3},
        {"steps_per_report": 3},
    ],
    ids=str,
)
def test_finished_run_whose_length_showed_is_not_extended(model, train_examples, tmp_path, changes):
    short = settings(**{**ADAM, "iters": 4, **changes})
    run(model, short, train_examples, tmp_path)
    assert load_state(tmp_path, short).progress.iteration == short.iters
    assert load_state(tmp_path, short.model_copy(update={"iters": 8})) is None


@pytest.mark.parametrize(("iters", "goes_on"), [(4, True), (5, False)])
def test_interrupted_run_is_extended_only_past_an_end_that_the_longer_one_has(
    model, train_examples, tmp_path, iters, goes_on
):
    # Killed at its end, it may have kept an adapter that a run of 8 never evaluates.
    short = settings(**ADAM, iters=iters)
    with pytest.raises(InterruptedError):
        run(model, short, train_examples, tmp_path, recorder=EndsAt(4))
    state = load_state(tmp_path, short.model_copy(update={"iters": 8}))
    assert (state is not None) == goes_on


@pytest.fixture
def left(model, train_examples, tmp_path):
    """Settings and the folder of a finished run."""
    train = settings(**ADAM, iters=4)
    run(model, train, train_examples, tmp_path)
    return train, tmp_path


@pytest.mark.parametrize(
    "changes",
    [{"learning_rate": 2e-3}, {"seed": 1}, {"batch_size": 2}, {"iters": 2}, {"num_layers": 1}],
    ids=str,
)
def test_state_of_other_settings_is_not_gone_on_from(left, changes):
    train, folder = left
    assert load_state(folder, train) is not None
    assert load_state(folder, train.model_copy(update=changes)) is None


@pytest.mark.parametrize("changes", [{"grad_checkpoint": True}, {"keep_checkpoints": 3}], ids=str)
def test_state_of_settings_without_influence_is_gone_on_from(left, changes):
    train, folder = left
    assert load_state(folder, train.model_copy(update=changes)).progress.iteration == 4


def test_state_of_an_earlier_version_is_gone_on_from(left):
    """It lacks keys that came later, and has losses of examples, which went."""
    train, folder = left
    arrays, metadata = mx.load(str(folder / STATE_FILE), return_metadata=True)
    content = json.loads(metadata["hawsweep"])
    assert content["train"].pop("max_train_samples", "missing") is None
    earlier = {**arrays, "examples/count": mx.zeros(8)}
    replace_safetensors(folder / STATE_FILE, earlier, {"hawsweep": json.dumps(content)})
    assert load_state(folder, train).progress.iteration == 4
    assert load_state(folder, train.model_copy(update={"max_train_samples": 4})) is None


def test_broken_or_missing_state_is_none(left):
    train, folder = left
    path = folder / STATE_FILE
    whole = path.read_bytes()
    other = b'{"hawsweep":"{}"}'
    broken = [whole[:n] for n in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1)]
    for content in (*broken, b"nonsense" * 100, whole.replace(b"progress", b"prog_ess"), other):
        path.write_bytes(content)
        assert load_state(folder, train) is None
    path.unlink()
    assert load_state(folder, train) is None
