"""Noun phrases in both languages, and the deterministic choices that vary them."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeVar

from hawsweep.phrasebook.entries import Be, Noun, Possessor, Stative, article
from hawsweep.phrasebook.lexicon import HER, MY, NAMES, NOUNS, POSSESSORS, PRONOUNS, YOUR
from hawsweep.phrasebook.predicates import STATIVES

T = TypeVar("T")

ASKED = ("ʻoe", "ia", "ʻolua", "ʻoukou", "lākou", "lāua")


def digest(text: str) -> bytes:
    """A fixed pseudo-random order of texts: the same on every Python, platform and hash seed."""
    return hashlib.sha256(text.encode()).digest()


def choose(key: str, options: Sequence[T]) -> T:
    """Pick one option by ``key`` alone."""
    return options[int.from_bytes(digest(key)[:8]) % len(options)]


def some(key: str, options: Sequence[T], count: int) -> list[T]:
    """Pick ``count`` options by ``key`` alone, or all where there are fewer."""
    return sorted(options, key=lambda option: digest(f"{key} {option}"))[:count]


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

    def present(self, verb: str) -> str:
        """``verb`` in the simple English present: wants, want."""
        return f"{verb}s" if self.be == "is" else verb


def the(noun: Noun, quality: Stative | None = None) -> Phrase:
    """``ka puke hou``, the new book."""
    if quality is None:
        return Phrase(f"{noun.article} {noun.hawaiian}", f"the {noun.english}")
    return Phrase(
        f"{noun.article} {noun.hawaiian} {quality.hawaiian}",
        f"the {quality.english} {noun.english}",
    )


def the_plural(noun: Noun) -> Phrase:
    """``nā puke``, the books."""
    return Phrase(f"nā {noun.plural_form}", f"the {noun.english_plural}", be="are")


def this(noun: Noun) -> Phrase:
    """``kēia puke``, this book."""
    return Phrase(f"kēia {noun.hawaiian}", f"this {noun.english}")


def that(noun: Noun) -> Phrase:
    """``kēlā puke``, that book."""
    return Phrase(f"kēlā {noun.hawaiian}", f"that {noun.english}")


def these(noun: Noun) -> Phrase:
    """``kēia mau puke``, these books."""
    return Phrase(f"kēia mau {noun.plural_form}", f"these {noun.english_plural}", be="are")


def owned(noun: Noun, owner: Possessor) -> Phrase:
    """``kaʻu puke``, ``koʻu hale``: the class is the noun's."""
    return Phrase(f"{owner.before(noun)} {noun.hawaiian}", f"{owner.english} {noun.english}")


def owned_plural(noun: Noun, owner: Possessor) -> Phrase:
    """``kaʻu mau puke``, my books."""
    return Phrase(
        f"{owner.before(noun)} mau {noun.plural_form}",
        f"{owner.english} {noun.english_plural}",
        be="are",
    )


def owned_by_name(noun: Noun, name: str) -> Phrase:
    """``ka puke a Leilani``, ``ka hale o Leilani``."""
    return Phrase(
        f"{noun.article} {noun.hawaiian} {noun.possession} {name}", f"{name}'s {noun.english}"
    )


def quality_noun(quality: Stative) -> str:
    """The quality as a noun, for comparing: ``ka nui``, ``ke akamai``."""
    return f"{article(quality.hawaiian)} {quality.hawaiian}"


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
    people = [noun for noun in NOUNS.values() if noun.kind == "person"]
    return tuple(the(noun) for noun in people) + tuple(
        the_plural(noun) for noun in people if noun.has_plural
    )


@cache
def kin_phrases(owners: tuple[Possessor, ...] = (MY, YOUR, HER)) -> tuple[Phrase, ...]:
    """My mother, your friend, her child, ..."""
    kin = [n for n in NOUNS.values() if n.kind == "kin" or n.hawaiian in ("keiki", "kumu")]
    return tuple(owned(noun, owner) for noun in kin for owner in owners)


@cache
def people() -> tuple[Phrase, ...]:
    """Everyone who can be a subject."""
    return pronoun_phrases() + name_phrases() + person_phrases() + kin_phrases()


def some_people(key: str) -> list[Phrase]:
    """Ten subjects, pronouns and names among them as often as all others."""
    others = person_phrases() + kin_phrases()
    return [
        *some(key, pronoun_phrases(), 3),
        *some(key, name_phrases(), 3),
        *some(key, others, 4),
    ]


@cache
def qualities_of() -> dict[str, list[Stative]]:
    """Per Hawaiian noun the qualities that may follow it."""
    result: dict[str, list[Stative]] = defaultdict(list)
    for quality in STATIVES:
        if quality.attributive:
            for noun in quality.nouns:
                result[noun].append(quality)
    return result


def thing_phrase(noun: Noun, key: str) -> Phrase:
    """One way of speaking of a thing, most often simply with its article, chosen by ``key``."""
    forms: list[Callable[[Noun], Phrase]] = [the] * 4
    if noun.has_plural:
        forms += [the_plural, these]
    if noun.hawaiian not in ("lā", "mahina", "kai", "hula", "ʻōlelo Hawaiʻi"):
        forms += [this, that]
    if noun.possession:
        forms += [lambda owned_noun: owned(owned_noun, choose(f"owner {key}", (MY, YOUR)))] * 2
    if qualities := qualities_of().get(noun.hawaiian):
        forms += [lambda plain: the(plain, choose(f"quality {key}", qualities))] * 2
    return choose(key, forms)(noun)


def thing_phrases(noun: Noun) -> Iterator[Phrase]:
    """Every way of speaking of a thing as the subject of a quality."""
    yield the(noun)
    if noun.has_plural:
        yield the_plural(noun)
        yield these(noun)
    if noun.kind != "nature":
        yield this(noun)
        yield that(noun)
    if noun.possession:
        yield from (owned(noun, owner) for owner in POSSESSORS)
        yield from (owned_by_name(noun, name) for name in NAMES)
        if noun.has_plural:
            yield owned_plural(noun, MY)
            yield owned_plural(noun, YOUR)
