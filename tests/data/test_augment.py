"""Variants of training records: of what they are made, which a trial trains on."""

import json

import numpy as np
import pytest

from hawsweep.data.augment import augment
from hawsweep.data.load import load_data
from hawsweep.data.normal_text import without_diacritics
from hawsweep.errors import DataError, SpecError
from hawsweep.spec.read import check_sweep

SWEEP = {
    "model": "none",
    "search": {"learning_rate": {"low": 1e-5, "high": 1e-3}},
    "train": {"mask_prompt": True},
}
OTHER = "Translate to Hawaiian: {source}"
SYSTEM = {"role": "system", "content": "Translate Hawaiian to English."}


def chat(*texts, system=None, group=None):
    roles = ("user", "assistant") * len(texts)
    messages = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]
    record = {"messages": [system, *messages] if system else messages}
    return {**record, "group": group} if group else record


RECORDS = [
    chat("Translate to English: He waiū ʻono kā Kimo.", "Kimo's milk is good.", group="food"),
    chat("Aloha", "Hello", system=SYSTEM),
    chat("ʻAe", "Yes", "ʻAʻole", "No"),
    {"prompt": "Pehea ʻoe?", "completion": "How are you?"},
]


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A function of ``train.augment`` and more: spec, records and variants of these records."""
    monkeypatch.chdir(tmp_path)
    for split in ("train", "valid"):
        lines = "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in RECORDS)
        (tmp_path / f"{split}.jsonl").write_text(lines, encoding="utf-8")

    def make(asked, records=None, **more):
        content = {**SWEEP, "data": str(tmp_path), **more}
        content["train"] = {**content["train"], "augment": asked}
        spec = check_sweep(content, "a sweep")
        return spec, augment(spec, load_data(spec.data).train if records is None else records)

    return make


def variants(found):
    n = int((found.kinds == "none").sum())
    return [(int(found.origins[at]), found.records[at]) for at in range(n, len(found.records))]


def test_reverse_asks_for_the_other_direction_by_its_own_prompt(made):
    _, found = made({"name": "reverse", "prompt": OTHER})
    assert found.counts() == {"reverse": 3}
    asked = [(at, each.source, each.reference) for at, each in variants(found)]
    assert asked == [
        (0, "Translate to Hawaiian: Kimo's milk is good.", "He waiū ʻono kā Kimo."),
        (1, "Translate to Hawaiian: Hello", "Aloha"),
        (3, "Translate to Hawaiian: How are you?", "Pehea ʻoe?"),
    ]
    assert all(each.messages[0]["role"] == "user" for _, each in variants(found))
    assert variants(found)[0][1].group == "food"
    assert variants(found)[2][1].where.endswith("train.jsonl (reverse):4")


def test_longest_prompt_that_fits_is_what_is_around_a_source(made, tmp_path):
    (tmp_path / "pairs.csv").write_text("haw,en\n" + "ae,yes\n" * 20)
    plain = {"path": "pairs.csv", "prompt": "{source}", "source": "haw", "target": "en"}
    several = [plain, {**plain, "prompt": "Translate to English: {source}"}]
    _, found = made({"name": "reverse", "prompt": OTHER}, data=several)
    assert {each.reference for _, each in variants(found)} == {"ae"}


def test_diacritics_are_left_out_of_the_source_alone(made):
    _, found = made("diacritics")
    asked = [(at, each.source, each.reference) for at, each in variants(found)]
    assert asked == [
        (0, "Translate to English: He waiu ono ka Kimo.", "Kimo's milk is good."),
        (3, "Pehea oe?", "How are you?"),
    ]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Hawaiʻi nō ka ʻoi", "Hawaii no ka oi"),
        ("hawai‘i, ka 'ohana", "hawaii, ka ohana"),
        ("He waiū", "He waiu"),
        ("Kimo's café isn't far", "Kimo's café isn't far"),
    ],
)
def test_okina_and_kahako_go_and_other_signs_stay(text, plain):
    assert without_diacritics(text) == plain


def test_functions_of_a_persons_own_give_a_pair_more(made, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def loud(source, reference):\n"
        "    return (source.upper(), reference.upper()) if len(source) < 6 else None\n"
    )
    _, found = made("mine:loud")
    [(at, each)] = variants(found)
    assert (at, each.source, each.reference) == (1, "ALOHA", "HELLO")
    assert each.messages[0] == SYSTEM


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("return source", "gives 'He waiū ʻono kā Kimo.', must be a source and a reference, or"),
        ("return source, 3", "must be a source and a reference, or None"),
        ("return 1 / 0", "fails: ZeroDivisionError"),
        ("return None", "mine:f, but no training record has such a variant"),
    ],
)
def test_function_that_gives_no_pair_is_named_with_its_record(made, tmp_path, code, said):
    (tmp_path / "mine.py").write_text(f"def f(source, reference):\n    {code}\n")
    with pytest.raises(DataError) as caught:
        made("mine:f")
    assert said in str(caught.value)
    assert "train.jsonl:1: " in str(caught.value) or "None" in code


def test_functions_from_elsewhere_are_refused(made):
    with pytest.raises(SpecError, match=r"train\.augment\.name is 'os:getcwd', but os\.py is not"):
        made("os:getcwd")


def test_other_direction_without_its_prompt_is_refused(made):
    with pytest.raises(SpecError, match=r"augment\.name is reverse, but what asks for the other"):
        made("reverse")
    with pytest.raises(SpecError, match=r"prompt must contain \{source\}"):
        made({"name": "reverse", "prompt": "Hawaiian, please"})


def chosen(spec, found, indices=None, **changes):
    train = spec.train.model_copy(
        update={
            "augment": spec.train.augment.model_copy(update=changes.pop("augment", {})),
            **changes,
        }
    )
    indices = np.arange(len(found.records), dtype=np.int32) if indices is None else indices
    return [*map(int, found.chosen(indices, train, spec.seed))]


def test_other_direction_stands_beside_its_record_and_other_writing_in_its_place(made):
    search = {**SWEEP["search"], "augment.name": {"choices": ["none", "reverse", "diacritics"]}}
    spec, found = made({"prompt": OTHER}, search=search)
    assert found.counts() == {"reverse": 3, "diacritics": 2}
    assert chosen(spec, found) == [0, 1, 2, 3]
    assert chosen(spec, found, augment={"name": "reverse"}) == [0, 1, 2, 3, 4, 5, 6]
    assert chosen(spec, found, augment={"name": "diacritics"}) == [1, 2, 7, 8]
    # Without the examples of record 3, as if both were too long.
    left = np.array([0, 1, 2, 4, 5, 7], np.int32)
    assert chosen(spec, found, left, augment={"name": "diacritics"}) == [1, 2, 5]


def test_shares_and_sizes_hold_the_smaller_ones(made):
    bundled = load_data(check_sweep({**SWEEP, "data": "phrasebook"}, "a sweep").data).train
    spec, found = made({"name": "reverse", "prompt": OTHER}, records=bundled)
    n = len(bundled)
    last: set[int] = set()
    for share in (0.0, 0.25, 0.5, 1.0):
        taken = {*chosen(spec, found, augment={"share": share})} - {*range(n)}
        assert last <= taken
        assert len(taken) == pytest.approx(share * n, abs=3 * (n * 0.25) ** 0.5 * (0 < share < 1))
        last = taken
    few = chosen(spec, found, max_train_samples=20)
    assert [int(found.origins[at]) for at in few[20:]] == few[:20]
    assert few[:20] == [at for at in chosen(spec, found, max_train_samples=60) if at in few[:20]]
