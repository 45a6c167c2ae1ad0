"""Sentences that say of something what it is like, and that compare."""

from collections.abc import Iterator

from hawsweep.phrasebook.entries import Noun, Stative, listed
from hawsweep.phrasebook.lexicon import HER, MY, NAMES, NOUNS, YOUR
from hawsweep.phrasebook.noun_phrases import (
    Phrase,
    kin_phrases,
    name_phrases,
    owned,
    owned_by_name,
    people,
    person_phrases,
    quality_noun,
    some,
    that,
    the,
    thing_phrases,
    this,
)
from hawsweep.phrasebook.pairs import Pair, sentence
from hawsweep.phrasebook.predicates import STATIVES

ACHING = ("poʻo", "lima", "wāwae", "maka", "pepeiao", "ʻōpū")
BIGGER_AND_SMALLER = tuple(
    pair.split()
    for pair in listed(
        "koholā manō, moku waʻa, kalaka kaʻa, lio ʻīlio, hale lumi, mauna puʻu, pipi kao, "
        "kaʻa paikikala, kaʻaʻōhua kaʻa, pipi puaʻa, ʻīlio pōpoki, pahu ʻeke, pākaukau noho"
    )
)
NOT_VERY = ("full", "red", "yellow", "white", "black", "green", "blue")


def _qualified() -> Iterator[tuple[Stative, Phrase]]:
    """Each quality with everything it is said of."""
    for quality in STATIVES:
        for name in quality.nouns:
            for phrase in thing_phrases(NOUNS[name]):
                yield quality, phrase
        if quality.people:
            for phrase in people():
                yield quality, phrase


def being() -> Iterator[Pair]:
    """``Nui ka hale.``"""
    for quality, phrase in _qualified():
        yield Pair(
            sentence(quality.hawaiian, phrase.subject),
            sentence(phrase.english, phrase.be, quality.english),
            quality.hawaiian,
        )


def being_very() -> Iterator[Pair]:
    """``Nui loa ka hale.``"""
    for quality, phrase in _qualified():
        if quality.english not in NOT_VERY:
            yield Pair(
                sentence(quality.hawaiian, "loa", phrase.subject),
                sentence(phrase.english, phrase.be, "very", quality.english),
                quality.hawaiian,
            )


def being_one() -> Iterator[Pair]:
    """``He nani ka pua.``: the quality as the class the thing is in."""
    for quality in STATIVES:
        if quality.english in ("beautiful", "good", "delicious"):
            nouns = [NOUNS[name] for name in quality.nouns]
            for noun in (noun for noun in nouns if not noun.mass and noun.kind != "person"):
                for phrase in (the(noun), this(noun), that(noun)):
                    yield Pair(
                        sentence("he", quality.hawaiian, phrase.hawaiian),
                        sentence(phrase.english, "is a", quality.english, "one"),
                        quality.hawaiian,
                    )


def aching() -> Iterator[Pair]:
    """``ʻEha koʻu poʻo.``"""
    for part in ACHING:
        noun = NOUNS[part]
        phrases = [owned(noun, owner) for owner in (MY, YOUR, HER)]
        phrases += [owned_by_name(noun, name) for name in some(part, NAMES, 3)]
        for phrase in phrases:
            yield Pair(sentence("ʻeha", phrase.hawaiian), sentence(phrase.english, "hurts"), "ʻeha")


def not_being() -> Iterator[Pair]:
    """``ʻAʻole nui ka hale.`` but ``ʻAʻole au pōloli.``"""
    for quality, phrase in _qualified():
        order = [quality.hawaiian, phrase.subject]
        if phrase.is_pronoun:
            order.reverse()
        yield Pair(
            sentence("ʻaʻole", *order),
            sentence(phrase.english, phrase.be, "not", quality.english),
            quality.hawaiian,
        )


def asking_quality() -> Iterator[Pair]:
    """``Nui anei ka hale?``"""
    for quality, phrase in _qualified():
        if phrase.is_asked_about:
            yield Pair(
                sentence(quality.hawaiian, "anei", phrase.subject, end="?"),
                sentence(phrase.be, phrase.english, quality.english, end="?"),
                quality.hawaiian,
            )


def _compared(quality: Stative) -> Iterator[tuple[Phrase, Phrase]]:
    """What is more so, and what less: this and that, mine and yours, one person and another."""
    for noun in (NOUNS[name] for name in quality.nouns if NOUNS[name].kind != "nature"):
        yield this(noun), that(noun)
        yield that(noun), this(noun)
        if noun.possession:
            yield owned(noun, MY), owned(noun, YOUR)
            yield owned(noun, YOUR), owned(noun, HER)
            yield owned(noun, HER), owned(noun, MY)
    if quality.people:
        pool = name_phrases() + person_phrases() + kin_phrases((MY, YOUR))
        for more in pool:
            for less in some(f"{quality.hawaiian} {more.hawaiian}", name_phrases(), 2):
                if more != less:
                    yield more, less


def _by_size(quality: Stative) -> Iterator[tuple[Noun, Noun]]:
    for big, small in BIGGER_AND_SMALLER:
        if quality.hawaiian == "nui":
            yield NOUNS[big], NOUNS[small]
        if quality.hawaiian == "liʻiliʻi":
            yield NOUNS[small], NOUNS[big]


def comparing() -> Iterator[Pair]:
    """``ʻOi aku ka nui o ka lio ma mua o ka ʻīlio.``"""
    for quality in STATIVES:
        if not quality.comparative:
            continue
        compared = list(_compared(quality))
        compared += [(the(more), the(less)) for more, less in _by_size(quality)]
        for more, less in compared:
            be = f"{more.be} {quality.comparative} than"
            yield Pair(
                sentence(
                    f"ʻoi aku {quality_noun(quality)} o", more.hawaiian, "ma mua o", less.hawaiian
                ),
                sentence(more.english, be, less.english),
                quality.hawaiian,
            )
