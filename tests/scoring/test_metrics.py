"""Numbers for one answer, faults seen at sight, and metrics of one's own."""

import unicodedata

import pytest

from hawsweep.errors import ScoringError, SpecError
from hawsweep.scoring.metrics import (
    CUT,
    REASONING_CUT,
    bleu,
    chrf,
    corpus_scores,
    exact_match,
    fault_of,
    find_metric,
    length_ratio,
    signatures,
)

SOURCE, REFERENCE = "Ua heluhelu ʻo Leilani i ka puke.", "Leilani read the book."


@pytest.mark.parametrize(
    ("output", "value"),
    [(REFERENCE, 1), ("  leilani READ the\nbook. ", 1), ("Leilani read a book.", 0), ("", 0)],
)
def test_exact_match_ignores_case_and_spaces(output, value):
    assert exact_match(SOURCE, REFERENCE, output) == value


def test_sentence_metrics_order_answers():
    for metric in (chrf, bleu):
        values = [
            metric(SOURCE, REFERENCE, output)
            for output in (REFERENCE, "Leilani read a book.", "The fish is red.", "")
        ]
        assert values[0] == pytest.approx(100)
        assert values == sorted(values, reverse=True)
        assert values[1] > values[2]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("other", ["NFC", "NFD"])
@pytest.mark.parametrize("text", ["Ua hele ke kāne i Hāna.", "Café à la crème brûlée", "ŌLELO"])
def test_unicode_form_makes_no_difference(text, form, other):
    reference, output = unicodedata.normalize(form, text), unicodedata.normalize(other, text)
    assert exact_match(SOURCE, reference, output) == 1
    assert length_ratio([reference], [output]) == 1
    assert fault_of(output, SOURCE, reference) == "copied source"
    for metric in (chrf, bleu):
        assert metric(SOURCE, reference, output) == metric(SOURCE, text, text)
    corpus = corpus_scores([reference, "a b c d"], [output, "a b d"])
    assert corpus == corpus_scores([text, "a b c d"], [text, "a b d"])


def test_other_okina_is_another_answer():
    # A model is to write the okina of its data; data.normalize mends the data.
    assert exact_match(SOURCE, "Ka ʻāina", "Ka 'āina") == 0
    assert chrf(SOURCE, "Ka ʻāina", "Ka 'āina") < 100


def test_corpus_scores_are_sacrebleus():
    scores = corpus_scores([REFERENCE, "The sea is calm."], [REFERENCE, "The sea was calm."])
    assert 60 < scores["chrf"] < 100
    assert 40 < scores["bleu"] < 100
    assert all("version:" in text for text in signatures().values())


def test_length_ratio_is_of_all_characters():
    assert length_ratio(["abcd", "ef"], ["ab", "e"]) == 0.5
    assert length_ratio([""], ["abc"]) == 3


@pytest.mark.parametrize(
    ("output", "cut", "fault"),
    [
        (REFERENCE, None, None),
        ("", None, "empty"),
        (" \n", CUT, "empty"),
        ("", REASONING_CUT, "reasoning cut"),
        ("The book was read by Leilani and her friend", CUT, "cut"),
        (SOURCE, None, "copied source"),
        (SOURCE.upper(), None, "copied source"),
        (
            "the book the book the book the book the book the book the book the book",
            CUT,
            "repetition",
        ),
        ("no no no", None, None),
        (
            "A man went to the sea with his sister, and there they saw a canoe full of fish from "
            "the island where their grandmother had lived when she was young.",
            None,
            None,
        ),
    ],
)
def test_faults_are_seen_at_sight(output, cut, fault):
    assert fault_of(SOURCE, REFERENCE, output, cut) == fault


def test_answer_that_is_right_is_no_copy_and_no_repetition():
    assert fault_of("ʻAe", "ʻae", "ʻAe") is None
    chant = "he lani " * 12
    assert fault_of("a chant", chant, chant) is None


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(body):
        (tmp_path / "mine.py").write_text(f"def f(source, reference, output):\n    {body}\n")
        return find_metric("mine:f")

    return write


def test_metric_of_ones_own_is_called_with_the_three_texts(own):
    metric = own("return len(source) + 10 * len(reference) + 100 * len(output)")
    assert metric("a", "bc", "def") == 321


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return float('nan')", "gives nan for the source 'ka puke'"),
        ("return float('inf')", "gives inf"),
        ("return None", "fails for the source 'ka puke' and the output 'book'"),
        ("raise KeyError(output)", "KeyError('book')"),
    ],
)
def test_metric_that_fails_names_the_item(own, body, words):
    with pytest.raises(ScoringError) as caught:
        own(body)("ka puke", "the book", "book")
    assert words in str(caught.value)
    assert "mine:f" in str(caught.value)


def test_module_that_cannot_be_run_or_has_no_such_function(own, tmp_path):
    own("return 1")
    with pytest.raises(SpecError, match="has no function g"):
        find_metric("mine:g")
    (tmp_path / "broken.py").write_text("raise OSError('no')")
    with pytest.raises(SpecError, match=r"broken.py fails: OSError"):
        find_metric("broken:f")


@pytest.mark.parametrize("name", ["os:system", "json:dumps"])
def test_what_is_installed_is_no_metric(own, name):
    with pytest.raises(SpecError, match="is not in the current folder"):
        find_metric(name)


@pytest.mark.parametrize("name", ["rouge", "a/b:f", "..:f", "a:b:c", ":", "mine:"])
def test_nonsense_is_refused_with_those_known(own, name):
    with pytest.raises(SpecError, match="semantic_similarity, chrf, bleu, exact_match"):
        find_metric(name)
