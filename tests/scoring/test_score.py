"""Answers of a model, and how they are judged, by a small embedder made up for it."""

import math

import numpy as np
import pytest

from hawsweep.data.records import Record
from hawsweep.data.tokens import with_examples
from hawsweep.errors import DataError, ScoringError
from hawsweep.scoring import embedding
from hawsweep.scoring.embedding import Embedder, prompt_for
from hawsweep.scoring.metrics import CUT
from hawsweep.scoring.score import Sample, Scorer, translate, write_samples
from hawsweep.spec.scoring import ScoringSpec


class Letters:
    """Embeds a text as how often each letter is in it."""

    def __init__(self):
        self.asked = []

    def encode(self, texts):
        self.asked += texts
        counts = np.array([[text.count(c) + 0.01 for c in "abcdefghij :"] for text in texts])
        return (counts / np.linalg.norm(counts, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def letters(tmp_path, monkeypatch):
    """The embedder's texts, and a folder that stands for it; the cache is empty."""
    monkeypatch.setenv("HAWSWEEP_CACHE", str(tmp_path / "cache"))
    model = Letters()
    monkeypatch.setattr(embedding, "own_embedder", lambda *_, **__: model.encode)
    (tmp_path / "embedder").mkdir()
    model.path = tmp_path / "embedder"
    return model


def record(prompt, completion, **others):
    return Record({"prompt": prompt, "completion": completion, **others}, f"line {prompt}")


RECORDS = [
    record("one", "abc"),
    record("two", "def", group="formal"),
    record("three", "ghi ghi", group="formal"),
]


def test_outputs_are_judged_by_every_metric(letters):
    found = Scorer(letters.path, ScoringSpec()).compare(RECORDS, ["abc", "", "abc"])
    first, empty, wrong = found.samples
    assert first.similarity == pytest.approx(1)
    assert (empty.similarity, empty.fault) == (0, "empty")
    assert wrong.similarity < 0.2
    assert found.score == found.similarity == pytest.approx((1 + wrong.similarity) / 3)
    assert found.exact_match == pytest.approx(1 / 3)
    assert found.length_ratio == pytest.approx(6 / 13)
    assert found.faults == {"empty": 1}
    assert [each.group for each in found.samples] == [None, "formal", "formal"]
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert found.summary()["low"] is None


def test_score_is_the_metric_that_was_asked_for(letters):
    found = Scorer(letters.path, ScoringSpec(metric="exact_match")).compare(
        RECORDS, ["ABC", "x", "ghi ghi"]
    )
    assert [each.score for each in found.samples] == [1, 0, 1]
    assert found.score == pytest.approx(2 / 3)
    assert found.similarity < 1


def test_metric_of_ones_own_is_the_score(letters, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = (
        "def f(source, reference, output):\n    return {'': float('nan')}.get(output, len(output))"
    )
    (tmp_path / "mine.py").write_text(f"{code}\n")
    scorer = Scorer(letters.path, ScoringSpec(metric="mine:f"))
    assert scorer.compare(RECORDS, ["a", "bb", "ccc"]).score == 2
    with pytest.raises(ScoringError, match="gives nan for the source 'two'"):
        scorer.compare(RECORDS, ["a", "", "ccc"])


def test_record_without_a_reference_is_refused(letters):
    with pytest.raises(DataError, match="has no answer to compare with"):
        Scorer(letters.path, ScoringSpec()).compare([Record({"text": "x"}, "line 1")], ["y"])


def test_references_are_embedded_once_whoever_asks(letters):
    spec = ScoringSpec()
    first = Scorer(letters.path, spec).compare(RECORDS, ["a", "b", "c"])
    assert letters.asked.count("abc") == 1
    again = Scorer(letters.path, spec).compare(RECORDS, ["a", "b", "c"])
    assert letters.asked.count("abc") == 1
    assert again.similarity == first.similarity
    [kept] = (letters.path.parent / "cache" / "embeddings").iterdir()
    kept.write_bytes(kept.read_bytes()[:40])  # half-written
    assert Scorer(letters.path, spec).compare(RECORDS, ["a", "b", "c"]).samples == first.samples
    assert letters.asked.count("abc") == 2
    other = Scorer(letters.path, spec.model_copy(update={"embedder_prompt": "query: "}))
    other.compare(RECORDS, ["a", "b", "c"])
    assert "query: abc" in letters.asked  # another prompt, other vectors
    assert "query: a" in letters.asked


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("nomic-ai/nomic-embed-text-v1.5", "clustering: "),
        ("intfloat/multilingual-e5-base", "query: "),
        ("all-MiniLM-L6-v2", ""),
        ("sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2", ""),
    ],
)
def test_models_that_want_a_word_before_a_text_get_it(letters, name, prompt):
    assert prompt_for(name) == prompt
    Scorer(letters.path, ScoringSpec(embedder=name)).compare(RECORDS, ["a", "b", "c"])
    assert f"{prompt}abc" in letters.asked
    Scorer(letters.path, ScoringSpec(embedder=name, embedder_prompt="")).compare(
        RECORDS, ["j", "b", "c"]
    )
    assert "j" in letters.asked


def test_same_text_is_embedded_once(letters):
    vectors = Embedder(letters.path).embed(["a", "b", "a"])
    assert letters.asked == ["a", "b"]
    assert (vectors[0] == vectors[2]).all()
    assert (vectors[0] != vectors[1]).any()


def test_answers_come_back_in_the_records_order_and_say_what_was_cut(tiny_model):
    records = [record("a", "x"), record("a longer prompt than that", "y"), record("b c", "z")]
    spec = ScoringSpec(batch_size=2, max_tokens=5)
    found = translate(tiny_model, records, spec)
    assert found == translate(tiny_model, records, spec)
    assert all(isinstance(each.text, str) for each in found)
    assert all(each.cut == CUT for each in found)  # an untrained model does not end by itself
    alone = [translate(tiny_model, [each], spec)[0] for each in records]
    assert [each.text for each in alone] == [each.text for each in found]


def test_generation_ends_where_the_chat_template_ends_a_turn(tiny_model, monkeypatch):
    tokenizer = tiny_model.tokenizer
    translate(tiny_model, [record("a", "b")], ScoringSpec(max_tokens=1))
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in tokenizer.eos_token_ids


def example_of(system, prompt, completion):
    messages = record(prompt, completion).messages
    return Record({"messages": [{"role": "system", "content": system}, *messages]})


def test_examples_go_between_the_system_and_the_question():
    asked = Record(
        {
            "messages": [
                {"role": "system", "content": "Translate."},
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "a"},
            ],
            "group": "formal",
        },
        "line 9",
    )
    examples = [example_of("Translate.", "p1", "c1"), example_of("Translate.", "p2", "c2")]
    other = example_of("Summarize.", "p3", "c3")  # asked otherwise: no example here
    found = with_examples(asked, [*examples, other, record("p4", "c4")])
    assert [each["content"] for each in found.messages] == [
        *("Translate.", "p1", "c1", "p2", "c2", "q", "a"),
    ]
    assert (found.reference, found.source, found.group, found.where) == (
        "a",
        "q",
        "formal",
        "line 9",
    )
    plain = with_examples(record("q", "a"), [record("p", "c")])
    assert [each["content"] for each in plain.messages] == ["p", "c", "q", "a"]
    assert plain.reference == "a"


def test_samples_are_written_as_they_are_read(letters, tmp_path):
    from hawsweep.files import read_json_lines

    found = Scorer(letters.path, ScoringSpec()).compare(RECORDS, ["abc", "ʻāina", "c"])
    write_samples(tmp_path / "samples.jsonl", found)
    read = read_json_lines(tmp_path / "samples.jsonl")
    assert [Sample(**each) for each in read] == list(found.samples)


def test_copied_source_is_one_also_without_the_instruction(letters):
    sources = ["Aloha kakahiaka.", "Pehea ʻoe?", "Ua hele ʻo Malia."]
    asked = [{"role": "user", "content": f"Translate to English: {each}"} for each in sources]
    answer = {"role": "assistant", "content": "Good morning."}
    records = [Record({"messages": [each, answer]}, "line 1") for each in asked]
    outputs = [sources[0], f"English: {sources[1]}", "Malia"]
    found = Scorer(letters.path, ScoringSpec()).compare(records, outputs)
    assert [each.fault for each in found.samples] == ["copied source", "copied source", None]


def test_references_are_embedded_again_where_the_embedder_is_another(letters):
    weights = letters.path / "1_Pooling" / "config.json"
    weights.parent.mkdir()
    for text, n_asked in (("mean", 1), ("mean", 1), ("last", 2)):
        if not weights.exists() or weights.read_text() != text:
            weights.write_text(text)
        Embedder(letters.path).references(["abc"])
        assert letters.asked.count("abc") == n_asked
