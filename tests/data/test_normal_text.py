"""Texts that are written in more than one way."""

import time
import unicodedata

import pytest

from hawsweep.data.normal_text import Writing, folded, mend

NFC = "Ua hele ke kāne i Hāna."
NFD = unicodedata.normalize("NFD", NFC)
OKINAS = "ʻ‘'ʼ’`"


@pytest.mark.parametrize("sign", OKINAS)
@pytest.mark.parametrize(
    "text",
    [
        "{}O Ka{}ahumanu ke ali{}i.",
        "{}Ae",
        "Translate to English: He u{}i ke keiki {}u{}uku.",
        "What is said here?\nNo Ni{}ihau a me O{}ahu",
        "The word “{}ano{}ai” is old.",
        "Nā {}āina o kā{}ū",
        "“Hele,” wahi ona’\n{}O ia nō.",  # the end of a quotation on another line
        "’Ae’ wahi {}ana",  # and before it
        "Ua hele {}o Smith i ka hale o ke ali{}i ma ka pō nui nei.",  # a foreign name
    ],
)
def test_okina_of_a_hawaiian_passage_is_mended_and_counted(text, sign):
    written, right = text.replace("{}", sign), text.replace("{}", "ʻ")
    assert mend(written, "okina") == right
    assert mend(unicodedata.normalize("NFD", written), "okina") == right
    writing = Writing()
    writing.add(written)
    assert +writing.okinas == {sign: text.count("{}")}


@pytest.mark.parametrize(
    "text",
    [
        "It's the boys' house, and I'd say 'aloha' there.",
        "'I am Noa.",
        "'I will.",
        "It is on O'ahu.",
        "She said: 'Aloha'",
        "‘Ae,’ wahi āna",  # a quotation or an okina
        "ka hale o'Keola",  # before a consonant
        "`aloha` and `ae`",
        "l'été à l'école",
        "'",
    ],
)
def test_mark_that_is_no_okina_stays_and_is_not_counted(text):
    assert mend(text, "okina") == text
    writing = Writing()
    writing.add(text)
    assert not +writing.okinas


@pytest.mark.parametrize("text", ["He u'i ka‘u.", NFC, "", "a\u0323\u0302 '"])
def test_mending_asked_for_alone_is_done(text):
    assert mend(text, "none") == text
    assert mend(text, "nfc") == unicodedata.normalize("NFC", text)
    assert mend(mend(text, "okina"), "okina") == mend(text, "okina")


def test_long_text_with_many_marks_is_mended_in_time_that_grows_with_its_length():
    text = "‘o ia. " * 20_000 + "ua pau’"
    started = time.process_time()
    assert mend(text + "\n" + text.replace("’", ""), "okina").count("ʻ") == 20_000
    assert time.process_time() - started < 5


def test_folded_texts_are_the_same_but_for_form_and_okina():
    forms = {folded(f"He keiki {a}u{b}uku ko Hāna") for a in OKINAS for b in OKINAS}
    assert len(forms) == 1
    assert folded(NFD) == folded(NFC)
    assert len({folded(f"it{each}s") for each in OKINAS}) == 1
    assert folded("ʻala") != folded("ala")
    assert folded("paʻu") != folded("pau")
    assert folded("'Aloha' mai") == "'Aloha' mai"  # quotation marks


def test_texts_in_both_forms_are_counted():
    writing = Writing()
    for text in (NFC, NFC, "plain", NFD):
        writing.add(text)
    assert (writing.n_composed, writing.n_decomposed, writing.is_mixed_unicode) == (2, 1, True)


@pytest.mark.parametrize("texts", [[NFC, "plain"], [NFD, "plain"], ["plain"], ["\u212b"]])
def test_texts_in_one_form_are_not_mixed(texts):
    writing = Writing()
    for text in texts:
        writing.add(text)
    assert not writing.is_mixed_unicode


def test_okinas_are_mixed_where_two_characters_are():
    writing = Writing()
    writing.add("He u'i")
    writing.add("It's O'ahu.")
    assert not writing.is_mixed_okina
    writing.add("Oʻahu is an island.")  # U+02BB is always one
    assert writing.is_mixed_okina
    assert writing.okinas == {"'": 1, "ʻ": 1}
