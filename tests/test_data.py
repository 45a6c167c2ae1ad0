import json
import sys

import pytest
from mlx_lm.tuner import datasets as mlx_datasets

from hawsweep.data import Record, choose_subset, encode, encode_prompt, load_data
from hawsweep.errors import DataError
from hawsweep.spec import DataSpec

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
    return load_data(DataSpec(path=str(path), **options))


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
    assert splits.test == []
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
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_broken_line_is_named_by_file_and_number(folder, line, fault):
    path = folder(train=[TEXT, line], valid=[TEXT])
    with pytest.raises(DataError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}/train.jsonl:2 {fault}")


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


def test_subset_is_seeded_in_order_and_of_the_size(chat_data_dir):
    train = load(chat_data_dir).train
    chosen = choose_subset(train, 10, seed=3)
    places = [train.index(record) for record in chosen]
    assert len(set(places)) == 10
    assert places == sorted(places)
    assert chosen == choose_subset(train, 10, seed=3) != choose_subset(train, 10, seed=4)
    assert choose_subset(train, len(train), seed=3) == train


def test_cached_dataset_is_read(hub_cache):
    snapshot = hub_cache.add("dataset", "org/pairs")
    for split in ("train", "valid"):
        (snapshot / f"{split}.jsonl").write_text(json.dumps({**COMPLETION, "split": split}))
    splits = load("org/pairs")
    assert [split[0].content["split"] for split in (splits.train, splits.valid)] == [
        "train",
        "valid",
    ]


def test_name_that_is_nowhere_lists_every_place(hub_cache):
    with pytest.raises(DataError) as caught:
        load("org/nowhere")
    message = str(caught.value)
    assert "'org/nowhere' was not found" in message
    for place in ("bundled name (phrasebook)", "a folder or a CSV", str(hub_cache.folder)):
        assert place in message


def test_name_no_repository_can_have_is_refused(hub_cache):
    with pytest.raises(DataError, match="the hub has no such names"):
        load("no/such/data")


def test_dataset_in_another_format_asks_for_the_extra(hub_cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    (hub_cache.add("dataset", "org/parquet") / "data.parquet").write_text("")
    with pytest.raises(DataError, match=r"'org/parquet' has no train\.jsonl.*pip install"):
        load("org/parquet")


@pytest.mark.parametrize("mask_prompt", [False, True])
@pytest.mark.parametrize("content", [CHAT, COMPLETION], ids=["chat", "completion"])
def test_encode_agrees_with_mlx_lm(tiny_model, content, mask_prompt):
    tokenizer = tiny_model.tokenizer
    if "messages" in content:
        theirs = mlx_datasets.ChatDataset([content], tokenizer, mask_prompt=mask_prompt)
    else:
        theirs = mlx_datasets.CompletionsDataset(
            [content], tokenizer, "prompt", "completion", mask_prompt
        )
    tokens, offset = theirs.process(content)
    (ours,) = encode(
        [Record(content)], tokenizer, max_seq_length=256, mask_prompt=mask_prompt
    ).examples
    assert ours.tokens.tolist() == list(tokens)
    assert ours.offset == max(offset, 1)
    assert (offset > 0) == mask_prompt
    assert ours.n_targets == len(tokens) - max(offset, 1)


def test_encode_of_plain_text_agrees_with_mlx_lm(tiny_model):
    tokens, _ = mlx_datasets.TextDataset([TEXT], tiny_model.tokenizer).process(TEXT)
    (ours,) = encode(
        [Record(TEXT)], tiny_model.tokenizer, max_seq_length=256, mask_prompt=False
    ).examples
    assert ours.tokens.tolist() == tokens
    assert ours.tokens[-1] == tiny_model.tokenizer.eos_token_id
    assert ours.offset == 1


def test_plain_text_has_no_prompt_to_mask(tiny_model):
    with pytest.raises(DataError, match=r"a\.jsonl:3 is plain text.*Set train\.mask_prompt: false"):
        encode(
            [Record(TEXT, "a.jsonl:3")],
            tiny_model.tokenizer,
            max_seq_length=256,
            mask_prompt=True,
        )


def test_record_the_chat_template_refuses_is_named(tiny_model, monkeypatch):
    refusing = "{{ raise_exception('only user and assistant') }}"
    monkeypatch.setattr(tiny_model.tokenizer._tokenizer, "chat_template", refusing)
    with pytest.raises(DataError, match=r"a\.jsonl:3.*refuses the record: only user and assistant"):
        encode(
            [Record(CHAT, "a.jsonl:3")],
            tiny_model.tokenizer,
            max_seq_length=256,
            mask_prompt=False,
        )


def test_encode_cuts_long_records_and_drops_those_without_targets(tiny_model):
    records = [Record(CHAT), Record(COMPLETION)]
    whole = encode(records, tiny_model.tokenizer, max_seq_length=256, mask_prompt=True)
    assert (whole.n_truncated, whole.n_dropped) == (0, 0)
    chat, completion = whole.examples
    assert chat.offset >= len(completion.tokens)  # else the limit below does not divide them
    limit = len(completion.tokens) - 1
    cut = encode(records, tiny_model.tokenizer, max_seq_length=limit, mask_prompt=True)
    assert (cut.n_truncated, cut.n_dropped) == (2, 1)
    assert cut.records == [records[1]]
    assert cut.examples[0].tokens.tolist() == completion.tokens[:limit].tolist()


def test_records_all_too_long_are_refused_with_the_longest(tiny_model):
    longest = encode([Record(CHAT)], tiny_model.tokenizer, max_seq_length=256, mask_prompt=True)
    with pytest.raises(DataError) as caught:
        encode([Record(CHAT)], tiny_model.tokenizer, max_seq_length=8, mask_prompt=True)
    message = str(caught.value)
    assert "max_seq_length=8" in message
    assert f"the longest of 1 has {len(longest.examples[0].tokens)}" in message
    assert "Raise train.max_seq_length" in message


def test_encoded_prompt_is_what_stands_before_the_answer(tiny_model):
    (example,) = encode(
        [Record(CHAT)], tiny_model.tokenizer, max_seq_length=256, mask_prompt=True
    ).examples
    prompt = encode_prompt(Record(CHAT), tiny_model.tokenizer)
    assert prompt == example.tokens[: example.offset].tolist()
