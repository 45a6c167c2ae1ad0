"""Whatever the files hold, reading them ends with a spec or records, or with one clear message.

HAWSWEEP_FUZZ=5 tries five times as many inputs, other ones each time.
"""

import json
import os
import tempfile
from collections import Counter

import pytest
from hostile_texts import acts
from hypothesis import HealthCheck, configuration, given, settings
from hypothesis import strategies as st

from hawsweep.data.load import Splits, load_data
from hawsweep.errors import DataError, SpecError
from hawsweep.spec.read import parse_override, read_sweep
from hawsweep.spec.sweep import DataSpec

TIMES = int(os.environ.get("HAWSWEEP_FUZZ", "1"))
N_EXAMPLES = {"sweep": 7000, "text": 4000, "override": 4000, "jsonl": 5000, "csv": 4000}
seen = Counter()
# What hypothesis keeps of its own is not for this folder.
configuration.set_hypothesis_home_dir(os.path.join(tempfile.gettempdir(), "hypothesis"))


def tries(kind):
    return settings(
        max_examples=N_EXAMPLES[kind] * TIMES,
        deadline=None,
        database=None,
        derandomize=TIMES == 1,
        suppress_health_check=list(HealthCheck),
    )


# A sweep with every section, its values as YAML.
SWEEP = {
    "description": "Try",
    "model": "some/model",
    "data": {"path": "pairs.csv", "source": "a", "valid_fraction": "0.2", "weight": "2"},
    "train": {
        "batch_size": "4",
        "num_layers": "-1",
        "max_seq_length": "256",
        "mask_prompt": "true",
        "optimizer_config": {"adam": {"bias_correction": "true", "betas": "[0.9, 0.99]"}},
        "lora_parameters": {"alpha": "32", "dropout": "0.1", "keys": "[self_attn.q_proj]"},
        "lr_schedule": {"name": "cosine", "warmup_ratio": "0.1"},
        "max_grad_norm": "1.0",
        "keep_checkpoints": "3",
    },
    "search": {
        "learning_rate": {"low": "1e-5", "high": "1e-3", "log": "true"},
        "lora_parameters.rank": {"choices": "[4, 8]"},
        "iters": {"low": "40", "high": "80", "step": "20"},
        "optimizer": {"choices": "[adam, muon]"},
    },
    "enqueue": "[{learning_rate: 1e-4, iters: 60}]",
    "memory": {"budget": "24GB", "reserve": "10%"},
    "validation": {"max_examples": "40"},
    "pruning": {"name": "median", "n_warmup_steps": "20"},
    "sampler": {"name": "tpe"},
    "scoring": {"metric": "chrf", "max_tokens": "24", "references": "{a: 0.5}"},
    "confirm": {"top": "2"},
    "trials": "10",
    "timeout": "8h",
    "workers": "auto",
    "seed": "0",
}
VALUES = (
    *("", "~", "null", "true", "no", "0", "1", "-1", "2", "8", "16", "100", "0.5", "1.0", "-0.0"),
    *("1e-5", "1e5", "1E+400", "-1e400", "1e-400", ".inf", "-.inf", ".nan", "1.7e308", "5.0e-324"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775808", "9" * 30, "7" * 5000),
    *("0x1F", "0x" + "f" * 300, "0b_", "0o17", "017", "1:30", "1_000", "12:30:45", "._", "0x_"),
    *(
        "2001-02-30",
        "2001-12-14",
        "2001-12-14t21:59:43.10-05:00",
        "=",
        "<<",
        "!!int x",
        "!!float y",
    ),
    *("!!bool x", "!!timestamp x", "!!binary é", "!!binary aGk=", "!!set {a, b}", "!!omap [a: 1]"),
    *("!!pairs [a: 1]", "!!python/object:os.system {}", "!x y", "!!null x", "!!str 1", "!!map [1]"),
    *("[]", "{}", "[[]]", "[{}]", "{a: 1}", "{1: 2}", "{~: 1}", "{[1]: 2}", "{a: {b: {c: 1}}}"),
    *(
        "[1, 2]",
        "[0.1, 0.1]",
        "[.nan]",
        "[1, a]",
        "[true]",
        "['4']",
        "[adam]",
        "[adam, adamw, sgd]",
    ),
    *(
        "{choices: [4, 8]}",
        "{choices: [8]}",
        "{choices: []}",
        "{low: 1, high: 2}",
        "{low: 2, high: 1}",
    ),
    *("{low: 0.1, high: 0.3, step: 0.1}", "{low: 1e-5, high: 1, log: true}", "{low: 1}"),
    *("{low: 1, high: 100, step: 7}", "{low: -1.7e308, high: 1.7e308, step: 1}", "{choices: {}}"),
    *("&x [1]", "*x", "&y {k: *y}", "{<<: {a: 1}}", "{<<: 3}", "'", '"', '"\\ud800"', '"\\e[31m"'),
    *(
        '"\\0"',
        "ʻōlelo",
        "😀",
        "\u202e",
        "\x85",
        "\t",
        "a b",
        "a: b",
        "#",
        "- a",
        "? a",
        "|",
        ">",
        "@",
    ),
    *("%", "`", "auto", "every", "none", "median", "percentile", "tpe", "linear", "cyclic", "dora"),
    *(
        "full",
        "curriculum",
        "sgd",
        "adafactor",
        "bleu",
        "m:f",
        "90s",
        "8h",
        "1h30m",
        "99999999999d",
    ),
    *(
        "24GB",
        "10%",
        "100%",
        "101%",
        "0.5GiB",
        "GB",
        "data",
        "{path: a}",
        "[a, {path: b, weight: 3}]",
    ),
    *(
        "[{iters: 60}]",
        "[{iters: a}]",
        "[{x: 1}]",
        "[{iters: .nan}]",
        "x" * 300,
        "[" * 60 + "]" * 60,
    ),
)
KEYS = (
    *(
        "",
        "model",
        "trails",
        "rank",
        "low",
        "step",
        "choices",
        "iters",
        "batch_size",
        "learning_rate",
    ),
    *("lr_schedule", "name", "betas", "lora_parameters", "lora_parameters.rank", "1", "~", "true"),
    *("optimizer_config.adamw.weight_decay", "max_grad_norm", "order", "[1]", "<<", "=", '"\\e"'),
)


def paths(content, above=()):
    for key, value in content.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from paths(value, (*above, key))


PATHS = list(paths(SWEEP))
anything = st.one_of(*[st.sampled_from(VALUES)] * 8, st.text(max_size=8), st.floats().map(repr))
changes = st.lists(
    st.tuples(
        st.sampled_from(("replace", "replace", "replace", "drop", "rename", "add")),
        st.sampled_from(PATHS),
        st.sampled_from(KEYS),
        anything,
    ),
    min_size=1,
    max_size=3,
)


def changed(content, steps):
    """A sweep's text after some steps; those that do not apply any more are left out."""
    content = json.loads(json.dumps(content))
    for action, (*above, last), key, value in steps:
        section = content
        for part in above:
            section = section.get(part) if isinstance(section, dict) else None
        if not isinstance(section, dict) or last not in section:
            continue
        if action == "replace":
            section[last] = value
        elif action == "drop":
            del section[last]
        elif action == "rename":
            section[key] = section.pop(last)
        else:
            section[key] = value
    return "".join(f"{key}: {flow(value)}\n" for key, value in content.items())


def flow(value):
    if not isinstance(value, dict):
        return value
    return "{" + ", ".join(f"{key}: {flow(below)}" for key, below in value.items()) + "}"


def write(path, content):
    """Write a file anew: ext4 writes one that is overwritten to the disk at once, in 5 ms."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def read(path, content, overrides=None):
    """The spec, or None where it is refused as it should be."""
    write(path, content.encode(errors="surrogatepass"))
    return refused_or(lambda: read_sweep(path, overrides), SpecError)


def refused_or(reading, error):
    try:
        return reading()
    except error as fault:
        said = str(fault)
    assert said.strip()
    assert len(said) < 20_000
    assert not any(map(acts, said)), ascii(said)
    return None


def check_round_trip(spec, path):
    again = read(path, spec.dump_yaml())
    assert again is not None
    assert again.fingerprint() == spec.fingerprint()
    assert again.digest() == spec.digest()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "try.yaml"


def test_sweep_is_read_where_nothing_is_changed(path):
    assert read(path, changed(SWEEP, [])) is not None


@tries("sweep")
@given(steps=changes)
def test_changed_sweep_is_read_or_refused(path, steps):
    seen["sweep"] += 1
    spec = read(path, changed(SWEEP, steps))
    if spec is not None:
        seen["sweep accepted"] += 1
        check_round_trip(spec, path)


WORDS = (
    *VALUES,
    *KEYS,
    ":",
    ": ",
    ",",
    "{",
    "}",
    "[",
    "]",
    "\n",
    "\n  ",
    "- ",
    "&a ",
    "*a",
    "---\n",
)


@tries("text")
@given(
    content=st.one_of(
        *[st.lists(st.sampled_from(WORDS), max_size=12).map("".join)] * 3,
        st.text(max_size=40),
        st.binary(max_size=40),
    )
)
def test_any_text_is_refused(path, content):
    seen["text"] += 1
    write(path, content if isinstance(content, bytes) else content.encode())
    assert refused_or(lambda: read_sweep(path), SpecError) is None


DOTTED = [".".join(each) for each in PATHS]


@tries("override")
@given(
    texts=st.lists(
        st.tuples(st.one_of(*[st.sampled_from(DOTTED)] * 4, st.text(max_size=6)), anything),
        min_size=1,
        max_size=2,
    ),
    equals=st.sampled_from(("=", "=", "=", " = ", ".=", ".choices=", ".x=", "")),
)
def test_override_is_taken_or_refused(path, texts, equals):
    seen["override"] += 1
    asked = [f"{key}{equals}{value}" for key, value in texts]
    overrides = refused_or(lambda: dict(map(parse_override, asked)), SpecError)
    if overrides is not None:
        seen["override parsed"] += 1
        spec = read(path, changed(SWEEP, []), overrides)
        if spec is not None:
            seen["override accepted"] += 1
            check_round_trip(spec, path)


LINES = (
    '{"messages": [{"role": "user", "content": "Aloha"}, {"role": "assistant", "content": "Hi"}]}',
    '{"prompt": "Mahalo", "completion": "Thanks", "group": "polite"}',
    '{"text": "He moʻolelo"}',
)
PIECES = (
    *(
        '"',
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\\",
        "\\u0000",
        "\\ud800",
        "\\ud83d\\ude00",
        "null",
        "NaN",
    ),
    *("Infinity", "-1e999", "9" * 5000, "1.5", "true", '"user"', '"role"', '"text"', '"messages"'),
    *('"prompt"', '"completion"', '"group": [1], ', '"group": NaN, ', '"tools": 3, ', "[" * 3000),
    *(
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        " ",
        "\t",
        "\0",
        "\x85",
        "\u2028",
        "ʻ",
        "\ufeff",
        "[]",
        "{}",
        '""',
    ),
)
BYTES = tuple(piece.encode() for piece in PIECES) + (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xfe\xff")


@st.composite
def broken(draw, lines):
    """Some lines, with pieces put in, or in place of what was there."""
    content = "\n".join(draw(st.lists(st.sampled_from(lines), min_size=1, max_size=3))).encode()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        n_gone = draw(st.sampled_from((0, 0, 1, 2, 5, 20)))
        content = content[:at] + draw(st.sampled_from(BYTES)) + content[at + n_gone :]
    return content


def check_records(path, **options):
    splits = refused_or(lambda: load_data([DataSpec(path=str(path), **options)]), DataError)
    if splits is None:
        return False
    assert isinstance(splits, Splits)
    for records in (splits.train, splits.valid, splits.test):
        for record in records:
            assert isinstance(record.source, str)
            assert record.reference is None or isinstance(record.reference, str)
            assert record.group is None or isinstance(record.group, str)
    assert splits.fingerprint().keys() == {"train", "valid", "test"}
    return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("fuzz-data")
    (made / "valid.jsonl").write_text("\n".join(LINES), encoding="utf-8")
    return made


@tries("jsonl")
@given(content=st.one_of(*[broken(LINES)] * 5, st.binary(max_size=60)))
def test_json_lines_are_read_or_refused(folder, content):
    seen["jsonl"] += 1
    write(folder / "train.jsonl", content)
    seen["jsonl accepted"] += check_records(folder)


TABLE = ("haw,en", "Aloha,Hi", '"Mahalo, e",Thanks', "'a',b", "x,y,z", "x", ",", "")
CELLS = (*PIECES, ",", ";", '""', '"a""b"', "'", "haw", "en", "a" * 200_000)


@tries("csv")
@given(
    rows=st.lists(st.lists(st.sampled_from(CELLS), max_size=4).map(",".join), max_size=6),
    header=st.sampled_from(
        ("haw,en", "haw,en,", "haw,haw", "", "haw;en", ",haw,en", "\ufeffhaw,en")
    ),
    other=st.one_of(st.none(), broken(TABLE)),
    source=st.sampled_from((None, None, None, "en", "no")),
)
def test_csv_is_read_or_refused(folder, rows, header, other, source):
    seen["csv"] += 1
    good = [f"a{i},b{i}" for i in range(6)]
    table = folder / "pairs.csv"
    write(table, "\n".join([header, *good, *rows]).encode() if other is None else other)
    options = {"valid_fraction": 0.3} if source is None else {"source": source}
    seen["csv accepted"] += check_records(table, **options)


def test_enough_was_tried(capsys):
    with capsys.disabled():
        print(f"\ntried: {', '.join(f'{n:,} {kind}' for kind, n in seen.items())}")
    assert sum(N_EXAMPLES.values()) >= 20_000
    for kind in N_EXAMPLES.keys() & seen.keys():
        assert seen[kind] >= N_EXAMPLES[kind]
    for kind in ("sweep", "override", "jsonl", "csv"):  # else nothing of what follows was tried
        assert kind not in seen or seen[f"{kind} accepted"] >= 50
