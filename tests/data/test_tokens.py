import numpy as np
import pytest
from mlx_lm.tuner import datasets as mlx_datasets

from hawsweep.data.batches import lengths_of
from hawsweep.data.records import Record
from hawsweep.data.tokens import common_system, encode, encode_prompt
from hawsweep.errors import DataError
from hawsweep.models.chat_template import Conversation
from hawsweep.spec.train import TrainSpec

CHAT = {
    "messages": [
        {"role": "system", "content": "Translate Hawaiian to English."},
        {"role": "user", "content": "Aloha kākou."},
        {"role": "assistant", "content": "Greetings to us all."},
    ],
}
COMPLETION = {"prompt": "Mahalo.", "completion": "Thank you."}
TEXT = {"text": "He wahi moʻolelo."}
MASKED = TrainSpec(max_seq_length=256, mask_prompt=True)
UNMASKED = TrainSpec(max_seq_length=256)


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
    train = MASKED if mask_prompt else UNMASKED
    (ours,) = encode([Record(content)], tiny_model.template, train).examples
    assert ours.tokens.tolist() == list(tokens)
    assert ours.offset == max(offset, 1)
    assert (offset > 0) == mask_prompt
    assert ours.n_targets == len(tokens) - max(offset, 1)


def test_encode_of_plain_text_agrees_with_mlx_lm(tiny_model):
    tokens, _ = mlx_datasets.TextDataset([TEXT], tiny_model.tokenizer).process(TEXT)
    (ours,) = encode([Record(TEXT)], tiny_model.template, UNMASKED).examples
    assert ours.tokens.tolist() == tokens
    assert ours.tokens[-1] == tiny_model.tokenizer.eos_token_id
    assert ours.offset == 1


def test_plain_text_has_no_prompt_to_mask(tiny_model):
    with pytest.raises(DataError, match=r"a\.jsonl:3 is plain text.*Set train\.mask_prompt: false"):
        encode([Record(TEXT, "a.jsonl:3")], tiny_model.template, MASKED)


def test_record_the_chat_template_refuses_is_named(tiny_model, monkeypatch):
    refusing = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('only user and assistant') }}"
        "{% endif %}" + tiny_model.tokenizer.chat_template
    )
    monkeypatch.setattr(tiny_model.tokenizer._tokenizer, "chat_template", refusing)
    with pytest.raises(DataError, match=r"a\.jsonl:3.*refuses the record: only user and assistant"):
        encode([Record(CHAT, "a.jsonl:3")], tiny_model.template, UNMASKED)


def test_encode_cuts_long_records_and_drops_those_without_targets(tiny_model):
    records = [Record(CHAT), Record(COMPLETION)]
    whole = encode(records, tiny_model.template, MASKED)
    assert (whole.n_truncated, whole.n_dropped) == (0, 0)
    chat, completion = whole.examples
    assert chat.offset >= len(completion.tokens)  # else the limit below does not divide them
    limit = len(completion.tokens) - 1
    cut = encode(records, tiny_model.template, TrainSpec(max_seq_length=limit, mask_prompt=True))
    assert (cut.n_truncated, cut.n_dropped) == (2, 1)
    assert cut.record_indices.tolist() == [1]
    assert cut.examples[0].tokens.tolist() == completion.tokens[:limit].tolist()


def test_records_all_too_long_are_refused_with_the_longest(tiny_model):
    longest = encode([Record(CHAT)], tiny_model.template, MASKED)
    with pytest.raises(DataError) as caught:
        encode([Record(CHAT)], tiny_model.template, TrainSpec(max_seq_length=8, mask_prompt=True))
    message = str(caught.value)
    assert "max_seq_length=8" in message
    assert f"the longest of 1 has {len(longest.examples[0].tokens)}" in message
    assert "Raise train.max_seq_length" in message


def test_encoded_prompt_is_what_stands_before_the_answer(tiny_model):
    (example,) = encode([Record(CHAT)], tiny_model.template, MASKED).examples
    prompt = encode_prompt(Record(CHAT), tiny_model.template)
    assert prompt == example.tokens[: example.offset].tolist()


class WordTemplate:
    """A token for each word, its length, and none around a message."""

    def encode(self, messages, tools):
        question, answer = ([*map(len, each["content"].split())] for each in messages)
        return Conversation(question + answer, len(question))

    def answer(self, tokens):
        return " ".join("c" * token for token in tokens)

    def shows(self, role):
        return True

    def marker_in(self, text):
        return None


def pair(n_prompt, n_completion, where=""):
    return Record({"prompt": "p " * n_prompt, "completion": "cc " * n_completion}, where)


def encode_words(records, weights=None):
    train = TrainSpec(max_seq_length=10, mask_prompt=True)
    return encode(records, WordTemplate(), train, weights)


def test_examples_are_a_sequence_with_lengths_and_target_counts():
    sizes = [(1, 2), (4, 1), (2, 3)]
    examples = encode_words([pair(*size) for size in sizes]).examples
    expected = [[1] * n_prompt + [2] * n_completion for n_prompt, n_completion in sizes]
    assert [example.tokens.tolist() for example in examples] == expected
    assert [example.offset for example in examples] == [n_prompt for n_prompt, _ in sizes]
    assert examples.lengths.tolist() == [3, 5, 5]
    assert examples.n_targets.tolist() == [example.n_targets for example in examples] == [2, 1, 3]
    assert lengths_of(examples).tolist() == lengths_of(list(examples)).tolist() == [3, 5, 5]
    assert examples[-1].tokens.tolist() == expected[-1]
    assert [example.tokens.tolist() for example in examples[1:]] == expected[1:]
    with pytest.raises(IndexError):
        examples[3]


def test_dropped_records_take_their_weights_with_them():
    weights = np.array([0.5, 1, 3, 2], np.float32)
    records = [pair(1, 2), pair(12, 1), pair(2, 2), pair(3, 0)]
    encoded = encode_words(records, weights=weights)
    assert encoded.record_indices.tolist() == [0, 2]
    assert encoded.weights.tolist() == [0.5, 3]
    assert encode_words(records).weights is None


def test_records_cut_away_and_empty_from_the_start_are_told_apart():
    kept, cut, cut_away, empty, long_and_empty = (
        pair(1, 2),
        pair(5, 20),
        pair(10, 1),
        pair(4, 0),
        pair(12, 0),
    )
    encoded = encode_words([kept, cut, cut_away, empty, long_and_empty])
    assert encoded.record_indices.tolist() == [0, 1]
    assert (encoded.n_truncated, encoded.n_dropped, encoded.n_empty) == (2, 3, 2)


def test_records_all_empty_are_refused_with_the_first():
    with pytest.raises(DataError) as caught:
        encode_words([pair(3, 0, "a.jsonl:4"), pair(12, 0, "a.jsonl:5")])
    assert "each of 2 is empty after its prompt, the first is a.jsonl:4." in str(caught.value)
    assert "max_seq_length" not in str(caught.value)


def test_records_empty_and_cut_away_are_refused_with_both_counts():
    records = [pair(12, 1, "a.jsonl:1"), pair(3, 0, "a.jsonl:2"), pair(10, 5, "a.jsonl:3")]
    with pytest.raises(DataError) as caught:
        encode_words(records)
    message = str(caught.value)
    assert "within max_seq_length=10 tokens: the longest of 3 has 15." in message
    assert message.endswith("1 are empty even uncut, the first is a.jsonl:2.")


def test_no_records_are_refused():
    with pytest.raises(DataError, match="No record has anything to learn from within"):
        encode_words([])


def test_system_message_is_common_where_all_records_have_the_same():
    def chat(*systems):
        return [
            Record(
                {
                    "messages": [
                        *([{"role": "system", "content": each}] if each else []),
                        {"role": "user", "content": "a"},
                        {"role": "assistant", "content": "b"},
                    ]
                }
            )
            for each in systems
        ]

    assert common_system(chat("S", "S")) == "S"
    assert common_system(chat("S", "T")) is None
    assert common_system(chat("S", "")) is None
    assert common_system(chat("", "")) is None
    assert common_system([Record({"text": "plain"})]) is None
    assert common_system([]) is None
