import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hawsweep.cli import main
from hawsweep.data.columns import Columns
from hawsweep.data.load import load_data
from hawsweep.errors import DataError, MemoryBudgetError, ModelError, SpecError
from hawsweep.machine import backend, memory
from hawsweep.prepare.design import choose_batch, choose_width, nice
from hawsweep.prepare.draft import draft_sweep, write_draft
from hawsweep.prepare.inspect_data import (
    UNCUT,
    DataView,
    SplitView,
    find_template,
    inspect_data,
)
from hawsweep.prepare.sweep_text import render, scalar, short
from hawsweep.spec.read import check_sweep, read_sweep
from hawsweep.spec.yaml_text import parse_yaml
from hawsweep.text import duration, time_text
from hawsweep.units import parse_duration

GEMMA = "mlx-community/gemma-3-4b-it-4bit"
MAC = memory.Machine(128 * 10**9, 100 * 10**9, gpu_bytes=96 * 10**9, device="Apple M1 Ultra")


@pytest.fixture
def mac(tmp_path, monkeypatch):
    """As if this were one, its cache empty: planning asks these two, and loads nothing."""
    monkeypatch.setenv("HAWSWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(backend, "device_here", lambda: "metal")
    monkeypatch.setattr(memory, "this_machine", lambda: MAC)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty current folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def write_csv(path, rows, header=("Hawaiian", "English")):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return str(path)


def pairs(n, n_words=60):
    """As many pairs, all different, of passages of so many words."""
    return [(f"{i} " + "nani " * n_words, f"{i} " + "pretty " * n_words) for i in range(n)]


def view_of(lengths, n_train=1000):
    lengths = np.array(lengths)
    splits = {"train": SplitView(n_train, 0, 0), "valid": SplitView(100, 0, 0)}
    return DataView(splits, (), lengths, lengths // 2, "counted", True, True)


# Looking at data


def test_view_counts_splits_tokens_duplicates_empty_texts_and_leaks(tmp_path, tiny_model_dir):
    def record(source, answer):
        return {"prompt": source, "completion": answer}

    one = record("He kope kēlā no kākou a pau i kēia lā maikaʻi.", "That is coffee.")
    splits = {
        "train": [one, one, record("wai", "water"), record("iʻa", " ")],
        "valid": [one, record("lā", "sun")],
    }
    for name, records in splits.items():
        text = "".join(f"{json.dumps(each)}\n" for each in records)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    spec = check_sweep(
        {
            "model": str(tiny_model_dir),
            "data": str(tmp_path),
            "train": {"mask_prompt": True, "max_seq_length": UNCUT},
            "search": {"learning_rate": {"choices": [1e-3]}},
        },
        "a sweep",
    )
    template = find_template(tiny_model_dir, trust_remote_code=False)
    view = inspect_data(spec, template)
    assert view.splits == {"train": SplitView(4, 1, 1), "valid": SplitView(2, 0, 0)}
    assert [(leak.part, leak.n_identical) for leak in view.leaks] == [
        ("source", 1),
        ("reference", 1),
    ]
    messages = [
        {"role": "user", "content": one["prompt"]},
        {"role": "assistant", "content": one["completion"]},
    ]
    whole = template.encode(messages).tokens
    assert view.lengths[0] == len(whole)
    assert view.n_longer(len(whole) - 1) == 2  # it is there twice
    assert view.is_tokenized
    estimated = inspect_data(spec, None)
    assert not estimated.is_tokenized
    assert estimated.splits == view.splits


def test_no_model_folder_has_no_template():
    assert find_template(None, trust_remote_code=False) is None


# Sizes


@pytest.mark.parametrize(
    ("lengths", "width"),
    [
        ([40, 100], 384),  # 100, and four of 70 in the mean before it
        ([1000] * 9, 1024),
        ([300] * 100, 1024),  # with four before it 1500: room to 1024 costs little
        ([100] * 999 + [5000], 128),  # the one is cut
        ([9000] * 9, 8192),
    ],
)
def test_width_cuts_nothing_but_the_few_that_are_long(lengths, width):
    assert choose_width(view_of(lengths)) == width


@pytest.mark.parametrize(
    ("mean", "n_train", "batch"),
    [(350, 2000, 1), (50, 2000, 4), (10, 2000, 8), (10, 40, 5), (10, 6, 1)],
)
def test_batch_has_enough_tokens_and_leaves_enough_batches(mean, n_train, batch):
    assert choose_batch(view_of([mean] * 9, n_train), 2048) == batch


@pytest.mark.parametrize(
    ("value", "near"), [(1.32e-3, 1.2e-3), (4.4e-5, 4e-5), (9.6, 10), (0.071, 0.08), (1.0, 1)]
)
def test_nice_number_is_the_nearest_round_one(value, near):
    assert nice(value) == pytest.approx(near)


# The text


@pytest.mark.parametrize(
    "value",
    [
        *("a", "pairs.csv", "a: b", "# c", "yes", "1e5", "it's", "ʻōlelo", "", "- x", "8h", "10m"),
        *(
            0,
            1,
            0.1,
            2e-5,
            1.5e-4,
            1.0,
            True,
            [1, 2],
            {"low": 1e-5, "log": True},
            "nan",
            "~",
            "12",
            "a\x85b\u2028\x7f",
        ),
    ],
)
def test_scalar_is_read_back_as_it_was(value):
    assert parse_yaml(f"a: {scalar(value)}") == {"a": value}


def test_rendered_file_has_each_reason_beside_its_key_and_no_line_of_its_own():
    content = {"a": 1, "train": {"b": {"c": "x # y"}, "d": {"e": 2}}}
    text = render(content, {"a": "one\ntwo", "train.b.c": "r\x1b", "train.d": "s"}, ["head\nmore"])
    lines = text.splitlines()
    assert lines[0] == "# head more"
    assert re.fullmatch(r"a: 1 +# one two", lines[1])
    assert re.fullmatch(r'    c: "x # y" +# r ', lines[5])
    assert re.fullmatch(r"  d: \{e: 2\} +# s", lines[6])
    assert parse_yaml(text) == content


@pytest.mark.parametrize(
    ("seconds", "whole", "said"),
    [
        (30, "1m", "30 s"),
        (600, "10m", "10 min"),
        (3600, "1h", "1 h"),
        (27060, "7h31m", "7 h 31 min"),
    ],
)
def test_times_are_written_as_people_say_them(seconds, whole, said):
    assert (time_text(seconds), duration(seconds)) == (whole, said)
    assert parse_duration(time_text(seconds)) == max(60, seconds // 60 * 60)


@pytest.mark.parametrize(("value", "text"), [(2e-5, "2e-5"), (1.5e-4, "1.5e-4"), (0.05, "0.05")])
def test_numbers_are_short(value, text):
    assert short(value) == text


# Whole drafts


def test_draft_for_gemma_on_a_mac_fills_a_night_without_running_over(mac):
    data = write_csv("pairs.csv", pairs(2831))
    draft = draft_sweep(GEMMA, data, 8)
    spec, timing = draft.spec, draft.timing
    assert draft.columns == Columns("Hawaiian", "English", "by their names")
    assert {name: each.n_records for name, each in draft.view.splits.items()} == {
        "train": 2831 - 2 * 283,
        "valid": 283,
        "test": 283,
    }
    assert spec.train.batch_size == 1
    assert 0.6 * 8 * 3600 < timing.total_s <= 0.9 * 8 * 3600
    assert spec.timeout + timing.trial_s + timing.test_s <= 8 * 3600 + 60
    assert spec.trials >= 10
    assert spec.train.iters % spec.train.steps_per_eval == 0
    assert spec.confirm.top == 2
    low, high = spec.search["learning_rate"].low, spec.search["learning_rate"].high
    assert low < 4.5e-4 < high  # 5e-4 (2000 / 2560) ** 0.43
    assert not any("too few" in each for each in draft.warnings)
    assert any("The speed was never measured here" in each for each in draft.warnings)


def test_draft_is_read_as_the_sweep_it_says_and_every_key_has_a_reason(mac, tmp_path):
    draft = draft_sweep(GEMMA, write_csv("pairs.csv", pairs(400)), 8)
    write_draft(draft, path := tmp_path / "new" / "a.yaml")
    assert read_sweep(path) == draft.spec
    for line in path.read_text(encoding="utf-8").splitlines():
        is_leaf = line.strip() and not line.startswith("#") and not line.endswith(":")
        if is_leaf and not line.startswith("description"):
            assert re.search(r"\S  +# \w", line), line


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (("english", "hawaiian"), "Hawaiian"),
        (("hawaiian", "english"), "English"),
        (("source", "target"), "English"),
        (("Hawaiian", "Ilocano"), "Ilocano"),
        (("en", "haw"), "Hawaiian"),
        (("HAW", "EN"), "English"),
        (("Source", "Target"), "English"),
        (("Hawaiian", "Translation"), "English"),
        (("Olelo", "Answer"), "English"),
        (("English", "Translation"), None),
        (("eng", "target"), None),
    ],
)
def test_prompt_names_the_language_of_the_target_column(mac, header, language):
    data = write_csv("a.csv", pairs(90), header)
    draft = draft_sweep(GEMMA, data, 8, source=header[0], target=header[1])
    asked = f"Translate to {language}" if language else "Translate"
    assert draft.spec.data[0].prompt == f"{asked}: {{source}}"


def test_column_of_few_repeated_values_is_taken_as_the_group(mac):
    registers = ("formal", "casual", "church")
    rows = [(*pair, registers[n % 3], n) for n, pair in enumerate(pairs(90))]
    header = ("Hawaiian", "English", "register", "number")
    draft = draft_sweep(GEMMA, write_csv("a.csv", rows, header), 8)
    assert draft.columns == Columns(
        "Hawaiian", "English", "by their names", ("number",), "register"
    )
    (data,) = draft.spec.data
    assert data.group == "register"
    assert "compared by group" in draft.reasons["data.group"]
    found = load_data(draft.spec.data)
    assert {record.group for record in found.train} == set(registers)


def test_twenty_pairs_get_high_rates_few_iterations_and_a_warning(mac):
    few = draft_sweep(GEMMA, write_csv("few.csv", pairs(20)), 8)
    many = draft_sweep(GEMMA, write_csv("many.csv", pairs(2000)), 8)
    assert {name: each.n_records for name, each in few.view.splits.items()} == {
        "train": 14,
        "valid": 6,
    }
    rates = [each.spec.search["learning_rate"] for each in (few, many)]
    assert rates[0].low > 3 * rates[1].low
    assert rates[0].high > rates[1].high
    assert few.spec.train.iters <= 20 * 14
    assert few.spec.train.early_stopping_patience == 3
    assert (few.spec.confirm.top, few.spec.confirm.seeds) == (3, 2)
    assert any("6 prompts cannot tell close trials apart" in w for w in few.warnings)
    assert any("There is no test split" in each for each in few.warnings)


def test_draft_for_texts_in_several_writings_says_so_and_what_mends_them(mac):
    rows = [*pairs(40), ("He u'i ʻo ia", "She is pretty."), ("ka\u0304u", "yours"), ("kāna", "his")]
    warnings = draft_sweep(GEMMA, write_csv("mixed.csv", rows), 8).warnings
    assert "the okina is written ʻ 1 time, ' 1 time. Set data.normalize: okina." in warnings
    says = "texts with composed characters (Unicode NFC): 1, with decomposed ones (NFD): 1. Set "
    assert any(each.startswith(says) for each in warnings)


def test_more_time_is_used_and_too_little_is_refused_with_what_would_do(mac):
    data = write_csv("pairs.csv", pairs(2831))
    used = []
    for hours in (4, 8, 16):
        spec = draft_sweep(GEMMA, data, hours).spec
        used.append(spec.trials * spec.train.iters)
    assert used == sorted(used)
    with pytest.raises(SpecError, match=r"0\.1 hours are too short for 3 trials of") as fault:
        draft_sweep(GEMMA, data, 0.1)
    enough = float(re.search(r"Give --hours ([\d.]+) or more", str(fault.value))[1])
    assert draft_sweep(GEMMA, data, enough).spec.trials >= 3


def test_too_little_time_for_a_model_of_few_blocks_says_what_would_do(mac, tiny_model_dir):
    with pytest.raises(SpecError, match=r"0\.001 hours are too short for 3 trials of .* Give --ho"):
        draft_sweep(str(tiny_model_dir), write_csv("pairs.csv", pairs(400, 4)), 0.001)


@pytest.mark.parametrize("hours", [0.3, 0.4, 0.5, 0.7, 1.0])
def test_hours_that_are_said_to_be_enough_are_the_fewest(mac, hours):
    few = write_csv("few.csv", pairs(90))
    try:
        assert draft_sweep(GEMMA, few, hours).timing.total_s <= hours * 3600
    except SpecError as fault:
        enough = float(re.search(r"Give --hours ([\d.]+) or more", str(fault))[1])
        assert draft_sweep(GEMMA, few, enough).spec.trials >= 3
        with pytest.raises(SpecError):
            draft_sweep(GEMMA, few, enough - 0.1)


def test_model_without_its_organisation_is_refused_with_the_nearest_name(mac):
    with pytest.raises(ModelError, match=r"ORGANISATION/NAME\. Did you mean mlx-community/gemma-3"):
        draft_sweep("gemma-3-4b-it-4bit", write_csv("pairs.csv", pairs(90)), 8)
    with pytest.raises(
        ModelError, match=r"not known\. Did you mean mlx-community/gemma-3-4b-it-4b"
    ):
        draft_sweep("mlx-community/gema-3-4b-it-4bit", write_csv("pairs.csv", pairs(90)), 8)


def test_what_does_not_fit_is_refused(mac, monkeypatch):
    small = memory.Machine(4 * 10**9, 2 * 10**9, gpu_bytes=3 * 10**9)
    monkeypatch.setattr(memory, "this_machine", lambda: small)
    told = r"No setting of this sweep fits.*`hawsweep init` has no option for .* a smaller model"
    with pytest.raises(MemoryBudgetError, match=told):
        draft_sweep(GEMMA, write_csv("pairs.csv", pairs(400)), 8)


def test_smaller_ranks_or_fewer_blocks_are_taken_where_memory_is_short(mac, monkeypatch):
    small = memory.Machine(16 * 10**9, 6 * 10**9, gpu_bytes=12 * 10**9)
    monkeypatch.setattr(memory, "this_machine", lambda: small)
    draft = draft_sweep(GEMMA, write_csv("pairs.csv", pairs(400)), 24)
    assert draft.plan.largest.plan is not None
    assert draft.plan.scoring_bytes <= draft.plan.arrays_bytes


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("plain text", "valid.jsonl:1 has no answer to compare with"),
        ("options", "is no table: --source and --target name its columns"),
        ("model", "The model 'who/knows' is not here, and its shape is not known"),
        ("half a character", r"data\.path is .* should be a valid string"),
    ],
)
def test_what_no_sweep_can_be_made_of_is_refused(mac, tmp_path, kind, says):
    for name in ("train", "valid"):
        record = {"text": "aloha"} if kind == "plain text" else {"prompt": "a", "completion": "b"}
        (tmp_path / f"{name}.jsonl").write_text(f"{json.dumps(record)}\n" * 40)
    data, model, more = str(tmp_path), GEMMA, {}
    if kind == "options":
        more = {"source": "a"}
    elif kind == "model":
        model = "who/knows"
    elif kind == "half a character":
        data = write_csv(Path("a\udce9.csv"), pairs(400))
    with pytest.raises((DataError, ModelError, SpecError), match=says):
        draft_sweep(model, data, 8, **more)


def test_bundled_model_is_converted_first_so_that_its_tokenizer_counts(
    mac, monkeypatch, tiny_model_dir
):
    told = []

    def convert(name, progress):
        told.append(name)
        return tiny_model_dir

    monkeypatch.setattr("hawsweep.models.resolve.resolve_model", convert)
    monkeypatch.setattr("hawsweep.models.resolve.find_model", lambda name: None)
    draft = draft_sweep("smollm2-135m-instruct", write_csv("pairs.csv", pairs(80, 3)), 8)
    assert told == ["smollm2-135m-instruct"]
    assert draft.view.is_tokenized


def test_file_of_records_is_split_by_its_size(mac, folder):
    lines = (json.dumps({"prompt": a, "completion": b}) for a, b in pairs(100))
    (folder / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    draft = draft_sweep(GEMMA, "pairs.jsonl", 8)
    assert {name: each.n_records for name, each in draft.view.splits.items()} == {
        "train": 60,
        "valid": 20,
        "test": 20,
    }
    assert draft.columns is None
    assert draft.reasons["data.path"] == "100 records"


FAULTS = {
    "blank cells": (
        "haw,en\nAloha,Hi\nMahalo,\u00a0\n",
        "1 of 2 rows have an empty haw or en, in line 3",
    ),
    "no header": ("Aloha nui,Big hello\nMahalo,Thanks\n", "its first row reads like data"),
    "three texts": ("a,b,c\nd,e,f\n", "3 of its columns hold words, must be two"),
    "open quotation mark": ('haw,en\n"Aloha,Hi\nMahalo,Thanks\n', ":2: the row that begins here"),
}


@pytest.mark.parametrize(("text", "says"), FAULTS.values(), ids=FAULTS)
def test_table_is_refused_alike_by_init_validate_and_start(mac, folder, text, says):
    (folder / "a.csv").write_text(text, encoding="utf-8")
    spec = check_sweep(
        {"model": GEMMA, "data": "a.csv", "search": {"learning_rate": {"choices": [1e-3]}}}, "a"
    )
    found = set()
    for refuse in (
        lambda: draft_sweep(GEMMA, "a.csv", 8),
        lambda: inspect_data(spec, None),
        lambda: load_data(spec.data),
    ):
        with pytest.raises(DataError, match=says) as caught:
            refuse()
        found.add(str(caught.value))
    assert len(found) == 1


# The command


def init(*arguments):
    return CliRunner().invoke(main, ["init", *arguments], env={"COLUMNS": "160"})


def test_command_writes_shows_why_and_never_overwrites(mac, folder):
    data = write_csv(
        "pairs.csv", [(i, *each) for i, each in enumerate(pairs(400))], ("n", "a", "b")
    )
    done = init("--data", data, "--model", GEMMA, "--hours", "8h")
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    for said in (
        "data pairs.csv: 320 train, 40 valid, 40 test",
        "columns a to b, the two that hold words; not used: n",
        "GB are written while it runs",
        f"To fetch it now: hf download {GEMMA}.",
        "Wrote sweeps/pairs.yaml. Expected to end after",
        "hawsweep plan pairs",
        "hawsweep start pairs",
    ):
        assert said in text
    written = (folder / "sweeps" / "pairs.yaml").read_text(encoding="utf-8")
    again = init("--data", data, "--model", GEMMA, "--hours", "9")
    assert again.exit_code == 1
    assert "sweeps/pairs.yaml is there already. Give another NAME, or --force" in again.stderr
    assert (folder / "sweeps" / "pairs.yaml").read_text(encoding="utf-8") == written
    assert init("--data", data, "--model", GEMMA, "--hours", "9", "--force").exit_code == 0
    assert (folder / "sweeps" / "pairs.yaml").read_text(encoding="utf-8") != written
    other = init("--data", data, "--model", GEMMA, "-o", "elsewhere/mine.yaml")
    assert "hawsweep start elsewhere/mine.yaml" in other.output
    assert (folder / "elsewhere" / "mine.yaml").is_file()


def test_command_gives_json(mac, folder):
    data = write_csv("pairs.csv", pairs(400))
    found = json.loads(init("new", "--data", data, "--model", GEMMA, "--json").stdout)
    assert found["path"] == "sweeps/new.yaml"
    assert found["splits"]["valid"]["n_records"] == 40
    assert found["spec"]["trials"] == read_sweep(folder / "sweeps" / "new.yaml").trials
    assert set(found["reasons"]) >= {"trials", "train.iters", "search.learning_rate"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("../up", "--data", "pairs.csv"), "A study cannot be named '../up'"),
        (("a", "--data", "none.csv"), "The data 'none.csv' was not found"),
        (("a", "--data", "empty.csv"), "rows have an empty"),
        (("a", "--data", "pairs.csv", "-o", "."), "is a folder. Name a file."),
        (("a", "--data", "pairs.csv", "-o", "a.txt"), "a.txt is no name of a sweep's file"),
        (("a", "--data", "pairs.csv", "-o", "pairs.csv/b.yaml"), "cannot be written"),
    ],
)
def test_command_refuses_in_one_message_and_writes_nothing(mac, folder, arguments, says):
    write_csv("pairs.csv", pairs(400))
    write_csv("empty.csv", [("a", "b"), ("c", "")])
    before = sorted(folder.iterdir())
    done = init(*arguments, "--model", GEMMA)
    assert (done.exit_code, says in done.stderr.replace("\n", " ")) == (1, True), done.stderr
    assert sorted(folder.iterdir()) == before


def test_drafted_sweep_of_a_tiny_model_runs(tiny_model_dir, folder):
    rows = [(f"ʻōlelo {i} {i % 7}", f"word {i} {i % 7}") for i in range(60)]
    write_csv("pairs.csv", rows)
    done = init("tiny", "--data", "pairs.csv", "--model", str(tiny_model_dir), "--hours", "0.5")
    assert done.exit_code == 0, done.output
    checked = CliRunner().invoke(main, ["validate", "tiny"])
    assert checked.exit_code == 0, checked.output
    changes = ["trials=1", "train.iters=4", "train.steps_per_eval=2", "scoring.max_tokens=4"]
    changes += ["scoring.max_examples=4", "scoring.prompt.examples=0", "confirm.top=0", "workers=1"]
    command = [sys.executable, "-m", "hawsweep.cli", "start", "tiny"]
    command += [f"--set={each}" for each in changes]
    started = subprocess.run(command, capture_output=True, text=True)
    assert started.returncode == 0, started.stdout + started.stderr
    assert "hawsweep show tiny 0" in started.stdout
