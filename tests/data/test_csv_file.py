import os
import random

import pytest

from hawsweep.data.load import load_data
from hawsweep.errors import DataError
from hawsweep.spec.sweep import DataSpec

N_ROWS = 40
ROWS = [(f"haw {n}", f"en {n}") for n in range(N_ROWS)]


@pytest.fixture
def table(tmp_path):
    def write(rows, name="pairs.csv", encoding="utf-8", delimiter=","):
        path = tmp_path / name
        path.write_text("".join(f"{delimiter.join(row)}\n" for row in rows), encoding=encoding)
        return path

    return write


def load(path, **options):
    return load_data([DataSpec(path=str(path), **options)])


def pairs(records):
    return {(record.content["prompt"], record.content["completion"]) for record in records}


def everything(splits):
    return pairs([*splits.train, *splits.valid, *splits.test])


def fault_of(path, **options):
    with pytest.raises(DataError) as caught:
        load(path, **options)
    return str(caught.value)


def test_first_two_columns_become_prompt_and_completion(table):
    splits = load(table([("haw", "en", "note"), *((*row, "x") for row in ROWS)]))
    assert everything(splits) == {(f"Translate to English: {haw}", en) for haw, en in ROWS}
    assert splits.folder is None


def test_chosen_columns_and_prompt_are_used(table):
    path = table([("id", "en", "haw"), *(("7", en, haw) for haw, en in ROWS)])
    splits = load(path, source="haw", target="en", prompt="Say {source} in English")
    assert everything(splits) == {(f"Say {haw} in English", en) for haw, en in ROWS}


def test_text_with_braces_is_put_in_as_it_is(table):
    splits = load(table([("a", "b"), *[("{0} {source}", "x")] * N_ROWS]), prompt="{source}!")
    assert everything(splits) == {("{0} {source}!", "x")}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_byte_order_mark_is_no_part_of_the_first_column(table, encoding):
    path = table([("haw", "en"), *ROWS], encoding=encoding)
    assert len(everything(load(path, source="haw"))) == N_ROWS


def test_tsv_is_cut_at_tabs(table):
    rows = [("haw", "en"), *((haw, f"{en}, friend") for haw, en in ROWS)]
    splits = load(table(rows, name="pairs.tsv", delimiter="\t"))
    assert {en for _, en in everything(splits)} == {f"{en}, friend" for _, en in ROWS}


def test_splits_are_disjoint_and_of_the_shares_asked_for(table):
    path = table([("haw", "en"), *ROWS])
    splits = load(path, valid_fraction=0.25, test_fraction=0.1)
    sizes = [len(split) for split in (splits.train, splits.valid, splits.test)]
    assert sizes == [N_ROWS * 65 // 100, N_ROWS // 4, N_ROWS // 10]
    assert len(everything(splits)) == N_ROWS


def test_split_depends_on_the_seed_alone(table):
    path = table([("haw", "en"), *ROWS])
    first, again, other = load(path, seed=1), load(path, seed=1), load(path, seed=2)
    assert first.fingerprint() == again.fingerprint()
    assert pairs(first.valid) != pairs(other.valid)
    assert pairs(first.valid) != {
        (f"Translate to English: {a}", b) for a, b in ROWS[: N_ROWS // 10]
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_split_cuts_the_rows_after_a_seeded_shuffle(table, seed):
    splits = load(table([("haw", "en"), *ROWS]), seed=seed, valid_fraction=0.25, test_fraction=0.1)
    rows = list(ROWS)
    random.Random(seed).shuffle(rows)
    n_valid, n_test = N_ROWS // 4, N_ROWS // 10
    for split, expected in (
        (splits.valid, rows[:n_valid]),
        (splits.test, rows[n_valid : n_valid + n_test]),
        (splits.train, rows[n_valid + n_test :]),
    ):
        assert [record.content["completion"] for record in split] == [en for _, en in expected]
        lines = [ROWS.index(row) + 2 for row in expected]  # the header is line 1
        assert [int(record.where.rpartition(":")[2]) for record in split] == lines


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_that_may_not_be_read_is_refused(table):
    path = table([("haw", "en"), *ROWS])
    path.chmod(0)
    assert fault_of(path) == f"{path} cannot be read: Permission denied."


def test_blank_rows_are_skipped(table):
    assert len(everything(load(table([("haw", "en"), *ROWS, ("", ""), ("",)])))) == N_ROWS


@pytest.mark.parametrize(
    ("row", "column"), [(("", "en"), "haw"), (("haw", ""), "en"), (("haw",), "en")]
)
def test_empty_cell_is_named_by_line_and_column(table, row, column):
    path = table([("haw", "en"), *ROWS, row])
    fault = fault_of(path)
    assert fault == f"{path}:{N_ROWS + 2} has an empty {column}. Fill or remove the row."


@pytest.mark.parametrize("key", ["source", "target"])
def test_missing_column_is_named_with_those_there_are(table, key):
    fault = fault_of(table([("haw", "en"), *ROWS]), **{key: "english"})
    assert f"has no column 'english' (data.{key}). Its columns: haw, en." in fault


@pytest.mark.parametrize(("rows", "count"), [([("haw",), ("a",)], 1), ([], 0)])
def test_file_with_fewer_than_two_columns_is_refused(table, rows, count):
    assert f"has {count} columns, needs two" in fault_of(table(rows))


def test_file_in_another_encoding_is_refused(table):
    path = table([("haw", "en"), ("kākou", "us")], encoding="utf-16")
    assert "cannot be read as a CSV in UTF-8" in fault_of(path)


def test_too_few_rows_for_the_split_are_refused(table):
    fault = fault_of(table([("haw", "en"), *ROWS[:2]]))
    assert "the split valid is empty" in fault


def test_shares_that_leave_nothing_to_train_on_are_refused(table):
    fault = fault_of(table([("haw", "en"), *ROWS]), valid_fraction=0.6, test_fraction=0.39)
    assert "the split train is empty" in fault


def test_missing_file_lists_every_place(tmp_path, hub_cache):
    fault = fault_of(tmp_path / "nowhere.csv")
    assert "was not found" in fault
    assert f"a folder or a CSV at {tmp_path / 'nowhere.csv'}" in fault
