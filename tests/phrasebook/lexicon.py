"""The words of the phrase book, with their English and with what fits them.

Conventions that make each Hawaiian sentence map to one English sentence:

- ``ʻo ia`` is "she", ``iā ia``, ``kona`` and ``kāna`` "her": Hawaiian has no gender.
- ``kākou`` is "we", ``ʻolua`` "you two", ``lākou`` "they".
- ``Ua`` is the English past, ``Ke ... nei`` "is ...ing", ``E ... ana`` "will ...", ``kēlā`` "that".
- Names and place names keep their Hawaiian spelling in English.
"""

from dataclasses import dataclass
from typing import Literal

Be = Literal["am", "is", "are"]
"""Which form of "to be" a subject takes; it also decides has / have and wants / want."""


@dataclass(frozen=True)
class Noun:
    """A common noun.

    Attributes:
        possession: ``a`` or ``o``, the class of its possessives; empty where nobody owns it here.
        kind: ``kin`` is always someone's.
        plural: English plural; ``-`` where the book uses none, empty for the regular one.
        irregular_ke: Takes ``ke`` though its first letter asks for ``ka``.
        mass: Has no English indefinite article nor plural.
    """

    hawaiian: str
    english: str
    possession: str = ""
    kind: Literal["person", "kin", "thing", "nature"] = "thing"
    plural: str = ""
    irregular_ke: bool = False
    mass: bool = False

    @property
    def article(self) -> str:
        """``ke`` before k, e, a, o and for the listed exceptions, else ``ka``.

        A kahakō makes no difference; the ʻokina is a consonant: ``ka ʻīlio``.
        """
        return "ke" if self.irregular_ke or self.hawaiian[0] in "keaoēāō" else "ka"

    @property
    def has_plural(self) -> bool:
        """Whether the book uses it in the plural."""
        return not self.mass and self.plural != "-"

    @property
    def english_plural(self) -> str:
        """The English plural."""
        return self.plural or f"{self.english}s"

    @property
    def indefinite(self) -> str:
        """The English with its indefinite article, where it takes one."""
        return self.english if self.mass else f"a {self.english}"


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
        objects: Hawaiian nouns that fit as objects.
        places: Hawaiian places that fit; ``goal`` says whether they are gone to or been at.
        takes_people: People and pronouns fit as objects.
        alone: It also stands without object and place.
    """

    hawaiian: str
    english: str
    past: str
    gerund: str
    objects: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    goal: bool = False
    takes_people: bool = False
    alone: bool = False


@dataclass(frozen=True)
class Stative:
    """A quality.

    Attributes:
        nouns: Hawaiian nouns it is said of.
        people: It is said of any person, and does not follow a noun.
        graded: The book also says "very".
    """

    hawaiian: str
    english: str
    nouns: tuple[str, ...] = ()
    people: bool = False
    graded: bool = True


@dataclass(frozen=True)
class Pronoun:
    """A personal pronoun; the English tells apart all that Hawaiian does."""

    hawaiian: str
    english: str
    english_object: str
    be: Be


@dataclass(frozen=True)
class Possessor:
    """The possessives of one person: ``kaʻu`` and ``koʻu``, in English "my"."""

    a_class: str
    o_class: str
    english: str
    english_subject: str
    be: Be

    def before(self, noun: Noun) -> str:
        """The possessive of the noun's class: ``kaʻu`` before puke, ``koʻu`` before hale."""
        return self.a_class if noun.possession == "a" else self.o_class


PRONOUNS = (
    Pronoun("au", "I", "me", "am"),
    Pronoun("ʻoe", "you", "you", "are"),
    Pronoun("ia", "she", "her", "is"),
    Pronoun("kākou", "we", "us", "are"),
    Pronoun("ʻolua", "you two", "you two", "are"),
    Pronoun("lākou", "they", "them", "are"),
)
MY = Possessor("kaʻu", "koʻu", "my", "I", "am")
YOUR = Possessor("kāu", "kou", "your", "you", "are")
HER = Possessor("kāna", "kona", "her", "she", "is")
POSSESSORS = (MY, YOUR, HER)

WOMEN = ("Leilani", "Malia")
MEN = ("Keola", "Kimo")
NAMES = (*MEN, *WOMEN)

NOUNS: dict[str, Noun] = {
    noun.hawaiian: noun
    for noun in (
        # ke where the first letter asks for ka
        Noun("pākaukau", "table", "a", irregular_ke=True),
        Noun("pā", "plate", "a", irregular_ke=True),
        Noun("mele", "song", "a", irregular_ke=True),
        # People
        Noun("kumu", "teacher", "a", "person"),
        Noun("haumāna", "student", "a", "person"),
        Noun("kauka", "doctor", "a", "person"),
        Noun("keiki", "child", "a", "person", "children"),
        Noun("makuahine", "mother", "o", "kin", "-"),
        Noun("makuakāne", "father", "o", "kin", "-"),
        Noun("hoaaloha", "friend", "o", "kin"),
        # Animals
        Noun("ʻīlio", "dog", "a"),
        Noun("pōpoki", "cat", "a"),
        Noun("manu", "bird", "a"),
        Noun("lio", "horse", "o"),
        # Food and drink
        Noun("iʻa", "fish", "a", plural="-"),
        Noun("maiʻa", "banana", "a"),
        Noun("palaoa", "bread", "a", mass=True),
        Noun("wai", "water", mass=True),
        Noun("kope", "coffee", "a", mass=True),
        Noun("waiū", "milk", "a", mass=True),
        # Things
        Noun("puke", "book", "a"),
        Noun("leka", "letter", "a"),
        Noun("pua", "flower", "a"),
        Noun("pāpale", "hat", "o"),
        Noun("kaʻa", "car", "o"),
        Noun("waʻa", "canoe", "o"),
        Noun("hale", "house", "o"),
        # Nature
        Noun("mauna", "mountain", kind="nature"),
        Noun("hōkū", "star", kind="nature"),
        Noun("kai", "sea", kind="nature", plural="-"),
    )
}

PLACES = {
    place.hawaiian: place
    for place in (
        Place("ka hale", "home", "at home"),
        Place("ke kula", "to school", "at school"),
        Place("ka mākeke", "to the market", "at the market"),
        Place("kahakai", "to the beach", "at the beach"),
        Place("ke kai", "to the sea", "at the sea"),
        Place("ka mauna", "to the mountain", "on the mountain"),
        Place("Hilo", "to Hilo", "in Hilo"),
        Place("Maui", "to Maui", "on Maui"),
    )
}
LOCATED = (
    (
        "ke pākaukau",
        "on the table",
        "puke leka pua pā pāpale pōpoki iʻa maiʻa palaoa kope waiū wai",
    ),
    ("ke kaʻa", "in the car", "puke pāpale pua palaoa keiki ʻīlio pōpoki"),
    ("ka waʻa", "in the canoe", "iʻa pāpale keiki ʻīlio wai"),
    ("ka mākeke", "at the market", "iʻa maiʻa palaoa kope waiū pua"),
    ("ka hale", "at home", "ʻīlio pōpoki lio kaʻa waʻa leka"),
)
"""What lies where."""

PAST_TIMES = (("i nehinei", "yesterday"),)
PRESENT_TIMES = (("i kēia lā", "today"),)
FUTURE_TIMES = (("ʻapōpō", "tomorrow"), *PRESENT_TIMES)

VERBS = (
    Verb("ʻai", "eat", "ate", "eating", ("iʻa", "maiʻa", "palaoa"), alone=True),
    Verb("inu", "drink", "drank", "drinking", ("wai", "kope", "waiū")),
    Verb("heluhelu", "read", "read", "reading", ("puke", "leka"), alone=True),
    Verb("kākau", "write", "wrote", "writing", ("leka", "mele", "puke"), alone=True),
    Verb("hīmeni", "sing", "sang", "singing", ("mele",), alone=True),
    Verb("holoi", "wash", "washed", "washing", ("pā", "kaʻa", "pākaukau", "pāpale", "waʻa")),
    Verb("hānai", "feed", "fed", "feeding", ("ʻīlio", "pōpoki", "lio", "manu")),
    Verb(
        "nānā",
        "look at",
        "looked at",
        "looking at",
        ("mauna", "hōkū", "kai", "pua"),
    ),
    Verb("kōkua", "help", "helped", "helping", takes_people=True),
    Verb("hele", "go", "went", "going", places=tuple(PLACES), goal=True),
    Verb(
        "hana",
        "work",
        "worked",
        "working",
        places=("ke kula", "ka mākeke", "Hilo", "Maui"),
        alone=True,
    ),
    Verb("hiamoe", "sleep", "slept", "sleeping", places=("ka hale", "kahakai", "Hilo"), alone=True),
    Verb(
        "pāʻani", "play", "played", "playing", places=("ke kula", "kahakai", "ka hale"), alone=True
    ),
)

_COLOURED = ("pāpale", "kaʻa", "hale", "waʻa", "pua", "pākaukau")
STATIVES = (
    Stative("nui", "big", ("hale", "kaʻa", "ʻīlio", "mauna", "kai", "hōkū", "lio")),
    Stative("liʻiliʻi", "small", ("hale", "puke", "pōpoki", "manu", "waʻa", "pā", "hōkū", "keiki")),
    Stative("nani", "beautiful", ("pua", "mele", "mauna", "hōkū", "kai", "lio")),
    Stative("maikaʻi", "good", ("puke", "mele", "kumu", "haumāna", "kauka", "keiki", "ʻīlio")),
    Stative("ʻono", "delicious", ("iʻa", "maiʻa", "palaoa", "kope", "waiū", "wai")),
    Stative("hou", "new", ("kaʻa", "puke", "hale", "pāpale", "waʻa", "pā"), graded=False),
    Stative("ʻulaʻula", "red", _COLOURED, graded=False),
    Stative("keʻokeʻo", "white", (*_COLOURED, "pōpoki", "pā", "lio"), graded=False),
    Stative("ʻeleʻele", "black", (*_COLOURED, "ʻīlio", "pōpoki", "manu"), graded=False),
    Stative("hauʻoli", "happy", people=True),
    Stative("pōloli", "hungry", ("ʻīlio", "pōpoki", "lio", "manu"), people=True),
)
