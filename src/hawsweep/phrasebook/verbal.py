"""Sentences with a verb: past, present, future, and their negation."""

from collections.abc import Iterator
from dataclasses import dataclass

from hawsweep.phrasebook.entries import Verb
from hawsweep.phrasebook.lexicon import (
    FUTURE_TIMES,
    MY,
    NOUNS,
    PAST_TIMES,
    PLACES,
    PRESENT_TIMES,
    YOUR,
)
from hawsweep.phrasebook.noun_phrases import (
    Phrase,
    choose,
    kin_phrases,
    name_phrases,
    people,
    person_phrases,
    pronoun_phrases,
    some,
    some_people,
    the,
    the_plural,
    thing_phrase,
)
from hawsweep.phrasebook.pairs import Pair, sentence
from hawsweep.phrasebook.predicates import VERBS

GIFTS = ("puke", "lei", "manakō", "kālā", "kope", "pua", "pāpale", "makana", "kiʻi", "penikala")
Times = tuple[tuple[str, str], ...]
"""Hawaiian times with their English."""


@dataclass(frozen=True)
class Tail:
    """What follows verb and subject: an object or a place."""

    hawaiian: str = ""
    english: str = ""


@dataclass(frozen=True)
class Clause:
    """Who does what to what, or where: still without a tense."""

    verb: Verb
    subject: Phrase
    tail: Tail


def _subjects(verb: Verb, key: str) -> list[Phrase]:
    animals = [form(NOUNS[name]) for name in verb.animals for form in (the, the_plural)]
    if verb.takes_only_animals:
        return animals
    return some_people(f"{key} {verb.hawaiian}") + animals[:2]


def _object(phrase: Phrase) -> Tail:
    return Tail(phrase.object, phrase.as_object)


def _person_objects(subject: Phrase, key: str) -> list[Phrase]:
    """People other than the subject; pronouns only where the subject is none."""
    pools = [name_phrases(), name_phrases(), kin_phrases((MY, YOUR)), person_phrases()]
    if not subject.is_pronoun:
        pools.append(pronoun_phrases())
    chosen = [choose(f"{key} {number}", pool) for number, pool in enumerate(pools)]
    return [person for person in chosen if person.head != subject.head]


def _place(verb: Verb, place_name: str, subject: Phrase, key: str) -> Tail:
    place = PLACES[place_name]
    if not verb.goal:
        return Tail(f"ma {place.hawaiian}", place.at)
    tail = Tail(f"i {place.hawaiian}", place.to)
    companion = choose(f"with {key}", name_phrases())
    if companion == subject or choose(f"alone {key}", (True, True, True, False)):
        return tail
    return Tail(
        f"{tail.hawaiian} me {companion.hawaiian}", f"{tail.english} with {companion.english}"
    )


def _tails(verb: Verb, subject: Phrase, key: str) -> Iterator[Tail]:
    for name in (name for name in verb.objects if name != subject.head):
        yield _object(thing_phrase(NOUNS[name], f"{key} {name}"))
    if verb.takes_people:
        yield from map(_object, _person_objects(subject, key))
    for name in verb.places:
        yield _place(verb, name, subject, f"{key} {name}")
    if not verb.objects and not verb.goal:
        yield Tail()


def clauses(construction: str) -> Iterator[Clause]:
    """Every verb with some of its subjects and all its objects or places."""
    for verb in VERBS:
        for subject in _subjects(verb, construction):
            key = f"{construction} {verb.hawaiian} {subject.hawaiian}"
            for tail in _tails(verb, subject, key):
                yield Clause(verb, subject, tail)


def with_time(clause: Clause, construction: str, times: Times) -> tuple[str, str]:
    """Both sides of the tail, in two sentences of five with a time.

    None follows a long tail, to keep sentences short.
    """
    tail = clause.tail
    key = f"{construction} {clause.verb.hawaiian} {clause.subject.hawaiian} {tail.hawaiian}"
    if len(tail.hawaiian.split()) > 4 or choose(key, (True, True, True, False, False)):
        return tail.hawaiian, tail.english
    time, english_time = choose(f"which {key}", times)
    return f"{tail.hawaiian} {time}".strip(), f"{tail.english} {english_time}".strip()


def past() -> Iterator[Pair]:
    """``Ua heluhelu ʻo Leilani i ka puke.``"""
    for c in clauses("past"):
        rest, english_rest = with_time(c, "past", PAST_TIMES)
        yield Pair(
            sentence("ua", c.verb.hawaiian, c.subject.subject, rest),
            sentence(c.subject.english, c.verb.past, english_rest),
            c.verb.hawaiian,
        )


def present() -> Iterator[Pair]:
    """``Ke heluhelu nei ʻo Leilani i ka puke.``"""
    for c in clauses("present"):
        if c.verb.progressive:
            rest, english_rest = with_time(c, "present", PRESENT_TIMES)
            yield Pair(
                sentence("ke", c.verb.hawaiian, "nei", c.subject.subject, rest),
                sentence(c.subject.english, c.subject.be, c.verb.gerund, english_rest),
                c.verb.hawaiian,
            )


def future() -> Iterator[Pair]:
    """``E heluhelu ana ʻo Leilani i ka puke.``"""
    for c in clauses("future"):
        rest, english_rest = with_time(c, "future", FUTURE_TIMES)
        yield Pair(
            sentence("e", c.verb.hawaiian, "ana", c.subject.subject, rest),
            sentence(c.subject.english, "will", c.verb.english, english_rest),
            c.verb.hawaiian,
        )


def _gifts(construction: str) -> Iterator[tuple[Phrase, Tail]]:
    """A giver, and the thing given with the one who gets it."""
    for giver in people():
        key = f"{construction} {giver.hawaiian}"
        for thing in some(key, GIFTS, 3):
            gift = the(NOUNS[thing])
            for getter in _person_objects(giver, f"{key} {thing}"):
                tail = f"{gift.object} {getter.object}"
                yield giver, Tail(tail, f"{gift.english} to {getter.as_object}")


def giving_past() -> Iterator[Pair]:
    """``Ua hāʻawi ʻo Leilani i ka puke iā Keola.``"""
    for giver, tail in _gifts("giving past"):
        yield Pair(
            sentence("ua hāʻawi", giver.subject, tail.hawaiian),
            sentence(giver.english, "gave", tail.english),
        )


def giving_future() -> Iterator[Pair]:
    """``E hāʻawi ana ʻo Leilani i ka puke iā Keola.``"""
    for giver, tail in _gifts("giving future"):
        yield Pair(
            sentence("e hāʻawi ana", giver.subject, tail.hawaiian),
            sentence(giver.english, "will give", tail.english),
        )


def negated(marker: str, verb: str, subject: Phrase, rest: str) -> str:
    """A pronoun subject moves before the verb; a name or a noun stays after it."""
    if subject.is_pronoun:
        return sentence("ʻaʻole", subject.subject, marker, verb, rest)
    return sentence("ʻaʻole", marker, verb, subject.subject, rest)


def negated_past() -> Iterator[Pair]:
    """``ʻAʻole au i heluhelu i ka puke.`` but ``ʻAʻole i heluhelu ke keiki i ka puke.``"""
    for c in clauses("negated past"):
        rest, english_rest = with_time(c, "negated past", PAST_TIMES)
        yield Pair(
            negated("i", c.verb.hawaiian, c.subject, rest),
            sentence(c.subject.english, "did not", c.verb.english, english_rest),
            c.verb.hawaiian,
        )


def negated_future() -> Iterator[Pair]:
    """``ʻAʻole au e heluhelu ana i ka puke.``"""
    for c in clauses("negated future"):
        rest, english_rest = with_time(c, "negated future", FUTURE_TIMES)
        yield Pair(
            negated("e", f"{c.verb.hawaiian} ana", c.subject, rest),
            sentence(c.subject.english, "will not", c.verb.english, english_rest),
            c.verb.hawaiian,
        )
