import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mlx_lm.tuner import datasets as mlx_datasets

from hawsweep.data.load import choose_subset, load_data
from hawsweep.errors import DataError
from hawsweep.machine import backend
from hawsweep.spec.sweep import DataSpec

CHAT = {
    "messages": [
        {"role": "system", "content": "Translate Hawaiian to English."},
        {"role": "user", "content": "Aloha kākou."},
        {"role": "assistant", "content": "Greetings to us all."},
    ],
    "group": "greeting",
}
COMPLETION = {"prompt": "Mahalo.", "completion": "Thank you."}
TEXT = {"text": "He wahi moʻolelo."}


def load(path, **options):
    return load_data([DataSpec(path=str(path), **options)])


def contents(records):
    return [record.content for record in records]


@pytest.fixture
def folder(tmp_path):
    def write(**splits):
        for split, records in splits.items():
            lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
            (tmp_path / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines))
        return tmp_path

    return write


def test_phrasebook_loads_with_three_splits_of_disjoint_prompts():
    splits = load("phrasebook")
    sources = [{r.source for r in split} for split in (splits.train, splits.valid, splits.test)]
    assert all(sources)
    assert sum(map(len, sources)) == len(set.union(*sources))
    assert all(record.reference and record.group for record in splits.valid)


def test_folder_is_read_record_by_record(chat_data_dir):
    splits = load(chat_data_dir)
    for name in ("train", "valid", "test"):
        lines = (chat_data_dir / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert contents(getattr(splits, name)) == [json.loads(line) for line in lines]
    assert splits.folder == chat_data_dir


@pytest.mark.parametrize(
    ("content", "source", "reference", "group"),
    [
        (CHAT, "Aloha kākou.", "Greetings to us all.", "greeting"),
        (COMPLETION, "Mahalo.", "Thank you.", None),
        (TEXT, "", None, None),
        ({"messages": CHAT["messages"][:2]}, "Aloha kākou.", None, None),
    ],
    ids=["chat", "completion", "text", "unanswered"],
)
def test_record_of_each_format_knows_source_and_reference(
    folder, content, source, reference, group
):
    (record,) = load(folder(train=[content], valid=[content])).valid
    assert (record.source, record.reference, record.group) == (source, reference, group)


def test_blank_lines_are_skipped_and_counted(folder):
    path = folder(train=["", COMPLETION, "  ", TEXT], valid=[TEXT])
    assert [r.where for r in load(path).train] == [f"{path}/train.jsonl:{n}" for n in (2, 4)]


def test_validation_split_may_be_named_validation(folder):
    splits = load(folder(train=[TEXT], validation=[COMPLETION]))
    assert contents(splits.valid) == [COMPLETION]
    assert list(splits.test) == []
    assert splits.folder is None  # mlx-lm finds no valid.jsonl there


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"text": ', "is not JSON"),
        ("[1]", "holds a list, must be one of"),
        ('{"prompt": "a"}', 'has the keys prompt, must be one of {"messages": [...]}'),
        ("{}", "has the keys none, must be one of"),
        ('{"text": 3}', "has a text that is not a string. Correct or remove the line."),
        ('{"messages": []}', "has messages that are not a list of at least one"),
        ('{"messages": ["a"]}', "has a message without role and content"),
        ('{"messages": [{"role": "user"}]}', "has a message without role and content"),
        ('{"messages": [{"role": "user", "content": null}]}', "has a text that is not a string"),
        # Pythons differ in how deep they read before they see that it is cut off.
        ("[" * 100_000, ("is not JSON", "is JSON that is nested too deep")),
        (r'{"text": "\ud800"}', r"has '\ud800', half of a character. Correct or remove the line."),
    ],
)
def test_broken_line_is_named_by_file_and_number(folder, line, fault):
    path = folder(train=[TEXT, line], valid=[TEXT])
    with pytest.raises(DataError) as caught:
        load(path)
    where, faults = f"{path}/train.jsonl:2 ", fault if isinstance(fault, tuple) else (fault,)
    assert str(caught.value).removeprefix(where).startswith(faults)
    assert str(caught.value).startswith(where)


def test_file_in_another_encoding_is_named(folder):
    path = folder(train=[TEXT], valid=[TEXT])
    (path / "valid.jsonl").write_bytes('{"text": "kākou"}'.encode("utf-16"))
    with pytest.raises(DataError, match=r"valid\.jsonl is not UTF-8 text.*Save it as UTF-8"):
        load(path)


@pytest.mark.parametrize(("there", "missing"), [("train", "valid"), ("valid", "train")])
def test_missing_split_is_named_with_what_is_there(folder, there, missing):
    with pytest.raises(DataError) as caught:
        load(folder(**{there: [TEXT]}))
    assert f"has no {missing}.jsonl; it has {there}.jsonl. Put train.jsonl and" in str(caught.value)


@pytest.mark.parametrize("empty", ["train", "valid"])
def test_empty_split_is_named(folder, empty):
    with pytest.raises(DataError, match=rf"the split {empty} is empty\. Put at least one record"):
        load(folder(**{"train": [TEXT], "valid": [TEXT], empty: []}))


def test_fingerprint_changes_with_content_and_order_of_a_split(folder):
    before = load(folder(train=[TEXT, CHAT], valid=[TEXT])).fingerprint()
    again = load(folder(train=[TEXT, CHAT], valid=[TEXT])).fingerprint()
    swapped = load(folder(train=[CHAT, TEXT], valid=[TEXT])).fingerprint()
    longer = load(folder(train=[TEXT, CHAT], valid=[TEXT, TEXT])).fingerprint()
    assert before == again
    assert swapped["train"] != before["train"]
    assert swapped["valid"] == before["valid"]
    assert longer["valid"] != before["valid"]


def test_written_splits_read_back(chat_data_dir, tmp_path):
    splits = load(chat_data_dir)
    splits.write(tmp_path / "copy")
    assert load(tmp_path / "copy").fingerprint() == splits.fingerprint()


def load_mix(*sets):
    return load_data([DataSpec(path=str(path), **options) for path, options in sets])


@pytest.fixture
def mix(tmp_path):
    """Two folders: one with all splits, one with training records alone."""
    for name, splits in (
        ("a", {"train": [TEXT, CHAT], "valid": [TEXT], "test": [CHAT]}),
        ("b", {"train": [COMPLETION] * 3}),
    ):
        (tmp_path / name).mkdir()
        for split, records in splits.items():
            text = "".join(f"{json.dumps(record)}\n" for record in records)
            (tmp_path / name / f"{split}.jsonl").write_text(text)
    return tmp_path / "a", tmp_path / "b"


def test_splits_of_several_sets_are_concatenated_in_order(mix):
    a, b = mix
    splits = load_mix((b, {}), (a, {}))
    assert contents(splits.train) == [COMPLETION] * 3 + [TEXT, CHAT]
    assert contents(splits.valid) == [TEXT]
    assert contents(splits.test) == [CHAT]
    assert splits.folder is None
    assert splits.weights is None


def test_weights_are_those_of_each_records_set(mix):
    a, b = mix
    weights = load_mix((a, {"weight": 0.5}), (b, {"weight": 3})).weights
    assert weights.tolist() == [0.5] * 2 + [3] * 3
    assert weights.dtype == np.float32
    assert load_mix((a, {"weight": 2})).weights.tolist() == [2, 2]


def test_csv_and_folder_are_mixed(mix, tmp_path):
    table = tmp_path / "pairs.csv"
    table.write_text("haw,en\n" + "".join(f"haw {n},en {n}\n" for n in range(20)))
    splits = load_mix((mix[1], {}), (table, {"valid_fraction": 0.25, "test_fraction": 0}))
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (3 + 15, 5, 0)
    assert splits.train[2].where == f"{mix[1]}/train.jsonl:3"
    assert splits.train[3].where.startswith(f"{table}:")


def test_fingerprint_of_a_mix_is_that_of_one_folder_with_the_same(mix, tmp_path):
    a, b = mix
    mixed = load_mix((a, {}), (b, {"weight": 2}))
    mixed.write(tmp_path / "whole")
    whole = load(tmp_path / "whole")
    assert mixed.fingerprint() == whole.fingerprint()
    assert contents(whole.train) == [TEXT, CHAT] + [COMPLETION] * 3


def test_mix_without_any_validation_record_is_refused(mix):
    _, b = mix
    with pytest.raises(DataError) as caught:
        load_mix((b, {}), (b, {}))
    assert f"The split valid is empty in all of {b}, {b}. Put at least one" in str(caught.value)


def test_set_of_a_mix_needs_training_records(mix):
    a, b = mix
    (b / "train.jsonl").unlink()
    with pytest.raises(
        DataError, match=r"has no train\.jsonl; it has nothing. Put train\.jsonl th"
    ):
        load_mix((a, {}), (b, {}))


def test_subset_is_seeded_in_order_and_of_the_size(chat_data_dir):
    train = load(chat_data_dir).train
    chosen, again, other = (list(choose_subset(train, 10, seed)) for seed in (3, 3, 4))
    places = [train.index(record) for record in chosen]
    assert len(set(places)) == 10
    assert places == sorted(places)
    assert chosen == again != other
    assert list(choose_subset(train, len(train), seed=3)) == list(train)


def test_cached_dataset_is_read(hub_cache):
    snapshot = hub_cache.add("dataset", "org/pairs")
    for split in ("train", "valid"):
        (snapshot / f"{split}.jsonl").write_text(json.dumps({**COMPLETION, "split": split}))
    splits = load("org/pairs")
    assert [split[0].content["split"] for split in (splits.train, splits.valid)] == [
        "train",
        "valid",
    ]


def test_revision_of_a_dataset_is_read(hub_cache):
    for revision, record in (("main", TEXT), ("v1.0", COMPLETION)):
        snapshot = hub_cache.add("dataset", "org/pairs", revision)
        for split in ("train", "valid"):
            (snapshot / f"{split}.jsonl").write_text(json.dumps(record))
    assert contents(load("org/pairs").train) == [TEXT]
    assert contents(load("org/pairs", revision="v1.0").train) == [COMPLETION]
    commit = hashlib.sha1(b"v1.0").hexdigest()
    assert contents(load("org/pairs", revision=commit).train) == [COMPLETION]
    with pytest.raises(DataError, match="'org/pairs' was not found"):
        load("org/pairs", revision="v2.0")


def test_revision_in_the_name_of_a_dataset_is_refused_with_the_key(hub_cache):
    with pytest.raises(DataError, match=r"such names\. Name a revision by data\.revision\.$"):
        load("org/pairs@main")


def test_revision_of_a_folder_is_refused(folder):
    path = folder(train=[TEXT], valid=[TEXT])
    with pytest.raises(DataError) as caught:
        load(path, revision="main")
    assert str(caught.value) == (
        f"{path} is on this machine, and data.revision is 'main': only a Hugging Face data set has "
        "revisions. Remove the key."
    )


def test_name_that_is_nowhere_lists_every_place(hub_cache):
    with pytest.raises(DataError) as caught:
        load("org/nowhere")
    message = str(caught.value)
    assert "'org/nowhere' was not found" in message
    for place in ("bundled name (phrasebook)", "a folder or a file (.csv", str(hub_cache.folder)):
        assert place in message


def test_name_no_repository_can_have_is_refused(hub_cache):
    with pytest.raises(DataError, match="the hub has no such names"):
        load("no/such/data")


def test_dataset_in_another_format_asks_for_the_library(hub_cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    (hub_cache.add("dataset", "org/parquet") / "data.parquet").write_text("")
    with pytest.raises(
        DataError, match=r"'org/parquet' has no train\.jsonl.*pip install datasets\."
    ):
        load("org/parquet")


class Exported:
    """A split of the library ``datasets``."""

    def to_json(self, path):
        Path(path).write_text(f"{json.dumps(COMPLETION)}\n" * 3)


def test_exported_data_set_stays_readable_while_it_is_exported_again(
    hub_cache, tmp_path, monkeypatch
):
    splits = {name: Exported() for name in ("train", "validation")}
    found = SimpleNamespace(load_dataset=lambda _repo, revision: splits)
    monkeypatch.setitem(sys.modules, "datasets", found)
    monkeypatch.setattr(backend, "cache_dir", lambda: tmp_path / "cache")
    (hub_cache.add("dataset", "org/parquet") / "data.parquet").write_text("")
    read = load("org/parquet")
    path = tmp_path / "cache" / "data" / "org--parquet" / "train.jsonl"
    before = path.stat().st_ino
    again = load("org/parquet")
    assert path.stat().st_ino != before  # the former file is still there for who reads it
    assert contents([*read.train, *again.valid]) == [COMPLETION] * 6


SYSTEM = {"system": "Answer in pidgin.", **COMPLETION}
MIXED = {
    "pairs and chats": [COMPLETION, {**CHAT, "id": 7}],
    "a chat that is a pair too": [CHAT, {**CHAT, **COMPLETION}],
    "a system text": [COMPLETION, SYSTEM, {**COMPLETION, "tools": []}],
    "tools as text": [{**CHAT, "tools": '[{"type": "function"}]'}],
    "null in a message": [{"messages": [{**each, "name": None} for each in CHAT["messages"]]}],
    "null first": [{"prompt": None, "completion": None, **CHAT}, CHAT],
    "parts": [{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}],
    "a blank line": [COMPLETION, "", COMPLETION],
    "a byte-order mark": ["\ufeff" + json.dumps(COMPLETION), COMPLETION],
    "plain texts": [TEXT, {**TEXT, "messages": None}],
}


class Template:
    """A tokenizer whose tokens are what it is given."""

    eos_token_id = "end"

    def apply_chat_template(self, messages, tools=None, **_):
        return [messages, tools]

    def encode(self, text):
        return [text]


def tokens_of_mlx_lm(folder):
    sets = mlx_datasets.load_local_dataset(folder, Template(), SimpleNamespace())
    return [[each.process(each[i])[0] for i in range(len(each))] for each in sets[:2]]


def tokens_of(records):
    given = [(r.messages, r.tools) for r in records]
    return [
        [record.content["text"], "end"] if messages is None else [messages, tools]
        for record, (messages, tools) in zip(records, given, strict=True)
    ]


@pytest.mark.parametrize("kind", MIXED)
@pytest.mark.parametrize("split", ["train", "valid"])
def test_mlx_lm_reads_the_same_records_of_a_copy(folder, tmp_path_factory, kind, split):
    splits = load(folder(**{"train": [COMPLETION], "valid": [COMPLETION], split: MIXED[kind]}))
    assert splits.folder is None
    splits.write(copy := tmp_path_factory.mktemp("copy"))
    (copy / "test.jsonl").unlink()  # it refuses an empty one
    assert tokens_of_mlx_lm(copy) == [tokens_of(splits.train), tokens_of(splits.valid)]


@pytest.mark.parametrize(
    "record",
    [CHAT, {**COMPLETION, "text": "a", "group": None}, {**COMPLETION, "messages": None}, TEXT],
)
def test_mlx_lm_reads_the_same_records_of_the_folder_where_that_is_so(folder, record):
    splits = load(folder(train=[record] * 2, valid=[record]))
    assert splits.folder is not None
    assert tokens_of_mlx_lm(splits.folder) == [tokens_of(splits.train), tokens_of(splits.valid)]


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_each_split_is_read_to_its_end(folder, split):
    alone = {"messages": [{"role": "assistant", "content": "a"}]}
    records = {"train": [TEXT], "valid": [TEXT], "test": [TEXT]}
    path = folder(**{**records, split: [TEXT] * 9 + [alone]})
    with pytest.raises(DataError, match=rf"{split}\.jsonl:10 has only the assistant's messages"):
        load(path)


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("Translate to English: {source}", "Translate to English: He uʻi ʻo ia"),
        ("Translate this to English {source}", "Translate this to English He uʻi ʻo ia"),
    ],
)
def test_texts_of_a_csv_and_a_folder_are_normalized(folder, prompt, asked):
    right = {"prompt": asked, "completion": "Kākou"}
    table = folder(train=[{"text": "He u'i"}], valid=[TEXT]) / "pairs.csv"
    table.write_text("haw,en\n" + "He u'i ‘o ia,Ka\u0304kou\n" * 9, encoding="utf-8")
    splits = load(table, prompt=prompt, normalize="okina")
    assert contents(splits.train) == [right] * 7
    assert contents(load(folder(), normalize="okina").train) == [{"text": "He uʻi"}]
    assert contents(load(table, prompt=prompt).train)[0]["completion"] == "Ka\u0304kou"
