"""Sentences without a verb: what one is like, what and who one is, what one has, where one is."""

from collections.abc import Iterator

from phrasebook.lexicon import (
    LOCATED,
    NAMES,
    NOUNS,
    PLACES,
    POSSESSORS,
    PRESENT_TIMES,
    STATIVES,
    WOMEN,
    Noun,
    Stative,
)
from phrasebook.noun_phrases import (
    Phrase,
    kin_phrases,
    name_phrases,
    owned,
    owned_by_name,
    people,
    person_phrases,
    pronoun_phrases,
    qualities_of,
    that,
    the,
    the_plural,
    thing_phrases,
    this,
)
from phrasebook.pairs import Pair, sentence

CALLINGS = tuple(NOUNS[name] for name in ("kumu", "haumāna", "kauka"))
RELATIONS = ("kumu", "haumāna", "kauka", "keiki", "hoaaloha")
THINGS = tuple(noun for noun in NOUNS.values() if noun.kind == "thing")
OWNED = tuple(noun for noun in THINGS if noun.possession)
HAD = (*OWNED, *(NOUNS[name] for name in RELATIONS))
SHOWN = (("kēia", "this"), ("kēlā", "that"))


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
        if quality.graded:
            yield Pair(
                sentence(quality.hawaiian, "loa", phrase.subject),
                sentence(phrase.english, phrase.be, "very", quality.english),
                quality.hawaiian,
            )


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


def _kinds(noun: Noun) -> Iterator[tuple[str, str]]:
    """A noun alone and with each quality, in English with the indefinite article."""
    yield noun.hawaiian, noun.indefinite
    for quality in qualities_of()[noun.hawaiian]:
        article = "" if noun.mass else "a "
        yield f"{noun.hawaiian} {quality.hawaiian}", f"{article}{quality.english} {noun.english}"


def _classified() -> tuple[Phrase, ...]:
    """Those whose calling is told or asked: each is one person."""
    one = tuple(p for p in pronoun_phrases() if p.hawaiian in ("au", "ʻoe", "ia"))
    return name_phrases() + one + kin_phrases()


def classing_people() -> Iterator[Pair]:
    """``He kumu maikaʻi ʻo Leilani.``"""
    for calling in CALLINGS:
        for phrase in _classified():
            for hawaiian, english in _kinds(calling):
                yield Pair(
                    sentence("he", hawaiian, phrase.subject),
                    sentence(phrase.english, phrase.be, english),
                    calling.hawaiian,
                )


def not_classing() -> Iterator[Pair]:
    """``ʻAʻole ʻo Leilani he kumu.``"""
    for calling in CALLINGS:
        for phrase in _classified():
            yield Pair(
                sentence("ʻaʻole", phrase.subject, "he", calling.hawaiian),
                sentence(phrase.english, phrase.be, "not", calling.indefinite),
                calling.hawaiian,
            )


def asking_class() -> Iterator[Pair]:
    """``He kumu anei ʻo Leilani?``"""
    for calling in CALLINGS:
        for phrase in _classified():
            if phrase.is_asked_about:
                yield Pair(
                    sentence("he", calling.hawaiian, "anei", phrase.subject, end="?"),
                    sentence(phrase.be, phrase.english, calling.indefinite, end="?"),
                    calling.hawaiian,
                )


def classing_things() -> Iterator[Pair]:
    """``He puke hou kēia.``"""
    for noun in (*THINGS, NOUNS["mauna"], NOUNS["hōkū"]):
        for shown, english_shown in SHOWN:
            for hawaiian, english in _kinds(noun):
                yield Pair(
                    sentence("he", hawaiian, shown),
                    sentence(english_shown, "is", english),
                    noun.hawaiian,
                )


def identifying() -> Iterator[Pair]:
    """``ʻO Kimo kaʻu kumu.``, ``ʻO Malia ka makuahine o Keola.``, ``ʻO ia koʻu hoaaloha.``"""
    for name in NAMES:
        for relation in (*RELATIONS, "makuahine" if name in WOMEN else "makuakāne"):
            noun = NOUNS[relation]
            phrases = [owned(noun, owner) for owner in POSSESSORS]
            if relation != "hoaaloha":  # said with ke by some and with ka by others
                phrases += [owned_by_name(noun, other) for other in NAMES if other != name]
            for phrase in phrases:
                yield Pair(
                    sentence("ʻo", name, phrase.hawaiian),
                    sentence(name, "is", phrase.english),
                    relation,
                )
    for relation in (*RELATIONS, "makuahine"):
        for owner in POSSESSORS:
            phrase = owned(NOUNS[relation], owner)
            yield Pair(
                sentence("ʻo ia", phrase.hawaiian), sentence("she is", phrase.english), "ʻo ia"
            )


def identifying_things() -> Iterator[Pair]:
    """``ʻO kēia koʻu hale.``, ``ʻO kēlā ka hale o Leilani.``"""
    for noun in OWNED:
        phrases = [owned(noun, owner) for owner in POSSESSORS]
        phrases += [owned_by_name(noun, name) for name in NAMES]
        for phrase in phrases:
            for shown, english in SHOWN:
                yield Pair(
                    sentence("ʻo", shown, phrase.hawaiian),
                    sentence(english, "is", phrase.english),
                    noun.hawaiian,
                )


def _owners(noun: Noun) -> Iterator[tuple[str, Phrase]]:
    """The possessive that says who has it, with the one who has: ``kaʻu`` I, ``kā Leilani``."""
    for owner in POSSESSORS:
        yield owner.before(noun), Phrase("", owner.english_subject, be=owner.be)
    particle = "kā" if noun.possession == "a" else "ko"
    several = [p for p in pronoun_phrases() if p.hawaiian in ("kākou", "ʻolua", "lākou")]
    for phrase in (*name_phrases(), *several):
        yield f"{particle} {phrase.hawaiian}", phrase


def having() -> Iterator[Pair]:
    """``He puke kaʻu.``, ``He hale nui ko Leilani.``"""
    for noun in HAD:
        for owner, phrase in _owners(noun):
            for hawaiian, english in _kinds(noun):
                yield Pair(
                    sentence("he", hawaiian, owner),
                    sentence(phrase.english, phrase.has, english),
                    noun.hawaiian,
                )


def _located() -> Iterator[tuple[Phrase, str, str]]:
    """Something, and the place in both languages."""
    for place, english, names in LOCATED:
        for noun in (NOUNS[name] for name in names.split()):
            phrases = [the(noun)]
            if noun.has_plural:
                phrases.append(the_plural(noun))
            if noun.possession:
                phrases += [owned(noun, owner) for owner in POSSESSORS]
            for phrase in phrases:
                yield phrase, place, english


def thing_at() -> Iterator[Pair]:
    """``Aia ka puke ma ke pākaukau.``"""
    for phrase, place, english in _located():
        yield Pair(
            sentence("aia", phrase.hawaiian, "ma", place),
            sentence(phrase.english, phrase.be, english),
            f"{phrase.head} {place}",
        )


def asking_thing_at() -> Iterator[Pair]:
    """``Aia anei ka puke ma ke pākaukau?``"""
    for phrase, place, english in _located():
        yield Pair(
            sentence("aia anei", phrase.hawaiian, "ma", place, end="?"),
            sentence(phrase.be, phrase.english, english, end="?"),
            f"{phrase.head} {place}",
        )


def person_at() -> Iterator[Pair]:
    """``Aia ʻo Leilani ma ke kula.``, ``Aia au ma Hilo i kēia lā.``"""
    for place in PLACES.values():
        for phrase in people():
            for time, english_time in (("", ""), *PRESENT_TIMES):
                yield Pair(
                    sentence("aia", phrase.subject, "ma", place.hawaiian, time),
                    sentence(phrase.english, phrase.be, place.at, english_time),
                    time or place.hawaiian,
                )


def asking_who() -> Iterator[Pair]:
    """``ʻO wai kāu kumu?``, ``ʻO wai kēlā keiki?``"""
    people_nouns = [noun for noun in NOUNS.values() if noun.kind == "person"]
    phrases = [phrase for phrase in kin_phrases() if phrase.is_asked_about]
    for noun in people_nouns:
        phrases += [owned(noun, owner) for owner in POSSESSORS[1:]]
        phrases += [this(noun), that(noun)]
    for phrase in phrases:
        yield Pair(
            sentence("ʻo wai", phrase.hawaiian, end="?"),
            sentence("who is", phrase.english, end="?"),
            phrase.head,
        )


def asking_where() -> Iterator[Pair]:
    """``Aia i hea kaʻu puke?``"""
    phrases = [*name_phrases(), *person_phrases(), *kin_phrases()]
    for noun in OWNED:
        phrases += [the(noun), *(owned(noun, owner) for owner in POSSESSORS)]
    for phrase in phrases:
        yield Pair(
            sentence("aia i hea", phrase.subject, end="?"),
            sentence("where", phrase.be, phrase.english, end="?"),
            phrase.head,
        )
