import json
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner
from mlx_lm.lora import CONFIG_DEFAULTS

from hawsweep.cli import main
from hawsweep.errors import SpecError
from hawsweep.spec.other_words import _WORDS
from hawsweep.spec.read import bundled_dir, check_sweep
from hawsweep.spec.reference import _SAME_IN_MLX_LM, all_keys, find_keys, reference
from hawsweep.spec.space import MODEL, SEARCHABLE, set_key
from hawsweep.spec.yaml_text import parse_yaml

KEYS = {key.name: key for key in all_keys()}
LEAST = {"model": "m", "data": "phrasebook", "search": {"learning_rate": {"choices": [2e-4]}}}


def explain(*arguments):
    return CliRunner().invoke(main, ["explain", *arguments], env={"COLUMNS": "160"})


def merged(line, search=None):
    """The least sweep there is, with a line in it."""
    content = {**LEAST, **parse_yaml(line)}
    if search is not None:
        content["search"] = search
    return content


@pytest.mark.parametrize("name", KEYS)
def test_example_of_a_key_is_read_and_sets_it(name):
    example = parse_yaml(KEYS[name].example)
    other = {"iters": {"choices": [10]}} if name == "train.learning_rate" else None
    check_sweep(merged(KEYS[name].example, other), "the example")
    value = example
    for part in name.split("."):
        value = value[-1] if isinstance(value, list) else value
        if part == "name" and isinstance(value, str):
            break  # lr_schedule may be its name alone
        value = value[part]
    assert value is not None


@pytest.mark.parametrize("name", SEARCHABLE)
def test_example_of_searching_a_key_is_read(name):
    key = next(iter(find_keys(name if name == MODEL else f"train.{name}")))
    line = key.search_example
    content = merged(line)
    if name == MODEL:
        del content["model"]
    assert list(content["search"]) == [name]
    if name in ("lr_schedule.warmup_ratio", "lr_schedule.end_factor"):
        set_key(content, "train.lr_schedule.name", "cosine")
    if name == "optimizer_config.adamw.weight_decay":
        set_key(content, "train.optimizer", "adamw")
    check_sweep(content, "the example")


def test_source_is_mlx_lm_for_exactly_its_own_keys():
    named = {
        name
        for name in KEYS
        if name.removeprefix("train.") in CONFIG_DEFAULTS
        and (name.startswith("train.") or "." not in name)
    }
    named.remove("report_to")  # which knows other trackers there
    assert named == {key for key in _SAME_IN_MLX_LM if key.count(".") < 2}


def test_every_key_has_a_meaning_and_what_is_allowed():
    assert [name for name, key in KEYS.items() if not (key.meaning and key.allowed)] == []


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("train.lora_parameters.rank", ["train.lora_parameters.rank"]),
        ("rank", ["train.lora_parameters.rank"]),
        ("search.learning_rate", ["train.learning_rate"]),
        ("seed", ["seed"]),
        ("train.optimizer_config.adam.bias_correction", ["train.optimizer_config"]),
        ("n_startup_trials", ["pruning.n_startup_trials", "sampler.n_startup_trials"]),
        ("confirm", ["confirm.top", "confirm.seeds"]),
        ("prompt.examples", ["scoring.prompt.examples"]),
    ],
)
def test_key_is_found_by_its_name_its_section_or_its_end(asked, found):
    assert [key.name for key in find_keys(asked)] == found


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("learnign_rate", "Near it: train.learning_rate."),
        ("train.itres", "Near it: train.iters"),
        ("qqq", "There is no key 'qqq'. `hawsweep explain` lists all keys."),
    ],
)
def test_unknown_key_is_refused_with_the_nearest(asked, near):
    with pytest.raises(SpecError) as fault:
        find_keys(asked)
    assert near in str(fault.value)
    done = explain(asked)
    assert (done.exit_code, near in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("val_batches", "validation.max_examples"),
        ("save_every", "train.steps_per_eval"),
        ("clear_cache_threshold", "memory.budget"),
        ("lora_alpha", "train.lora_parameters.alpha"),
        ("train.lora_alpha", "train.lora_parameters.alpha"),
        ("r", "train.lora_parameters.rank"),
        ("lora_r", "train.lora_parameters.rank"),
        ("target_modules", "train.lora_parameters.keys"),
        ("per_device_train_batch_size", "train.batch_size"),
        ("gradient_accumulation_steps", "train.grad_accumulation_steps"),
        ("num_train_epochs", "train.iters"),
        ("max_steps", "train.iters"),
        ("warmup_ratio", "train.lr_schedule.warmup_ratio"),
        ("save_steps", "train.steps_per_eval"),
        ("eval_steps", "train.steps_per_eval"),
        ("max_length", "train.max_seq_length"),
        ("weight_decay", "train.optimizer_config"),
    ],
)
def test_word_of_another_tool_names_the_key(word, key):
    assert [each.name for each in find_keys(word)] == [key]
    done = explain(word)
    assert done.exit_code == 0
    name = word.rpartition(".")[2]
    assert re.match(rf"{name} of (mlx-lm|PEFT|transformers|trl) is {key} here\.", done.stdout)
    assert json.loads(explain(word, "--json").stdout)[0]["name"] == key
    with pytest.raises(SpecError, match=rf"{name} is not a key: {name} of \S+ is {key} here"):
        check_sweep({**LEAST, "train": {name: 1}}, "a sweep")


def test_every_word_of_another_tool_means_a_key():
    assert {key for _, key, _ in _WORDS.values()} <= KEYS.keys()
    assert not _WORDS.keys() & KEYS.keys()


def test_word_of_another_tool_under_search_is_answered_too():
    search = {"lora_alpha": {"choices": [16, 32]}}
    with pytest.raises(
        SpecError, match=r"lora_alpha of PEFT is train\.lora_parameters\.alpha here"
    ):
        check_sweep({**LEAST, "search": search}, "a sweep")


def test_command_shows_one_key_whole():
    lines = [" ".join(line.split()) for line in explain("learning_rate").output.splitlines()]
    assert lines == [
        "train.learning_rate",
        "Peak learning rate.",
        "allowed number, above 0, 1 or less",
        "default 1e-05",
        "known from mlx-lm",
        "example train: {learning_rate: 2e-4}",
        "searched search: {learning_rate: {low: 1e-5, high: 1e-3, log: true}}",
    ]
    required = explain("data.path").output
    assert "required" in required
    assert "cannot be searched" in required


def test_command_lists_every_key_once_in_its_section():
    lines = explain().output.splitlines()
    titles = [line for line in lines if line and line[0] != " " and "~: can" not in line]
    sections = [re.split(r" {2,}", title)[0] for title in titles]
    assert sections == list(dict.fromkeys(k.group or "of the sweep itself" for k in all_keys()))
    names = [line.split()[0] for line in lines if line[:2] == "  " and line[2] != " "]
    assert sorted(names) == sorted(key.name.removeprefix(f"{key.group}.") for key in all_keys())


def test_command_gives_json():
    (found,) = json.loads(explain("rank", "--json").output)
    assert found["name"] == "train.lora_parameters.rank"
    assert found["limits"] == ["1 or more", "65536 or less"]
    assert len(json.loads(explain("--json").output)) == len(KEYS)


def test_command_does_without_mlx_and_optuna():
    code = (
        "import sys; from hawsweep.cli import main\n"
        "main(['explain', 'rank'], standalone_mode=False)\n"
        "print([name for name in sys.modules if name in ('mlx', 'torch', 'optuna', 'mlx_lm')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_reference_lists_each_bundled_sweep_with_its_question():
    text = reference()
    for path in bundled_dir().glob("*.yaml"):
        (row,) = [line for line in text.splitlines() if line.startswith(f"| [{path.stem}](")]
        question = row.split(" | ")[-1].removesuffix(" |")
        assert f"description: {question}" in path.read_text(encoding="utf-8")
