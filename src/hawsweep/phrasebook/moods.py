"""Sentences with a verb that command, want, can, must, are passive or ask."""

from collections.abc import Iterator

from hawsweep.phrasebook.entries import listed
from hawsweep.phrasebook.lexicon import FUTURE_TIMES, NOUNS, PAST_TIMES, PRESENT_TIMES
from hawsweep.phrasebook.noun_phrases import (
    Phrase,
    kin_phrases,
    name_phrases,
    people,
    person_phrases,
    pronoun_phrases,
    some,
    the,
    the_plural,
    thing_phrase,
)
from hawsweep.phrasebook.pairs import Pair, sentence
from hawsweep.phrasebook.predicates import VERBS
from hawsweep.phrasebook.verbal import Clause, clauses, with_time

WANTED = listed(
    "iʻa, poi, manakō, kope, wai, waiū, puke, pāpale, lei, kaʻa, waʻa, ʻukulele, penikala, noho, "
    "kelepona, palaoa, ʻalani, pōpoki, lio, kinipōpō"
)
ASKED_WHAT = listed("ʻai, inu, heluhelu, kākau, kuke, ʻimi, kūʻai mai, nānā, kūkulu")


def _willed(construction: str) -> Iterator[Clause]:
    return (c for c in clauses(construction) if c.verb.willed and not c.verb.takes_only_animals)


def commands() -> Iterator[Pair]:
    """``E heluhelu i ka puke.``, ``Mai heluhelu i ka puke.``, ``E heluhelu kākou i ka puke.``"""
    for c in _willed("command"):
        verb, tail = c.verb, c.tail
        for opening, english in (("e", ""), ("mai", "do not")):
            yield Pair(
                sentence(opening, verb.hawaiian, tail.hawaiian),
                sentence(english, verb.english, tail.english),
                f"{opening} {verb.hawaiian}",
            )
        for pronoun, english in (("kākou", "let us all"), ("kāua", "let the two of us")):
            yield Pair(
                sentence("e", verb.hawaiian, pronoun, tail.hawaiian),
                sentence(english, verb.english, tail.english),
                f"e {verb.hawaiian} {pronoun}",
            )


def wanting_things() -> Iterator[Pair]:
    """``Makemake ʻo Leilani i ke kope.`` and ``ʻAʻole makemake ʻo Leilani i ke kope.``"""
    for subject in people():
        for name in some(f"want {subject.hawaiian}", WANTED, 5):
            thing = thing_phrase(NOUNS[name], f"want {subject.hawaiian} {name}")
            yield Pair(
                sentence("makemake", subject.subject, thing.object),
                sentence(subject.english, subject.present("want"), thing.english),
                name,
            )


def not_wanting_things() -> Iterator[Pair]:
    """``ʻAʻole au makemake i ke kope.``, ``ʻAʻole makemake ke keiki i ke kope.``"""
    for subject in people():
        for name in some(f"not want {subject.hawaiian}", WANTED, 3):
            thing = thing_phrase(NOUNS[name], f"not want {subject.hawaiian} {name}")
            order = [subject.subject, "makemake"]
            if not subject.is_pronoun:
                order.reverse()
            does = "does" if subject.be == "is" else "do"
            yield Pair(
                sentence("ʻaʻole", *order, thing.object),
                sentence(subject.english, does, "not want", thing.english),
                name,
            )


def wanting_to() -> Iterator[Pair]:
    """``Makemake au e hele i ke kula.``"""
    for c in _willed("want to"):
        yield Pair(
            sentence("makemake", c.subject.subject, "e", c.verb.hawaiian, c.tail.hawaiian),
            sentence(
                c.subject.english, c.subject.present("want"), "to", c.verb.english, c.tail.english
            ),
            c.verb.hawaiian,
        )


def being_able() -> Iterator[Pair]:
    """``Hiki iā Leilani ke hīmeni i ke mele.``"""
    for c in _willed("can"):
        yield Pair(
            sentence("hiki", c.subject.object, "ke", c.verb.hawaiian, c.tail.hawaiian),
            sentence(c.subject.english, "can", c.verb.english, c.tail.english),
            c.verb.hawaiian,
        )


def not_being_able() -> Iterator[Pair]:
    """``ʻAʻole hiki iaʻu ke hīmeni i ke mele.``"""
    for c in _willed("cannot"):
        yield Pair(
            sentence("ʻaʻole hiki", c.subject.object, "ke", c.verb.hawaiian, c.tail.hawaiian),
            sentence(c.subject.english, "cannot", c.verb.english, c.tail.english),
            c.verb.hawaiian,
        )


def having_to() -> Iterator[Pair]:
    """``Pono ʻo Leilani e hele i ke kula.``"""
    for c in _willed("must"):
        yield Pair(
            sentence("pono", c.subject.subject, "e", c.verb.hawaiian, c.tail.hawaiian),
            sentence(c.subject.english, "must", c.verb.english, c.tail.english),
            c.verb.hawaiian,
        )


def passive() -> Iterator[Pair]:
    """``Ua ʻai ʻia ka iʻa e Keola.``"""
    they = [p for p in pronoun_phrases() if p.hawaiian in ("ia", "lākou", "mākou")]
    agents = name_phrases() + person_phrases() + kin_phrases() + tuple(they)
    for verb in (verb for verb in VERBS if verb.passive):
        for name in verb.objects:
            noun = NOUNS[name]
            forms = [the(noun), the_plural(noun)] if noun.has_plural else [the(noun)]
            for thing in forms:
                for agent in some(f"passive {verb.hawaiian} {name}", agents, 6):
                    was = "were" if thing.be == "are" else "was"
                    yield Pair(
                        sentence("ua", verb.hawaiian, "ʻia", thing.hawaiian, "e", agent.hawaiian),
                        sentence(thing.english, was, verb.participle, "by", agent.as_object),
                        verb.hawaiian,
                    )


def _asked(construction: str) -> Iterator[Clause]:
    """Clauses about others: one asks nobody about oneself."""
    for c in clauses(construction):
        if c.subject.is_asked_about:
            yield c


def asking_past() -> Iterator[Pair]:
    """``Ua heluhelu anei ʻoe i ka puke?``"""
    for c in _asked("asked past"):
        rest, english_rest = with_time(c, "asked past", PAST_TIMES)
        yield Pair(
            sentence("ua", c.verb.hawaiian, "anei", c.subject.subject, rest, end="?"),
            sentence("did", c.subject.english, c.verb.english, english_rest, end="?"),
            c.verb.hawaiian,
        )


def asking_present() -> Iterator[Pair]:
    """``Ke heluhelu nei anei ʻoe i ka puke?``"""
    for c in _asked("asked present"):
        if c.verb.progressive:
            rest, english_rest = with_time(c, "asked present", PRESENT_TIMES)
            be = c.subject.be
            yield Pair(
                sentence("ke", c.verb.hawaiian, "nei anei", c.subject.subject, rest, end="?"),
                sentence(be, c.subject.english, c.verb.gerund, english_rest, end="?"),
                c.verb.hawaiian,
            )


def asking_future() -> Iterator[Pair]:
    """``E heluhelu ana anei ʻoe i ka puke?``"""
    for c in _asked("asked future"):
        rest, english_rest = with_time(c, "asked future", FUTURE_TIMES)
        yield Pair(
            sentence("e", c.verb.hawaiian, "ana anei", c.subject.subject, rest, end="?"),
            sentence("will", c.subject.english, c.verb.english, english_rest, end="?"),
            c.verb.hawaiian,
        )


def asking_what() -> Iterator[Pair]:
    """``He aha kāu e ʻai nei?``, and ``i ʻai ai`` and ``e ʻai ana`` for past and future."""
    for verb in (verb for verb in VERBS if verb.hawaiian in ASKED_WHAT):
        for owner, subject in _doers():
            is_are = "is" if subject.be == "is" else "are"
            for hawaiian, english in (
                (f"e {verb.hawaiian} nei", f"{is_are} {subject.english} {verb.gerund}"),
                (f"i {verb.hawaiian} ai", f"did {subject.english} {verb.english}"),
                (f"e {verb.hawaiian} ana", f"will {subject.english} {verb.english}"),
            ):
                yield Pair(
                    sentence("he aha", owner, hawaiian, end="?"),
                    sentence("what", english, end="?"),
                    verb.hawaiian,
                )


def _doers() -> Iterator[tuple[str, Phrase]]:
    """The a-class possessive that says who acts, with its subject: ``kāu`` you, ``kā Leilani``."""
    for pronoun in pronoun_phrases():
        if pronoun.hawaiian in ("lākou", "ʻoukou", "ʻolua", "lāua"):
            yield f"kā {pronoun.hawaiian}", pronoun
    yield "kāu", Phrase("ʻoe", "you", "pronoun", "are")
    yield "kāna", Phrase("ia", "she", "pronoun", "is")
    for person in name_phrases() + person_phrases():
        yield f"kā {person.hawaiian}", person
