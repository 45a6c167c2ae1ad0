"""The column or key of each record's group."""

import json

import pytest
from click.testing import CliRunner

from hawsweep.cli import main
from hawsweep.data.columns import find_group, open_pairs
from hawsweep.data.load import load_data
from hawsweep.errors import DataError
from hawsweep.spec.sweep import DataSpec


def write_table(folder, header, *rows):
    path = folder / "a.csv"
    path.write_text("".join(f"{line}\n" for line in (header, *rows)), encoding="utf-8")
    return path


def load(path, **keys):
    return load_data([DataSpec(path=str(path), valid_fraction=0.5, test_fraction=0, **keys)])


def groups_of(splits):
    return {record.reference: record.group for record in (*splits.train, *splits.valid)}


def test_named_column_is_the_group_of_each_row(tmp_path):
    path = write_table(tmp_path, "haw,register,en,group", "a,formal,b,x", "c,,d,y")
    splits = load(path, group="register")
    assert groups_of(splits) == {"b": "formal", "d": None}
    columns = splits.columns[str(path)]
    assert (columns.group, columns.others) == ("register", ("group",))


def test_named_column_is_no_text(tmp_path):
    path = write_table(tmp_path, "one,two,kind", "a b,c d,e f")
    with open_pairs(path, group="kind") as (columns, rows):
        assert len(list(rows)) == 1
    assert (columns.source, columns.target, columns.group) == ("one", "two", "kind")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"group": "tone"}, "has no column 'tone' (data.group). Its columns: haw, register, en"),
        ({"group": "haw", "source": "haw"}, "the column 'haw' is data.group, and also holds"),
    ],
)
def test_column_that_cannot_be_the_group_is_refused(tmp_path, keys, says):
    path = write_table(tmp_path, "haw,register,en", "a,formal,b", "c,,d")
    with pytest.raises(DataError) as caught:
        load(path, **keys)
    assert str(path) in str(caught.value)
    assert says in str(caught.value)


def write_records(path, records):
    path.write_text("".join(f"{json.dumps(each)}\n" for each in records), encoding="utf-8")
    return path


RECORDS = [{"prompt": f"p{n}", "completion": f"c{n}", "tone": n % 2} for n in range(4)]


@pytest.mark.parametrize("is_folder", [True, False])
def test_named_key_is_the_group_of_each_record(tmp_path, is_folder):
    path = write_records(tmp_path / "train.jsonl", RECORDS)
    if is_folder:
        write_records(tmp_path / "valid.jsonl", RECORDS)
        path = tmp_path
    expected = {f"c{n}": str(n % 2) for n in range(4)}
    assert groups_of(load(path, group="tone")) == expected
    assert groups_of(load(path)) == dict.fromkeys(expected)
    # The records are the same, and so is their fingerprint.
    assert load(path, group="tone").fingerprint() == load(path).fingerprint()


def test_groups_of_several_data_sets_have_their_own_keys(tmp_path):
    one = write_records(tmp_path / "one.jsonl", RECORDS)
    other = write_records(
        tmp_path / "other.jsonl",
        [{"prompt": f"q{n}", "completion": f"d{n}", "kind": "x"} for n in range(4)],
    )
    shares = {"valid_fraction": 0.5, "test_fraction": 0}
    specs = [
        DataSpec(path=str(one), group="tone", **shares),
        DataSpec(path=str(other), group="kind", **shares),
    ]
    found = groups_of(load_data(specs))
    assert (found["c1"], found["d1"]) == ("1", "x")


def test_key_that_no_record_has_is_refused(tmp_path):
    path = write_records(tmp_path / "a.jsonl", RECORDS)
    with pytest.raises(
        DataError, match=r"no record has the key 'register' \(data\.group\)\. The ke"
    ):
        load(path, group="register")


@pytest.mark.parametrize(
    ("values", "is_found"),
    [
        (["formal", "casual"] * 20, True),
        (["formal", ""] * 20, False),  # one value
        (["formal"] * 10 + ["casual"] * 10 + [""] * 30, False),  # in less than half of the rows
        ([f"id {n}" for n in range(40)], False),
        ([f"kind {n % 5}" for n in range(40)], False),  # 8 times each
        ([f"{'long ' * 10}{n % 2}" for n in range(40)], False),
    ],
)
def test_column_of_few_repeated_values_looks_like_groups(values, is_found):
    rows = [{"haw": f"a {n}", "kind": value} for n, value in enumerate(values)]
    assert find_group(rows, ["haw", "kind"]) == ("kind" if is_found else None, len(values))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (lambda n: "formal", "the only group of the records is 'formal'"),
        (lambda n: f"g{n}", "1,000 groups for 100 prompts: most have fewer than 5"),
    ],
)
def test_groups_that_leave_nothing_to_compare_are_said(tmp_path, tiny_model_dir, kind, says):
    rows = [f"puke {n},{kind(n)},book {n}" for n in range(1000)]
    path = write_table(tmp_path, "haw,kind,en", *rows)
    sweep = tmp_path / "a.yaml"
    content = {
        "model": str(tiny_model_dir),
        "data": {"path": str(path), "group": "kind"},
        "search": {"learning_rate": {"choices": [1e-3]}},
        "scoring": {"metric": "chrf"},
        "trials": 1,
    }
    sweep.write_text(json.dumps(content), encoding="utf-8")
    done = CliRunner().invoke(main, ["validate", str(sweep), "--json"])
    found = [each for each in json.loads(done.stdout)["findings"] if each["subject"] == "groups"]
    assert [each["state"] for each in found] == ["warning"]
    assert says in found[0]["text"]
    assert found[0]["remedy"] == "Name another column or key by data.group."
