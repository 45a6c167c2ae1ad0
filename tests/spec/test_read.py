import pytest

from hawsweep.errors import SpecError
from hawsweep.spec.read import STORED, find_sweep, parse_override, read_sweep, sweep_names
from hawsweep.spec.sweep import GONE_KEYS

SWEEP = """\
model: some/model
data: phrasebook
train: {{{train}}}
search:
  {search}
{more}
"""
RATE = "learning_rate: {low: 1e-5, high: 1e-3, log: true}"


@pytest.fixture
def sweep(tmp_path):
    def write(search=RATE, *, train="", more=""):
        path = tmp_path / "try.yaml"
        path.write_text(SWEEP.format(search=search, train=train, more=more), encoding="utf-8")
        return path

    return write


def fault_of(path, overrides=None):
    with pytest.raises(SpecError) as caught:
        read_sweep(path, overrides)
    message = str(caught.value)
    assert message.startswith(str(path))
    return message.removeprefix(str(path)).lstrip(": ")


def test_bundled_sweep_reads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = read_sweep(find_sweep("lr-rank"))
    assert [data.path for data in spec.data] == ["phrasebook"]
    assert set(spec.search) >= {"learning_rate", "lora_parameters.rank"}


def test_sweep_here_comes_before_bundled_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bundled = find_sweep("lr-rank")
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "lr-rank.yaml").write_text("")
    assert find_sweep("lr-rank").resolve() == tmp_path / "sweeps" / "lr-rank.yaml" != bundled


def test_unknown_name_gives_nearest_known_and_where_to_write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError) as caught:
        find_sweep("lr-rnak")
    message = str(caught.value)
    assert "no sweep 'lr-rnak'" in message
    assert "did you mean 'lr-rank'?" in message
    assert f"Known: {', '.join(sorted(sweep_names()))}." in message
    assert "Write sweeps/lr-rnak.yaml" in message


def test_missing_file_is_named():
    with pytest.raises(SpecError, match=r"no sweep file nowhere/x\.yaml\. Check the path"):
        find_sweep("nowhere/x.yaml")


def test_unreadable_path_is_named_with_reason(tmp_path):
    assert fault_of(tmp_path).startswith("cannot be read: Is a directory")


@pytest.mark.parametrize("text", ["1e-5", "1E-5", "1.0e-5", "+1e-5", "0.00001"])
def test_number_with_exponent_is_a_float(sweep, text):
    assert read_sweep(sweep("iters: {choices: [1]}", train=f"learning_rate: {text}")).train == (
        read_sweep(sweep("iters: {choices: [1]}", train="learning_rate: 1.0e-05")).train
    )


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        (b"model: [", ["is not YAML", "line 1", "Correct it there"]),
        (b"model: caf\xe9", ["is not UTF-8 text", "0xe9", "Save it as UTF-8"]),
        (b"- model\n- data", ["holds a list", "must hold keys such as model, data and search"]),
        (b"", ["holds nothing", "must hold keys such as model, data and search"]),
        (b"model: a\nmodel: b", ["'model' is there twice", "line 2", "Correct it there"]),
        (b"x: !!python/object/apply:os.getcwd []", ["is not YAML", "python/object", "line 1"]),
    ],
)
def test_file_that_is_no_mapping_in_yaml_is_refused(tmp_path, content, messages):
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    fault = fault_of(path)
    assert all(message in fault for message in messages), fault


def test_list_as_a_key_is_refused(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("[model]: a")
    assert "is not YAML" in fault_of(path)


def test_merge_keys_are_read(sweep):
    path = sweep(more="validation: &few {batch_size: 3}\nscoring: {<<: *few, max_tokens: 9}")
    scoring = read_sweep(path).scoring
    assert (scoring.batch_size, scoring.max_tokens) == (3, 9)


@pytest.mark.parametrize(
    ("given", "where", "meant"),
    [
        ({"more": "trails: 3"}, "trails", "trials"),
        ({"train": "batchsize: 3"}, "train.batchsize", "batch_size"),
        ({"train": "lora_parameters: {rnk: 3}"}, "train.lora_parameters.rnk", "rank"),
        ({"more": "pruning: {nmae: none}"}, "pruning.nmae", "name"),
        ({"search": "learning_rate: {low: 0.1, hihg: 1}"}, "search.learning_rate.hihg", "high"),
    ],
)
def test_unknown_key_gives_the_nearest_and_the_known_ones(sweep, given, where, meant):
    fault = fault_of(sweep(**given))
    assert f"{where} is not a key; did you mean '{meant}'?" in fault
    known = fault.split("Known here: ")[1].split(".")[0].split(", ")
    assert meant in known


@pytest.mark.parametrize("key", GONE_KEYS)
def test_key_that_went_is_named_with_what_to_do_instead(sweep, key):
    section, name = key.split(".")
    fault = fault_of(sweep(more=f"{section}: {{{name}: x}}"))
    assert f"{key} is no longer a key: remove it" in fault
    assert GONE_KEYS[key] in fault
    with pytest.raises(SpecError, match=f"{key} is no longer a key"):
        read_sweep(sweep(), {key: "x"})


def test_keys_that_went_are_all_named_at_once(sweep):
    fault = fault_of(sweep(more="machine: {window: 22:00-07:00, on_battery: run, nice: 1}"))
    assert "has 2 faults" in fault
    assert "machine.window is no longer" in fault
    assert "machine.on_battery is no longer" in fault


def test_key_that_went_is_no_fault_of_a_studys_own_spec(sweep, tmp_path):
    path = sweep(more="machine: {on_battery: pause, on_memory_pressure: pause, nice: 7}")
    stored = tmp_path / "stored.yaml"
    stored.write_text(f'{STORED}{{}}, "fingerprints": {{}}}}\n{path.read_text()}')
    assert read_sweep(stored).machine.nice == 7


def test_unsearchable_key_gives_the_nearest_and_the_searchable_ones(sweep):
    fault = fault_of(sweep("lora_parameters.rnk: {choices: [4]}"))
    assert "search.lora_parameters.rnk cannot be searched" in fault
    assert "did you mean 'lora_parameters.rank'?" in fault
    assert "Searchable: fine_tune_type, learning_rate, iters" in fault


@pytest.mark.parametrize(
    ("search", "fault"),
    [
        ("{}", "search is empty: name at least one key to vary, such as learning_rate: {low:"),
        ("learning_rate: {low: 1e-3, high: 1e-5}", "low is 0.001, must not be above high, which"),
        ("learning_rate: {low: 0, high: 1, log: true}", "learning_rate.low is 0, must be above 0"),
        ("learning_rate: {low: 1e-5, high: 2}", "learning_rate.high is 2, must be 1.0 or less"),
        ("learning_rate: {low: 1e-5}", "search.learning_rate.high is missing"),
        ("learning_rate: {low: few, high: 1}", "learning_rate.low is 'few', must be a number"),
        ("learning_rate: {low: 0.1, high: 1, log: true, step: 0.1}", "log and step are both given"),
        (
            "learning_rate: {choices: []}",
            "search.learning_rate.choices is [], must have at least 1",
        ),
        ("learning_rate: {choices: [0.1, 0.1]}", "choices is [0.1, 0.1], must not have the same"),
        ("lora_parameters.rank: {choices: [0, 4]}", "rank.choices[0] is 0, must be 1 or more"),
        ("iters: {low: 10, high: 20, step: 2.5}", "iters.step is 2.5, must be a whole number"),
        ("iters: {low: 10.5, high: 20}", "search.iters.low is 10.5, must be a whole number"),
        ("iters: {low: 40, high: 150, step: 40}", "high is 150, must be low and whole steps of 40"),
        ("lora_parameters.dropout: {low: 0, high: 0.25, step: 0.1}", "such as 0.2 or 0.3"),
        ("iters: {low: 10, high: 20, step: 0}", "search.iters.step is 0, must be above 0"),
        ("batch_size: {choices: [true]}", "batch_size.choices[0] is True, must be a number"),
        ("optimizer: {choices: [adm]}", "optimizer.choices[0] is 'adm', must be 'adam', 'adamw'"),
        ("optimizer: {low: 1, high: 2}", "search.optimizer is a name, must be given as choices"),
        ("learning_rate: 1e-4", "is 0.0001, must be {low: ..., high: ...} or {choices: [...]}"),
    ],
)
def test_search_that_cannot_be_is_refused_with_its_value(sweep, search, fault):
    assert fault in fault_of(sweep(search))


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"train": "batch_size: 0"}, "train.batch_size is 0, must be 1 or more"),
        ({"train": "batch_size: two"}, "train.batch_size is 'two', must be a whole number"),
        ({"train": "mask_prompt: maybe"}, "train.mask_prompt is 'maybe', must be true or false"),
        ({"train": "num_layers: 0"}, "is 0, must be 1 or more, -1 for all layers, or a share"),
        (
            {"train": "optimizer: lion"},
            "train.optimizer is 'lion', must be 'adam', 'adamw', 'sgd', 'adafactor' or",
        ),
        ({"train": "lora_parameters: {dropout: 1}"}, "dropout is 1, must be below 1"),
        ({"more": "timeout: soon"}, "timeout is 'soon', must be a time such as 90s, 20m, 8h"),
        ({"more": "workers: 65"}, "workers is 65, must be auto or a whole number from 1 to 64"),
        ({"more": "scoring: 3"}, "scoring is 3, must be keys"),
        ({"more": "enqueue: [{iters: 3}]"}, "enqueue[0].iters is not searched"),
        (
            {"more": "enqueue: [{learning_rate: 1e-4}, {learning_rate: 0.5}]"},
            "enqueue[1].learning_rate is 0.5, must be between 1e-05 and 0.001",
        ),
        (
            {"search": "iters: {choices: [2, 3]}", "more": "enqueue: [{iters: 4}]"},
            "enqueue[0].iters is 4, must be one of the choices 2, 3",
        ),
        (
            {"train": "lora_parameters: {scale: 20, alpha: 16}"},
            "scale and alpha are both given, but alpha sets scale = alpha / rank; remove one",
        ),
        (
            {
                "train": "lora_parameters: {scale: 20}",
                "search": "lora_parameters.alpha: {choices: [8, 16]}",
            },
            "train.lora_parameters: scale and alpha are both given, but alpha sets scale",
        ),
        (
            {"train": "learning_rate: 1e-4"},
            "search.learning_rate is also fixed as train.learning_rate. Remove one of them",
        ),
        ({"train": "lora_parameters: {scale: .inf}"}, "scale is inf, must be a finite"),
        ({"train": "lora_parameters: {use_rslora: true}"}, "Give lora_parameters.alpha"),
        (
            {
                "train": "lr_schedule: {name: cosine, warmup: 20}",
                "search": "iters: {choices: [16]}",
            },
            "lr_schedule.warmup is 20, but the trial has 16 updates",
        ),
        (
            {
                "train": "lr_schedule: {name: linear, decay_steps: 9}",
                "search": "grad_accumulation_steps: {choices: [1, 2]}\n  iters: {choices: [16]}",
            },
            "decay_steps is 9 after 0 of warmup, but the trial has 8 updates (iters / "
            "grad_accumulation_steps). Shorten it, or leave it out: all updates by default. This "
            "is with iters 16, grad_accumulation_steps 2.",
        ),
        (
            {"train": "lr_schedule: {name: cyclic, warmup: 2}"},
            "warmup is 2, but cyclic begins each cycle with a rise",
        ),
        (
            {"train": "lr_schedule: {name: constant, decay_steps: 2}"},
            "decay_steps is 2, but constant has no use for it. Remove it, or use linear or cosine",
        ),
        ({"train": "lr_schedule: {warmup: 2, warmup_ratio: 0.1}"}, "both given; remove one"),
        ({"train": "lr_schedule: {warmup: 2, warmup_init: 1e-2}"}, "warmup_init is 0.01, above"),
        (
            {"train": "fine_tune_type: full, lora_parameters: {loraplus_lr_ratio: 4}"},
            "loraplus_lr_ratio is given, but full has no B",
        ),
        (
            {"train": "optimizer: adafactor, optimizer_config: {adafactor: {relative_step: true}}"},
            "Adafactor would ignore learning_rate and lr_schedule",
        ),
        (
            {"train": "optimizer_config: {adam: {learning_rate: 1e-3}}"},
            "optimizer_config.adam.learning_rate is given. Use learning_rate",
        ),
        (
            {"train": "optimizer_config: {adamw: {weight_decay: 0.1}}"},
            "optimizer_config.adamw is for an optimizer that no trial uses. Remove it, or set "
            "train.optimizer: adamw",
        ),
        (
            {"search": "num_layers: {low: -1, high: 4}"},
            "search.num_layers.low is -1, must be 1 or more: a range would come to 0",
        ),
        ({"train": "keep_checkpoints: some"}, "must be every or a whole number, 0 or more"),
        ({"more": "validation: {max_examples: 0}"}, "must be auto or a whole number, 1 or more"),
        ({"more": "stop_when: {expected_gain: soon}"}, "must be a share such as 0.2%"),
        ({"more": "stop_when: {expected_gain: 0.002}"}, "must be a share such as 0.2%"),
        ({"more": "stop_when: {expected_gain: 0%}"}, "must be above 0%"),
        ({"more": "stop_when: {expected_gain: 100%}"}, "must be below 100%"),
        (
            {"more": "stop_when: {gain: 1%}"},
            "stop_when.gain is not a key. Known here",
        ),
    ],
)
def test_value_that_cannot_be_is_refused_with_what_may_be(sweep, given, fault):
    assert fault in fault_of(sweep(**given))


@pytest.mark.parametrize(
    "given",
    [
        {
            "train": "lora_parameters: {use_rslora: true}",
            "search": "lora_parameters.alpha: {choices: [8, 16]}",
        },
        {
            "train": "lr_schedule: {decay_steps: 9}",
            "search": "lr_schedule.name: {choices: [linear, cosine]}",
        },
        {
            "train": "optimizer_config: {adamw: {weight_decay: 0.1}, sgd: {momentum: 0.9}}",
            "search": "optimizer: {choices: [adamw, sgd]}",
        },
    ],
)
def test_fixed_key_that_needs_a_searched_one_is_taken(sweep, given):
    read_sweep(sweep(**given))


def test_data_sets_of_a_list_are_named_by_their_place(sweep):
    several = [{"path": "phrasebook"}, {"path": "more", "weight": -1}]
    assert "data[1].weight is -1, must be 0.0 or more" in fault_of(sweep(), {"data": several})
    assert "must name at least one data set" in fault_of(sweep(), {"data": []})
    taken = read_sweep(sweep(), {"data": ["phrasebook", {"path": "more", "weight": 3}]}).data
    assert [(each.path, each.weight) for each in taken] == [("phrasebook", 1.0), ("more", 3.0)]


def test_prompt_without_its_place_is_refused(sweep):
    fault = fault_of(sweep(), {"data.prompt": "Translate."})
    assert "data.prompt is 'Translate.', must contain {source}" in fault


def test_missing_key_is_named(tmp_path):
    path = tmp_path / "no-model.yaml"
    path.write_text(f"data: phrasebook\nsearch: {{{RATE}}}")
    assert fault_of(path) == "model is missing."


def test_all_faults_are_listed_at_once_each_with_its_key(sweep):
    path = sweep(
        "lora_parameters.rank: {choices: [4, 0]}", train="batch_size: 0, sead: 1", more="trials: 0"
    )
    first, *faults = fault_of(path).splitlines()
    assert first == "has 4 faults:"
    keys = ["train.batch_size", "train.sead", "trials", "search.lora_parameters.rank.choices[1]"]
    assert [fault.split(" is ")[0].strip() for fault in faults] == keys


@pytest.mark.parametrize(
    "given",
    [
        {"search": "num_layers: {choices: [0]}"},
        {"more": "workers: 0"},
        {"search": "learning_rate: 1e-4"},
    ],
    ids=["choice", "union", "no-mapping"],
)
def test_one_fault_is_told_once_and_in_the_files_own_words(sweep, given):
    fault = fault_of(sweep(**given))
    assert "faults" not in fault
    assert "constrained" not in fault
    assert fault.count(" is ") == 1


def test_search_may_be_nested_as_train_is(sweep):
    nested = read_sweep(sweep("lora_parameters: {rank: {choices: [4, 8]}, alpha: {choices: [8]}}"))
    dotted = read_sweep(
        sweep("lora_parameters.rank: {choices: [4, 8]}\n  lora_parameters.alpha: {choices: [8]}")
    )
    assert nested.search == dotted.search


def test_overrides_come_before_the_check(sweep):
    overrides = dict(
        map(parse_override, ["train.batch_size=2", "trials=3", "search.learning_rate.high=1e-4"])
    )
    spec = read_sweep(sweep(train="batch_size: 0"), overrides)
    assert (spec.train.batch_size, spec.trials) == (2, 3)
    assert (spec.search["learning_rate"].low, spec.search["learning_rate"].high) == (1e-5, 1e-4)


def test_override_of_a_fault_names_its_key(sweep):
    assert "train.batch_size is 0, must be" in fault_of(sweep(), {"train.batch_size": 0})


def test_override_adds_a_searched_key_with_a_dot(sweep):
    key, value = parse_override("search.lora_parameters.rank.choices=[4,8]")
    spec = read_sweep(sweep(), {key: value})
    assert spec.search["lora_parameters.rank"].choices == (4, 8)
    assert "learning_rate" in spec.search


def test_override_replaces_a_searched_key_of_the_nested_form(sweep):
    path = sweep("lora_parameters: {rank: {choices: [2]}, dropout: {low: 0, high: 0.1}}")
    spec = read_sweep(path, {"search.lora_parameters.rank.choices": [4, 8]})
    assert spec.search["lora_parameters.rank"].choices == (4, 8)
    assert spec.search["lora_parameters.dropout"].high == 0.1


def test_override_of_a_range_by_choices_replaces_it(sweep):
    spec = read_sweep(sweep(), {"search.learning_rate.choices": [1e-4, 1e-3]})
    assert spec.search["learning_rate"].choices == (1e-4, 1e-3)


@pytest.mark.parametrize(
    ("text", "value"),
    [("k=2", 2), ("k=1e-5", 1e-5), ("k=[4, 8]", [4, 8]), ("k=a=b", "a=b"), ("k=", None)],
)
def test_override_value_is_yaml(text, value):
    assert parse_override(text) == ("k", value)


@pytest.mark.parametrize("text", ["train.batch_size", "=2", " =2"])
def test_override_without_key_or_value_is_refused_with_an_example(text):
    with pytest.raises(SpecError) as caught:
        parse_override(text)
    assert str(caught.value).startswith(f"--set {text}: must be KEY=VALUE, such as --set train.")


@pytest.mark.parametrize("value", ["[4", "{a: 1, a: 2}"])
def test_override_that_is_not_yaml_is_refused(value):
    with pytest.raises(SpecError) as caught:
        parse_override(f"k={value}")
    assert str(caught.value).startswith(f"--set k={value}: the value is not YAML: ")


def test_weight_decay_may_be_searched_beside_other_options_of_optimizers(sweep):
    search = "optimizer_config.adamw.weight_decay: {low: 0.001, high: 0.1}"
    fixed = "optimizer: adamw, optimizer_config: {adamw: {%s}}"
    spec = read_sweep(sweep(search, train=fixed % "bias_correction: true"))
    assert spec.train.optimizer_config == {"adamw": {"bias_correction": True}}
    fault = fault_of(sweep(search, train=fixed % "weight_decay: 0.1"))
    assert "search.optimizer_config.adamw.weight_decay is also fixed as train." in fault


@pytest.mark.parametrize(("n_levels", "is_read"), [(49, True), (50, False)])
def test_nesting_within_the_limit_is_only_a_wrong_value(sweep, n_levels, is_read):
    # The sweep's own mapping is a level too.
    fault = fault_of(sweep(more=f"description: {'[' * n_levels}{']' * n_levels}"))
    assert ("must be text" in fault) == is_read
    assert ("nested deeper than 50 levels" in fault) != is_read


@pytest.mark.parametrize("name", ["1e5", "1E+5", "0x1F", "true", "2001-01-01", "1:30", "~", "a: b"])
def test_name_that_looks_like_something_else_is_written_in_quotes(sweep, tmp_path, name):
    spec = read_sweep(sweep(more=f"description: '{name}'"))
    assert spec.description == name
    again = tmp_path / "again.yaml"
    again.write_text(spec.dump_yaml(), encoding="utf-8")
    assert read_sweep(again).description == name
