import math

from hawsweep.machine.backend import mx, nn, optim

import pytest
from mlx.utils import tree_flatten
from mlx_lm.lora import CONFIG_DEFAULTS
from mlx_lm.tuner.utils import build_schedule
from tiny_training import assert_same_adapter, batch_order, mlx_lm_loss, run, settings

from hawsweep.errors import SpecError
from hawsweep.spec.train import LoraParameters, TrainSpec
from hawsweep.training.adapters import beyond_mlx_lm, mlx_lm_config
from hawsweep.training.optimizers import (
    learning_rate_at,
    make_optimizer,
    mlx_lm_schedule,
    set_learning_rate,
)
from hawsweep.training.train import trainable

RATE = 0.03


@pytest.fixture
def model(tiny_model):
    return tiny_model.model


def updated(optimizer, values, gradients):
    """The values after one update."""
    mx.eval(found := optimizer.apply_gradients(gradients, values))
    return found


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("adam", "Adam", {"betas": (0.8, 0.9), "eps": 1e-3, "bias_correction": True}),
        ("adamw", "AdamW", {"weight_decay": 0.3}),
        ("sgd", "SGD", {"momentum": 0.5, "weight_decay": 0.1}),
        ("adafactor", "Adafactor", {"clip_threshold": 0.5, "scale_parameter": False}),
        ("muon", "Muon", {"momentum": 0.5, "nesterov": False}),
    ],
)
def test_optimizer_is_mlxs_of_that_name_with_its_options_alone(name, kind, options):
    others = {"adam": {"eps": 1.0}, "sgd": {"momentum": 0.9}}
    train = settings(optimizer=name, learning_rate=RATE, optimizer_config={**others, name: options})
    ours = make_optimizer(train)
    more = {"relative_step": False} if name == "adafactor" else {}
    theirs = getattr(optim, kind)(learning_rate=RATE, **more, **options)
    assert type(ours) is type(theirs)
    assert ours.learning_rate.item() == pytest.approx(RATE)
    values = {"a": mx.random.normal((4, 3)), "b": mx.random.normal((3,))}
    for _ in range(2):
        gradients = {name: mx.random.normal(value.shape) for name, value in values.items()}
        new, expected = (updated(each, values, gradients) for each in (ours, theirs))
        assert all(mx.array_equal(new[name], expected[name]) for name in values)
        values = new


def test_adafactor_steps_by_the_learning_rate_even_from_zero():
    gradients = {"b": mx.random.normal((4, 3))}
    steps = []
    for rate in (RATE, 2 * RATE):
        optimizer = make_optimizer(settings(optimizer="adafactor", learning_rate=rate))
        steps.append(updated(optimizer, {"b": mx.zeros((4, 3))}, gradients)["b"])
    assert mx.abs(steps[0]).max() > RATE / 10
    assert mx.allclose(steps[1], 2 * steps[0], rtol=1e-5)


def test_option_the_optimizer_does_not_have_is_named():
    train = settings(optimizer="adam", optimizer_config={"adam": {"momentum": 0.5}})
    with pytest.raises(SpecError, match=r"train\.optimizer_config\.adam.*momentum.*Correct it"):
        make_optimizer(train)


def test_weight_decay_of_adamw_shrinks_by_rate_and_decay():
    values, gradients = {"a": mx.random.normal((4, 3))}, {"a": mx.random.normal((4, 3))}
    found = []
    for decay in (0.0, 0.5):
        options = {"adamw": {"weight_decay": decay}}
        train = settings(optimizer="adamw", learning_rate=RATE, optimizer_config=options)
        found.append(updated(make_optimizer(train), values, gradients)["a"])
    assert mx.allclose(found[0] - found[1], RATE * 0.5 * values["a"], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
@pytest.mark.parametrize(
    "schedule",
    [
        {},
        {"warmup": 5},
        {"warmup": 4, "warmup_init": 1e-3, "end_factor": 0.2},
        {"warmup_ratio": 0.26, "end_factor": 0.1},
        {"end_factor": 0.5},
    ],
    ids=str,
)
@pytest.mark.parametrize("decay_steps", [None, 7])
def test_schedule_is_mlx_lms_at_each_update(name, schedule, decay_steps):
    if name != "constant":
        schedule = {**schedule, "decay_steps": decay_steps}
    train = settings(iters=20, learning_rate=RATE, lr_schedule={"name": name, **schedule})
    theirs = mlx_lm_schedule(train)
    rates = [learning_rate_at(train, update) for update in range(20)]
    if theirs is None:
        assert rates == [RATE] * 20
        return
    rate_at = build_schedule(theirs)
    expected = [mx.array(rate_at(mx.array(update))).item() for update in range(20)]
    assert rates == pytest.approx(expected, rel=1e-4, abs=RATE * 1e-6)
    assert max(rates) == pytest.approx(RATE)


def test_cyclic_rate_rises_and_falls_evenly():
    schedule = {"name": "cyclic", "cycle_steps": 8, "end_factor": 0.2, "warmup": 2}
    train = settings(iters=40, learning_rate=RATE, lr_schedule=schedule)
    low, step = 0.2 * RATE, 0.8 * RATE / 4
    cycle = [low + step * min(n, 8 - n) for n in range(8)]
    expected = [0, RATE / 2, low, *cycle, *cycle]
    assert [learning_rate_at(train, update) for update in range(19)] == pytest.approx(expected)
    assert mlx_lm_schedule(train) is None


def test_warmup_ratio_is_a_share_of_the_updates():
    schedule = {"warmup_ratio": 0.3}
    train = settings(iters=40, grad_accumulation_steps=4, learning_rate=RATE, lr_schedule=schedule)
    rates = [learning_rate_at(train, update) for update in range(10)]
    assert rates == pytest.approx([0, RATE / 3, RATE * 2 / 3, *[RATE] * 7])


def test_rate_is_counted_in_updates_whatever_the_accumulation(model, train_examples, tmp_path):
    schedule = {"name": "linear", "end_factor": 0.1, "warmup": 1, "warmup_init": 0.02}
    train = settings(iters=10, grad_accumulation_steps=4, lr_schedule=schedule, batch_size=1)
    _, recorder, _ = run(model, train, train_examples, tmp_path)
    by_update = [learning_rate_at(train, update) for update in range(3)]
    assert by_update[:2] == pytest.approx([0.02, 0.1])
    expected = [by_update[iteration // 4] for iteration in range(10)]
    assert [report.learning_rate for report in recorder.reports] == expected


def first_gradients(model, train, examples):
    """Initial values and gradients of the first batch's mean loss, by name."""
    chosen = [examples[i] for i in next(batch_order(train, examples))]
    with trainable(model, train):

        def mean_loss(model):
            losses = [mlx_lm_loss(model, example) for example in chosen]
            return sum(mean * n for mean, n in losses) / sum(n for _, n in losses)

        _, gradients = nn.value_and_grad(model, mean_loss)(model)
        values = model.trainable_parameters()
        mx.eval(gradients, values)
        return dict(tree_flatten(values)), dict(tree_flatten(gradients))


def step_of(model, train, examples, folder):
    """What the first update adds to each value; what the run told."""
    values, gradients = first_gradients(model, train, examples)
    after, recorder, _ = run(model, train, examples, folder)
    return {name: after[name] - values[name] for name in values}, gradients, recorder


def test_update_is_the_scheduled_rate_times_the_gradient(model, train_examples, tmp_path):
    schedule = {"warmup": 1, "warmup_init": 0.025}
    train = settings(iters=1, fine_tune_type="full", num_layers=1, lr_schedule=schedule)
    steps, gradients, recorder = step_of(model, train, train_examples, tmp_path)
    assert recorder.reports[0].learning_rate == 0.025
    expected = {name: -0.025 * gradient for name, gradient in gradients.items()}
    assert_same_adapter(steps, expected, 1e-3)


@pytest.mark.parametrize("share", [0.25, 4.0, None])
def test_gradient_is_clipped_to_its_largest_total_norm(model, train_examples, tmp_path, share):
    train = settings(iters=1, fine_tune_type="full", num_layers=1)
    _, gradients = first_gradients(model, train, train_examples)
    norm = math.sqrt(sum((each * each).sum().item() for each in gradients.values()))
    largest = None if share is None else share * norm
    train = train.model_copy(update={"max_grad_norm": largest})
    steps, _, recorder = step_of(model, train, train_examples, tmp_path)
    assert recorder.reports[0].grad_norm == pytest.approx(norm, rel=1e-4)
    factor = -train.learning_rate * min(share or 1, 1)
    assert_same_adapter(steps, {n: factor * each for n, each in gradients.items()}, 1e-3)


def test_loraplus_multiplies_the_steps_of_b_alone(model, train_examples, tmp_path):
    plain = settings(iters=2)
    plus = settings(iters=2, lora_parameters={"loraplus_lr_ratio": 8.0})
    one = plain.model_copy(update={"iters": 1})
    before, _ = first_gradients(model, plain, train_examples)
    first, _, _ = run(model, one, train_examples, tmp_path)
    first_plus, _, _ = run(model, plus.model_copy(update={"iters": 1}), train_examples, tmp_path)
    b = [name for name in first if name.endswith("lora_b")]
    assert len(b) == len(first) / 2
    for name in b:  # B starts as 0
        assert mx.allclose(first_plus[name], 8 * first[name], rtol=1e-4)
        assert mx.abs(first[name]).max() > 0
    assert all(mx.array_equal(first_plus[n], before[n]) for n in first if n not in b)
    optimizer = make_optimizer(plus)
    set_learning_rate(optimizer, plus, RATE)
    ones = {"x": {"lora_a": mx.ones(1), "lora_b": mx.ones(1)}}
    after = updated(optimizer, ones, ones)["x"]
    assert 1 - after["lora_a"].item() == pytest.approx(RATE, rel=1e-5)
    assert 1 - after["lora_b"].item() == pytest.approx(8 * RATE, rel=1e-5)


def test_rslora_scale_is_alpha_by_the_root_of_rank():
    assert LoraParameters(rank=16, alpha=8, use_rslora=True).effective_scale == 8 / 4
    assert LoraParameters(rank=16, alpha=8).effective_scale == 8 / 16


def test_what_mlx_lm_has_no_key_for_is_listed():
    assert beyond_mlx_lm(TrainSpec()) == []
    changes = {
        "max_grad_norm": 0.5,
        "order": "curriculum",
        "difficulty": "base_loss",
        "early_stopping_patience": 3,
        "early_stopping_threshold": 0.1,
        "keep_checkpoints": 2,
    }
    train = settings(
        **changes, lora_parameters={"loraplus_lr_ratio": 4}, lr_schedule={"name": "cyclic"}
    )
    assert set(beyond_mlx_lm(train)) == {
        *(f"{key}: {value}" for key, value in changes.items()),
        "lora_parameters.loraplus_lr_ratio: 4",
        "lr_schedule.name: cyclic",
    }


def test_config_of_default_settings_is_mlx_lms_default(tmp_path):
    config = mlx_lm_config(TrainSpec(), tmp_path / "m", tmp_path / "d", tmp_path / "a")
    assert config.keys() <= CONFIG_DEFAULTS.keys()
    ours = {"model", "data", "adapter_path", "train", "val_batches", "optimizer_config"}
    changed = {key for key in config if config[key] != CONFIG_DEFAULTS[key]}
    assert changed == ours
    assert config["optimizer_config"] == {"adam": {}}
