import json
import re
import unicodedata
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from phrasebook import generate, grammar

from hawsweep.data import phrasebook

FOLDER = Path(phrasebook.__file__).parent
OKINA = "\u02bb"
HAWAIIAN_TEXT = re.compile(rf"[AEIOUĀĒĪŌŪHKLMNPWaeiouāēīōūhklmnpw{OKINA} ,]+[.?]")
KE_LETTERS = "keaoēāō"
KE_EXCEPTIONS = {"pākaukau", "pā", "mele"}
# ke is no article in "Ke ... nei" and "ke ʻole".
VERBAL_KE = re.compile(rf"^Ke (?=.* nei\b)|\bke (?={OKINA}ole\b)", re.IGNORECASE)


@cache
def read(split):
    text = (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def everything():
    return [record for split in generate.SPLITS for record in read(split)]


def hawaiian(record):
    return record["messages"][1]["content"]


def english(record):
    return record["messages"][2]["content"]


def vocabulary(records):
    return Counter(word for record in records for word in generate.words(hawaiian(record)))


def wrong_articles(text):
    """The articles of the text that are against the rule, by regular expressions alone."""
    rest = VERBAL_KE.sub("| ", text)
    pairs = re.findall(rf"(?<!\w)(ka|ke) ([\w{OKINA}]+)", rest, re.IGNORECASE)
    return [
        f"{article} {word}"
        for article, word in pairs
        if (article.lower() == "ke") != (word[0].lower() in KE_LETTERS or word in KE_EXCEPTIONS)
    ]


def test_generating_again_gives_the_committed_bytes(tmp_path):
    generate.write(tmp_path)
    for split in generate.SPLITS:
        name = f"{split}.jsonl"
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), name


def test_records_are_chat_turns_with_a_group():
    for record in everything():
        assert set(record) == {"messages", "group"}
        assert [turn["role"] for turn in record["messages"]] == ["system", "user", "assistant"]
        assert record["messages"][0]["content"] == generate.SYSTEM


def test_book_has_at_least_2000_pairs_and_no_text_twice():
    assert len(everything()) >= 2000
    for side in (hawaiian, english):
        counts = Counter(side(record).casefold() for record in everything())
        assert [text for text, count in counts.items() if count > 1] == []


def test_at_least_60_sentences_are_written_by_hand():
    written = [record for record in everything() if record["group"] in ("everyday", "proverb")]
    assert len(written) >= 60
    assert len(written) == len(grammar.by_hand())


def test_every_group_is_in_every_split_in_proportion():
    counts = {split: Counter(r["group"] for r in read(split)) for split in generate.SPLITS}
    total = Counter(record["group"] for record in everything())
    assert set(total) == set(grammar.GROUPS)
    for group, count in total.items():
        for split in ("valid", "test"):
            assert counts[split][group] == pytest.approx(count / 11, abs=1.5), (split, group)


def test_any_prefix_of_train_is_mixed():
    train = read("train")
    shares = Counter(record["group"] for record in train)
    for group, count in Counter(record["group"] for record in train[:300]).items():
        assert count / 300 == pytest.approx(shares[group] / len(train), abs=0.06), group


def test_held_out_combinations_are_in_test_alone():
    for split in ("train", "valid"):
        assert [hawaiian(r) for r in read(split) if generate.is_held_out(hawaiian(r))] == []
    texts = [f" {' '.join(generate.words(hawaiian(record)))} " for record in read("test")]
    for one, other in generate.HELD_OUT:
        with_both = [t for t in texts if f" {one.lower()} " in t and f" {other.lower()} " in t]
        assert with_both, (one, other)


def test_the_test_split_holds_known_and_new_combinations():
    new = [record for record in read("test") if generate.is_held_out(hawaiian(record))]
    assert 0.25 <= len(new) / len(read("test")) <= 0.5


def test_each_word_of_a_held_out_combination_is_known_from_train():
    texts = [f" {' '.join(generate.words(hawaiian(record)))} " for record in read("train")]
    for word in {word.lower() for pair in generate.HELD_OUT for word in pair}:
        assert sum(f" {word} " in text for text in texts) >= 5, word


def test_generated_sentences_are_short_and_of_few_words():
    made = [r for r in everything() if r["group"] not in ("everyday", "proverb")]
    lengths = [len(hawaiian(record).split()) for record in made]
    assert max(lengths) <= grammar.MAX_WORDS == 7
    assert sum(lengths) / len(lengths) < 5.5
    assert len(vocabulary(made)) <= 120


def test_every_word_of_valid_and_test_is_known_from_train():
    known = vocabulary(read("train"))
    for split in ("valid", "test"):
        assert set(vocabulary(read(split))) - set(known) == set()


def test_hawaiian_texts_are_spelled_with_hawaiian_letters():
    wrong = [hawaiian(r) for r in everything() if not HAWAIIAN_TEXT.fullmatch(hawaiian(r))]
    assert wrong == []


def test_english_texts_have_no_letters_but_english_and_hawaiian():
    letters = re.compile(rf"[A-Za-zāēīōūĀĒĪŌŪ{OKINA}' ,]+[.?]")
    assert [english(r) for r in everything() if not letters.fullmatch(english(r))] == []


def test_texts_are_nfc_and_of_one_line():
    for record in everything():
        for text in (hawaiian(record), english(record)):
            assert unicodedata.is_normalized("NFC", text)
            assert text == " ".join(text.split())


def test_okina_stands_before_a_vowel():
    for record in everything():
        assert not re.search(rf"{OKINA}(?![aeiouāēīōūAEIOUĀĒĪŌŪ])", hawaiian(record))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("Nui ka kumu.", ["ka kumu"]),
        ("Nui ke hale.", ["ke hale"]),
        ("Nui ka pākaukau.", ["ka pākaukau"]),
        ("Ke hele nei ke hale.", ["ke hale"]),
        ("Makemake ka keiki e hele i ke hale.", ["ka keiki", "ke hale"]),
        ("ʻAʻole makemake ke keiki i ka pā.", ["ka pā"]),
        ("Ke hele nei ke keiki.", []),
        ("Makemake ka haumāna e hīmeni i ke mele.", []),
        ("ʻAʻohe pua ke ʻole ka ua.", []),
        (f"Nui ka {OKINA}īlio, liilii ke pā.", []),
    ],
)
def test_article_checker_tells_right_from_wrong(text, wrong):
    assert wrong_articles(text) == wrong


def test_articles_follow_the_ke_rule():
    assert {hawaiian(r): w for r in everything() if (w := wrong_articles(hawaiian(r)))} == {}


def test_names_follow_their_markers():
    """No name or ``ia`` is a bare subject or object: ``ʻo`` or ``iā`` goes before it."""
    bare = re.compile(
        r"\b(nei|ana|anei|loa|Makemake|makemake|i|ke|ka|nā) (Keola|Leilani|Kimo|Malia|ia)\b"
    )
    assert [hawaiian(r) for r in everything() if bare.search(hawaiian(r))] == []


def late_pronouns(text):
    """The pronoun subjects that follow a negated verb, where they may not stand."""
    pronouns = rf"au|{OKINA}oe|{OKINA}o ia|{OKINA}olua|kākou|lākou"
    pattern = rf"^{OKINA}A{OKINA}ole (?:i|e) .*?(?<!iā )(?<!kā )(?<!ko )\b({pronouns})\b"
    return re.findall(pattern, text)


def test_pronouns_move_before_the_negated_verb():
    assert late_pronouns("ʻAʻole i hele au i ke kula.") == ["au"]
    assert late_pronouns("ʻAʻole i kōkua ke keiki iā lākou.") == []
    assert [hawaiian(r) for r in everything() if late_pronouns(hawaiian(r))] == []
