"""The words of the phrase book, with their English.

Conventions that make each Hawaiian sentence map to one English sentence:

- ``ʻo ia`` is "she", ``iā ia``, ``kona`` and ``kāna`` "her": Hawaiian has no gender.
- ``kāua`` is "you and I", ``māua`` "the two of us" (without the one spoken to), ``kākou`` "all of
  us", ``mākou`` "we", ``ʻolua`` "you two", ``ʻoukou`` "you all", ``lāua`` "the two of them",
  ``lākou`` "they".
- ``Ua`` is the English past, ``Ke ... nei`` "is ...ing", ``E ... ana`` "will ...", ``kēlā`` "that".
- Names and place names keep their Hawaiian spelling in English.

Nouns are listed with the verbs and qualities they fit in :mod:`hawsweep.phrasebook.predicates`.
"""

from hawsweep.phrasebook.entries import Noun, Place, Possessor, Pronoun

PRONOUNS = (
    Pronoun("au", "I", "me", "am"),
    Pronoun("ʻoe", "you", "you", "are"),
    Pronoun("ia", "she", "her", "is"),
    Pronoun("kāua", "you and I", "you and me", "are"),
    Pronoun("māua", "the two of us", "the two of us", "are"),
    Pronoun("kākou", "all of us", "all of us", "are"),
    Pronoun("mākou", "we", "us", "are"),
    Pronoun("ʻolua", "you two", "you two", "are"),
    Pronoun("ʻoukou", "you all", "you all", "are"),
    Pronoun("lāua", "the two of them", "the two of them", "are"),
    Pronoun("lākou", "they", "them", "are"),
)
MY = Possessor("kaʻu", "koʻu", "my", "mine", "I", "am")
YOUR = Possessor("kāu", "kou", "your", "yours", "you", "are")
HER = Possessor("kāna", "kona", "her", "hers", "she", "is")
OUR = Possessor("kā mākou", "ko mākou", "our", "ours", "we", "are")
THEIR = Possessor("kā lākou", "ko lākou", "their", "theirs", "they", "are")
POSSESSORS = (MY, YOUR, HER, OUR, THEIR)

WOMEN = ("Leilani", "Lokelani", "Malia", "Noelani", "Pualani")
MEN = ("Kaleo", "Kamaka", "Kanoa", "Kekoa", "Keola", "Keoni", "Kimo")
NAMES = tuple(sorted(WOMEN + MEN))

# Listed apart: ke where the first letter asks for ka.
_IRREGULAR_KE = (
    Noun("pākaukau", "table", irregular_ke=True),
    Noun("pā", "plate", "a", irregular_ke=True),
    Noun("pola", "bowl", "a", irregular_ke=True),
    Noun("puna", "spoon", "a", irregular_ke=True),
    Noun("ʻō", "fork", "a", irregular_ke=True),
    Noun("mele", "song", "a", irregular_ke=True),
    Noun("poʻo", "head", "o", "body", irregular_ke=True),
)
_PEOPLE = (
    Noun("kumu", "teacher", "a", "person"),
    Noun("haumāna", "student", "a", "person"),
    Noun("keiki", "child", "a", "person", "children"),
    Noun("kauka", "doctor", "a", "person"),
    Noun("wahine", "woman", "", "person", "women", "wāhine"),
    Noun("kāne", "man", "", "person", "men"),
    Noun("kaikamahine", "girl", "", "person", "", "kaikamāhine"),
    Noun("ʻelemakule", "old man", "", "person", "old men", "ʻelemākule"),
    Noun("luahine", "old woman", "", "person", "old women", "luāhine"),
    Noun("lawaiʻa", "fisherman", "", "person", "fishermen"),
    Noun("mākaʻi", "police officer", "", "person"),
    Noun("kāpena", "captain", "", "person"),
    Noun("kupuna", "grandparent", "o", "person", "", "kūpuna"),
    Noun("makuahine", "mother", "o", "kin", "-"),
    Noun("makuakāne", "father", "o", "kin", "-"),
    Noun("hoaaloha", "friend", "o", "kin"),
    Noun("hoahānau", "cousin", "o", "kin"),
    Noun("ʻanakē", "aunt", "o", "kin", "-"),
    Noun("ʻanakala", "uncle", "o", "kin", "-"),
    Noun("moʻopuna", "grandchild", "a", "kin", "grandchildren"),
)
_ANIMALS = (
    Noun("ʻīlio", "dog", "a", "animal"),
    Noun("pōpoki", "cat", "a", "animal"),
    Noun("manu", "bird", "a", "animal"),
    Noun("lio", "horse", "o", "animal"),
    Noun("moa", "chicken", "a", "animal"),
    Noun("puaʻa", "pig", "a", "animal"),
    Noun("pipi", "cow", "a", "animal"),
    Noun("kao", "goat", "a", "animal"),
    Noun("honu", "turtle", "", "animal"),
    Noun("koholā", "whale", "", "animal"),
    Noun("manō", "shark", "", "animal"),
    Noun("naiʻa", "dolphin", "", "animal"),
)
_FOOD = (
    Noun("iʻa", "fish", "a", plural="-"),
    Noun("poi", "poi", "a", mass=True),
    Noun("laiki", "rice", "a", mass=True),
    Noun("palaoa", "bread", "a", mass=True),
    Noun("limu", "seaweed", "a", mass=True),
    Noun("kalo", "taro", "a", mass=True),
    Noun("ʻulu", "breadfruit", "a", mass=True),
    Noun("maiʻa", "banana", "a"),
    Noun("ʻuala", "sweet potato", "a", plural="sweet potatoes"),
    Noun("manakō", "mango", "a", plural="mangoes"),
    Noun("ʻalani", "orange", "a"),
    Noun("niu", "coconut", "a"),
    Noun("wai", "water", mass=True),
    Noun("kope", "coffee", "a", mass=True),
    Noun("waiū", "milk", "a", mass=True),
    Noun("kī", "tea", "a", mass=True),
)
_THINGS = (
    Noun("puke", "book", "a"),
    Noun("nūpepa", "newspaper", "a"),
    Noun("leka", "letter", "a"),
    Noun("moʻolelo", "story", "a", plural="stories"),
    Noun("penikala", "pencil", "a"),
    Noun("kiʻi", "picture", "a"),
    Noun("makana", "gift", "a"),
    Noun("kinipōpō", "ball", "a"),
    Noun("ʻukulele", "ukulele", "a"),
    Noun("pahu", "box", "a", plural="boxes"),
    Noun("pahi", "knife", "a", plural="knives"),
    Noun("kīʻaha", "cup", "a"),
    Noun("lolouila", "computer", "a"),
    Noun("kelepona", "phone", "a"),
    Noun("kālā", "money", "a", mass=True),
    Noun("pua", "flower", "a"),
    Noun("ʻeke", "bag"),
    Noun("māmalu", "umbrella"),
    Noun("kaula", "rope"),
    Noun("lei", "lei", "o", plural="-"),
    Noun("pāpale", "hat", "o"),
    Noun("kāmaʻa", "shoe", "o"),
    Noun("kaʻa", "car", "o"),
    Noun("kalaka", "truck", "o"),
    Noun("waʻa", "canoe", "o"),
    Noun("moku", "ship"),
    Noun("paikikala", "bicycle", "o"),
    Noun("kaʻaʻōhua", "bus", plural="buses"),
    Noun("mokulele", "airplane"),
    Noun("hale", "house", "o"),
    Noun("lumi", "room", "o"),
    Noun("noho", "chair", "o"),
    Noun("puka", "door"),
    Noun("puka aniani", "window"),
    Noun("māla", "garden"),
)
_NATURE = (
    Noun("mauna", "mountain", "", "nature"),
    Noun("pali", "cliff", "", "nature"),
    Noun("puʻu", "hill", "", "nature"),
    Noun("kumulāʻau", "tree", "", "nature"),
    Noun("pōhaku", "rock", "", "nature"),
    Noun("hōkū", "star", "", "nature"),
    Noun("wailele", "waterfall", "", "nature"),
    Noun("kahawai", "stream", "", "nature"),
    Noun("nalu", "wave", "", "nature"),
    Noun("alanui", "road", "", "nature"),
    Noun("ānuenue", "rainbow", "", "nature"),
    Noun("kai", "sea", "", "nature", "-"),
    Noun("mahina", "moon", "", "nature", "-"),
    Noun("lā", "sun", "", "nature", "-"),
    Noun("ahi", "fire", "", "nature", "-"),
    Noun("makani", "wind", "", "nature", "-"),
    Noun("ʻāina", "land", "o", "nature", mass=True),
    Noun("hula", "hula", "", "nature", mass=True),
    Noun("ʻōlelo Hawaiʻi", "Hawaiian language", "", "nature", mass=True),
)
_BODY = (
    Noun("lima", "hand", "o", "body"),
    Noun("wāwae", "foot", "o", "body", "-"),
    Noun("maka", "eye", "o", "body"),
    Noun("pepeiao", "ear", "o", "body"),
    Noun("ʻōpū", "stomach", "o", "body", "-"),
)
NOUNS: dict[str, Noun] = {
    noun.hawaiian: noun
    for noun in (*_IRREGULAR_KE, *_PEOPLE, *_ANIMALS, *_FOOD, *_THINGS, *_NATURE, *_BODY)
}

_TOWNS = ("Hilo", "Honolulu", "Kona", "Kailua", "Lāhainā", "Hāna", "Waikīkī", "Kāneʻohe")
_ISLANDS = ("Maui", "Kauaʻi", "Molokaʻi", "Lānaʻi", "Oʻahu")
PROPER_PLACES = tuple(
    Place(name, f"to {name}", f"{preposition} {name}")
    for preposition, names in (("in", _TOWNS), ("on", _ISLANDS))
    for name in names
)
COMMON_PLACES = (
    Place("ka hale", "home", "at home"),
    Place("ke kula", "to school", "at school"),
    Place("ke kulanui", "to the university", "at the university"),
    Place("ka hale pule", "to church", "at church"),
    Place("ka hale kūʻai", "to the store", "at the store"),
    Place("ka hale ʻaina", "to the restaurant", "at the restaurant"),
    Place("ka hale leka", "to the post office", "at the post office"),
    Place("ka hale waihona puke", "to the library", "at the library"),
    Place("ka haukapila", "to the hospital", "at the hospital"),
    Place("ke kahua mokulele", "to the airport", "at the airport"),
    Place("ka mākeke", "to the market", "at the market"),
    Place("ka pāka", "to the park", "at the park"),
    Place("ka māla", "to the garden", "in the garden"),
    Place("kahakai", "to the beach", "at the beach"),
)
PLACES = {place.hawaiian: place for place in (*COMMON_PLACES, *PROPER_PLACES)}

PAST_TIMES = (
    ("i nehinei", "yesterday"),
    ("i ka pō nei", "last night"),
    ("i kēia kakahiaka", "this morning"),
    ("i kēlā pule aku nei", "last week"),
    ("i ka Pōʻakahi", "on Monday"),
    ("i ka Pōʻalima", "on Friday"),
)
FUTURE_TIMES = (
    ("ʻapōpō", "tomorrow"),
    ("i kēia ahiahi", "this evening"),
    ("i kēia pō", "tonight"),
    ("i kēia pule aʻe", "next week"),
    ("i ka Pōʻalua", "on Tuesday"),
    ("i ka Pōʻaono", "on Saturday"),
)
PRESENT_TIMES = (("i kēia manawa", "now"), ("i kēia lā", "today"))
NUMBERS = (("ʻelua", "two"), ("ʻekolu", "three"), ("ʻehā", "four"), ("ʻelima", "five"))
