import json
import random
import sys
from itertools import cycle

import pyarrow
import pytest
from pyarrow.parquet import write_table

from hawsweep.data.columns import Columns
from hawsweep.data.load import load_data
from hawsweep.data.records import MAX_LINE
from hawsweep.errors import DataError
from hawsweep.spec.sweep import DataSpec

N = 20
PAIRS = [{"prompt": f"ʻōlelo {n}", "completion": f"word {n}"} for n in range(N)]
CHATS = [
    {"messages": [{"role": "user", "content": f"a {n}"}, {"role": "assistant", "content": "b"}]}
    for n in range(N)
]
TEXTS = [{"text": f"He moʻolelo {n}."} for n in range(N)]
ROWS = [{"id": n, "haw": f"ʻōlelo {n}", "en": f"word {n}"} for n in range(N)]


def json_lines(records):
    return "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records)


def json_list(records):
    return json.dumps(records, indent=2)


def text_lines(records):
    return "\n\n".join(record["text"] for record in records)


@pytest.fixture
def file(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def parquet(tmp_path):
    def write(rows, name="a.parquet"):
        write_table(pyarrow.Table.from_pylist(rows), tmp_path / name, row_group_size=7)
        return tmp_path / name

    return write


def load(path, **options):
    return load_data([DataSpec(path=str(path), **options)])


def fault_of(path, **options):
    with pytest.raises(DataError) as caught:
        load(path, **options)
    return str(caught.value)


def contents(records):
    return [record.content for record in records]


FILES = {
    "json lines": ("a.jsonl", json_lines, PAIRS),
    "json lines of chats": ("a.jsonl", json_lines, CHATS),
    "json list": ("a.json", json_list, PAIRS),
    "json list of texts": ("a.json", json_list, TEXTS),
    "json list on one line, with a mark": ("a.JSON", lambda r: f"\ufeff{json.dumps(r)}", PAIRS),
    "json lines in a .json": ("a.json", json_lines, CHATS),
    "text": ("a.txt", text_lines, TEXTS),
    "text of Windows": ("a.txt", lambda r: f"\ufeff{text_lines(r)}".replace("\n", "\r\n"), TEXTS),
}


@pytest.mark.parametrize(("name", "form", "records"), FILES.values(), ids=FILES)
def test_records_of_a_file_are_split_as_the_rows_of_a_table_are(file, name, form, records):
    splits = load(file(name, form(records)), seed=3, valid_fraction=0.25, test_fraction=0.1)
    order = list(records)
    random.Random(3).shuffle(order)
    n_valid, n_test = N // 4, N // 10
    assert contents(splits.valid) == order[:n_valid]
    assert contents(splits.test) == order[n_valid : n_valid + n_test]
    assert contents(splits.train) == order[n_valid + n_test :]
    assert (splits.folder, splits.columns) == (None, {})


SHARES = {"valid_fraction": 0.2, "test_fraction": 0.1, "split_by": "source"}


def split_of(file, pairs, **options):
    """The pairs' sources in train, valid and test, record by record."""
    splits = load(file("a.jsonl", json_lines(pairs)), **{**SHARES, **options})
    return [[each.source for each in part] for part in (splits.train, splits.valid, splits.test)]


def pairs_of(*sources):
    return [{"prompt": text, "completion": f"{i}"} for i, text in enumerate(sources)]


def has_own_sources(parts):
    sources = [{text.replace("'", "ʻ") for text in part} for part in parts]
    return sum(map(len, sources)) == len(set.union(*sources))


@pytest.mark.parametrize(
    ("n", "sizes", "valid", "test"),
    [
        (123, (3,), 0.2, 0.1),
        (200, (1, 2, 3, 5), 0.1, 0.1),
        (70, (2,), 0.3, 0.0),
        (30, (5,), 0.1, 0.1),
        (40, (4,), 0.1, 0.05),
        (20, (2, 3), 0.4, 0.4),
    ],
)
def test_records_of_one_source_stay_in_one_split(file, n, sizes, valid, test):
    sources = [f"{i}" for i in range(n) for _ in range(sizes[i % len(sizes)])][:n]
    # That differ in the character of the okina alone are one.
    okinas = cycle("ʻʻ'")
    pairs = pairs_of(*(f"{okina}Ae {each}" for okina, each in zip(okinas, sources, strict=False)))
    for seed in range(20):
        parts = split_of(file, pairs, seed=seed, valid_fraction=valid, test_fraction=test)
        assert has_own_sources(parts)
        assert [len(part) for part in parts] == pytest.approx(
            [n * (1 - valid - test), n * valid, n * test], abs=2 * max(sizes)
        )
        assert all(parts[:2])
        assert bool(parts[2]) == bool(test)


def test_repeated_sources_are_as_frequent_in_each_split(file):
    pairs = pairs_of(*(f"once {n}" for n in range(500)), *(f"often {n // 5}" for n in range(500)))
    shares = []
    for seed in range(10):
        _, valid, test = split_of(file, pairs, seed=seed)
        shares += [
            sum(text.startswith("often") for text in part) / len(part) for part in (valid, test)
        ]
    assert sum(shares) / len(shares) == pytest.approx(0.5, abs=0.06)


def test_records_of_different_sources_are_split_as_without_the_key(file):
    path = file("a.jsonl", json_lines(PAIRS))
    by_source = load(path, seed=3, split_by="source")
    assert by_source.fingerprint() == load(path, seed=3).fingerprint()


@pytest.mark.parametrize("n_sources", [1, 2, 5])
def test_instruction_of_many_records_is_in_each_split(file, n_sources):
    parts = split_of(file, pairs_of(*(f"Tell {n % n_sources}" for n in range(200))))
    assert [len(set(part)) for part in parts] == [n_sources] * 3
    assert [len(part) for part in parts] == [140, 40, 20]


def test_source_is_all_that_is_asked(file):
    """With the system's message, and what was said before."""
    chats = [
        {
            "messages": [
                *before,
                {"role": "user", "content": "Go on"},
                {"role": "assistant", "content": "A"},
            ]
        }
        for n in range(50)
        for before in [[{"role": "system", "content": f"Text {n}"}]] * 2
    ]
    splits = load(file("a.jsonl", json_lines(chats)), **SHARES)
    parts = splits.train, splits.valid, splits.test
    numbers = [{each.messages[0]["content"] for each in part} for part in parts]
    assert sum(map(len, numbers)) == 50
    assert [len(part) for part in parts] == [70, 20, 10]


def test_source_is_cut_where_else_nothing_is_left_to_train_on(file):
    pairs = pairs_of(*(f"{n // 4}" for n in range(8)))
    parts = split_of(file, pairs, valid_fraction=0.4, test_fraction=0.5)
    assert [len(part) for part in parts] == [1, 4, 3]


def test_fingerprint_is_alike_in_each_form(file, parquet):
    paths = [file("a.jsonl", json_lines(PAIRS)), file("a.json", json_list(PAIRS)), parquet(PAIRS)]
    first, *others = [load(path).fingerprint() for path in paths]
    assert others == [first] * 2


def test_record_of_a_list_is_named_by_its_line(file):
    splits = load(file("a.json", json_list(PAIRS)), valid_fraction=0.5, test_fraction=0)
    lines = {r.content["completion"]: int(r.where.rpartition(":")[2]) for r in splits.train}
    # Line 1 has the bracket; each record has a line for its brace, two for its keys, and one.
    assert lines.items() <= {f"word {n}": 2 + 4 * n for n in range(N)}.items()


BROKEN = {
    "record of a list": (
        "a.json",
        '[\n{"text": "a"},\n{"prompt": "a"}\n]',
        3,
        "has the keys prompt",
    ),
    "no record": ("a.json", "[1]", 1, "holds a int"),
    "no JSON": ("a.json", '[\n{"text": "a"},\n{"text": }\n]', 3, "is not JSON"),
    "text behind a list": ("a.json", '[{"text": "a"}]\n]', 2, "is not JSON: Extra data"),
    "half a character": (
        "a.json",
        r'[{"text": "\ud800"}]',
        1,
        r"has '\ud800', half of a character",
    ),
    "a number without end": ("a.json", f"[{'1' * 5000}]", 1, "is not JSON: Exceeds the limit"),
    "long record": ("a.json", f'[{{"text": "{"a" * MAX_LINE}"}}]', 1, "is longer than 10 MB"),
    "json lines": ("a.jsonl", '{"text": "a"}\n{"prompt": "a"}\n', 2, "has the keys prompt"),
}


@pytest.mark.parametrize(("name", "content", "line", "says"), BROKEN.values(), ids=BROKEN)
def test_broken_record_is_named_by_file_and_line(file, name, content, line, says):
    path = file(name, content)
    assert fault_of(path).startswith(f"{path}:{line} {says}")


def test_list_that_is_nested_too_deep_is_refused(file):
    assert "nested too deep" in fault_of(file("a.json", "[" * 100_000 + "]" * 100_000))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.txt"])
def test_file_in_another_encoding_is_refused(file, name):
    path = file(name, '[{"text": "kākou"}]'.encode("utf-16"))
    assert fault_of(path).startswith(f"{path} is not UTF-8 text")
    assert fault_of(path).endswith("Save it as UTF-8.")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.txt"])
def test_file_with_too_few_records_says_what_to_do(file, name):
    text = "one" if name == "a.txt" else '{"text": "one"}'
    fault = fault_of(file(name, text))
    assert "the split valid is empty. Add records, or change data.valid_fraction" in fault


@pytest.mark.parametrize("key", ["source", "target"])
def test_columns_of_a_file_of_records_are_refused(file, key):
    path = file("a.jsonl", json_lines(PAIRS))
    assert fault_of(path, **{key: "haw"}).startswith(f"{path} is no table: data.source and")


def test_file_of_another_kind_lists_the_kinds(file):
    path = file("a.xlsx", "")
    assert fault_of(path) == (
        f"The data {str(path)!r} was not found: the file of that name is none that is read "
        "(.csv, .tsv, .jsonl, .json, .txt, .parquet). Save it as one of these."
    )


def test_file_and_table_are_mixed(file):
    table = file("a.csv", "haw,en\n" + "".join(f"haw {n},en {n}\n" for n in range(N)))
    options = {"valid_fraction": 0.25, "test_fraction": 0}
    specs = [
        DataSpec(path=str(path), **options) for path in (file("a.jsonl", json_lines(PAIRS)), table)
    ]
    splits = load_data(specs)
    assert len(splits.train) == 2 * N * 3 // 4
    assert list(splits.columns) == [str(table)]


# Parquet


def test_parquet_is_a_table(parquet):
    splits = load(parquet(ROWS), prompt="{source}")
    assert splits.columns[str(parquet(ROWS))] == Columns("haw", "en", "by their names", ("id",))
    found = {(r.source, r.reference) for r in (*splits.train, *splits.valid, *splits.test)}
    assert found == {(row["haw"], row["en"]) for row in ROWS}


def test_parquet_with_nulls_in_a_text_names_the_rows(parquet):
    path = parquet([*ROWS, {"id": None, "haw": "x", "en": None}])
    says = f"{path}: 1 of {N + 1} rows have an empty haw or en, in line {N + 1}."
    assert fault_of(path).startswith(says)


@pytest.mark.parametrize("records", [PAIRS, CHATS, TEXTS], ids=["pairs", "chats", "texts"])
def test_parquet_has_records(parquet, records):
    splits = load(parquet([{**record, "group": None} for record in records]))
    found = contents([*splits.train, *splits.valid, *splits.test])
    assert sorted(map(str, found)) == sorted(map(str, records))


def test_parquet_of_records_is_a_table_where_columns_are_asked_for(parquet):
    path = parquet([{"text": f"a {n}", "en": f"b {n}", "prompt": "x"} for n in range(N)])
    record = load(path, source="text", target="en", prompt="{source}").train[0]
    assert record.content.keys() == {"prompt", "completion"}
    assert record.source.startswith("a ")


def test_parquet_with_structures_in_place_of_texts_says_so(parquet):
    path = parquet([{"id": n, "translation": {"haw": "a", "en": "b"}} for n in range(N)])
    assert fault_of(path) == (
        f"{path} has lists or structures in the columns translation, which are no texts. Write "
        "each text into a column of its own, such as source and target."
    )
    path = parquet([{**row, "vector": [0.5, 1.5]} for row in ROWS], "b.parquet")
    assert len(load(path).train) > 0  # nobody asks for it


def test_bytes_in_parquet_are_read_as_text(parquet):
    rows = [{"haw": row["haw"].encode(), "en": row["en"].encode()} for row in ROWS]
    splits, plain = load(parquet(rows)), load(parquet(ROWS, "b.parquet"))
    assert [each.messages for each in splits.train] == [each.messages for each in plain.train]
    path = parquet([*rows, {"haw": b"\xff", "en": b"a"}], "c.parquet")
    assert f"{path}:{N + 1}: the column 'haw' holds bytes that are no UTF-8 text" in fault_of(path)


def test_text_beside_a_translation_is_a_table(parquet):
    splits = load(parquet([{"text": f"a {n}", "english": f"b {n}"} for n in range(N)]))
    assert {record.reference[0] for record in splits.train} == {"b"}


def test_columns_of_a_parquet_file_are_named_as_those_of_a_csv(parquet):
    rows = [{"": n, " haw ": row["haw"], "en ": row["en"]} for n, row in enumerate(ROWS)]
    (columns,) = load(parquet(rows)).columns.values()
    assert (columns.source, columns.target) == ("haw", "en")


def test_list_of_json_in_one_line_is_read(file):
    splits = load(file("a.json", "\n " + json.dumps(PAIRS)))
    assert len(splits.train) + len(splits.valid) + len(splits.test) == N


def test_broken_record_of_a_parquet_file_is_named_by_its_row(parquet):
    path = parquet([*TEXTS, {"text": None}])
    assert fault_of(path).startswith(f"{path}:{N + 1} ")


def test_file_that_is_no_parquet_is_refused(file):
    pytest.importorskip("pyarrow")
    path = file("a.parquet", "haw,en\n")
    assert fault_of(path).startswith(f"{path} cannot be read as a Parquet file: ")


def test_parquet_without_pyarrow_says_what_to_install(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    path = file("a.parquet", "")
    assert fault_of(path) == (
        f"{path} is a Parquet file, which pyarrow reads. In the clone of hawsweep: "
        "pip install -e '.[parquet]'"
    )
