"""Sentences of place: where someone or something is, lives, comes from."""

from collections.abc import Iterator

from hawsweep.phrasebook.entries import Noun
from hawsweep.phrasebook.lexicon import MY, NOUNS, PLACES, PROPER_PLACES, YOUR
from hawsweep.phrasebook.noun_phrases import (
    Phrase,
    choose,
    owned,
    people,
    some,
    the,
    the_plural,
)
from hawsweep.phrasebook.pairs import Pair, sentence

LOCATED = (
    ("luna", "on", "pākaukau", "puke, pola, pā, kīʻaha, penikala, nūpepa, leka, pahi, puna, ʻō"),
    ("luna", "on", "noho", "pāpale, pōpoki, puke, ʻeke, māmalu"),
    ("loko", "in", "pahu", "penikala, kinipōpō, kāmaʻa, leka, kiʻi, kaula, makana"),
    ("loko", "in", "kaʻa", "keiki, ʻīlio, ʻeke, māmalu, pahu, kelepona, kāmaʻa"),
    ("loko", "in", "hale", "pōpoki, lolouila, ʻukulele, pāpale, nūpepa, noho"),
    ("loko", "in", "ʻeke", "puke, kelepona, kālā, penikala, manakō, palaoa"),
    ("lalo", "under", "pākaukau", "ʻīlio, pōpoki, kinipōpō, ʻeke, kāmaʻa"),
    ("lalo", "under", "kumulāʻau", "lio, noho, pipi, kao, kaʻa"),
    ("waho", "outside", "hale", "lio, kaʻa, ʻīlio, paikikala, noho, puaʻa"),
    ("mua", "in front of", "hale", "kaʻa, kumulāʻau, kaʻaʻōhua, kalaka, ʻīlio"),
    ("hope", "behind", "hale", "māla, kumulāʻau, kaʻa, waʻa, kao"),
)


def located() -> Iterator[tuple[Phrase, str, str, Noun]]:
    """Something, the relation in both languages, and what it is related to."""
    for relation, english, landmark, names in LOCATED:
        for noun in (NOUNS[name] for name in names.split(", ")):
            phrases = [the(noun)]
            if noun.has_plural:
                phrases.append(the_plural(noun))
            if noun.possession:
                phrases += [owned(noun, MY), owned(noun, YOUR)]
            for phrase in phrases:
                yield phrase, relation, english, NOUNS[landmark]


def thing_at() -> Iterator[Pair]:
    """``Aia ka puke ma luna o ke pākaukau.``"""
    for phrase, relation, english, landmark in located():
        yield Pair(
            sentence("aia", phrase.hawaiian, "ma", relation, "o", the(landmark).hawaiian),
            sentence(phrase.english, phrase.be, english, the(landmark).english),
            f"{relation} {landmark.hawaiian}",
        )


def person_at() -> Iterator[Pair]:
    """``Aia ʻo Leilani ma ke kula.``, ``Aia ke kumu ma Hilo i kēia lā.``"""
    for place in PLACES.values():
        for phrase in some(f"at {place.hawaiian}", people(), 14):
            key = f"{place.hawaiian} {phrase.hawaiian}"
            time, english_time = choose(
                key, (("", ""), ("", ""), ("i kēia manawa", "now"), ("i kēia lā", "today"))
            )
            yield Pair(
                sentence("aia", phrase.subject, "ma", place.hawaiian, time),
                sentence(phrase.english, phrase.be, place.at, english_time),
                place.hawaiian,
            )


def living_at() -> Iterator[Pair]:
    """``Noho koʻu makuahine ma Hilo.``"""
    for place in PROPER_PLACES:
        for phrase in people():
            yield Pair(
                sentence("noho", phrase.subject, "ma", place.hawaiian),
                sentence(phrase.english, phrase.present("live"), place.at),
                place.hawaiian,
            )


def coming_from() -> Iterator[Pair]:
    """``No Hilo mai ʻo Leilani.``"""
    for place in PROPER_PLACES:
        for phrase in people():
            yield Pair(
                sentence("no", place.hawaiian, "mai", phrase.subject),
                sentence(phrase.english, phrase.be, "from", place.hawaiian),
                place.hawaiian,
            )
