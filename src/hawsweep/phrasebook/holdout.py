"""The word combinations that only test holds."""

HELD_OUT: tuple[tuple[str, str], ...] = (
    # An action and what it is done to
    ("ʻai", "ʻuala"),
    ("inu", "waiū"),
    ("heluhelu", "nūpepa"),
    ("kanu", "maiʻa"),
    ("piʻi", "kumulāʻau"),
    ("hānai", "puaʻa"),
    ("ʻimi", "pōpoki"),
    ("kūʻai mai", "pāpale"),
    ("pena", "waʻa"),
    ("wehe", "pahu"),
    # An action and where
    ("hele", "Hāna"),
    ("pāʻani", "kahakai"),
    # A quality and what has it
    ("nui", "lumi"),
    ("nani", "mele"),
    ("ʻulaʻula", "kaʻa"),
    ("hou", "kelepona"),
    ("kahiko", "puke"),
    ("hauʻoli", "Noelani"),
    # A person, and what she is, has, or where she lives
    ("Malia", "kumu"),
    ("Keola", "kauka"),
    ("Pualani", "Hilo"),
    ("Keoni", "Maui"),
    ("Noelani", "lei"),
    ("Kimo", "waʻa"),
    # A thing, and where it lies or how many there are
    ("pōpoki", "noho"),
    ("pahi", "pākaukau"),
    ("penikala", "pahu"),
    ("ʻekolu", "ʻīlio"),
)
_LOWER = tuple((one.lower(), other.lower()) for one, other in HELD_OUT)


def words(hawaiian: str) -> list[str]:
    """The words of a Hawaiian text in lower case, without punctuation."""
    return [word.strip(".,?!") for word in hawaiian.lower().split()]


def held_out_pair(hawaiian: str) -> tuple[str, str] | None:
    """The first held-out pair whose words both stand in the text, wherever they stand in it."""
    lower = hawaiian.lower()
    for one, other in _LOWER:
        if one in lower and other in lower:
            text = f" {' '.join(words(hawaiian))} "
            if f" {one} " in text and f" {other} " in text:
                return one, other
    return None


def is_held_out(hawaiian: str) -> bool:
    """Whether the text has both words of a held-out pair."""
    return held_out_pair(hawaiian) is not None
