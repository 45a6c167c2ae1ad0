"""Sentences with a verb: its tenses, their negation and their questions, command and wanting."""

from collections.abc import Iterator
from dataclasses import dataclass

from phrasebook.lexicon import (
    FUTURE_TIMES,
    NOUNS,
    PAST_TIMES,
    PLACES,
    PRESENT_TIMES,
    VERBS,
    Verb,
)
from phrasebook.noun_phrases import (
    Phrase,
    kin_phrases,
    name_phrases,
    person_phrases,
    pronoun_phrases,
    some_people,
    thing_phrase,
)
from phrasebook.pairs import Pair, choose, sentence, some

WANTED = (
    *("iʻa", "maiʻa", "palaoa", "wai", "kope", "waiū", "puke", "pua", "pāpale", "kaʻa", "waʻa"),
    *("hale", "pākaukau", "pā", "ʻīlio", "pōpoki", "lio", "manu"),
)
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

    @property
    def head(self) -> str:
        """The verb and how many words follow, so that short sentences are as many as long."""
        return f"{self.verb.hawaiian} {len(self.tail.hawaiian.split())}"


def _object(phrase: Phrase) -> Tail:
    return Tail(phrase.object, phrase.as_object)


def _person_objects(subject: Phrase, key: str) -> list[Phrase]:
    """People other than the subject; pronouns only where the subject is none."""
    pools = [name_phrases(), person_phrases() + kin_phrases()]
    if not subject.is_pronoun:
        pools += [pronoun_phrases()[:1], pronoun_phrases()[1:]]
    chosen = [choose(f"{key} {number}", pool) for number, pool in enumerate(pools)]
    return [person for person in chosen if person.head != subject.head]


def _tails(verb: Verb, subject: Phrase, key: str) -> Iterator[Tail]:
    for name in verb.objects:
        yield _object(thing_phrase(NOUNS[name], f"{key} {name}"))
    if verb.takes_people:
        yield from map(_object, _person_objects(subject, key))
    for place in (PLACES[name] for name in verb.places):
        if verb.goal:
            yield Tail(f"i {place.hawaiian}", place.to)
        else:
            yield Tail(f"ma {place.hawaiian}", place.at)
    if verb.alone:
        yield Tail()


def _clauses(construction: str) -> Iterator[Clause]:
    """Every verb with some of its subjects and all its objects or places."""
    for verb in VERBS:
        for subject in some_people(f"{construction} {verb.hawaiian}"):
            key = f"{construction} {verb.hawaiian} {subject.hawaiian}"
            for tail in _tails(verb, subject, key):
                yield Clause(verb, subject, tail)


def _with_time(clause: Clause, construction: str, times: Times) -> tuple[str, str]:
    """Both sides of the tail, in some sentences with a time: most often where there is no tail."""
    tail = clause.tail
    key = f"{construction} {clause.verb.hawaiian} {clause.subject.hawaiian} {tail.hawaiian}"
    has_none = (True, True, False) if tail.hawaiian else (True, False, False)
    if choose(key, has_none):
        return tail.hawaiian, tail.english
    time, english_time = choose(f"which {key}", times)
    return f"{tail.hawaiian} {time}".strip(), f"{tail.english} {english_time}".strip()


def past() -> Iterator[Pair]:
    """``Ua heluhelu ʻo Leilani i ka puke.``"""
    for c in _clauses("past"):
        rest, english_rest = _with_time(c, "past", PAST_TIMES)
        yield Pair(
            sentence("ua", c.verb.hawaiian, c.subject.subject, rest),
            sentence(c.subject.english, c.verb.past, english_rest),
            c.head,
        )


def present() -> Iterator[Pair]:
    """``Ke heluhelu nei ʻo Leilani i ka puke.``"""
    for c in _clauses("present"):
        rest, english_rest = _with_time(c, "present", PRESENT_TIMES)
        yield Pair(
            sentence("ke", c.verb.hawaiian, "nei", c.subject.subject, rest),
            sentence(c.subject.english, c.subject.be, c.verb.gerund, english_rest),
            c.head,
        )


def future() -> Iterator[Pair]:
    """``E heluhelu ana ʻo Leilani i ka puke.``"""
    for c in _clauses("future"):
        rest, english_rest = _with_time(c, "future", FUTURE_TIMES)
        yield Pair(
            sentence("e", c.verb.hawaiian, "ana", c.subject.subject, rest),
            sentence(c.subject.english, "will", c.verb.english, english_rest),
            c.head,
        )


def _negated(marker: str, verb: str, subject: Phrase, rest: str) -> str:
    """A pronoun subject moves before the verb; a name or a noun stays after it."""
    if subject.is_pronoun:
        return sentence("ʻaʻole", subject.subject, marker, verb, rest)
    return sentence("ʻaʻole", marker, verb, subject.subject, rest)


def negated_past() -> Iterator[Pair]:
    """``ʻAʻole au i hele i Hilo.`` but ``ʻAʻole i hele ke keiki i Hilo.``"""
    for c in _clauses("negated past"):
        rest, english_rest = _with_time(c, "negated past", PAST_TIMES)
        yield Pair(
            _negated("i", c.verb.hawaiian, c.subject, rest),
            sentence(c.subject.english, "did not", c.verb.english, english_rest),
            c.head,
        )


def negated_future() -> Iterator[Pair]:
    """``ʻAʻole au e hele ana i Hilo.``"""
    for c in _clauses("negated future"):
        rest, english_rest = _with_time(c, "negated future", FUTURE_TIMES)
        yield Pair(
            _negated("e", f"{c.verb.hawaiian} ana", c.subject, rest),
            sentence(c.subject.english, "will not", c.verb.english, english_rest),
            c.head,
        )


def asking_past() -> Iterator[Pair]:
    """``Ua heluhelu anei ʻoe i ka puke?``"""
    for c in _clauses("asked past"):
        if c.subject.is_asked_about:
            rest, english_rest = _with_time(c, "asked past", PAST_TIMES)
            yield Pair(
                sentence("ua", c.verb.hawaiian, "anei", c.subject.subject, rest, end="?"),
                sentence("did", c.subject.english, c.verb.english, english_rest, end="?"),
                c.head,
            )


def commands() -> Iterator[Pair]:
    """``E heluhelu i ka puke.``, ``Mai heluhelu i ka puke.``, ``E heluhelu kākou i ka puke.``"""
    for c in _clauses("command"):
        if not c.subject.is_pronoun:  # the subject only varies what follows
            continue
        for before, after, english in (
            ("e", "", ""),
            ("mai", "", "do not"),
            ("e", "kākou", "let us"),
        ):
            yield Pair(
                sentence(before, c.verb.hawaiian, after, c.tail.hawaiian),
                sentence(english, c.verb.english, c.tail.english),
                f"{before} {c.head} {after}",
            )


def wanting_to() -> Iterator[Pair]:
    """``Makemake au e hele i ke kula.``"""
    for c in _clauses("want to"):
        yield Pair(
            sentence("makemake", c.subject.subject, "e", c.verb.hawaiian, c.tail.hawaiian),
            sentence(c.subject.english, c.subject.wants, "to", c.verb.english, c.tail.english),
            c.head,
        )


def _wanted(construction: str) -> Iterator[tuple[Phrase, Phrase, str]]:
    """Who wants, what, and its noun."""
    for subject in some_people(construction):
        key = f"{construction} {subject.hawaiian}"
        for name in some(key, WANTED, 12):
            yield subject, thing_phrase(NOUNS[name], f"{key} {name}"), name


def wanting_things() -> Iterator[Pair]:
    """``Makemake ʻo Leilani i ke kope.``"""
    for subject, thing, name in _wanted("want"):
        yield Pair(
            sentence("makemake", subject.subject, thing.object),
            sentence(subject.english, subject.wants, thing.english),
            name,
        )


def not_wanting_things() -> Iterator[Pair]:
    """``ʻAʻole au makemake i ke kope.``, ``ʻAʻole makemake ke keiki i ke kope.``"""
    for subject, thing, name in _wanted("not want"):
        order = [subject.subject, "makemake"]
        if not subject.is_pronoun:
            order.reverse()
        yield Pair(
            sentence("ʻaʻole", *order, thing.object),
            sentence(subject.english, subject.does, "not want", thing.english),
            name,
        )


def asking_wanting() -> Iterator[Pair]:
    """``Makemake anei ʻoe i ke kope?``"""
    for subject, thing, name in _wanted("asked want"):
        if subject.is_asked_about:
            yield Pair(
                sentence("makemake anei", subject.subject, thing.object, end="?"),
                sentence(subject.does, subject.english, "want", thing.english, end="?"),
                name,
            )
