"""How well the words of a reference go with those of its source."""

import math
import random
from collections import defaultdict

import numpy as np
import pytest

from hawsweep.data import word_links
from hawsweep.data.word_links import word_evidence

WORDS = {"hale": "house", "iʻa": "fish", "lei": "wreath", "kai": "sea", "manu": "bird", "lā": "sun"}
PAIRS = [
    ("ka hale", "the house"),
    ("ka iʻa", "the fish"),
    ("ka hale nui", "the big house"),
    ("kai nui", "the big sea sea"),
    ("lā", "unheard"),
    ("", "the sea"),
    ("kai", ""),
]


def pairs_of(n, seed=0, n_words=3):
    """Sentences, and their translations word for word."""
    generator = random.Random(seed)
    chosen = [generator.sample(sorted(WORDS), n_words) for _ in range(n)]
    return [(" ".join(each), " ".join(WORDS[word] for word in each)) for each in chosen]


def by_hand(pairs, rounds=6, prior=4.0):
    """The same, record by record and word by word."""
    sides = [
        (list(dict.fromkeys(s.split())) + [""], list(dict.fromkeys(r.split()))) for s, r in pairs
    ]
    likelihood = defaultdict(lambda: 1.0)
    for _ in range(rounds):
        counts, totals, own = defaultdict(float), defaultdict(float), []
        for source, reference in sides:
            mine = {}
            for word in reference:
                whole = sum(likelihood[each, word] for each in source)
                for each in source:
                    mine[each, word] = likelihood[each, word] / whole
            for (each, word), share in mine.items():
                counts[each, word] += share
                totals[each] += share
            own.append(mine)
        likelihood = {key: count / totals[key[0]] for key, count in counts.items()}
    everything = [word for _, reference in sides for word in reference]
    found = []
    for (source, reference), mine in zip(sides, own, strict=True):
        gains = []
        for word in reference:
            others = everything.count(word) - 1
            if not others:
                continue
            alone = others / (len(everything) - len(reference))
            likely = [
                (counts[each, word] - mine[each, word] + prior * alone)
                / (totals[each] - sum(mine[each, other] for other in reference) + prior)
                for each in source
            ]
            gains.append(math.log(sum(likely) / len(likely) / alone))
        found.append(sum(gains) / len(gains) if len(gains) >= 3 else math.nan)
    return found


@pytest.mark.parametrize("pairs", [PAIRS, pairs_of(12)])
def test_evidence_is_that_of_the_other_records(pairs):
    found, expected = word_evidence(pairs), by_hand(pairs)
    assert found == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert not np.isnan(found).all()


def test_few_known_words_say_nothing():
    found = word_evidence(PAIRS)
    assert np.isnan(found).tolist() == [True, True, False, False, True, True, True]
    assert word_evidence([]).shape == (0,)
    assert np.isnan(word_evidence([("", ""), ("ʻ", "…")])).all()


def test_words_of_other_sources_make_evidence_negative():
    pairs = pairs_of(300)
    for at in (7, 20, 33):
        own = {WORDS[word] for word in pairs[at][0].split()}
        pairs[at] = pairs[at][0], " ".join(sorted(set(WORDS.values()) - own))
    found = word_evidence(pairs)
    assert np.flatnonzero(found < 0).tolist() == [7, 20, 33]
    assert np.median(found) > 0.5


def test_long_texts_are_cut_where_there_are_many(monkeypatch):
    pairs = pairs_of(50, n_words=5)
    monkeypatch.setattr(word_links, "_MOST_LINKS", 50 * 16)  # four words of each side
    cut = [tuple(" ".join(side.split()[:4]) for side in pair) for pair in pairs]
    assert word_evidence(pairs) == pytest.approx(word_evidence(cut))
