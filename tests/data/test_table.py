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


def test_columns_of_usual_names_become_prompt_and_completion(table):
    splits = load(table([("note", "haw", "en"), *(("x", *row) for row in ROWS)]))
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


BLANK = {
    "blank": [("", "en"), ("haw", "")],
    "short": [("haw",)],
    "spaces": [("Aloha", "   "), ("  ", "Hello")],
    "no-break space": [("Mahalo", "\u00a0")],
    "ideographic and zero-width space": [("\u3000", "Hello"), ("Aloha", "\u200b")],
}


@pytest.mark.parametrize("rows", BLANK.values(), ids=BLANK)
def test_rows_that_lack_a_text_are_counted_and_named_by_line(table, rows):
    path = table([("haw", "en"), *ROWS, *rows])
    lines = ", ".join(str(N_ROWS + 2 + n) for n in range(len(rows)))
    assert fault_of(path) == (
        f"{path}: {len(rows)} of {N_ROWS + len(rows)} rows have an empty haw or en, in line "
        f"{lines}. Fill or remove them."
    )


def test_of_many_rows_that_lack_a_text_the_first_are_named(table):
    path = table([("haw", "en"), *[("a", "")] * 10])
    says = "10 of 10 rows have an empty haw or en, in line 2, 3, 4, 5, 6, 7, 8, 9 and 2 more."
    assert says in fault_of(path)


def test_rows_of_white_space_are_left_out(table):
    rows = [("haw", "en"), (" ", "\u00a0"), *ROWS, ("", "\t"), ("\u200b",)]
    assert len(everything(load(table(rows)))) == N_ROWS


@pytest.mark.parametrize("key", ["source", "target"])
def test_missing_column_is_named_with_those_there_are(table, key):
    fault = fault_of(table([("haw", "en"), *ROWS]), **{key: "english"})
    assert f"has no column 'english' (data.{key}). Its columns: haw, en." in fault


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_file_with_one_column_is_refused(table, name):
    fault = fault_of(table([("haw",), ("a",)], name=name))
    assert "has one column, 'haw', needs two" in fault
    assert "by commas, semicolons or tabs, in a .tsv by tabs." in fault


@pytest.mark.parametrize("content", ["", "\ufeff", "\n \n,\n"])
def test_empty_file_is_refused(tmp_path, content):
    path = tmp_path / "a.csv"
    path.write_text(content, encoding="utf-8")
    assert fault_of(path).startswith(f"{path} is empty. Write a line with the names of the columns")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_header_without_rows_is_refused(table, name):
    path = table([("haw", "en")], name=name, delimiter="\t")
    assert fault_of(path) == f"{path} has no rows below its header. Add a row for each pair."


# Files as programs write them: rows in equal records out, or an error with the line.

OKINA = "\u02bb"
PAIR, OTHER = ("Aloha, k\u0101ua", "Hello, us"), ("Mahalo nui", "Thanks a lot")
READ = {
    "Excel, CSV UTF-8": (
        "a.csv",
        '\ufeffHawaiian,English\r\n"Aloha, k\u0101ua","Hello, us"\r\nMahalo nui,Thanks a lot\r\n',
        [PAIR, OTHER],
    ),
    "Excel where a comma is decimal": (
        "a.csv",
        "\ufeffHawaiian;English\r\nAloha, k\u0101ua;Hello, us\r\nMahalo nui;Thanks a lot\r\n",
        [PAIR, OTHER],
    ),
    "Excel, empty columns behind": (
        "a.csv",
        "haw;en;;\r\nAloha, k\u0101ua;Hello, us;;\r\nMahalo nui;Thanks a lot;;\r\n;;;\r\n",
        [PAIR, OTHER],
    ),
    "Excel, tab delimited text as .tsv": (
        "a.tsv",
        'Hawaiian\tEnglish\r\n"Aloha, k\u0101ua"\t"Hello, us"\r\nMahalo nui\tThanks a lot\r\n',
        [PAIR, OTHER],
    ),
    "Excel, a line break in a .tsv": (
        "a.tsv",
        'Hawaiian\tEnglish\r\nMahalo nui\t"Thanks\na ""lot"""\r\nAloha\tHi\r\n',
        [("Mahalo nui", 'Thanks\na "lot"'), ("Aloha", "Hi")],
    ),
    "Numbers": (
        "a.csv",
        'Hawaiian,English\n"Aloha, k\u0101ua","Hello, us"\nMahalo nui,Thanks a lot\n,\n,',
        [PAIR, OTHER],
    ),
    "Google Sheets, .tsv": (
        "a.tsv",
        'Hawaiian\tEnglish\n"Aloha," said he\tHello, "us"\n"Mahalo\tThanks"',
        [('"Aloha," said he', 'Hello, "us"'), ('"Mahalo', 'Thanks"')],
    ),
    "pandas, with its index": (
        "a.csv",
        ',Hawaiian,English\n0,"Aloha, k\u0101ua","Hello, us"\n1,Mahalo nui,Thanks a lot\n',
        [PAIR, OTHER],
    ),
    "pandas, .tsv with quoting": (
        "a.tsv",
        'Hawaiian\tEnglish\n"Aloha\tnui"\t"He said ""Hi"""\nMahalo nui\tThanks a lot\n',
        [("Aloha\tnui", 'He said "Hi"'), OTHER],
    ),
    "all quoted": (
        "a.csv",
        '"Hawaiian";"English"\n"Aloha, k\u0101ua";"Hello, us"\n"Mahalo nui";"Thanks a lot"\n',
        [PAIR, OTHER],
    ),
    "line breaks and quotation marks in cells": (
        "a.csv",
        'Hawaiian,English\n"Aloha\nk\u0101ua","""Hello"", us"\nMahalo nui,Thanks a lot\n',
        [("Aloha\nk\u0101ua", '"Hello", us'), OTHER],
    ),
    "an old Mac's line ends": (
        "a.csv",
        "Hawaiian,English\rMahalo nui,Thanks a lot\rAloha,Hi\r",
        [OTHER, ("Aloha", "Hi")],
    ),
    "tabs in a .csv": (
        "a.csv",
        "Hawaiian\tEnglish\nAloha, k\u0101ua\tHello, us\nMahalo nui\tThanks a lot\n",
        [PAIR, OTHER],
    ),
    "apostrophes, okina, inches": (
        "a.csv",
        f"Hawaiian,English\n'O au,It's me\n{OKINA}\u014clelo `oe 5\",\u2018Speak\u2019 5\"\n",
        [("'O au", "It's me"), (f'{OKINA}\u014clelo `oe 5"', '\u2018Speak\u2019 5"')],
    ),
    "missing cells at the end": (
        "a.csv",
        "Hawaiian,English,note,more\nAloha,Hi\nMahalo nui,Thanks a lot,x\n",
        [("Aloha", "Hi"), OTHER],
    ),
    "blank lines and spaces around names": (
        "a.csv",
        "\n Hawaiian , English\n\nAloha,Hi\n  \nMahalo nui,Thanks a lot\n",
        [("Aloha", "Hi"), OTHER],
    ),
    "commas in a header of semicolons": (
        "a.csv",
        "Hawaiian, text;English, text\nAloha, k\u0101ua;Hello, us\nAloha, ia;Hello, him\n",
        [PAIR, ("Aloha, ia", "Hello, him")],
    ),
    "semicolons in a header of commas": (
        "a.csv",
        "Hawaiian; old,English; new\nAloha,Hi\nMahalo nui,Thanks a lot\n",
        [("Aloha", "Hi"), OTHER],
    ),
    "semicolons in a header of commas, and missing cells": (
        "a.csv",
        "haw,en,note; more\nAloha,Hi\nMahalo nui,Thanks a lot,x\n",
        [("Aloha", "Hi"), OTHER],
    ),
}
REFUSED = {
    "text after a quotation mark": ('haw,en\nAloha,Hi\n"Aloha" ia,Hi\n', 3, "expected after"),
    "quotation mark never closed": ('haw,en\nAloha,Hi\n"Mahalo,Thanks\na,b\n', 3, "end of data"),
    "closed by another row's": ('haw,en\n"Aloha,Hi\nMahalo,"Thanks"\n', 2, "expected after"),
    "space before a quotation mark": ('haw,en\nAloha, "Hi"\n', 2, "a space stands before"),
    "too many cells": ("haw,en\nAloha,Hi\nAloha, k\u0101ua,Hi\n", 3, "3 cells, more cells than"),
    "text in no column": ("haw,en,\nAloha, k\u0101ua,Hi\n", 2, "or name the column"),
    "unquoted rows of a semicolon": (
        "a, haw;b, en\nAloha, k\u0101ua, e, e;Hi; you\n",
        2,
        "no separator gives every row as many cells as the header has: cut at commas, line 2 does "
        "not; cut at semicolons, line 2 does not.",
    ),
    "two separators alike": (
        "a,haw;en\nAloha,k\u0101ua;Hi\n",
        1,
        "may be cut at commas and semicolons",
    ),
    "tabs alike": ("a,haw\tb\nAloha,k\u0101ua\tHi\n", 1, "may be cut at commas and tabs: each"),
    "Latin-1": ("haw,en\nAloha,Hi\nt\u00e9,tea\n".encode("latin-1"), 3, "it has the byte 0xe9"),
    "UTF-16": ("haw,en\nAloha,Hi\n".encode("utf-16"), 1, "as a CSV in UTF-8"),
    "UTF-16 without its mark": ("haw,en\nAloha,Hi\n".encode("utf-16-le"), 1, "a NUL character"),
}


@pytest.mark.parametrize(("name", "text", "expected"), READ.values(), ids=READ)
def test_rows_of_a_programs_file_are_the_records(tmp_path, name, text, expected):
    path = tmp_path / name
    path.write_bytes(text.encode())
    splits = load(path, prompt="{source}", valid_fraction=0.5, test_fraction=0)
    assert everything(splits) == set(expected)
    assert len(splits.train) + len(splits.valid) == len(expected)


@pytest.mark.parametrize(("content", "line", "says"), REFUSED.values(), ids=REFUSED)
def test_row_that_is_not_a_tables_is_refused_with_its_line(tmp_path, content, line, says):
    path = tmp_path / "a.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    fault = fault_of(path)
    assert fault.startswith(f"{path}:{line}")
    assert says in fault


def test_too_few_rows_for_the_split_are_refused(table):
    fault = fault_of(table([("haw", "en"), *ROWS[:2]]))
    assert "the split valid is empty" in fault


def test_shares_that_leave_nothing_to_train_on_are_refused(table):
    fault = fault_of(table([("haw", "en"), *ROWS]), valid_fraction=0.6, test_fraction=0.39)
    assert "the split train is empty" in fault


def test_missing_file_lists_every_place(tmp_path, hub_cache, monkeypatch):
    fault = fault_of(tmp_path / "nowhere.csv")
    assert f"was not found: there is no folder or file {tmp_path / 'nowhere.csv'}." in fault
    monkeypatch.chdir(tmp_path)
    assert f"there is no folder or file {tmp_path / 'nowhere.csv'}." in fault_of("nowhere.csv")
    fault = fault_of("org/nowhere")  # which might be of a hub
    assert "was not found" in fault
    forms = ".csv, .tsv, .jsonl, .json, .txt, .parquet"
    assert f"a folder or a file ({forms}) at {tmp_path / 'org/nowhere'};" in fault
