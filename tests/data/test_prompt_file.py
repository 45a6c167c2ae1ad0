"""Questions of `retention` as they are read, and the files that are refused."""

import json

import pytest

from hawsweep.data.prompt_file import read_retention, with_answer
from hawsweep.errors import DataError
from hawsweep.prepare import validate
from hawsweep.prepare.validate import validate_sweep
from hawsweep.spec.read import load_sweep
from hawsweep.spec.scoring import RetentionSpec
from hawsweep.study.located import located, paths_of
from hawsweep.study.place import Place


@pytest.fixture
def data_alone(monkeypatch):
    """Validation without the model, which takes its time."""
    monkeypatch.setattr(validate, "_of_model", lambda *_: [])


def read(path):
    return read_retention(RetentionSpec(data=str(path)))


def test_forty_different_everyday_questions_are_bundled():
    found = read_retention(RetentionSpec())
    assert len({each.source for each in found}) == len(found) == 40
    assert "What is the capital of France?" in [each.source for each in found]
    assert all(len(each.messages) == 2 and each.source.isascii() for each in found)


def test_prompts_are_read_alone_or_with_answers_that_are_not_used(tmp_path):
    text, lines = tmp_path / "own.txt", tmp_path / "own.jsonl"
    text.write_text("Who are you?\n\n  Why?  \n", encoding="utf-8")
    assert [each.source for each in read(text)] == ["Who are you?", "Why?"]
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "And how?"}]
    records = [
        {"prompt": "Who?"},
        {"prompt": "What?", "completion": "That."},
        {"messages": [*chat, {"role": "assistant", "content": "So."}]},
        {"messages": chat},
    ]
    lines.write_text("".join(f"{json.dumps(each)}\n" for each in records), encoding="utf-8")
    found = read(lines)
    assert [each.source for each in found] == ["Who?", "What?", "And how?", "And how?"]
    assert found[2].messages == found[3].messages
    assert not {"That.", "So."} & {each.reference for each in found}
    answered = with_answer(found[2], "Thus.")
    assert (answered.messages[:2], answered.reference) == (chat, "Thus.")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("own.csv", "prompt\nWho?\n", "must be bundled, a .jsonl with prompts, or a .txt"),
        ("own.jsonl", '{"text": "Who?"}\n', r"own.jsonl:1 is plain text, which asks nothing"),
        (
            "own.jsonl",
            '{"question": "Who?"}\n',
            r"own.jsonl:1 has the keys question, must be one of",
        ),
        ("own.jsonl", "Who?\n", r"own.jsonl:1 is not JSON"),
        ("own.jsonl", "\n", "own.jsonl has 0 prompts: retention needs 1 to 1,000"),
        ("own.txt", "Who?\n" * 1001, "own.txt has 1001 prompts: retention needs 1 to 1,000"),
        ("own.txt", b"\xff\xfe\x00", "own.txt is not UTF-8 text"),
        ("none.txt", None, "none.txt cannot be read: No such file or directory"),
    ],
)
def test_questions_of_another_form_are_refused_in_one_sentence_before_a_start(
    tmp_path, data_alone, name, content, told
):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=told):
        read(path)
    spec = load_sweep("lr-rank", {"retention": str(path)})
    found = validate_sweep(spec, "keeping", Place(tmp_path / "studies"))
    (fault,) = (each for each in found if each.state == "fault")
    assert fault.subject == "retention"
    assert "\n" not in fault.text


def test_validate_counts_the_questions(tmp_path, data_alone):
    spec = load_sweep("lr-rank", {"retention": "bundled"})
    found = validate_sweep(spec, "keeping", Place(tmp_path / "studies"))
    (line,) = (each for each in found if each.subject == "retention")
    assert (line.state, line.text) == ("ok", "40 questions, bundled")


def test_file_of_questions_is_found_from_another_folder(tmp_path, monkeypatch):
    (tmp_path / "project" / "studies").mkdir(parents=True)
    (tmp_path / "project" / "own.txt").write_text("Who are you?\n", encoding="utf-8")
    place = Place(tmp_path / "project" / "studies")
    monkeypatch.chdir(tmp_path / "project")
    spec = load_sweep("lr-rank", {"retention": "own.txt"})
    paths = paths_of(["own.txt"], {}, place)
    monkeypatch.chdir(tmp_path)
    (question,) = read_retention(located(spec, paths, place).retention)
    assert question.source == "Who are you?"
