import gc
import hashlib
import json
import tempfile
import tracemalloc

import psutil
import pytest

from hawsweep.data.load import load_data
from hawsweep.data.records import concatenate, read_records, store_records, write_records
from hawsweep.data.tokens import encode
from hawsweep.errors import DataError
from hawsweep.models.chat_template import Conversation
from hawsweep.spec.sweep import DataSpec
from hawsweep.spec.train import TrainSpec

# Longer than the buffer of an open file, so that a record is read from the disk again.
LONG = 20_000


class WordTemplate:
    """A token for each word, and one for the end."""

    def encode_text(self, text):
        return Conversation([*map(len, text.split()), 0])


def text_of(content):
    return json.dumps(content, ensure_ascii=False) + "\n"


@pytest.fixture
def write(tmp_path):
    def write(contents, name="a.jsonl"):
        (tmp_path / name).write_text("".join(map(text_of, contents)), encoding="utf-8")
        return tmp_path / name

    return write


CONTENTS = [{"text": f"kākou {n} " + "ʻ" * n} for n in range(7)]


def test_records_are_those_of_the_lines_in_any_order_of_access(write):
    records = read_records(write(CONTENTS))
    assert len(records) == len(CONTENTS)
    for n in (3, 0, 6, -1, -7, 3):
        assert records[n].content == CONTENTS[n]
    assert [record.content for record in records] == CONTENTS
    assert [record.content for record in records[5:1:-2]] == CONTENTS[5:1:-2]
    with pytest.raises(IndexError):
        records[len(CONTENTS)]


def test_lines_may_end_in_any_way_and_the_last_in_none(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\r\n\n \r\n{"text": "b"}')
    records = read_records(tmp_path / "a.jsonl")
    assert [record.content["text"] for record in records] == ["a", "b"]
    assert [record.where for record in records] == [f"{tmp_path}/a.jsonl:{n}" for n in (1, 4)]


def test_taken_and_concatenated_records_know_where_they_are_from(write):
    first, second = write(CONTENTS[:4], "a.jsonl"), write(CONTENTS[4:], "b.jsonl")
    whole = concatenate([read_records(first), read_records(second), read_records(first)])
    assert [record.content for record in whole] == [*CONTENTS, *CONTENTS[:4]]
    taken = whole.take([9, 5, 0])
    assert [record.content for record in taken] == [CONTENTS[2], CONTENTS[5], CONTENTS[0]]
    assert [record.where for record in taken] == [f"{first}:3", f"{second}:2", f"{first}:1"]


def test_fingerprint_is_the_count_and_a_hash_of_the_contents_with_sorted_keys(write):
    contents = [{"text": "ʻae", "group": "b"}, {"completion": "a", "prompt": "b"}]
    digest = hashlib.sha256()
    for content in ({"group": "b", "text": "ʻae"}, {"completion": "a", "prompt": "b"}):
        digest.update(json.dumps(content, ensure_ascii=False).encode())
    expected = f"2:{digest.hexdigest()[:16]}"
    records = read_records(write(contents))
    assert records.fingerprint == expected
    assert records.take([0, 1]).fingerprint == expected
    assert records.take([1, 0]).fingerprint != expected
    assert concatenate([records.take([0]), records.take([1])]).fingerprint == expected


def test_stored_records_are_named_by_where_they_come_from():
    records = store_records([(2, {"text": "ʻae"}), (7, {"text": "a\nb"})], "pairs.csv")
    assert [record.content for record in records] == [{"text": "ʻae"}, {"text": "a\nb"}]
    assert [record.where for record in records] == ["pairs.csv:2", "pairs.csv:7"]


def test_written_records_read_back(tmp_path, write):
    records = read_records(write(CONTENTS))
    write_records(records, tmp_path / "copy.jsonl")
    assert read_records(tmp_path / "copy.jsonl").fingerprint == records.fingerprint


@pytest.mark.parametrize(
    "now",
    [b'x{"text": "b"}\n', b"", b"[1]\n", b'{"text": "', b'{"text": "\xff"}\n'],
    ids=["moved", "shortened", "another-kind", "cut", "another-encoding"],
)
def test_record_that_changed_since_it_was_checked_is_named(write, now):
    long = {"text": "a" * LONG}
    path = write([{"text": "b"}, long, long])
    records = read_records(path)
    before = len(text_of({"text": "b"}).encode())
    with path.open("r+b") as file:
        file.truncate(before)
        file.seek(before)
        file.write(now)
    assert records[0].content == {"text": "b"}
    with pytest.raises(DataError) as caught:
        records[1]
    assert str(caught.value).startswith(f"{path}:2 changed after it was checked")
    assert "Start again, and do not change the file" in str(caught.value)


def test_file_that_was_replaced_by_another_is_still_read(write, tmp_path):
    long = {"text": "a" * LONG}
    records = read_records(write([long, CONTENTS[0]]))
    write([CONTENTS[1]], "b.jsonl").replace(tmp_path / "a.jsonl")
    assert [record.content for record in records] == [long, CONTENTS[0]]


def test_files_are_closed_when_no_records_are_left_of_them(write):
    path, process = write(CONTENTS), psutil.Process()
    gc.collect()
    before = process.num_fds()
    records = read_records(path)
    some = records.take([1])
    stored = store_records([(1, CONTENTS[0])], "pairs.csv")
    assert process.num_fds() == before + 2
    del records
    assert some[0].content == CONTENTS[1]
    del some, stored
    gc.collect()
    assert process.num_fds() == before


def test_folder_in_place_of_a_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path} cannot be read: Is a directory"):
        read_records(tmp_path)


def test_temporary_folder_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(DataError) as caught:
        store_records([(1, {"text": "a"})], "pairs.csv")
    assert f"A temporary file in {tmp_path / 'gone'} cannot be written" in str(caught.value)
    assert "TMPDIR" in str(caught.value)


def traced(action):
    """Bytes held by what an action gives, and the most held until then."""
    gc.collect()
    tracemalloc.start()
    try:
        result = action()
        gc.collect()
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return result, held, peak


@pytest.fixture
def memory_of(tmp_path):
    """Bytes held after a data set is loaded and encoded, and the most held until then."""

    def load_and_encode():
        train = load_data([DataSpec(path=str(tmp_path))]).train
        return train, encode(train, WordTemplate(), TrainSpec(max_seq_length=LONG))

    def measure(n_records, n_words):
        line = text_of({"text": "ae " * n_words})
        with (tmp_path / "train.jsonl").open("w") as file:
            file.writelines(line for _ in range(n_records))
        (tmp_path / "valid.jsonl").write_text(line)
        (train, encoded), held, peak = traced(load_and_encode)
        assert len(encoded.examples) == len(train) == n_records
        assert encoded.examples.lengths.sum() == n_records * (n_words + 1)  # and the end token
        return held, peak

    measure(10, 6)  # what modules keep from their first use on
    return measure


@pytest.mark.parametrize("many", [10_000, pytest.param(100_000, marks=pytest.mark.real)])
def test_memory_holds_places_alone_of_a_record_and_its_tokens(memory_of, many):
    few = 1_000
    (held_of_few, peak_of_few), (held, peak) = memory_of(few, 6), memory_of(many, 6)
    # Position 8, line 4, file 2; the tokens' end 8, length 4, targets 4, the record's index 4.
    places = 34
    assert (held - held_of_few) / (many - few) < places + 6
    # Arrays that grow are there twice for a moment. A record itself has over 200 bytes.
    assert (peak - peak_of_few) / (many - few) < 2 * places


def test_memory_does_not_depend_on_how_long_records_are(memory_of):
    short, long = memory_of(500, 60), memory_of(500, 600)
    longer_by = 500 * (600 - 60) * len("ae ")
    assert long[0] - short[0] < longer_by / 50
    assert long[1] - short[1] < longer_by / 10


def test_memory_holds_places_alone_of_the_rows_of_a_csv(tmp_path):
    def memory_of(n_rows):
        path = tmp_path / "pairs.csv"
        path.write_text("haw,en\n" + "".join(f"haw {n},en {n}\n" for n in range(n_rows)))
        splits, held, peak = traced(lambda: load_data([DataSpec(path=str(path))]))
        assert len(splits.train) == n_rows * 8 // 10
        return held, peak

    memory_of(10)  # what modules keep from their first use on
    few, many = 1_000, 10_000
    (held_of_few, peak_of_few), (held, peak) = memory_of(few), memory_of(many)
    places = 8 + 4 + 2
    assert (held - held_of_few) / (many - few) < places + 6
    # Before they are in three splits, and numbers of 8 bytes: of their order, of their sources, and
    # of those grouped.
    assert (peak - peak_of_few) / (many - few) < 3 * places + 7 * 8


# How a file is written


PAIR = {"prompt": "Aloha", "completion": "Hello"}
CHAT = {
    "messages": [{"role": "user", "content": "Aloha"}, {"role": "assistant", "content": "Hello"}]
}


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b'\xef\xbb\xbf{"text": "a"}\n\xef\xbb\xbf{"text": "b"}\n', ["a", "b"]),
        (b'{"text": "a"}\n\xef\xbb\xbf{"text": "b"}', ["a", "b"]),
        (b'\xef\xbb\xbf\n{"text": "a"}\n\xef\xbb\xbf', ["a"]),
        (b'\xef\xbb\xbf{"text": "\xef\xbb\xbfa"}', ["\ufeffa"]),
    ],
    ids=["each-line", "second-line", "blank-lines", "in-a-text"],
)
def test_byte_order_mark_at_the_start_of_a_line_is_skipped(tmp_path, content, texts):
    (tmp_path / "a.jsonl").write_bytes(content)
    records = read_records(tmp_path / "a.jsonl")
    assert [record.content for record in records] == [{"text": text} for text in texts]
    assert (
        records.fingerprint
        == store_records(((1, {"text": text}) for text in texts), "b").fingerprint
    )
    assert not records.is_plain  # mlx-lm refuses the mark


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_file_in_utf_16_is_refused_as_such(tmp_path, encoding):
    (tmp_path / "a.jsonl").write_bytes('{"text": "kākou"}\n'.encode(encoding))
    with pytest.raises(DataError) as caught:
        read_records(tmp_path / "a.jsonl")
    says = f"{tmp_path}/a.jsonl is not UTF-8 text: it is UTF-16. Save it as UTF-8."
    assert str(caught.value) == says


@pytest.mark.parametrize("end", [b"", b"\r", b"\n", b'\n{"text": "ae"}\n'])
@pytest.mark.parametrize("between", [b"\r", b" \r\r", b"\r\xef\xbb\xbf"])
def test_file_with_lines_that_end_in_cr_alone_is_refused_as_such(tmp_path, between, end):
    (tmp_path / "a.jsonl").write_bytes(between.join([b'{"text": "ae"}'] * 2_000) + end)
    with pytest.raises(DataError) as caught:
        read_records(tmp_path / "a.jsonl")
    assert f"{tmp_path}/a.jsonl has lines that end in CR alone" in str(caught.value)
    assert "Save it with lines that end in LF." in str(caught.value)


@pytest.mark.parametrize(
    ("content", "is_plain"),
    [
        (text_of(PAIR) * 2, True),
        (text_of(PAIR).replace("\n", "\r\n") * 2, True),
        (text_of(CHAT) + text_of({**CHAT, "group": "a"}), True),
        (text_of(PAIR) + text_of(CHAT), False),  # it takes the format of the first
        (text_of(CHAT) + text_of({**CHAT, **PAIR}), False),
        (text_of(PAIR) + "\n", False),  # it reads no blank lines
        (text_of(PAIR).replace("\n", "\r\r\n"), False),
        (text_of(PAIR).replace(", ", ",\r"), False),  # a CR ends its line
        (text_of({"system": "a", **PAIR}), False),
        ("", False),
    ],
)
def test_file_is_plain_if_mlx_lm_reads_the_same(tmp_path, content, is_plain):
    (tmp_path / "a.jsonl").write_bytes(content.encode())
    assert read_records(tmp_path / "a.jsonl").is_plain is is_plain


def test_record_knows_its_tools_and_texts(write):
    tools = [{"type": "function", "function": {"name": "lookup"}}]
    contents = [{**PAIR, "tools": json.dumps(tools)}, CHAT, {"text": "ae", "tools": "hammer"}]
    records = read_records(write(contents))
    assert [record.tools for record in records] == [tools, None, None]
    assert [record.texts for record in records] == [["Aloha", "Hello"]] * 2 + [["ae"]]


def test_records_are_normalized_in_any_order_of_access_and_so_is_their_fingerprint(write):
    written, right = (
        [{"text": "He u'i"}, {"text": "ka\u0304"}],
        [{"text": "He uʻi"}, {"text": "kā"}],
    )
    path = write(written)
    records = read_records(path, "okina")
    stored = store_records([(1, written[0]), (2, written[1])], "pairs.csv", "okina")
    expected = read_records(write(right, "right.jsonl")).fingerprint
    for each in (records, stored, concatenate([records.take([0]), stored.take([1])])):
        assert [each[n].content for n in (1, 0)] == [right[1], right[0]]
        assert each.fingerprint == expected
    assert not records.is_plain
    assert read_records(path).fingerprint != expected


def test_records_with_keys_that_are_left_out_have_one_fingerprint_however_it_is_computed(write):
    contents = [{**PAIR, "text": "a", "group": None}, {**PAIR, **CHAT}, {**PAIR, "messages": None}]
    records = read_records(write(contents))
    assert [record.content for record in records] == [PAIR] * 3
    digest = hashlib.sha256()
    # The first was read so before; the others were not.
    for content in (contents[0], PAIR, PAIR):
        digest.update(json.dumps(content, sort_keys=True).encode())
    assert records.fingerprint == f"3:{digest.hexdigest()[:16]}"
    assert records.take([0, 1, 2]).fingerprint == records.fingerprint
