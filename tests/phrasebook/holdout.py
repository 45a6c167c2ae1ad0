"""The word combinations that only test holds."""

HELD_OUT: tuple[tuple[str, str], ...] = (
    # An action and what it is done to
    ("ʻai", "maiʻa"),
    ("inu", "waiū"),
    ("heluhelu", "leka"),
    ("holoi", "kaʻa"),
    ("hānai", "lio"),
    ("nānā", "pua"),
    ("kōkua", "Malia"),
    # An action and where
    ("hele", "Maui"),
    ("hana", "Hilo"),
    ("pāʻani", "kahakai"),
    # A quality and what has it
    ("nui", "ʻīlio"),
    ("nani", "mele"),
    ("ʻono", "palaoa"),
    ("hou", "hale"),
    ("ʻulaʻula", "pāpale"),
    ("ʻeleʻele", "pōpoki"),
    ("hauʻoli", "Keola"),
    # A person, and what she is or has
    ("Malia", "kumu"),
    ("Keola", "kauka"),
    ("Kimo", "waʻa"),
    # A thing, and where it lies
    ("pua", "pākaukau"),
)
_LOWER = tuple((one.lower(), other.lower()) for one, other in HELD_OUT)


def words(hawaiian: str) -> list[str]:
    """The words of a Hawaiian text in lower case, without punctuation."""
    return [word.strip(".,?!") for word in hawaiian.lower().split()]


def held_out_pair(hawaiian: str) -> tuple[str, str] | None:
    """The first held-out pair whose words both stand in the text, wherever they stand in it."""
    there = set(words(hawaiian))
    return next((pair for pair in _LOWER if there.issuperset(pair)), None)


def is_held_out(hawaiian: str) -> bool:
    """Whether the text has both words of a held-out pair."""
    return held_out_pair(hawaiian) is not None
