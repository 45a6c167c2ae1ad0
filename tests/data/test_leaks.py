"""Texts in more than one split, in whatever way they are written."""

import json
import unicodedata

import pytest

from hawsweep.data.leaks import find_leaks
from hawsweep.data.load import load_data
from hawsweep.spec.sweep import DataSpec

LONG = "Ua hele ke kāne i Hāna me kāna keiki ʻuʻuku"  # ten words


def leaks(tmp_path, train, valid):
    for name, source in (("train", train), ("valid", valid)):
        record = json.dumps({"prompt": source, "completion": f"of {name}"}, ensure_ascii=False)
        (tmp_path / f"{name}.jsonl").write_text(record, encoding="utf-8")
    found = find_leaks(load_data([DataSpec(path=str(tmp_path))]))
    return [(leak.part, leak.n_identical, leak.n_near) for leak in found]


@pytest.mark.parametrize(
    "valid",
    [
        LONG.replace("ʻ", "‘"),
        LONG.replace("ʻ", "'"),
        LONG.replace("ʻu", "ʼu", 1).replace("ʻ", "`"),
        LONG.replace("ʻ", "’").upper(),
        unicodedata.normalize("NFD", LONG),
        f"“{LONG}!”",
    ],
)
def test_text_in_another_writing_is_the_same(tmp_path, valid):
    assert leaks(tmp_path, LONG, valid) == [("source", 1, 0)]


def test_near_text_in_another_writing_is_near(tmp_path):
    # Nine of ten words are in both, so all ten of the longer and nine of the shorter.
    valid = unicodedata.normalize("NFD", LONG.replace("ʻ", "'").removesuffix("keiki 'u'uku"))
    assert leaks(tmp_path, f"{LONG} loa", LONG.replace("ʻ", "'")) == [("source", 0, 1)]
    assert leaks(tmp_path, LONG, valid) == []


@pytest.mark.parametrize(
    ("train", "valid"),
    [("He pau.", "He paʻu."), ("ala", "ʻala"), ("pā", "pa"), ("kaʻu", "kau")],
)
def test_other_word_is_no_leak(tmp_path, train, valid):
    assert leaks(tmp_path, train, valid) == []


def test_words_of_an_instruction_are_no_leak(tmp_path):
    asked = "Translate the following sentence from Hawaiian to English please: "

    def write(name, sources):
        lines = [json.dumps({"prompt": asked + each, "completion": each}) for each in sources]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")

    write("train", [f"Aloha {n}" for n in range(30)])
    write("valid", [f"Aloha {n}" for n in range(40, 50)])  # ten words of eleven are the same
    assert find_leaks(load_data([DataSpec(path=str(tmp_path))])) == []
    write("valid", [*(f"Aloha {n}" for n in range(40, 50)), "aloha 7"])
    found = find_leaks(load_data([DataSpec(path=str(tmp_path))]))
    assert [(leak.part, leak.n_identical, leak.n_near) for leak in found] == [
        ("source", 1, 0), ("reference", 1, 0),
    ]  # fmt: skip
    assert found[0].example == f"{asked}aloha 7"
