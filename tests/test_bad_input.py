"""What people give by mistake, and others by intent: one message that helps, and nothing lost."""

import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import pytest
from click.testing import CliRunner

from hawsweep.cli import main
from hawsweep.data.load import load_data
from hawsweep.data.records import MAX_LINE
from hawsweep.models import resolve
from hawsweep.results import compare_systems
from hawsweep.running import start
from hawsweep.scoring.score import Scorer
from hawsweep.spec.read import check_sweep
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage, study_names
from hawsweep.study.study import create_study

KNOWN_MODEL = "mlx-community/gemma-3-4b-it-4bit"  # its shape is known without its files
KEYS = {
    "model": KNOWN_MODEL,
    "data": "data",
    "search": "{learning_rate: {low: 1e-5, high: 1e-3, log: true}}",
    "scoring": "{embedder: embedder}",
}
RECORDS = {
    split: [{"prompt": f"He {split} {i}.", "completion": f"An answer {i}."} for i in range(n)]
    for split, n in {"train": 6, "valid": 3, "test": 2}.items()
}
START = ("start", "try.yaml")
PLAN = ("plan", "try.yaml", "--ram", "64GB")
SCORE = ("score", "answers.csv")
SQLITE = "studies/hawsweep.db"
THERE = ("--storage", f"sqlite:///{SQLITE}")
SAMPLE = {"source": "a", "reference": "b", "output": "one\u2028two", "similarity": 0.5}


def sweep(**keys):
    """A sweep's text, with keys replaced by others or, by None, left out."""
    return "".join(f"{key}: {value}\n" for key, value in {**KEYS, **keys}.items() if value)


def lines(*records):
    texts = (each if isinstance(each, str) else json.dumps(each) for each in records)
    return "".join(f"{each}\n" for each in texts)


def searching(text):
    return sweep(search=f"{{{text}}}")


def nested(n_levels, opening="[", closing="]"):
    return opening * n_levels + closing * n_levels


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGE_BOMB = "a: &a {k: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 10)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
ALIAS_TOWER = f"a0: &a0 {nested(40)}\na1: [&a1 {'[' * 30}*a0{']' * 30}]\n"


@dataclass
class Case:
    """A command, what it must say, and its exit code; ``files`` and ``given`` come before it."""

    id: str
    args: tuple[str, ...]
    says: str | tuple[str, ...]
    code: int = 1
    files: dict[str, str | bytes] = field(default_factory=dict)
    given: Callable[[Path], None] | None = None
    marks: tuple[pytest.MarkDecorator, ...] = ()


def spec_case(name, text, *says, code=1, args=START):
    return Case(f"spec-{name}", args, says, code, {"try.yaml": text})


def set_case(name, setting, *says):
    return Case(f"set-{name}", (*START, "--set", setting), says)


def jsonl_case(name, line, *says, **others):
    files = {"data/train.jsonl": RECORDS["train"][0], **others}
    good = lines(files.pop("data/train.jsonl"))
    line = line if isinstance(line, bytes) else lines(line).encode()
    return Case(f"data-{name}", START, says, 1, {"data/train.jsonl": good.encode() + line})


def csv_case(name, content, *says, settings=(), code=1, args=START):
    options = [word for setting in settings for word in ("--set", setting)]
    args = (*args, "--data", "pairs.csv", *options)
    return Case(f"csv-{name}", args, says, code, {"pairs.csv": content})


def model_case(name, change, *says, args=START):
    def given(folder):
        change(folder / "model")

    return Case(f"model-{name}", (*args, "--model", "model"), says, 1, {}, given)


def study_case(name, args, given, *says, code=1):
    return Case(f"study-{name}", args, says, code, {}, given)


def score_case(name, content, *says, code=1, args=SCORE):
    return Case(f"score-{name}", args, says, code, {"answers.csv": content})


def config(text):
    return lambda folder: (folder / "config.json").write_text(text)


def changed_config(**values):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def without(*names):
    def change(folder):
        for name in names:
            (folder / name).unlink()

    return change


def made_study(*states, description=""):
    """A study ``made`` with a trial in each of these states."""

    def given(folder):
        spec = check_sweep(
            {
                "model": "model",
                "data": "data",
                "description": description,
                "search": {"learning_rate": {"low": 1e-5, "high": 1e-3}},
            },
            "a sweep",
        )
        place = Place(Path("studies"))
        storage = open_storage(place, create=True)
        made, _ = create_study(storage, place, "made", spec, load_data(spec.data).fingerprint())
        for state in states:
            made.add_trial(optuna.create_trial(state=state))
        storage.remove_session()
        storage.engine.dispose()  # what it has to write is written now

    return given


def with_samples(text):
    def given(folder):
        made_study(FAIL)(folder)
        trial = folder / "studies" / "made" / "trials" / "0000"
        trial.mkdir(parents=True)
        (trial / "samples.jsonl").write_text(text, encoding="utf-8")

    return given


def other_database(folder):
    (folder / "studies").mkdir()
    with closing(sqlite3.connect(folder / SQLITE)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
        connection.execute("INSERT INTO recipes VALUES ('poi')")
        connection.commit()


def cut_database(folder):
    (folder / "studies").mkdir()
    path = folder / SQLITE
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE studies (name TEXT)")
        connection.executemany("INSERT INTO studies VALUES (?)", [("x" * 500,)] * 100)
        connection.commit()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def unreadable(name):
    return lambda folder: (folder / name).chmod(0)


FAIL = optuna.trial.TrialState.FAIL
NO_ROOT = (pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything"),)
CSV = "haw,en\n" + "".join(f"haw {i},en {i}\n" for i in range(20))
ANSWERS = "source,reference,one,two\n"
KNOWN_KEYS = "Known here: description, model, data"

CASES = [
    # a sweep that is no YAML
    spec_case("syntax", "model: [", "try.yaml is not YAML", "line 1, column 9", "Correct it there"),
    spec_case("colon", "model: a: b", "not YAML", "mapping values are not allowed", "line 1"),
    spec_case("quote", 'model: "a', "not YAML", "while scanning a quoted scalar", "line 1"),
    spec_case("duplicate-key", sweep() + "model: b\n", "'model' is there twice", "line 5"),
    spec_case("tab", "model: a\n\tdata: b\n", "not YAML", "line 2"),
    spec_case("two-documents", "model: a\n---\nmodel: b\n", "single document", "line 2"),
    spec_case("long-tag", "!" * 900_000, "could not determine a constructor", "line 1, column 1"),
    spec_case("unknown-alias", "model: *nothing", "found undefined alias", "nothing", "line 1"),
    spec_case("python-tag", "model: !!python/name:os.system", "python/name", "not YAML"),
    spec_case("impossible-date", "model: 2001-02-30", "'2001-02-30' is no timestamp", "line 1"),
    spec_case("bad-int-tag", "trials: !!int few", "'few' is no int", "line 1"),
    spec_case("half-character", r'model: "\ud800"', r"'\ud800' is no str", "line 1"),
    spec_case("empty", "", "holds nothing, must hold keys such as model, data and search"),
    spec_case("only-comment", "# later", "holds nothing"),
    spec_case("list", "- model\n- data\n", "holds a list, must hold keys such as model"),
    spec_case("text", "lr-rank", "holds a str, must hold keys such as model"),
    spec_case("binary", bytes(range(256)), "is not UTF-8 text", "Save it as UTF-8"),
    spec_case("nul", "model: a\0b", "special characters are not allowed"),
    spec_case("utf-16", sweep().encode("utf-16"), "is not UTF-8 text", "Save it as UTF-8"),
    spec_case("latin-1", "model: kākou é".encode("cp1257"), "not UTF-8 text", "0xe2", "Save it"),
    spec_case("bom", b"\xef\xbb\xbf" + sweep().encode(), "weights", code=0, args=PLAN),
    spec_case("deep", f"model: {nested(51)}", "nested deeper than 50 levels", "line 1"),
    spec_case("very-deep", nested(100_000), "nested deeper than 50 levels", "line 1"),
    spec_case("deep-keys", "{a: " * 60 + "}" * 60, "nested deeper than 50 levels"),
    spec_case("alias-tower", ALIAS_TOWER, "nested deeper than 50 levels", "line 2"),
    spec_case("alias-bomb", BOMB, "more than 100,000 values, aliases written out", "line 5"),
    spec_case("merge-bomb", MERGE_BOMB, "more than 100,000 values", "aliases written out"),
    spec_case("alias-of-itself", "data: &a [*a]", "*a stands inside of what it stands for"),
    spec_case("huge", f"model: {'x' * 1_000_001}", "bytes, and at most 1,000,000 are read"),
    # a sweep that is YAML
    spec_case("missing-keys", "model: a", "has 2 faults", "data is missing", "search is missing"),
    spec_case("unknown-key", sweep(trails="3"), "trails is not a key", "did you mean 'trials'?"),
    spec_case(
        "keys-that-went",
        sweep(machine="{window: 22:00-07:00, on_battery: run}"),
        "machine.window is no longer a key: remove it, and have the system's scheduler",
        "machine.on_battery is no longer a key: remove it; `hawsweep stop` ends a sweep",
    ),
    Case(
        "notify-desktop",
        (*START, "--notify", "desktop"),
        "write macosx:// on a Mac",
        files={"try.yaml": sweep()},
    ),
    spec_case("unknown-nested-key", sweep(train="{batchsize: 3}"), "did you mean 'batch_size'?"),
    spec_case("number-as-key", sweep() + "1: 2\n", "has the key 1, must be text: put it in quot"),
    spec_case("null-as-key", sweep() + "null: 2\n", "has the key None, must be text"),
    spec_case("escape-as-key", sweep() + r'"\e[31m": 1', r"\x1b[31m is not a key", KNOWN_KEYS),
    spec_case("wrong-type", sweep(trials="[1]"), "trials is [1], must be a whole number"),
    spec_case("truth-as-number", sweep(trials="true"), "trials is True, must be a number"),
    spec_case("half-a-trial", sweep(trials="1.5"), "trials is 1.5, must be a whole number"),
    spec_case("number-as-model", sweep(model="7"), "model is 7, must be text"),
    spec_case("date-as-model", sweep(model="2026-01-01"), "model is datetime.date", "must be text"),
    spec_case("no-model", sweep(model="''"), "model is '', must not be empty"),
    spec_case("zero", sweep(trials="0"), "trials is 0, must be 1 or more"),
    spec_case("negative", sweep(train="{iters: -5}"), "train.iters is -5, must be 1 or more"),
    spec_case("nan", searching("learning_rate: {low: .nan, high: 1}"), "is nan, must be a finite"),
    spec_case("inf", sweep(train="{max_grad_norm: .inf}"), "is inf, must be a finite number"),
    spec_case("float-overflow", sweep(timeout="1e400"), "1e400 is too large a number", "line 5"),
    spec_case("int-of-400-digits", sweep(seed="1" + "0" * 400), "a number of 401 characters"),
    spec_case("int-of-5000-digits", sweep(seed="9" * 5000), "is a number of 5000 characters"),
    spec_case("hexadecimal", sweep(seed="0x" + "f" * 5000), "is a number of 5002 characters"),
    spec_case("int-of-65-bits", sweep(seed=str(2**64)), "18446744073709551616 is too large", "64"),
    spec_case("huge-batch", sweep(train="{batch_size: 1000000000}"), "must be 4096 or less"),
    spec_case("tiny-step", searching("learning_rate: {low: 0.1, high: 1, step: 5.0e-324}"), "step"),
    spec_case("number-in-quotes", searching("iters: {choices: ['8']}"), "is '8', must be a number"),
    spec_case("list-as-choice", searching("iters: {choices: [[1]]}"), "choices[0] is [1], must be"),
    spec_case("search-of-one-number", searching("iters: 8"), "is 8, must be {low: ..., high: ...}"),
    spec_case("range-and-choices", searching("iters: {low: 1, high: 2, choices: [1]}"), "choices"),
    spec_case("empty-search", searching(""), "search is empty: name at least one key to vary"),
    spec_case("searched-and-fixed", sweep(train="{learning_rate: 0.1}"), "Remove one of them"),
    spec_case("scale-and-alpha", sweep(train="{lora_parameters: {scale: 1, alpha: 2}}"), "remove"),
    spec_case("contradiction", sweep(train="{lr_schedule: {warmup: 5000}}"), "Shorten it"),
    spec_case("duration-of-a-clock", sweep(timeout="10:00"), "timeout is '10:00', must be a time"),
    spec_case("duration", sweep(timeout="8 hours"), "must be a time such as 90s, 20m, 8h or 1h30m"),
    spec_case(
        "hang-too-soon",
        sweep(machine="{hang_timeout: 2s}"),
        "machine.hang_timeout is 2.0",
        "must be 10.0 or more",
    ),
    spec_case("duration-of-ages", sweep(timeout="9" * 50 + "d"), "no longer than ten years"),
    spec_case("size", sweep(memory="{budget: 24}"), "budget is 24, must be auto, a size such as"),
    spec_case(
        "size-beyond", sweep(memory=f"{{budget: {'9' * 30}GB}}"), "GB or less, as no machine"
    ),
    spec_case(
        "share", sweep(memory="{budget: 101%}"), "budget is '101%', must be above 0% and not"
    ),
    spec_case("long-value", sweep(model=f"[{'x' * 9000}]"), "xxx..., must be text"),
    spec_case(
        "many-faults", sweep() + "".join(f"k{i}: 1\n" for i in range(90)), "has over 50 faults"
    ),
    spec_case("weight-of-0", sweep(data="{path: data, weight: 0}"), "has nothing to train on"),
    spec_case("weight-below-0", sweep(data="[{path: data, weight: -1}]"), "weight is -1, must be"),
    spec_case("no-data", sweep(data="[]"), "data is [], must name at least one data set"),
    spec_case("nothing-to-train-on", sweep(data="{path: a, valid_fraction: 0.9}"), "nothing to tr"),
    # where the sweep is
    Case("sweep-missing-file", ("start", "no/where.yaml"), "no sweep file no/where.yaml"),
    Case(
        "sweep-a-folder",
        ("start", "folder.yaml"),
        "folder.yaml cannot be read: Is a directory",
        files={"folder.yaml/x": ""},
    ),
    Case("sweep-unknown", ("start", "lr-rnak"), ("no sweep 'lr-rnak'", "did you mean 'lr-rank'?")),
    Case(
        "sweep-unreadable",
        START,
        "try.yaml cannot be read: Permission denied",
        given=unreadable("try.yaml"),
        marks=NO_ROOT,
    ),
    # --set and other options
    set_case("no-equals", "trials", "--set trials: must be KEY=VALUE, such as --set train.batch_"),
    set_case("no-key", "=3", "--set =3: must be KEY=VALUE"),
    set_case("no-yaml", "trials=[", "--set trials=[: the value is not YAML", "column 2"),
    set_case("unknown", "trails=3", "trails is not a key; did you mean 'trials'?"),
    set_case("deep-key", "a" + ".a" * 60 + "=1", "the key has more than 50 levels"),
    set_case("deep-value", f"model={nested(80)}", "the value is not YAML", "deeper than 50 levels"),
    set_case("infinite", "train.learning_rate=1e999", "1e999 is too large a number"),
    set_case("below-a-name", "model.name=1", "model is {'name': 1}, must be text"),
    Case("option-trials", (*START, "--trials", "many"), "trials is 'many', must be a whole number"),
    Case("option-timeout", (*START, "--timeout", "soon"), "timeout is 'soon', must be a time such"),
    Case("option-workers", (*START, "--workers", "0"), "must be auto or a whole number from 1 to"),
    Case("option-ram", (*PLAN[:3], "lots"), "--ram is 'lots': must be a size such as 24GB"),
    Case("option-pairs", (*PLAN, "--data-pairs", "0"), "0 is not in the range", 2),
    Case("option-pairs-beyond", (*PLAN, "--data-pairs", "9" * 20), "is not in the range", 2),
    Case("option-length-beyond", (*PLAN, "--max-seq-length", "9" * 20), "not in the range", 2),
    Case("option-unknown", (*START, "--trails", "3"), ("No such option", "--trials"), 2),
    Case("option-twice-an-answer", ("score", "a.csv", "--model", "m"), "Give one of FILE", 2),
    Case("option-study-name", (*START, "--study", "../x"), "cannot be named '../x': its folder"),
    Case("option-study-confirm", (*START, "--study", "x.confirm"), "those of runs that confirm"),
    Case("option-studies-dir-a-file", (*START, "--studies-dir", "try.yaml"), "is a file", 2),
    Case("command-unknown", ("strat", "x"), "No such command 'strat'", 2),
    Case("command-without-name", ("start",), "Missing argument 'NAME'", 2),
    # data
    Case(
        "data-missing", (*START, "--data", "no/where"), ("'no/where' was not found", "Looked for")
    ),
    Case("data-name-too-long", (*START, "--data", "d" * 5000), "was not found"),
    Case("data-bracket", (*START, "--data", "[x"), "The data '[x' was not found"),
    Case("data-home-of-nobody", (*START, "--data", "~no-such-user/x"), "was not found"),
    Case(
        "data-a-file",
        (*START, "--data", "try.yaml"),
        ("The data 'try.yaml' was not found", "none that is read (.csv, .tsv, .jsonl"),
    ),
    Case(
        "data-split-missing",
        START,
        ("data has no valid.jsonl; it has test.jsonl, train.jsonl", "Put train.jsonl and valid"),
        given=lambda folder: (folder / "data" / "valid.jsonl").unlink(),
    ),
    Case("data-split-empty", START, "the split train is empty", files={"data/train.jsonl": ""}),
    Case("data-blank-lines", START, "the split valid is empty", files={"data/valid.jsonl": "\n\n"}),
    Case(
        "data-unreadable",
        START,
        "data/train.jsonl cannot be read: Permission denied",
        given=unreadable("data/train.jsonl"),
        marks=NO_ROOT,
    ),
    jsonl_case("json", '{"text": ', "data/train.jsonl:2 is not JSON", "Correct or remove the line"),
    jsonl_case("two-on-a-line", '{"text": "a"} {"text": "b"}', "train.jsonl:2 is not JSON: Extra"),
    jsonl_case("list", "[1]", "train.jsonl:2 holds a list, must be one of"),
    jsonl_case("number", "7", "train.jsonl:2 holds a int, must be one of"),
    jsonl_case("keys", {"a": 1}, "train.jsonl:2 has the keys a, must be one of", '"prompt"'),
    jsonl_case(
        "prompt-alone", {"prompt": "x"}, "train.jsonl:2 has the keys prompt, must be one of"
    ),
    jsonl_case("text-no-text", {"text": None}, "train.jsonl:2 has a text that is not a string"),
    jsonl_case("no-messages", {"messages": []}, "messages that are not a list of at least one"),
    jsonl_case("message-no-keys", {"messages": ["a"]}, "has a message without role and content"),
    jsonl_case(
        "role",
        {"messages": [{"role": "human", "content": "a"}]},
        "train.jsonl:2 has a message with the role 'human', must be user or assistant",
    ),
    jsonl_case("role-no-text", {"messages": [{"role": [1], "content": "a"}]}, "the role [1], must"),
    jsonl_case(
        "half-character", r'{"text": "\ud800"}', r"train.jsonl:2 has '\ud800', half of a ch"
    ),
    jsonl_case("deep", nested(100_000), "train.jsonl:2 is JSON that is nested", "too deep"),
    jsonl_case("digits", '{"text": %s}' % ("9" * 5000), "train.jsonl:2 is not JSON", "4300"),
    jsonl_case("utf-16", '{"text": "ā"}'.encode("utf-16"), "is not UTF-8 text", "Save it as UTF-8"),
    jsonl_case("latin-1", b'{"text": "\xe9"}', "train.jsonl is not UTF-8 text", "0xe9"),
    jsonl_case("nul", b'{"text": "a\0"}', "train.jsonl:2 is not JSON", "control character"),
    jsonl_case("long-line", "x" * MAX_LINE, "train.jsonl:2 is longer than 10 MB", "shorten it"),
    Case(
        "data-valid-is-test",
        PLAN,
        "weights",
        0,
        {"data/valid.jsonl": lines(*RECORDS["test"])},
    ),
    csv_case("empty", "", "pairs.csv is empty", "such as source,target"),
    csv_case("no-header", "Aloha nui,Big hello\na,b\n", "reads like data", "Aloha nui, Big hello"),
    csv_case("columns-are-said", CSV, "columns of pairs.csv: haw to en, by their names"),
    csv_case("one-column", "haw\na\n", "pairs.csv has one column, 'haw', needs two"),
    csv_case("two-separators", "a,b;c\nd,e;f\n", "may be cut at commas and semicolons"),
    csv_case("open-quote", f'{CSV}"a,b\nc,d\n', "pairs.csv:22: the row that begins here cannot"),
    csv_case("three-texts", "a,b,c\nd,e,f\n", "3 of its columns hold words", "data.source"),
    csv_case("unknown-column", CSV, "no column 'x'", "haw, en", settings=["data.source=x"]),
    csv_case(
        "same-column",
        CSV,
        "both from the column 'haw'",
        settings=["data.source=haw", "data.target=haw"],
    ),
    csv_case("duplicate-header", "a,a\nx,y\n", "has two columns 'a'. Rename one"),
    csv_case("long-row", f"{CSV}a,b,c\n", "pairs.csv:22 has 3 cells, more cells than", "quotation"),
    csv_case("short-row", f"{CSV}a\n", "1 of 21 rows have an empty haw or en", "line 22"),
    csv_case("empty-rows", "haw,en\n,\n,\n", "has no rows below its header. Add a row"),
    csv_case(
        "one-row", "haw,en\na,b\n", "the split valid is empty. Add records, or change data.valid"
    ),
    csv_case("two-rows", "haw,en\na,b\nc,d\n", "the split valid is empty. Add records"),
    csv_case("latin-1", "haw,en\né,b\n".encode("latin-1"), "as a CSV in UTF-8", "Save it as UTF-8"),
    csv_case("nul", "haw,en\na\0,b\n", "pairs.csv:2 has a NUL", "Save the file as UTF-8"),
    csv_case("long-cell", f"haw,en\na,{'b' * 200_000}\n", "pairs.csv:2", "field limit (131072)"),
    csv_case("long-line", f"haw,en\n{'b' * (MAX_LINE + 1)}", "pairs.csv:2 is longer than 10 MB"),
    csv_case("bom", f"\ufeff{CSV}", "weights", settings=["data.source=haw"], code=0, args=PLAN),
    Case("csv-negative-share", (*START, "--set", "data.valid_fraction=-1"), "must be 0.0 or more"),
    # a model
    Case(
        "model-missing",
        (*START, "--model", "no-such/model"),
        (
            "The model 'no-such/model' was not found",
            "the Hugging Face cache",
            "where there is a net",
        ),
    ),
    Case("model-bracket", (*START, "--model", "[x"), "The model '[x' was not found"),
    Case("model-name-too-long", (*START, "--model", "m" * 5000), "was not found"),
    Case(
        "model-without-config",
        (*START, "--model", "data"),
        "data is a folder without config.json. Point `model` at",
    ),
    model_case(
        "config-no-json", config("{"), "config.json cannot be read", "Fetch the model again"
    ),
    model_case("config-list", config("[1]"), "config.json does not hold a model's keys"),
    model_case("config-binary", config("\0\1"), "config.json cannot be read"),
    model_case("config-deep", config(nested(100_000)), "config.json cannot be read"),
    model_case(
        "no-weights", without("model.safetensors"), "model has no weights", "mlx_lm.convert"
    ),
    model_case(
        "half-the-parts",
        lambda folder: (folder / "model.safetensors").rename(
            folder / "model-00001-of-00002.safetensors"
        ),
        "model has 1 of the 2 parts of its weights",
        "Fetch the model again",
    ),
    model_case("cut-weights", cut, "model.safetensors is cut off: it has", "Fetch the model again"),
    model_case(
        "text-as-weights",
        lambda folder: (folder / "model.safetensors").write_text("version https://git-lfs"),
        "model.safetensors is not a safetensors file",
        "Fetch the model again",
    ),
    model_case(
        "no-tokenizer",
        without("tokenizer.json", "tokenizer_config.json"),
        "model has no tokenizer: no tokenizer.json",
    ),
    model_case(
        "unknown-architecture",
        changed_config(model_type="hal9000"),
        "model cannot be loaded as an MLX model: Model type hal9000 not supported",
        args=("score", "--data", "data"),
    ),
    model_case(
        "other-width",
        changed_config(hidden_size=32),
        "model cannot be loaded as an MLX model",
        args=("score", "--data", "data"),
    ),
    model_case(
        "text-as-width",
        changed_config(hidden_size="wide"),
        "model/config.json: hidden_size is 'wide', but must be a whole number above 0",
        args=("score", "--data", "data"),
    ),
    model_case(
        "no-adapter",
        lambda folder: None,
        "no-such-folder has no adapter_config.json. Give an adapter's folder",
        args=("score", "--data", "data", "--adapter-path", "no-such-folder"),
    ),
    Case(
        "model-unknown-embedder",
        (*START, "--set", "scoring.embedder=no-such/embedder"),
        "The embedder 'no-such/embedder' was not found",
    ),
    # storage
    Case(
        "storage-text",
        START,
        ("hawsweep.db is not a usable SQLite database", "It is unchanged"),
        files={SQLITE: "my notes " * 200},
    ),
    Case("storage-a-folder", START, "is a folder, must be a database", files={f"{SQLITE}/x": ""}),
    Case(
        "storage-cut",
        ("status",),
        ("hawsweep.db is not a usable SQLite database", "whether a backup can be restored"),
        given=cut_database,
    ),
    *(
        Case(
            f"storage-of-something-else-{args[0]}{'-by-url' * (THERE[1] in args)}",
            args,
            ("is another program's database: it has no studies of Optuna", "It is unchanged"),
            given=other_database,
        )
        for args in (START, ("status",), ("list",), ("show", "x", "0", *THERE), (*START, *THERE))
    ),
    Case("storage-url-missing", ("status", "--storage", "sqlite:///no.db"), "no.db is missing"),
    Case("storage-scheme", ("status", "--storage", "foo://x"), ("foo", "Check that --storage is")),
    Case("storage-no-url", ("status", "--storage", "notes"), "its URL must read dialect+driver"),
    Case(
        "storage-driver",
        ("status", "--storage", "mysql://me@127.0.0.1/x"),
        ("cannot be opened", "the driver of mysql is not installed"),
    ),
    Case("storage-empty", ("status", "--storage", ""), "There are no studies in studies"),
    Case("storage-missing", ("status", "x"), "There are no studies in studies", 1),
    # studies
    study_case("unknown", ("status", "x"), made_study(), "no study 'x'", "Studies here: made"),
    study_case("empty-status", ("status", "made"), made_study(), "made", code=0),
    study_case("empty-list", ("list",), made_study(), "made", code=0),
    study_case("failed-status", ("status", "made", "--why"), made_study(FAIL), "fail", code=0),
    study_case("empty-groups", ("status", "made", "--groups"), made_study(), "made", code=0),
    study_case("empty-show", ("show", "made", "0"), made_study(), "no trial 0; it has none"),
    study_case("failed-show", ("show", "made", "0"), made_study(FAIL), "fail", code=0),
    study_case("show-beyond", ("show", "made", "7"), made_study(FAIL), "it has 0 to 0"),
    study_case(
        "show-text", ("show", "made", "x"), made_study(), "'x' is not a valid trial", code=2
    ),
    study_case("compare", ("compare", "made"), made_study(FAIL), "no complete trial yet"),
    study_case("export", ("export", "made"), made_study(FAIL), "has no complete trial"),
    study_case(
        "try", ("try", "made"), made_study(FAIL), "no complete trial yet", "or name another"
    ),
    study_case("try-no-trial", ("try", "made", "--trial", "1"), made_study(FAIL), "no trial 1"),
    study_case("try-failed", ("try", "made", "--trial", "0"), made_study(FAIL), "has no adapter"),
    study_case("checkpoints", ("score", "--checkpoints", "made", "0"), made_study(FAIL), "kept no"),
    Case("study-checkpoints-text", ("score", "--checkpoints", "made", "x"), "TRIAL is 'x'", 2),
    study_case(
        "damaged-samples",
        ("show", "made", "0"),
        with_samples('{"source": '),
        "samples.jsonl is damaged",
        "Restore it from a backup",
    ),
    study_case(
        "odd-line-end",
        ("show", "made", "0"),
        with_samples(json.dumps(SAMPLE, ensure_ascii=False)),
        "two",
        code=0,
    ),
    study_case("markup", ("status",), made_study(description="[/bold] x"), "[/bold] x", code=0),
    # score
    score_case("missing-column", "a,b\nx,y\n", "no column 'source'. Its columns: a, b"),
    score_case("empty-file", "", "answers.csv is empty"),
    score_case("no-rows", ANSWERS, "answers.csv has no rows below its header"),
    score_case("no-system", "source,reference\na,b\n", "no column beside source and reference"),
    score_case("empty-reference", f"{ANSWERS}a,,c,d\n", "an empty source or reference, in line 2"),
    score_case("long-row", f"{ANSWERS}a,b,c,d,e\n", "answers.csv:2 has 5 cells, more cells than"),
    score_case("duplicate", "source,reference,x,x\na,b,c,d\n", "has two columns 'x'. Rename one"),
    score_case("utf-16", f"{ANSWERS}ā,b,c,d\n".encode("utf-16"), "as a CSV in UTF-8", "Save it"),
    score_case(
        "metric", f"{ANSWERS}a,b,c,d\n", "metric is 'rouge'", args=(*SCORE, "--metric", "rouge")
    ),
    score_case("tokens", ANSWERS, "max_tokens is 0, must be 1", args=(*SCORE, "--max-tokens", "0")),
    score_case("one-row", f"{ANSWERS}a,b,b,x\n", "one", code=0),
    score_case("equal-references", f"{ANSWERS}a,same,same,x\nc,same,x,same\n", "one", code=0),
    score_case("empty-cells", f"{ANSWERS}a,b,,x\nc,d,,d\n", "2 empty", code=0),
    score_case("markup", "source,reference,[/red]\na,b,c\n", "[/red]", code=0),
    Case("score-a-folder", ("score", "data"), "data cannot be read: Is a directory"),
    Case("score-missing-file", ("score", "no.csv"), "no.csv cannot be read: No such file"),
]


class Letters:
    """An embedder whose similarity is the share of letters in common."""

    def embed(self, texts):
        pass

    def similarity(self, references, outputs):
        return [
            len(set(a) & set(b)) / len(set(a) | set(b)) if b else 0.0
            for a, b in zip(references, outputs, strict=True)
        ]


@pytest.fixture
def ground(tmp_path, monkeypatch, tiny_model_dir, hub_cache):
    """A current folder with a sweep, its data and a model; nothing in it is converted, measured or
    trained.
    """
    folder = tmp_path / "ground"
    (folder / "embedder").mkdir(parents=True)
    (folder / "data").mkdir()
    for split, records in RECORDS.items():
        (folder / "data" / f"{split}.jsonl").write_text(lines(*records))
    (folder / "try.yaml").write_text(sweep())
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")
    for name in ("HAWSWEEP_STORAGE", "HAWSWEEP_STUDIES_DIR"):
        monkeypatch.delenv(name, raising=False)

    def refuse(*_, **__):
        raise AssertionError("bad input must be seen before this")

    monkeypatch.setattr(resolve, "_resolve_bundled", refuse)
    monkeypatch.setattr(start, "share_memory", refuse)

    def scorer(spec, **_):
        made = Scorer(tmp_path, spec)
        made.embedder = Letters()
        return made

    monkeypatch.setattr(compare_systems, "_scorer", scorer)
    return folder


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def is_studies(name):
    """What SQLite keeps beside a database, and a database, change when they are read or made."""
    return name.startswith(SQLITE) and name != SQLITE


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.id, marks=case.marks) for case in CASES]
)
def test_bad_input_is_explained_and_left_as_it_is(case, ground, tiny_model_dir):
    for name, content in case.files.items():
        (ground / name).parent.mkdir(parents=True, exist_ok=True)
        content = content.encode() if isinstance(content, str) else content
        (ground / name).write_bytes(content)
    if case.id.startswith("model-"):
        shutil.copytree(tiny_model_dir, ground / "model")
    if case.given is not None:
        case.given(ground)
    before = {} if case.marks else contents(ground)
    done = CliRunner().invoke(main, list(case.args))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    said = " ".join(done.output.split())
    assert done.exit_code == case.code, said
    assert "Traceback" not in said
    for words in (case.says,) if isinstance(case.says, str) else case.says:
        assert words in said
    assert len(said) < 20_000
    if case.marks:
        return
    after = contents(ground)
    assert {name: after.get(name) for name in before if not is_studies(name)} == {
        name: content for name, content in before.items() if not is_studies(name)
    }
    made = {name for name in after.keys() - before.keys() if not is_studies(name)}
    assert made <= {SQLITE}
    if made:
        assert study_names(open_storage(Place(Path("studies")))) == []


def test_every_case_has_a_name_of_its_own():
    names = [case.id for case in CASES]
    assert len(set(names)) == len(names) >= 90


def test_errors_shown_never_hold_a_password(ground):
    done = CliRunner().invoke(main, ["status", "--storage", "mysql://me:secret@127.0.0.1/x"])
    assert "secret" not in done.output


def test_all_that_is_wrong_with_a_sweep_is_said_at_once(ground):
    (ground / "try.yaml").write_text(sweep(trials="0", timeout="soon", train="{iters: x}"))
    done = CliRunner().invoke(main, list(START))
    assert "has 3 faults" in done.output
    assert re.findall(r"^  (\S+) is", done.output, re.MULTILINE) == [
        "train.iters",
        "trials",
        "timeout",
    ]
