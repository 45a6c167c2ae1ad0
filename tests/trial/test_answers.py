"""Answers to prompts of one's own are those that scoring would get."""

import json
from dataclasses import replace

import pytest
from tried_study import CHECKPOINT, MAX_TOKENS, make_tried_study, save_model

from hawsweep.data.load import load_data
from hawsweep.data.records import Record
from hawsweep.data.tokens import with_examples
from hawsweep.errors import DataError, StudyError
from hawsweep.models.load import load_model
from hawsweep.scoring.score import translate
from hawsweep.study.place import Place
from hawsweep.trial.answers import SideBySide
from hawsweep.trial.prompts import choose_prompts


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory, tokenizer):
    return save_model(tmp_path_factory.mktemp("answering") / "model", tokenizer)


@pytest.fixture(scope="module")
def tried(tmp_path_factory, model_dir, chat_data_dir):
    place = Place(tmp_path_factory.mktemp("tried") / "studies")
    return *make_tried_study(place, model_dir, chat_data_dir), place


def last_answers(asked, record):
    """What each system said at last; all before is the beginning of it."""
    told = list(asked.answers(record))
    last = dict(told)
    for system, answer in told:
        assert last[system].text.startswith(answer.text.rstrip("\ufffd"))
    return last


def scored(model_dir, record, spec, adapter=None):
    (answer,) = translate(load_model(model_dir, adapter), [record], spec.scoring)
    return answer


@pytest.mark.parametrize("checkpoint", [None, CHECKPOINT])
def test_every_system_answers_as_when_it_is_scored(tried, model_dir, checkpoint):
    study, spec, place = tried
    splits = load_data(spec.data)
    record = splits.valid[0]
    asked = SideBySide(study, place, 0, checkpoint, few_shot=True)
    asked.load()
    found = last_answers(asked, asked.prompt(record.source))
    name = "adapters" if checkpoint is None else f"checkpoints/{checkpoint:07d}"
    adapter = place.trial_dir("tiny", 0) / name
    (prompt,) = choose_prompts(spec, load_model(model_dir), splits, [record])
    shown = prompt.examples
    assert len(shown) == 2
    assert found == {
        "base": scored(model_dir, record, spec),
        "few_shot": scored(model_dir, with_examples(record, shown), spec),
        "trial": scored(model_dir, record, spec, adapter),
    }
    assert len({answer.text for answer in found.values()}) == 3
    assert last_answers(asked, asked.prompt(record.source)) == found  # the model is as it was
    assert list(asked.labels.values()) == ["base", "few-shot base", "trial 0"]
    assert asked.max_tokens == MAX_TOKENS


def test_text_gets_the_system_message_of_the_data(tried):
    study, spec, place = tried
    asked = SideBySide(study, place, 0)
    record = load_data(spec.data).valid[0]
    assert asked.prompt(record.source).messages == record.messages[:-1]
    with pytest.raises(DataError, match="The prompt is not UTF-8 text"):
        asked.prompt("\udce9")


def test_text_gets_the_prompt_and_the_spelling_of_a_table(place, tmp_path, model_dir):
    rows = "".join(f"He puke nui kēia {n}.,This is big book {n}.\n" for n in range(20))
    (tmp_path / "pairs.csv").write_text(f"haw,en\n{rows}", encoding="utf-8")
    data = {"path": str(tmp_path / "pairs.csv"), "prompt": "In English: {source}"}
    study, _ = make_tried_study(place, model_dir, {**data, "normalize": "okina"})
    asked = SideBySide(study, place, 0)
    content = "In English: He ʻōlelo Hawaiʻi kēia."
    assert asked.prompt("He `ōlelo Hawai`i kēia.").messages == [
        {"role": "user", "content": content}
    ]


def test_file_has_a_text_each_line_or_records(tried, tmp_path):
    study, _, place = tried
    asked = SideBySide(study, place, 0)
    (tmp_path / "a.txt").write_text("\ufeffAloha.\n\n  Mahalo. \n", encoding="utf-8")
    texts = [asked.prompt("Aloha."), asked.prompt("Mahalo.")]
    read = asked.read(tmp_path / "a.txt")
    assert [each.messages for each in read] == [each.messages for each in texts]
    own = {"messages": [{"role": "user", "content": "Be brief."}]}
    pair = {"prompt": "E ola!", "completion": "Live!"}
    lines = [json.dumps(each) for each in ({"prompt": "Aloha."}, own, pair)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert [each.messages for each in asked.read(path)] == [
        texts[0].messages,
        own["messages"],
        Record(pair).messages,
    ]
    for line, said in (
        ('{"text": "a"}', "a.jsonl:4 is plain text, which asks nothing"),
        ("{", "a.jsonl:4 is not JSON"),
        ('{"question": "a"}', "a.jsonl:4 has the keys question"),
    ):
        path.write_text("\n".join([*lines, line]), encoding="utf-8")
        with pytest.raises(DataError, match=said):
            asked.read(path)
    with pytest.raises(DataError, match=r"none\.txt cannot be read: No such file"):
        asked.read(tmp_path / "none.txt")


def test_what_is_not_there_is_refused(tried, place, model_dir, chat_data_dir):
    study, _, own = tried
    with pytest.raises(StudyError, match="no trial 1; it has 0 to 0"):
        SideBySide(study, own, 1)
    with pytest.raises(StudyError, match=f"iteration 13; it has iterations {CHECKPOINT}"):
        SideBySide(study, own, 0, 13)
    with pytest.raises(StudyError, match="Trial 0 of study 'tiny' has no adapter"):
        SideBySide(study, replace(own, studies_dir=own.studies_dir / "else"), 0)
    without, _ = make_tried_study(place, model_dir, chat_data_dir, n_examples=0)
    with pytest.raises(StudyError, match=r"no examples: its scoring\.prompt\.examples is 0"):
        SideBySide(without, place, 0, few_shot=True)
