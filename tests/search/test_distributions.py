import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hawsweep.errors import SpecError
from hawsweep.search.distributions import distributions, first_settings, suggested_learning_rate
from hawsweep.spec.read import check_sweep

LLAMA = {"model_type": "llama", "hidden_size": 576}
SEARCHES = {
    "log": {"learning_rate": {"low": 1e-5, "high": 2e-3, "log": True}},
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


def test_first_settings_are_the_suggested_rate_and_a_third_of_it():
    rate = suggested_learning_rate(LLAMA)
    first, second = first_settings(sweep(SEARCHES["log"] | SEARCHES["ranks"]), LLAMA)
    assert first["learning_rate"] == pytest.approx(rate, rel=0.005)
    assert second["learning_rate"] == pytest.approx(rate / 3, rel=0.005)


def test_first_settings_take_the_middle_and_the_highest_rank():
    found = first_settings(sweep(SEARCHES["ranks"]), LLAMA)
    assert [settings["lora_parameters.rank"] for settings in found] == [8, 32]


def test_first_settings_take_most_iterations_and_fewest_accumulated_batches():
    search = SEARCHES["steps"] | SEARCHES["accumulation"] | SEARCHES["log"]
    for settings in first_settings(sweep(search), LLAMA):
        assert settings["iters"] == 160
        assert settings["grad_accumulation_steps"] == 2


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
