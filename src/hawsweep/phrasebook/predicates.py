"""The verbs and the qualities of the phrase book, each with the nouns that fit it."""

from hawsweep.phrasebook.entries import Stative, Verb, listed


def _acts_on(hawaiian: str, english: str, past: str, participle: str, objects: str) -> Verb:
    """A verb of doing something to a thing, whose passive is plain."""
    return Verb(hawaiian, english, past, participle, listed(objects), passive=True)


def _done_at(hawaiian: str, english: str, past: str, places: str, animals: str = "") -> Verb:
    return Verb(hawaiian, english, past, past, places=listed(places), animals=listed(animals))


def _goes_to(hawaiian: str, english: str, past: str, places: str, animals: str = "") -> Verb:
    return Verb(
        hawaiian, english, past, past, places=listed(places), animals=listed(animals), goal=True
    )


_ON_FOOT = "ke kula, ka hale kūʻai, kahakai, ka mākeke, ka hale pule, ka pāka, ka hale waihona puke"
_ANYWHERE = (
    f"{_ON_FOOT}, ka hale, ka haukapila, ka hale ʻaina, ka hale leka, ke kahua mokulele, "
    "ke kulanui, Hilo, Honolulu, Kona, Kailua, Lāhainā, Hāna, Waikīkī, Maui, Kauaʻi, Molokaʻi"
)

VERBS = (
    _acts_on(
        "ʻai",
        "eat",
        "ate",
        "eaten",
        "iʻa, poi, laiki, maiʻa, ʻuala, manakō, palaoa, ʻulu, limu, ʻalani",
    ),
    _acts_on("inu", "drink", "drank", "drunk", "wai, kope, waiū, kī"),
    _acts_on("heluhelu", "read", "read", "read", "puke, nūpepa, leka, moʻolelo"),
    _acts_on("kākau", "write", "wrote", "written", "leka, moʻolelo, puke, mele"),
    _acts_on("hīmeni", "sing", "sang", "sung", "mele"),
    _acts_on("kuke", "cook", "cooked", "cooked", "iʻa, laiki, moa, ʻuala, ʻulu"),
    _acts_on("holoi", "wash", "washed", "washed", "pā, pola, kaʻa, kīʻaha, puna, pahi, ʻō, pāpale"),
    _acts_on("kanu", "plant", "planted", "planted", "kalo, ʻuala, maiʻa, pua, kumulāʻau"),
    _acts_on("piʻi", "climb", "climbed", "climbed", "mauna, pali, puʻu, kumulāʻau"),
    _acts_on("wehe", "open", "opened", "opened", "puka, puka aniani, pahu, puke, ʻeke"),
    _acts_on("pani", "close", "closed", "closed", "puka, puka aniani, pahu"),
    _acts_on("hānai", "feed", "fed", "fed", "ʻīlio, pōpoki, moa, puaʻa, lio, kao, pipi"),
    _acts_on(
        "hoʻomaʻemaʻe", "clean", "cleaned", "cleaned", "lumi, hale, pākaukau, kaʻa, noho, lolouila"
    ),
    _acts_on("pena", "paint", "painted", "painted", "hale, waʻa, noho, puka"),
    _acts_on("hoʻouna", "send", "sent", "sent", "leka, kālā, puke, kiʻi"),
    _acts_on("lawe", "take", "took", "taken", "puke, noho, pahu, māmalu, ʻukulele, ʻeke"),
    _acts_on("hoʻihoʻi", "return", "returned", "returned", "puke, kālā, kaʻa, waʻa, māmalu"),
    _acts_on("hopu", "catch", "caught", "caught", "iʻa, kinipōpō, manu, moa, puaʻa"),
    _acts_on("hoʻolei", "throw", "threw", "thrown", "kinipōpō, pōhaku"),
    _acts_on("ʻohi", "gather", "gathered", "gathered", "limu, niu, maiʻa"),
    _acts_on("hāpai", "carry", "carried", "carried", "pahu, pōhaku, waʻa, keiki"),
    _acts_on("kuʻi", "pound", "pounded", "pounded", "kalo"),
    _acts_on("kūkulu", "build", "built", "built", "hale"),
    _acts_on("kui", "string", "strung", "strung", "lei"),
    _acts_on("huki", "pull", "pulled", "pulled", "waʻa, kaula"),
    _acts_on("hoʻokele", "steer", "steered", "steered", "waʻa, moku"),
    _acts_on("kalaiwa", "drive", "drove", "driven", "kaʻa, kalaka, kaʻaʻōhua"),
    _acts_on("haʻi", "tell", "told", "told", "moʻolelo"),
    _acts_on("hoʻokani", "play", "played", "played", "ʻukulele"),
    Verb(
        "kūʻai mai",
        "buy",
        "bought",
        "bought",
        listed("iʻa, puke, pāpale, kaʻa, laiki, lei, palaoa, kinipōpō, waʻa, nūpepa, waiū"),
    ),
    Verb(
        "lawe mai",
        "bring",
        "brought",
        "brought",
        listed("wai, puke, noho, pahu, kope, pola, waiū, nūpepa"),
    ),
    Verb("aʻo mai", "learn", "learned", "learned", listed("mele, hula, ʻōlelo Hawaiʻi")),
    Verb("nānā", "look at", "looked at", "looked at", listed("kiʻi, mahina, nalu, manu, hōkū")),
    Verb(
        "ʻimi",
        "look for",
        "looked for",
        "looked for",
        listed("puke, pāpale, ʻīlio, pōpoki, penikala, kālā, kāmaʻa, nūpepa"),
    ),
    Verb(
        "mālama",
        "take care of",
        "took care of",
        "taken care of",
        listed("ʻāina, lio, māla, ʻīlio, keiki, kupuna"),
        takes_people=True,
    ),
    Verb(
        "kali",
        "wait for",
        "waited for",
        "waited for",
        listed("kaʻaʻōhua, kumu, kauka, mokulele"),
        takes_people=True,
    ),
    Verb(
        "hoʻolohe",
        "listen to",
        "listened to",
        "listened to",
        listed("mele, moʻolelo, kumu, kupuna"),
        takes_people=True,
    ),
    Verb(
        "kōkua",
        "help",
        "helped",
        "helped",
        listed("kumu, keiki, kupuna, ʻelemakule, luahine, haumāna"),
        takes_people=True,
        passive=True,
    ),
    Verb(
        "kāhea",
        "call",
        "called",
        "called",
        listed("keiki, ʻīlio, kauka, mākaʻi"),
        takes_people=True,
        passive=True,
    ),
    Verb(
        "ʻike",
        "see",
        "saw",
        "seen",
        listed("koholā, mauna, moku, ānuenue, honu, wailele, manō, pali"),
        takes_people=True,
        progressive=False,
        willed=False,
    ),
    Verb(
        "lohe",
        "hear",
        "heard",
        "heard",
        listed("mele, manu, makani, moʻolelo"),
        takes_people=True,
        progressive=False,
        willed=False,
    ),
    _goes_to("hele", "go", "went", _ANYWHERE),
    _goes_to("hele mai", "come", "came", _ANYWHERE),
    _goes_to("hoʻi", "return", "returned", _ANYWHERE),
    _goes_to("holo", "run", "ran", _ON_FOOT, "ʻīlio, lio"),
    _goes_to("hele wāwae", "walk", "walked", f"{_ON_FOOT}, ka māla"),
    _done_at("hana", "work", "worked", "ke kula, ka māla, ka hale kūʻai, ka haukapila, Hilo, Maui"),
    _done_at("pāʻani", "play", "played", "ke kula, ka pāka, kahakai, ka hale", "ʻīlio, pōpoki"),
    _done_at("hiamoe", "sleep", "slept", "ka hale, kahakai, ka pāka", "ʻīlio, pōpoki, puaʻa, moa"),
    _done_at("hoʻomaha", "rest", "rested", "ka hale, kahakai, ka māla, ka pāka", "lio, kao"),
    _done_at("hula", "dance", "danced", "ke kula, ka pāka, Hilo, Honolulu, Kauaʻi"),
    _done_at("kamaʻilio", "talk", "talked", "ka hale, ke kula, ka mākeke, ka hale ʻaina"),
    _done_at("lawaiʻa", "fish", "fished", "kahakai, Hāna, Kona, Molokaʻi"),
    _done_at("heʻe nalu", "surf", "surfed", "kahakai, Waikīkī, Kailua, Hilo"),
    _done_at("ʻau", "swim", "swam", "kahakai, Kailua, Waikīkī", "honu, naiʻa"),
    Verb("ʻakaʻaka", "laugh", "laughed", "laughed"),
    Verb("uē", "cry", "cried", "cried", willed=False),
    Verb("lele", "fly", "flew", "flown", animals=listed("manu, mokulele"), takes_only_animals=True),
)

_PAINTED = "pāpale, kaʻa, hale, puka, noho, waʻa, pahu, kāmaʻa, penikala, paikikala, ʻeke"

STATIVES = (
    Stative(
        "nui",
        "big",
        listed(
            "hale, kaʻa, ʻīlio, mauna, moku, lumi, pahu, waʻa, koholā, nalu, puaʻa, pākaukau, iʻa"
        ),
        comparative="bigger",
    ),
    Stative(
        "liʻiliʻi",
        "small",
        listed("hale, puke, ʻīlio, pōpoki, manu, lumi, waʻa, pahu, honu, māla, kīʻaha"),
        comparative="smaller",
    ),
    Stative(
        "nani",
        "beautiful",
        listed("pua, lei, mele, mauna, ʻāina, ānuenue, mahina, wailele, lio, pāpale, hale, māla"),
        comparative="more beautiful",
    ),
    Stative(
        "maikaʻi",
        "good",
        listed("puke, mele, kumu, moʻolelo, kope, haumāna, kauka, keiki, ʻīlio"),
        comparative="better",
    ),
    Stative(
        "ʻono",
        "delicious",
        listed("iʻa, poi, laiki, maiʻa, ʻuala, manakō, palaoa, kope, ʻulu, moa, ʻalani"),
        comparative="more delicious",
    ),
    Stative("wela", "hot", listed("wai, kope, lā, kī, ahi"), comparative="hotter"),
    Stative("anu", "cold", listed("wai, makani, kai"), comparative="colder"),
    Stative("kiʻekiʻe", "high", listed("mauna, pali, puʻu"), comparative="higher"),
    Stative(
        "lōʻihi", "long", listed("alanui, moʻolelo, kaula, leka, kahawai"), comparative="longer"
    ),
    Stative(
        "pōkole", "short", listed("leka, moʻolelo, alanui, penikala, mele"), comparative="shorter"
    ),
    Stative(
        "hou",
        "new",
        listed("kaʻa, puke, hale, pāpale, lolouila, noho, kelepona, waʻa, kāmaʻa, ʻukulele"),
        comparative="newer",
    ),
    Stative(
        "kahiko",
        "old",
        listed("hale, kaʻa, waʻa, puke, moʻolelo, mele, noho, pāpale"),
        comparative="older",
    ),
    Stative("maʻemaʻe", "clean", listed("lumi, pā, pola, kīʻaha, hale, pākaukau, kai, wai")),
    Stative("lepo", "dirty", listed("kaʻa, pā, lumi, ʻīlio, kāmaʻa, pola, puka aniani, puaʻa")),
    Stative(
        "kaumaha",
        "heavy",
        listed("pahu, pōhaku, ʻeke, noho, pākaukau, puke"),
        comparative="heavier",
    ),
    Stative("piha", "full", listed("pahu, kīʻaha, pola, kaʻaʻōhua, lumi, ʻeke"), attributive=False),
    Stative("hohonu", "deep", listed("kai, kahawai"), comparative="deeper"),
    Stative("mālie", "calm", listed("kai")),
    Stative("ʻulaʻula", "red", listed(f"{_PAINTED}, pua, manu")),
    Stative("melemele", "yellow", listed(f"{_PAINTED}, pua, maiʻa")),
    Stative("keʻokeʻo", "white", listed(f"{_PAINTED}, pua, ʻīlio, pōpoki, lio, moa")),
    Stative("ʻeleʻele", "black", listed(f"{_PAINTED}, ʻīlio, pōpoki, lio, puaʻa, manu")),
    Stative("ʻōmaʻomaʻo", "green", listed(f"{_PAINTED}, honu, puʻu")),
    Stative("polū", "blue", listed(_PAINTED)),
    Stative("ikaika", "strong", listed("makani, lio, manō"), people=True, comparative="stronger"),
    Stative("akamai", "smart", listed("ʻīlio, naiʻa"), people=True, comparative="smarter"),
    Stative("ʻoluʻolu", "kind", people=True, comparative="kinder"),
    Stative("lokomaikaʻi", "generous", people=True, comparative="more generous"),
    Stative("hauʻoli", "happy", people=True, attributive=False, comparative="happier"),
    Stative("māluhiluhi", "tired", listed("lio"), people=True, attributive=False),
    Stative("pōloli", "hungry", listed("ʻīlio, pōpoki, puaʻa"), people=True, attributive=False),
    Stative("makewai", "thirsty", listed("lio, ʻīlio"), people=True, attributive=False),
    Stative("maʻi", "sick", listed("ʻīlio, pipi"), people=True, attributive=False),
    Stative("huhū", "angry", people=True, attributive=False),
)
