"""Noun phrases in both languages."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from phrasebook.lexicon import (
    MY,
    NAMES,
    NOUNS,
    POSSESSORS,
    PRONOUNS,
    STATIVES,
    YOUR,
    Be,
    Noun,
    Possessor,
    Stative,
)
from phrasebook.pairs import choose, some

ASKED = ("ʻoe", "ia", "ʻolua", "lākou")


@dataclass(frozen=True)
class Phrase:
    """A noun phrase without its case marker: ``ke kumu``, ``Leilani``, ``au``.

    Attributes:
        hawaiian: Without ``ʻo``, ``i`` or ``iā``.
        english_object: Only where English has another form: "me".
    """

    hawaiian: str
    english: str
    kind: Literal["name", "pronoun", "noun"] = "noun"
    be: Be = "is"
    english_object: str = ""

    def __str__(self) -> str:
        return self.hawaiian

    @property
    def head(self) -> str:
        """The last word: ``keiki`` of ``ke keiki`` and of ``kaʻu keiki``."""
        return self.hawaiian.split()[-1]

    @property
    def is_asked_about(self) -> bool:
        """Whether one asks about them: not about oneself, nor about one's own mother."""
        if self.is_pronoun:
            return self.hawaiian in ASKED
        return not self.hawaiian.startswith(("kaʻu ", "koʻu "))

    @property
    def is_pronoun(self) -> bool:
        """Whether it moves before a negated verb."""
        return self.kind == "pronoun"

    @property
    def subject(self) -> str:
        """With ``ʻo`` before names and before ``ia``."""
        marked = self.kind == "name" or self.hawaiian == "ia"
        return f"ʻo {self.hawaiian}" if marked else self.hawaiian

    @property
    def object(self) -> str:
        """With ``iā`` before names and pronouns (``iaʻu`` for me), else ``i``."""
        if self.hawaiian == "au":
            return "iaʻu"
        return f"{'i' if self.kind == 'noun' else 'iā'} {self.hawaiian}"

    @property
    def as_object(self) -> str:
        """The English object form."""
        return self.english_object or self.english

    @property
    def has(self) -> str:
        """The English for having, in agreement: has, have."""
        return "has" if self.be == "is" else "have"

    @property
    def wants(self) -> str:
        """The English for wanting, in agreement: wants, want."""
        return "wants" if self.be == "is" else "want"

    @property
    def does(self) -> str:
        """The English auxiliary, in agreement: does, do."""
        return "does" if self.be == "is" else "do"


def the(noun: Noun) -> Phrase:
    """``ka puke``, the book."""
    return Phrase(f"{noun.article} {noun.hawaiian}", f"the {noun.english}")


def the_plural(noun: Noun) -> Phrase:
    """``nā puke``, the books."""
    return Phrase(f"nā {noun.hawaiian}", f"the {noun.english_plural}", be="are")


def this(noun: Noun) -> Phrase:
    """``kēia puke``, this book."""
    return Phrase(f"kēia {noun.hawaiian}", f"this {noun.english}")


def that(noun: Noun) -> Phrase:
    """``kēlā puke``, that book."""
    return Phrase(f"kēlā {noun.hawaiian}", f"that {noun.english}")


def owned(noun: Noun, owner: Possessor) -> Phrase:
    """``kaʻu puke``, ``koʻu hale``: the class is the noun's."""
    return Phrase(f"{owner.before(noun)} {noun.hawaiian}", f"{owner.english} {noun.english}")


def owned_by_name(noun: Noun, name: str) -> Phrase:
    """``ka puke a Leilani``, ``ka hale o Leilani``."""
    return Phrase(
        f"{noun.article} {noun.hawaiian} {noun.possession} {name}", f"{name}'s {noun.english}"
    )


@cache
def name_phrases() -> tuple[Phrase, ...]:
    """Leilani, Keola, ..."""
    return tuple(Phrase(name, name, "name") for name in NAMES)


@cache
def pronoun_phrases() -> tuple[Phrase, ...]:
    """I, you, she, ..."""
    return tuple(Phrase(p.hawaiian, p.english, "pronoun", p.be, p.english_object) for p in PRONOUNS)


@cache
def person_phrases() -> tuple[Phrase, ...]:
    """The teacher, the teachers, ..."""
    nouns = [noun for noun in NOUNS.values() if noun.kind == "person"]
    return tuple(form(noun) for form in (the, the_plural) for noun in nouns)


@cache
def kin_phrases() -> tuple[Phrase, ...]:
    """My mother, your friend, ..."""
    kin = [noun for noun in NOUNS.values() if noun.kind == "kin"]
    return tuple(owned(noun, owner) for noun in kin for owner in POSSESSORS)


@cache
def people() -> tuple[Phrase, ...]:
    """Everyone who can be a subject."""
    return pronoun_phrases() + name_phrases() + person_phrases() + kin_phrases()


def some_people(key: str) -> list[Phrase]:
    """The pronouns and names, and some others."""
    others = some(key, person_phrases() + kin_phrases(), 5)
    return [*pronoun_phrases(), *name_phrases(), *others]


@cache
def qualities_of() -> dict[str, list[Stative]]:
    """Per Hawaiian noun the qualities that may follow it."""
    result: dict[str, list[Stative]] = defaultdict(list)
    for quality in STATIVES:
        if not quality.people:
            for noun in quality.nouns:
                result[noun].append(quality)
    return result


def thing_phrase(noun: Noun, key: str) -> Phrase:
    """One way of speaking of a thing, most often simply with its article, chosen by ``key``."""
    forms: list[Callable[[Noun], Phrase]] = [the] * 4
    if noun.has_plural:
        forms.append(the_plural)
    if noun.hawaiian != "kai":
        forms += [this, that]
    if noun.possession:
        forms += [lambda owned_noun: owned(owned_noun, choose(f"owner {key}", (MY, YOUR)))] * 2
    return choose(key, forms)(noun)


def thing_phrases(noun: Noun) -> Iterator[Phrase]:
    """Every way of speaking of a thing as the subject of a quality."""
    yield the(noun)
    if noun.has_plural:
        yield the_plural(noun)
    if noun.hawaiian != "kai":
        yield this(noun)
        yield that(noun)
    if noun.possession:
        yield from (owned(noun, owner) for owner in POSSESSORS)
        yield from (owned_by_name(noun, name) for name in NAMES)
