import math

import pytest
from pydantic import ValidationError

from hawsweep.errors import SpecError
from hawsweep.spec.checks import NEWS
from hawsweep.spec.read import check_sweep, find_sweep, read_sweep
from hawsweep.spec.space import MODEL, SEARCHABLE, apply_settings, set_key
from hawsweep.spec.sweep import SweepSpec
from hawsweep.spec.train import LoraParameters, TrainSpec
from hawsweep.units import parse_duration

CONTENT = {
    "description": "A sweep with every section.",
    "model": "some/model",
    "data": {"path": "pairs.csv", "source": "haw", "target": "en", "seed": 3},
    "train": {
        "batch_size": 2,
        "mask_prompt": True,
        "optimizer": "adamw",
        "lora_parameters": {"alpha": 32, "keys": ["self_attn.q_proj"]},
    },
    "search": {
        "learning_rate": {"low": 1e-5, "high": 2e-3, "log": True},
        "lora_parameters.rank": {"choices": [4, 8]},
        "iters": {"low": 40, "high": 120, "step": 40},
    },
    "enqueue": [{"learning_rate": 1e-4, "lora_parameters.rank": 8, "iters": 80}],
    "pruning": {"name": "percentile", "percentile": 25},
    "timeout": "8h",
    "machine": {"keep_awake": False, "hang_timeout": "30m"},
    "trials": 5,
}


def spec_with(**changes):
    return SweepSpec.model_validate({**CONTENT, **changes})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (90, 90),
        (0.5, 0.5),
        ("90", 90),
        ("90s", 90),
        ("20m", 20 * 60),
        ("8h", 8 * 3600),
        ("1.5h", 1.5 * 3600),
        ("1h30m", 3600 + 30 * 60),
        ("1d2h3m4s", 86400 + 2 * 3600 + 3 * 60 + 4),
    ],
)
def test_duration_of_known_form_is_in_seconds(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "8 hours", "30m1h", "-5s", None, True, [5]])
def test_duration_of_unknown_form_is_refused_with_examples(text):
    with pytest.raises(ValueError, match=r"must be a time such as 90s, 20m, 8h or 1h30m"):
        parse_duration(text)


@pytest.mark.parametrize("value", [0, "0s", -1, math.inf, math.nan])
def test_duration_that_is_not_above_zero_is_refused(value):
    with pytest.raises(ValueError, match="must be longer than 0"):
        parse_duration(value)


def test_iters_are_an_outcome_at_a_constant_rate():
    spec, changed = spec_with().trained_longest()
    assert spec.train.iters == 120
    assert spec.search.keys() == {"learning_rate", "lora_parameters.rank"}
    assert spec.enqueue == ({"learning_rate": 1e-4, "lora_parameters.rank": 8},)
    assert changed.startswith("each trial is trained for 120 iterations, and its best evaluation")
    assert spec.trained_longest() == (spec, "")
    choices = {**CONTENT["search"], "iters": {"choices": [80, 60]}}
    assert spec_with(search=choices).trained_longest()[0].train.iters == 80


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"lr_schedule": "cosine"}},
        {"train": {"lr_schedule": {"warmup_ratio": 0.1}}},
        {"train": {"order": "curriculum"}},
        {"search": {**CONTENT["search"], "order": {"choices": ["shuffle", "curriculum"]}}},
        {"search": {**CONTENT["search"], "lr_schedule.name": {"choices": ["constant", "linear"]}}},
        {"search": {"iters": {"low": 40, "high": 80, "step": 20}}, "enqueue": None},
        {"search": {"learning_rate": {"choices": [1e-4]}}, "enqueue": None},
    ],
)
def test_iters_are_searched_where_a_run_does_not_contain_the_shorter_or_nothing_else_is(changes):
    spec = spec_with(**changes)
    assert spec.trained_longest() == (spec, "")


def test_alpha_sets_scale_relative_to_rank():
    assert LoraParameters(rank=16, alpha=32).effective_scale == 32 / 16


def test_scale_is_used_as_is_whatever_the_rank():
    assert LoraParameters(rank=16, scale=3).effective_scale == 3


def test_scale_is_mlx_lms_default_without_scale_and_alpha():
    from mlx_lm.lora import CONFIG_DEFAULTS

    assert LoraParameters().effective_scale == CONFIG_DEFAULTS["lora_parameters"]["scale"]


def test_train_defaults_are_mlx_lms():
    from mlx_lm.lora import CONFIG_DEFAULTS

    defaults = TrainSpec().model_dump()
    # What is a section, and what a plan decides.
    others = {"lora_parameters", "optimizer_config", "lr_schedule", "grad_checkpoint"}
    shared = defaults.keys() & CONFIG_DEFAULTS.keys() - others
    assert {"learning_rate", "iters", "batch_size", "num_layers", "max_seq_length"} <= shared
    assert {key: defaults[key] for key in shared} == {key: CONFIG_DEFAULTS[key] for key in shared}


def test_every_searchable_key_but_the_model_is_a_train_key():
    names = {
        "fine_tune_type": "dora",
        "optimizer": "muon",
        "order": "curriculum",
        "lr_schedule.name": "cosine",
        "augment.name": "diacritics",
        "lora_parameters.keys": ("self_attn.q_proj", "mlp.up_proj"),
    }
    for key, kind in SEARCHABLE.items():
        if key == MODEL:
            continue
        value = names[key] if kind is str else {int: 16, float: 0.5}[kind]
        settings = {}
        set_key(settings, key, value)
        found = TrainSpec.model_validate(settings).model_dump()
        for part in key.split("."):
            found = found[part]
        assert found == value


def test_apply_settings_puts_nested_keys_beside_fixed_ones():
    train = spec_with().train
    tried = apply_settings(train, {"learning_rate": 3e-4, "lora_parameters.rank": 4})
    assert tried.learning_rate == 3e-4
    assert tried.lora_parameters.rank == 4
    assert tried.lora_parameters.alpha == 32
    assert tried.lora_parameters.effective_scale == 32 / 4
    assert tried.batch_size == train.batch_size
    assert train.lora_parameters.rank == LoraParameters().rank


def test_apply_settings_checks_values():
    with pytest.raises(ValidationError, match="rank"):
        apply_settings(TrainSpec(), {"lora_parameters.rank": 0})


def test_spec_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        spec_with().trials = 3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trials", 99),
        ("timeout", "20m"),
        ("workers", 4),
        ("memory", {"budget": "24GB"}),
        ("memory", {"reserve": "5%"}),
        ("machine", {"nice": 0}),
        ("sampler", {"name": "random"}),
        ("pruning", {"name": "promote"}),
        ("stop_when", {"expected_gain": "1%"}),
        ("description", "Another text."),
    ],
)
def test_digest_ignores_what_does_not_change_a_trial(key, value):
    assert getattr(spec_with(**{key: value}), key) != getattr(spec_with(), key)
    assert spec_with(**{key: value}).digest() == spec_with().digest()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", "other/model"),
        ("data.path", "other.csv"),
        ("data.seed", 4),
        ("train.batch_size", 4),
        ("train.seed", 1),
        ("train.mask_prompt", False),
        ("train.lora_parameters.alpha", 16),
        ("search.learning_rate.high", 1e-3),
        ("search.lora_parameters.rank.choices", [4, 16]),
        ("enqueue", [{"iters": 40}]),
        ("validation.max_examples", 16),
        ("scoring.max_tokens", 16),
        ("seed", 1),
    ],
)
def test_digest_changes_with_what_changes_a_trial(key, value):
    content = dict(CONTENT)
    set_key(content, key, value)
    changed = SweepSpec.model_validate(content)
    assert changed.fingerprint() != spec_with().fingerprint()
    assert changed.digest() != spec_with().digest()


def test_digest_does_not_depend_on_the_order_of_keys():
    backwards = dict(reversed(CONTENT.items()))
    assert SweepSpec.model_validate(backwards).digest() == spec_with().digest()


@pytest.mark.parametrize(
    "spec", [spec_with(), read_sweep(find_sweep("lr-rank"))], ids=["full", "lr-rank"]
)
def test_dump_yaml_reads_back_as_the_same_spec(spec, tmp_path):
    path = tmp_path / "again.yaml"
    path.write_text(spec.dump_yaml(), encoding="utf-8")
    again = read_sweep(path)
    assert again.model_dump() == spec.model_dump()
    assert again.digest() == spec.digest()


def test_dump_yaml_writes_defaults_out(tmp_path):
    text = spec_with().dump_yaml()
    assert f"max_seq_length: {TrainSpec().max_seq_length}" in text
    assert "n_warmup_steps" in text


def test_set_key_makes_missing_levels_and_keeps_neighbours():
    content = {"train": {"seed": 1}}
    set_key(content, "train.lora_parameters.rank", 4)
    assert content == {"train": {"seed": 1, "lora_parameters": {"rank": 4}}}


def test_set_key_below_data_name_keeps_it_as_path():
    content = {"data": "pairs.csv"}
    set_key(content, "data.seed", 7)
    assert content == {"data": {"path": "pairs.csv", "seed": 7}}


def test_set_key_does_not_change_shared_values():
    train = {"seed": 1}
    set_key({"train": train}, "train.seed", 2)
    assert train == {"seed": 1}


TOLD = {
    "model": "some/model",
    "data": "phrasebook",
    "search": {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}},
}


def test_what_is_told_is_no_part_of_a_study():
    specs = [check_sweep({**TOLD, "notify": each}, "x") for each in (list(NEWS), [], "end")]
    assert len({spec.digest() for spec in specs}) == 1
    assert specs[0] == check_sweep(TOLD, "x")


@pytest.mark.parametrize(
    "asked",
    [
        "https://h/s3cret",
        ["https://h/s3cret"],
        {"webhook": "https://h/s3cret"},
        {"command": "curl s3cret", "on": ["end"]},
        ["end", "end"],
        [["end"]],
        True,
    ],
)
def test_sweep_says_nobody_to_tell(asked):
    with pytest.raises(SpecError) as caught:
        check_sweep({**TOLD, "notify": asked}, "a sweep")
    assert str(caught.value) == (
        "a sweep: notify: must be a list of start, best, end, failure. A sweep does not say where "
        "they are sent, as others may have written it: use --notify or HAWSWEEP_NOTIFY."
    )
