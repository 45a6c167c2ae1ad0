"""What is said before a sweep: leaks between splits, the metric's scale, too few prompts."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from hawsweep.data.leaks import find_leaks
from hawsweep.data.load import Splits, load_data
from hawsweep.data.records import Record
from hawsweep.scoring.metrics import exact_match
from hawsweep.scoring.score import Sample, Score
from hawsweep.scoring.self_check import check_scoring
from hawsweep.spec.sweep import DataSpec
from hawsweep.views.terminal.verdict import self_check_lines

LONG = "the old man went down to the sea and saw nine red canoes there in the evening"


def records(*pairs):
    return [Record({"prompt": prompt, "completion": answer}) for prompt, answer in pairs]


def splits_of(tmp_path, **texts):
    for name in ("train", "valid", "test"):
        lines = [{"prompt": p, "completion": c} for p, c in texts.get(name, [])]
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (tmp_path / f"{name}.jsonl").write_text(text)
    return load_data((DataSpec(path=str(tmp_path)),))


def test_identical_and_nearly_identical_texts_are_found(tmp_path):
    found = find_leaks(
        splits_of(
            tmp_path,
            train=[("He aha?", "What is it?"), (LONG, "a"), ("ka hale", "the house")],
            valid=[("HE  AHA", "Which?"), (f"and {LONG}", "b"), ("ka puke", "The house!")],
            test=[("ka lani", "the sky")],
        )
    )
    assert [(each.part, each.split, each.other) for each in found] == [
        ("source", "valid", "train"),
        ("reference", "valid", "train"),
    ]
    source, reference = found
    assert (source.n_identical, source.n_near, source.n_texts) == (1, 1, 3)
    assert (reference.n_identical, reference.n_near) == (1, 0)
    assert "2 of 3 sources of valid are in train too (1 of them nearly)" in str(source)
    assert "'HE  AHA'" in str(source)


def test_texts_that_share_less_are_no_leak(tmp_path):
    other = LONG.replace("sea", "hill").replace("nine", "two").replace("red", "black")
    assert not find_leaks(
        splits_of(tmp_path, train=[(LONG, "one two three")], valid=[(other, "one two four")])
    )


def test_test_split_is_compared_with_both_others(tmp_path):
    found = find_leaks(
        splits_of(
            tmp_path,
            train=[("a", "1")],
            valid=[("b", "2")],
            test=[("a", "3"), ("b", "4"), ("c", "5")],
        )
    )
    assert [(each.split, each.other, each.n_identical) for each in found] == [
        ("test", "train", 1),
        ("test", "valid", 1),
    ]


def test_prefix_filter_finds_what_comparing_all_pairs_finds(tmp_path):
    generator = np.random.default_rng(0)
    words = [f"w{n}" for n in range(60)]
    texts = [" ".join(generator.choice(words, 40)) for _ in range(60)]
    changed = [text.replace("w3 ", "x ").replace("w7 ", "y ") for text in texts]

    def near(one, other):
        a, b = set(one.split()), set(other.split())
        return one != other and min(len(a), len(b)) >= 8 and len(a & b) / len(a | b) >= 0.9

    wanted = sum(any(near(text, other) for other in texts) for text in changed if text not in texts)
    pairs = [[(text, str(n)) for n, text in enumerate(part)] for part in (texts, changed)]
    [leak, *_] = find_leaks(splits_of(tmp_path, train=pairs[0], valid=pairs[1]))
    assert 0 < leak.n_near == wanted


class Exact:
    """Scores an answer by exact match."""

    def unread(self, references):
        return None

    def compare(self, asked, outputs):
        return judged(
            [
                exact_match("", record.reference, output)
                for record, output in zip(asked, outputs, strict=True)
            ]
        )


def judged(scores):
    samples = tuple(Sample("", "", "", each, each, 0.0) for each in scores)
    mean = float(np.mean(scores))
    return Score(mean, 0, 1, mean, 0, 0, 0, 1, 0.0, {}, samples)


def many(n):
    return records(*((f"question {i}", f"answer {i}") for i in range(n)))


def test_scale_goes_from_shuffled_references_to_the_right_ones():
    found = check_scoring(Exact(), many(40), judged([0.25] * 40), 0.02)
    assert (found.floor, found.ceiling, found.base) == (0, 1, 0.25)
    assert found.warnings == ()


def test_what_is_told_apart_is_not_said_where_the_base_scores_all_prompts_the_same():
    found = check_scoring(Exact(), many(40), judged([0.1] * 40), 0.02)
    assert (found.detectable, found.n_needed) == (math.inf, 0)
    _, said = self_check_lines(asdict(found))
    assert "The base scores every prompt the same" in said


def test_how_many_prompts_a_difference_takes_is_said():
    base = judged([0.2, 0.4] * 20)
    found = check_scoring(Exact(), many(40), base, 0.02)
    assert found.detectable == pytest.approx(2.8 * 0.1 / math.sqrt(40), rel=0.03)
    assert found.wanted == pytest.approx(0.02)
    assert found.n_needed == pytest.approx((2.8 * 0.1 / 0.02) ** 2, rel=0.05)
    _, said = self_check_lines(asdict(found))
    assert "40 prompts tell trials apart that differ by 0.045 or more; for 0.020 it takes" in said
    assert "scoring.max_examples" in said
    _, said = self_check_lines(asdict(check_scoring(Exact(), many(40), base, 0.05)))
    assert said == "40 prompts tell trials apart that differ by 0.045 or more"


def test_references_that_are_all_the_same_are_said():
    found = check_scoring(
        Exact(), records(("a", "yes"), ("b", "yes"), ("c", "yes")), judged([1, 1, 1]), 0.02
    )
    assert "all references are the same" in found.warnings[0]


def test_references_that_are_not_read_to_their_ends_are_said():
    class Short(Exact):
        def unread(self, references):
            return f"{len(references)} are longer"

    (said,) = check_scoring(Short(), many(30), judged([0.8] * 30), 0.02).warnings
    assert said.startswith("30 are longer. Set scoring.metric: chrf")


def test_metric_that_tells_nothing_apart_is_said():
    class Blind(Exact):
        def compare(self, asked, outputs):
            pairs = zip(asked, outputs, strict=True)
            return judged([0.8 + 0.01 * (record.reference == output) for record, output in pairs])

    found = check_scoring(Blind(), many(30), judged([0.8] * 30), 0.02)
    assert "hardly tells right from wrong: references score 0.810" in found.warnings[0]


def test_one_prompt_tells_nothing(tmp_path):
    found = check_scoring(Exact(), many(1), judged([0.5]), 0.02)
    assert "One prompt tells nothing apart" in self_check_lines(asdict(found))[1]
    assert isinstance(splits_of(tmp_path, train=[("a", "b")], valid=[("c", "d")]), Splits)
