"""The shapes of the lexicon's entries, and the spelling rules that need nothing else."""

from dataclasses import dataclass
from typing import Literal

VOWELS = "aeiou"

Be = Literal["am", "is", "are"]
"""Which form of "to be" a subject takes; it also decides has / have and wants / want."""


def article(word: str, irregular_ke: bool = False) -> str:
    """Return ``ke`` before k, e, a, o and for the listed exceptions, else ``ka``.

    A kahakō makes no difference; the ʻokina is a consonant: ``ka ʻalani``.
    """
    return "ke" if irregular_ke or word[0] in "keaoēāō" else "ka"


def with_a(noun: str) -> str:
    """Put the English indefinite article before ``noun``, by its first sound."""
    starts_with_vowel = noun[0] in VOWELS and not noun.startswith(("ukulele", "university"))
    return f"{'an' if starts_with_vowel else 'a'} {noun}"


def gerund(verb: str) -> str:
    """Return the -ing form of an English verb phrase: ``look for`` gives ``looking for``."""
    first, _, rest = verb.partition(" ")
    if first in ("run", "swim"):
        first += first[-1]
    elif first.endswith("e") and not first.endswith("ee"):
        first = first[:-1]
    return f"{first}ing {rest}".strip()


def listed(text: str) -> tuple[str, ...]:
    """Split a list of words at its commas; an empty text lists none."""
    return tuple(word.strip() for word in text.split(",")) if text else ()


@dataclass(frozen=True)
class Noun:
    """A common noun.

    Attributes:
        possession: ``a`` or ``o``, the class of its possessives; empty where nobody owns it here.
        kind: ``person``, ``kin`` (always someone's), ``animal``, ``thing``, ``nature`` or ``body``.
        plural: English plural; ``-`` where the book uses none, empty for the regular one.
        hawaiian_plural: The plural with its lengthened vowel, where it differs: wāhine.
        irregular_ke: Takes ``ke`` though its first letter asks for ``ka``.
        mass: Has no English indefinite article nor plural.
    """

    hawaiian: str
    english: str
    possession: str = ""
    kind: str = "thing"
    plural: str = ""
    hawaiian_plural: str = ""
    irregular_ke: bool = False
    mass: bool = False

    @property
    def article(self) -> str:
        """``ka`` or ``ke``."""
        return article(self.hawaiian, self.irregular_ke)

    @property
    def has_plural(self) -> bool:
        """Whether the book uses it in the plural."""
        return not self.mass and self.plural != "-"

    @property
    def english_plural(self) -> str:
        """The English plural."""
        return self.plural or f"{self.english}s"

    @property
    def plural_form(self) -> str:
        """The Hawaiian noun as it stands after ``nā`` and ``mau``."""
        return self.hawaiian_plural or self.hawaiian

    @property
    def indefinite(self) -> str:
        """The English with its indefinite article, where it takes one."""
        return self.english if self.mass else with_a(self.english)


@dataclass(frozen=True)
class Place:
    """Somewhere to go or to be; ``hawaiian`` is as it stands after ``i`` and ``ma``."""

    hawaiian: str
    to: str
    at: str


@dataclass(frozen=True)
class Verb:
    """An action.

    Attributes:
        hawaiian: With its directional, if any: ``kūʻai mai``. Markers go around the whole.
        objects: Hawaiian nouns that fit as objects.
        places: Hawaiian places that fit; ``goal`` says whether they are gone to or been at.
        animals: Hawaiian animals that do it too.
        takes_people: People and pronouns fit as objects.
        takes_only_animals: People do not do it.
        progressive: English says ``is ...ing``.
        willed: Can be commanded, wanted and able.
        passive: The passive is plain: ``Ua ʻai ʻia ka iʻa``.
    """

    hawaiian: str
    english: str
    past: str
    participle: str
    objects: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    animals: tuple[str, ...] = ()
    goal: bool = False
    takes_people: bool = False
    takes_only_animals: bool = False
    progressive: bool = True
    willed: bool = True
    passive: bool = False

    @property
    def gerund(self) -> str:
        """The -ing form."""
        return gerund(self.english)


@dataclass(frozen=True)
class Stative:
    """A quality.

    Attributes:
        nouns: Hawaiian nouns it is said of.
        people: It is said of any person.
        attributive: It also follows a noun: ``ka puke hou``.
        comparative: English comparative, empty where the book compares nothing by it.
    """

    hawaiian: str
    english: str
    nouns: tuple[str, ...] = ()
    people: bool = False
    attributive: bool = True
    comparative: str = ""

    def __str__(self) -> str:
        return self.hawaiian


@dataclass(frozen=True)
class Pronoun:
    """A personal pronoun; the English tells apart all that Hawaiian does."""

    hawaiian: str
    english: str
    english_object: str
    be: Be


@dataclass(frozen=True)
class Possessor:
    """The possessives of one person: ``kaʻu`` and ``koʻu``, in English "my" and "mine"."""

    a_class: str
    o_class: str
    english: str
    english_alone: str
    english_subject: str
    be: Be

    @property
    def has(self) -> str:
        """The English for having, in agreement: has, have."""
        return "has" if self.be == "is" else "have"

    def before(self, noun: Noun) -> str:
        """The possessive of the noun's class: ``kaʻu`` before puke, ``koʻu`` before hale."""
        return self.a_class if noun.possession == "a" else self.o_class

    def without_k(self, noun: Noun) -> str:
        """The same as it stands after a number or ``ʻaʻohe``: ``aʻu``, ``oʻu``."""
        return self.before(noun)[1:]
