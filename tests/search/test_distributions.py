import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hawsweep.errors import SpecError
from hawsweep.search.coordinates import Coordinates
from hawsweep.search.distributions import distributions, first_settings, suggested_learning_rate
from hawsweep.spec.read import check_sweep
from hawsweep.spec.space import corners, values_of

LLAMA = {"model_type": "llama", "hidden_size": 576}
SEARCHES = {
    "log": {"learning_rate": {"low": 1e-5, "high": 2e-3, "log": True}},
    "rate-wide": {"learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}},
    "log-below": {"learning_rate": {"low": 1e-6, "high": 1.2345e-5, "log": True}},
    "log-above": {"learning_rate": {"low": 0.0123456, "high": 0.1, "log": True}},
    "grid": {"learning_rate": {"low": 1.5e-4, "high": 0.003924, "step": 1.11e-4}},
    "rates": {"learning_rate": {"choices": [1e-3, 1e-5, 1e-4]}},
    "ranks": {"lora_parameters.rank": {"choices": [32, 4, 16, 8]}},
    "steps": {"iters": {"low": 40, "high": 160, "step": 40}},
    "odd-steps": {"num_layers": {"low": 1, "high": 10, "step": 3}},
    "log-int": {"batch_size": {"low": 1, "high": 64, "log": True}},
    "names": {"optimizer": {"choices": ["sgd", "adam"]}},
    "shares": {"lora_parameters.dropout": {"low": 0, "high": 0.1}},
    "share-grid": {"lora_parameters.dropout": {"low": 0, "high": 0.1, "step": 0.05}},
    "warm-up": {"lr_schedule.warmup_ratio": {"low": 0, "high": 0.3, "step": 0.1}},
    "one-value": {"lora_parameters.alpha": {"low": 16, "high": 16}},
    "accumulation": {"grad_accumulation_steps": {"low": 2, "high": 8, "step": 2}},
}


def sweep(search, **changes):
    content = {"model": "m", "data": "phrasebook", "search": search, **changes}
    return check_sweep(content, "a sweep")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("log", FloatDistribution(1e-5, 2e-3, log=True)),
        ("grid", FloatDistribution(1.5e-4, 0.003924, step=1.11e-4)),
        ("shares", FloatDistribution(0, 0.1)),
        ("ranks", CategoricalDistribution((32, 4, 16, 8))),
        ("names", CategoricalDistribution(("sgd", "adam"))),
        ("steps", IntDistribution(40, 160, step=40)),
        ("log-int", IntDistribution(1, 64, log=True)),
    ],
)
def test_distribution_is_of_the_declared_kind(name, expected):
    (found,) = distributions(sweep(SEARCHES[name]).search).values()
    assert type(found) is type(expected)
    assert found == expected


def test_each_searched_key_has_its_distribution():
    search = SEARCHES["log"] | SEARCHES["ranks"] | SEARCHES["steps"]
    assert list(distributions(sweep(search).search)) == list(search)


@pytest.mark.parametrize("name", [pytest.param(n) if n == "grid" else n for n in SEARCHES])
def test_first_settings_are_points_of_the_space(name):
    spec = sweep(SEARCHES[name])
    found = first_settings(spec, LLAMA)
    assert found
    for settings in found:
        assert settings.keys() == spec.search.keys()
        for key, distribution in distributions(spec.search).items():
            assert distribution._contains(distribution.to_internal_repr(settings[key])), settings


def test_first_settings_are_rates_around_the_suggested_one_and_both_ends_of_the_rank():
    rate = suggested_learning_rate(LLAMA)
    found = first_settings(sweep(SEARCHES["rate-wide"] | SEARCHES["ranks"]), LLAMA)
    expected = [(rate, 32), (2 * rate, 32), (rate / 3, 32), (rate, 4)]
    assert [each["lora_parameters.rank"] for each in found] == [rank for _, rank in expected]
    rates = [each["learning_rate"] for each in found]
    assert rates == pytest.approx([value for value, _ in expected], rel=0.005)


def test_rates_beyond_the_range_are_at_its_end_and_come_once():
    rate = suggested_learning_rate(LLAMA)
    search = {"learning_rate": {"low": rate / 2, "high": rate, "log": True}}
    found = [each["learning_rate"] for each in first_settings(sweep(search), LLAMA)]
    assert found == pytest.approx([rate, rate / 2], rel=0.005)


@pytest.mark.parametrize(("n_train", "rank"), [(99, 8), (100, 32), (None, 32)])
def test_first_rank_is_the_middle_one_with_few_records(n_train, rank):
    found = first_settings(sweep(SEARCHES["ranks"]), LLAMA, n_train)
    assert found[0]["lora_parameters.rank"] == rank


@pytest.mark.parametrize(
    ("key", "asked", "safest"),
    [
        ("iters", {"low": 40, "high": 160, "step": 40}, 160),
        ("num_layers", {"choices": [4, 16, 8]}, 16),
        ("grad_accumulation_steps", {"choices": [4, 1, 2]}, 1),
        ("batch_size", {"choices": [4, 1]}, 1),
        ("optimizer_config.adamw.weight_decay", {"low": 0, "high": 0.1}, 0),
        ("lora_parameters.dropout", {"choices": [0.1, 0.0]}, 0),
        ("lora_parameters.alpha", {"choices": [8, 64, 24]}, 24),
        ("lora_parameters.scale", {"low": 1, "high": 10}, 10),
        ("lr_schedule.warmup_ratio", {"low": 0, "high": 0.1}, 0.1),
        ("optimizer", {"choices": ["muon", "adam"]}, "muon"),
    ],
)
def test_all_else_begins_at_its_safest_value(key, asked, safest):
    train = {"optimizer": "adamw"} if "adamw" in key else {}
    for settings in first_settings(sweep(SEARCHES["log"] | {key: asked}, train=train), LLAMA):
        assert settings[key] == safest


def test_first_settings_that_would_be_the_same_are_one():
    assert first_settings(sweep(SEARCHES["steps"]), LLAMA) == [{"iters": 160}]


def test_enqueued_settings_come_instead():
    given = [{"learning_rate": 1e-4}, {"learning_rate": 1e-3}]
    assert first_settings(sweep(SEARCHES["log"], enqueue=given), LLAMA) == given
    assert first_settings(sweep(SEARCHES["log"], enqueue=[]), LLAMA) == []


def test_enqueued_value_between_two_steps_is_refused():
    with pytest.raises(SpecError, match=r"enqueue\[0\]\.iters is 50, must be"):
        sweep(SEARCHES["steps"], enqueue=[{"iters": 50}])


@pytest.mark.parametrize(
    ("kind", "power"),
    [("llama", 0.781), ("qwen3", 0.0775), ("gemma3", (0.781 + 0.0775) / 2)],
)
def test_suggested_rate_is_the_published_rule(kind, power):
    for width in (576, 2000, 4096):
        config = {"model_type": kind, "hidden_size": width}
        assert suggested_learning_rate(config) == pytest.approx(5e-4 * (2000 / width) ** power)


def test_suggested_rate_reads_the_language_part_of_a_config():
    nested = {"model_type": "gemma3", "text_config": {"hidden_size": 1000}}
    flat = {"model_type": "gemma3", "hidden_size": 1000}
    assert suggested_learning_rate(nested) == suggested_learning_rate(flat)


def sweep_of_blocks():
    return check_sweep(
        {
            "model": "x/y",
            "data": "pairs.csv",
            "search": {
                "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
                "num_layers": {"choices": [8, -1, 16]},
            },
        },
        "a sweep",
    )


def test_all_blocks_are_more_than_any_number_of_them():
    spec = sweep_of_blocks()
    assert values_of("num_layers", spec.search["num_layers"]) == [8, 16, -1]
    assert {first["num_layers"] for first in first_settings(spec, {})} == {-1}  # the safest
    few, more, all_of_them = Coordinates(spec.search).array(
        [{"learning_rate": 1e-4, "num_layers": n} for n in (8, 16, -1)]
    )[:, 1]
    assert few < more < all_of_them
    ends = [each["num_layers"] for each in corners(spec.search, ("num_layers",))]
    assert ends == [8, -1]
