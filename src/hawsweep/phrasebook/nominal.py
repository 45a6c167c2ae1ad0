"""Sentences without a verb: what one is, who one is, what one has."""

from collections.abc import Iterator

from hawsweep.phrasebook.entries import Noun, Possessor, with_a
from hawsweep.phrasebook.lexicon import HER, MY, NAMES, NOUNS, NUMBERS, POSSESSORS, WOMEN, YOUR
from hawsweep.phrasebook.noun_phrases import (
    Phrase,
    name_phrases,
    owned,
    owned_by_name,
    pronoun_phrases,
    qualities_of,
    some,
    that,
    the,
    this,
)
from hawsweep.phrasebook.pairs import Pair, sentence
from hawsweep.phrasebook.predicates import STATIVES

CALLINGS = ("kumu", "haumāna", "kauka", "lawaiʻa", "mākaʻi", "kāpena")
CALLING_QUALITIES = ("maikaʻi", "akamai", "hou", "lokomaikaʻi", "ʻoluʻolu")
RELATIONS = ("kumu", "haumāna", "kauka", "hoaaloha", "hoahānau", "moʻopuna", "keiki")
WOMEN_RELATIONS = ("makuahine", "ʻanakē")
MEN_RELATIONS = ("makuakāne", "ʻanakala")
SHOWN = ("manu", "pua", "iʻa", "lio", "ʻīlio", "pōpoki", "puke", "hale", "waʻa", "kaʻa", "penikala")
OWNED = tuple(
    noun
    for noun in NOUNS.values()
    if noun.possession and noun.kind in ("thing", "animal") and noun.hawaiian != "poi"
)
HAD = (*OWNED, *(NOUNS[name] for name in ("hoaaloha", "hoahānau", "moʻopuna", "keiki", "kumu")))


def classified() -> tuple[Phrase, ...]:
    """Those whose calling is told or asked."""
    adults = tuple(the(NOUNS[name]) for name in ("wahine", "kāne", "ʻelemakule", "luahine"))
    owners = (MY, YOUR, HER)
    family = tuple(
        owned(NOUNS[name], owner)
        for name in ("makuahine", "makuakāne", "ʻanakē", "ʻanakala", "hoaaloha")
        for owner in owners
    )
    return name_phrases() + pronoun_phrases() + adults + family


def _kinds(calling: Noun) -> Iterator[tuple[str, str]]:
    """A calling alone and with each quality, in both languages without article."""
    yield calling.hawaiian, calling.english
    for quality in STATIVES:
        if quality.hawaiian in CALLING_QUALITIES:
            yield f"{calling.hawaiian} {quality.hawaiian}", f"{quality.english} {calling.english}"


def classing_people() -> Iterator[Pair]:
    """``He kumu maikaʻi ʻo Leilani.``, ``He mau haumāna lākou.``"""
    for calling in (NOUNS[name] for name in CALLINGS):
        for phrase in classified():
            if phrase.is_pronoun and phrase.be == "are" and phrase.hawaiian != "ʻoe":
                yield Pair(
                    sentence("he mau", calling.hawaiian, phrase.subject),
                    sentence(phrase.english, "are", calling.english_plural),
                    calling.hawaiian,
                )
                continue
            for hawaiian, english in _kinds(calling):
                yield Pair(
                    sentence("he", hawaiian, phrase.subject),
                    sentence(phrase.english, phrase.be, with_a(english)),
                    calling.hawaiian,
                )


def not_classing() -> Iterator[Pair]:
    """``ʻAʻole ʻo Leilani he kumu.``"""
    for calling in (NOUNS[name] for name in CALLINGS):
        for phrase in classified():
            if phrase.be != "are" or phrase.hawaiian == "ʻoe":
                yield Pair(
                    sentence("ʻaʻole", phrase.subject, "he", calling.hawaiian),
                    sentence(phrase.english, phrase.be, "not", calling.indefinite),
                    calling.hawaiian,
                )


def classing_things() -> Iterator[Pair]:
    """``He puke hou kēia.``"""
    for name in SHOWN:
        noun = NOUNS[name]
        for shown, english in (("kēia", "this"), ("kēlā", "that")):
            yield Pair(sentence("he", name, shown), sentence(english, "is", noun.indefinite), name)
            for quality in qualities_of()[name]:
                yield Pair(
                    sentence("he", name, quality.hawaiian, shown),
                    sentence(english, "is", with_a(f"{quality.english} {noun.english}")),
                    name,
                )


def _relations(name: str) -> tuple[str, ...]:
    return RELATIONS + (WOMEN_RELATIONS if name in WOMEN else MEN_RELATIONS)


def identifying() -> Iterator[Pair]:
    """``ʻO Kamaka kaʻu kumu.``, ``ʻO Malia ka makuahine o Keola.``, ``ʻO ia koʻu hoaaloha.``"""
    for name in NAMES:
        for relation in _relations(name):
            noun = NOUNS[relation]
            others = some(f"{name} {relation}", [n for n in NAMES if n != name], 2)
            phrases = [owned(noun, owner) for owner in POSSESSORS]
            if not relation.startswith("hoa"):  # said with ke by some and with ka by others
                phrases += [owned_by_name(noun, other) for other in others]
            for phrase in phrases:
                yield Pair(
                    sentence("ʻo", name, phrase.hawaiian),
                    sentence(name, "is", phrase.english),
                    relation,
                )
    for relation in RELATIONS + WOMEN_RELATIONS:
        for owner in POSSESSORS:
            phrase = owned(NOUNS[relation], owner)
            yield Pair(
                sentence("ʻo ia", phrase.hawaiian), sentence("she is", phrase.english), "ʻo ia"
            )


def identifying_callings() -> Iterator[Pair]:
    """``ʻO Kamaka ke kumu.``"""
    for name in NAMES:
        for calling in CALLINGS:
            phrase = the(NOUNS[calling])
            yield Pair(
                sentence("ʻo", name, phrase.hawaiian),
                sentence(name, "is", phrase.english),
                calling,
            )


def identifying_things() -> Iterator[Pair]:
    """``ʻO kēia koʻu hale.``, ``ʻO kēlā ka hale o Leilani.``"""
    for noun in OWNED:
        phrases = [owned(noun, owner) for owner in POSSESSORS]
        phrases += [owned_by_name(noun, name) for name in NAMES]
        for phrase in phrases:
            for shown, english in (("kēia", "this"), ("kēlā", "that")):
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
    for phrase in name_phrases():
        yield f"{particle} {phrase.hawaiian}", phrase
    for phrase in pronoun_phrases():
        if phrase.hawaiian in ("kākou", "lāua", "ʻoukou"):
            yield f"{particle} {phrase.hawaiian}", phrase


def having() -> Iterator[Pair]:
    """``He puke kaʻu.``, ``He hale nui ko Leilani.``"""
    for noun in HAD:
        kinds = [(noun.hawaiian, noun.indefinite)]
        for quality in some(noun.hawaiian, qualities_of().get(noun.hawaiian, []), 3):
            english = f"{quality.english} {noun.english}"
            kinds.append(
                (f"{noun.hawaiian} {quality.hawaiian}", english if noun.mass else with_a(english))
            )
        for hawaiian, english in kinds:
            for owner, phrase in _owners(noun):
                yield Pair(
                    sentence("he", hawaiian, owner),
                    sentence(phrase.english, phrase.has, english),
                    noun.hawaiian,
                )


def having_none() -> Iterator[Pair]:
    """``ʻAʻohe aʻu puke.``, ``ʻAʻohe puke a Keola.``"""
    for noun in HAD:
        english = f"no {noun.english_plural if noun.has_plural else noun.english}"
        for owner in (MY, YOUR, HER):
            yield Pair(
                sentence("ʻaʻohe", owner.without_k(noun), noun.hawaiian),
                sentence(owner.english_subject, owner.has, english),
                noun.hawaiian,
            )
        for name in some(f"none {noun.hawaiian}", NAMES, 3):
            yield Pair(
                sentence("ʻaʻohe", noun.hawaiian, noun.possession, name),
                sentence(name, "has", english),
                noun.hawaiian,
            )


def having_some_number() -> Iterator[Pair]:
    """``ʻElua aʻu puke.``"""
    for noun in (noun for noun in HAD if noun.has_plural):
        for owner in (MY, YOUR, HER):
            for number, english in NUMBERS:
                yield Pair(
                    sentence(number, owner.without_k(noun), noun.hawaiian),
                    sentence(owner.english_subject, owner.has, english, noun.english_plural),
                    noun.hawaiian,
                )


def belonging() -> Iterator[Pair]:
    """``Naʻu kēia puke.``, ``No Leilani kēlā hale.``"""
    for noun in OWNED:
        for phrase in (this(noun), that(noun)):
            for owner in POSSESSORS:
                yield Pair(
                    sentence(_for(noun, owner), phrase.hawaiian),
                    sentence(phrase.english, "is", owner.english_alone),
                    noun.hawaiian,
                )
            for name in NAMES:
                yield Pair(
                    sentence("na" if noun.possession == "a" else "no", name, phrase.hawaiian),
                    sentence(phrase.english, "belongs to", name),
                    noun.hawaiian,
                )


def _for(noun: Noun, owner: Possessor) -> str:
    """``naʻu``, ``noʻu``, ``na mākou``: the particle is short where it stands alone."""
    form = f"n{owner.before(noun)[1:]}"
    return form.replace("nā ", "na ")
