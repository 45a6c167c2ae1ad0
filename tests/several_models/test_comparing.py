"""Losses and scores of several models beside each other."""

import numpy as np
import pytest
from several import sweep

from hawsweep.data.load import load_data
from hawsweep.data.records import Record
from hawsweep.data.tokens import encode
from hawsweep.data.validation_set import n_bytes, shared_records, targets_per_byte
from hawsweep.errors import DataError
from hawsweep.models.load import load_model
from hawsweep.results.verdict import Candidate, judge
from hawsweep.spec.train import TrainSpec
from hawsweep.study.baselines import base_dir
from hawsweep.study.place import Place


def test_folders_of_untuned_models_stay_below_the_study(tmp_path):
    place = Place(tmp_path)
    names = ["a/one", "b/one", "../one", "..", "ʻōlelo/ō", "x" * 300]
    folders = {base_dir(place, "s", name) for name in names}
    assert len(folders) == len(names)
    assert {folder.parent for folder in folders} == {tmp_path / "s" / "base"}
    assert all(len(folder.name) < 100 and folder.name[0] != "." for folder in folders)
    assert base_dir(place, "s") == tmp_path / "s" / "base"


def encoded(loaded, records, length=256):
    return encode(records, loaded.template, TrainSpec(max_seq_length=length, mask_prompt=True))


@pytest.fixture(scope="module")
def both(tiny_model_dir, other_model_dir):
    return load_model(tiny_model_dir), load_model(other_model_dir)


@pytest.fixture(scope="module")
def splits(chat_data_dir):
    return load_data(sweep(data=str(chat_data_dir)).data)


def test_bytes_of_a_record_are_those_of_what_is_learned():
    record = Record({"prompt": "Aloha", "completion": "ʻO ia"})
    assert n_bytes(record, mask_prompt=True) == 6  # the okina has two
    assert n_bytes(record, mask_prompt=False) == 11
    assert n_bytes(Record({"text": "ō"}), mask_prompt=False) == 2


def test_targets_per_byte_count_the_same_bytes_for_every_model(both, splits):
    spec = sweep(train={"mask_prompt": True})
    learned = sum(len(record.reference.encode()) for record in splits.valid)
    for loaded in both:
        examples = encoded(loaded, splits.valid).examples
        tokens = sum(len(example.tokens) - example.offset for example in examples)
        found = targets_per_byte(spec, splits.valid, examples, loaded.tokenizer)
        assert found == pytest.approx(tokens / learned)
    one, other = (encoded(loaded, splits.valid).examples.n_targets.sum() for loaded in both)
    assert one != other  # else nothing was shown


def test_text_that_was_cut_away_does_not_count_as_bytes(both, splits):
    loaded = both[0]
    record = splits.valid[0]
    whole = encoded(loaded, [record]).examples[0]
    length = len(whole.tokens) - 3
    cut = encoded(loaded, [record], length).examples
    kept = loaded.tokenizer.decode(whole.tokens[whole.offset : length].tolist())
    spec = sweep(train={"mask_prompt": True, "max_seq_length": length})
    found = targets_per_byte(spec, [record], cut, loaded.tokenizer)
    assert found == pytest.approx((whole.n_targets - 3) / len(kept.encode()))


def test_validation_records_are_those_every_model_learns_from(both, splits):
    templates = {str(number): loaded.template for number, loaded in enumerate(both)}
    prompts = [
        [len(each.tokens) - each.n_targets for each in encoded(loaded, splits.valid).examples]
        for loaded in both
    ]
    longest = np.maximum(*prompts)
    length = int(np.median(longest))
    expected = [i for i, tokens in enumerate(longest) if tokens < length]
    assert 0 < len(expected) < len(splits.valid)
    spec = sweep(train={"mask_prompt": True, "max_seq_length": length})
    assert shared_records(spec, splits, templates) == expected
    fewer = sweep(
        train={"mask_prompt": True, "max_seq_length": length}, validation={"max_examples": 2}
    )
    chosen = shared_records(fewer, splits, templates)
    assert len(chosen) == 2
    assert set(chosen) <= set(expected)
    none = sweep(train={"mask_prompt": True, "max_seq_length": 8})
    with pytest.raises(DataError, match="has anything to learn from within"):
        shared_records(none, splits, templates)


# Verdict


def scored(label, mean, model, test=None):
    spread = 0.01 * np.random.default_rng(len(label)).normal(size=60)
    scores = mean + spread - spread.mean()
    tested = None if test is None else test + spread - spread.mean()
    return Candidate(label, scores, tested, model=model)


def test_winner_is_compared_with_its_own_base_and_with_the_best_one():
    trials = [scored("trial 0", 0.6, "a"), scored("trial 1", 0.5, "b")]
    untuned = [scored("base a", 0.2, "a"), scored("base b", 0.3, "b"), scored("base c", 0.25, "c")]
    found = judge(trials, untuned)
    assert [each.label for each in found.baselines] == ["base a", "base b"]
    assert found.ships


def test_untuned_model_that_is_better_than_the_winner_is_named():
    trials = [scored("trial 0", 0.5, "a", test=0.5)]
    untuned = [scored("base a", 0.2, "a", test=0.2), scored("base b", 0.7, "b", test=0.7)]
    found = judge(trials, untuned, winner="trial 0")
    assert not found.ships
    assert found.sentences[0].startswith("Use no trial: trial 0 is worse than untuned b, -0.20")


def test_winner_is_compared_with_the_best_trial_of_each_other_model():
    trials = [
        scored("trial 0", 0.6, "org/a"),
        scored("trial 1", 0.5, "org/b"),
        scored("trial 2", 0.4, "org/b"),
        scored("trial 3", 0.599, "org/c"),
        scored("trial 4", 0.59, "org/a"),
    ]
    found = judge(trials, [])
    assert [(each.label, each.model) for each in found.models] == [
        ("trial 3", "org/c"),
        ("trial 1", "org/b"),
    ]
    # The noise of all is the same, so that each difference is certain.
    assert found.sentences[-2].startswith("a is better than c: +0.001")
    assert found.sentences[-1].startswith("a is better than b: +0.100")
    assert found.sentences[-1].endswith("over its best, trial 1.")


def test_model_that_is_not_told_apart_is_said_so():
    noise = 0.2 * np.random.default_rng(0).normal(size=(2, 60))
    trials = [
        Candidate(f"trial {n}", mean + each - each.mean(), model=model)
        for n, (mean, each, model) in enumerate(zip((0.5, 0.49), noise, "ab", strict=True))
    ]
    found = judge(trials, [])
    assert found.sentences[-1].startswith("a is not told apart from b: +0.01")


def test_models_are_not_spoken_of_where_there_is_one():
    found = judge([scored("trial 0", 0.6, ""), scored("trial 1", 0.5, "")], [])
    assert found.models == ()
    assert len(found.sentences) == 1
