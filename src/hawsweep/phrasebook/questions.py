"""Questions without a yes-or-no verb: who, whose, how many, where, when, and of class and place."""

from collections.abc import Iterator

from hawsweep.phrasebook.lexicon import COMMON_PLACES, HER, MY, NOUNS, PLACES, YOUR
from hawsweep.phrasebook.location import located
from hawsweep.phrasebook.nominal import CALLINGS, HAD, OWNED, classified
from hawsweep.phrasebook.noun_phrases import (
    kin_phrases,
    name_phrases,
    owned,
    person_phrases,
    pronoun_phrases,
    that,
    the,
    this,
)
from hawsweep.phrasebook.pairs import Pair, sentence


def asking_class() -> Iterator[Pair]:
    """``He kumu anei ʻo Leilani?``"""
    for calling in (NOUNS[name] for name in CALLINGS):
        for phrase in classified():
            if phrase.is_asked_about and (phrase.be == "is" or phrase.hawaiian == "ʻoe"):
                yield Pair(
                    sentence("he", calling.hawaiian, "anei", phrase.subject, end="?"),
                    sentence(phrase.be, phrase.english, calling.indefinite, end="?"),
                    calling.hawaiian,
                )


def asking_whose() -> Iterator[Pair]:
    """``Na wai kēia puke?``, ``No wai kēlā hale?``"""
    for noun in OWNED:
        particle = "na" if noun.possession == "a" else "no"
        for phrase in (this(noun), that(noun)):
            yield Pair(
                sentence(particle, "wai", phrase.hawaiian, end="?"),
                sentence("whose", noun.english, "is", phrase.english.split()[0], end="?"),
                "wai",
            )


def asking_who() -> Iterator[Pair]:
    """``ʻO wai kāu kumu?``, ``ʻO wai ka inoa o ke kumu?``, ``ʻO wai kēlā wahine?``"""
    for phrase in kin_phrases():
        if phrase.is_asked_about:
            yield Pair(
                sentence("ʻo wai", phrase.hawaiian, end="?"),
                sentence("who is", phrase.english, end="?"),
                "wai",
            )
    for noun in (noun for noun in NOUNS.values() if noun.kind == "person"):
        yield Pair(
            sentence("ʻo wai ka inoa o", the(noun).hawaiian, end="?"),
            sentence("what is", f"{the(noun).english}'s", "name", end="?"),
            "inoa",
        )
        for phrase in (this(noun), that(noun)):
            yield Pair(
                sentence("ʻo wai", phrase.hawaiian, end="?"),
                sentence("who is", phrase.english, end="?"),
                "kēlā",
            )


def asking_how_many() -> Iterator[Pair]:
    """``ʻEhia āu puke?``"""
    for noun in (noun for noun in HAD if noun.has_plural):
        for owner, english in ((YOUR, "do you have"), (HER, "does she have")):
            yield Pair(
                sentence("ʻehia", owner.without_k(noun), noun.hawaiian, end="?"),
                sentence("how many", noun.english_plural, english, end="?"),
                "ʻehia",
            )


def asking_how() -> Iterator[Pair]:
    """``Pehea kou makuahine?``"""
    for phrase in kin_phrases((YOUR, HER)) + name_phrases():
        yield Pair(
            sentence("pehea", phrase.subject, end="?"),
            sentence("how is", phrase.english, end="?"),
            "pehea",
        )


def asking_thing_at() -> Iterator[Pair]:
    """``Aia anei ka puke ma luna o ke pākaukau?``"""
    for phrase, relation, english, landmark in located():
        yield Pair(
            sentence(
                "aia anei", phrase.hawaiian, "ma", relation, "o", the(landmark).hawaiian, end="?"
            ),
            sentence(phrase.be, phrase.english, english, the(landmark).english, end="?"),
            f"{relation} {landmark.hawaiian}",
        )


def asking_where() -> Iterator[Pair]:
    """``Aia i hea kaʻu puke?``, ``No hea mai ʻo Leilani?``"""
    phrases = [*name_phrases(), *person_phrases(), *kin_phrases()]
    for noun in (n for n in NOUNS.values() if n.kind in ("thing", "animal") and n.possession):
        phrases += [the(noun), owned(noun, MY)]
    for phrase in phrases:
        yield Pair(
            sentence("aia i hea", phrase.subject, end="?"),
            sentence("where", phrase.be, phrase.english, end="?"),
            "aia",
        )
    for place in COMMON_PLACES:
        if place.at.startswith("at the "):
            yield Pair(
                sentence("aia i hea", place.hawaiian, end="?"),
                sentence("where is", place.at.removeprefix("at "), end="?"),
                "aia",
            )
    for phrase in name_phrases() + kin_phrases((YOUR,)) + person_phrases():
        yield Pair(
            sentence("no hea mai", phrase.subject, end="?"),
            sentence("where", phrase.be, phrase.english, "from", end="?"),
            "no hea",
        )


def asking_when() -> Iterator[Pair]:
    """``Āhea ʻoe e hele ai i Hilo?`` (future), ``Ināhea ʻoe i hele ai i Hilo?`` (past)."""
    for pronoun in pronoun_phrases():
        if not pronoun.is_asked_about:
            continue
        subject, english = pronoun.subject, pronoun.english
        yield Pair(
            sentence("i hea", subject, "i hele ai i nehinei", end="?"),
            sentence("where did", english, "go yesterday", end="?"),
            "hea",
        )
        for place in PLACES.values():
            yield Pair(
                sentence("āhea", subject, "e hele ai i", place.hawaiian, end="?"),
                sentence("when will", english, "go", place.to, end="?"),
                "āhea",
            )
            yield Pair(
                sentence("ināhea", subject, "i hele ai i", place.hawaiian, end="?"),
                sentence("when did", english, "go", place.to, end="?"),
                "ināhea",
            )
