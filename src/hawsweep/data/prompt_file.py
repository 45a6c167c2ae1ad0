"""Prompts in a file: a text each line, or JSON lines with records or with prompts alone."""

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from io import TextIOWrapper
from pathlib import Path

from hawsweep.data.json_line import read_line
from hawsweep.data.records import Record, limited_lines, readable
from hawsweep.errors import DataError
from hawsweep.files import open_regular
from hawsweep.models.hub import here
from hawsweep.spec.scoring import BUNDLED_RETENTION, RetentionSpec
from hawsweep.spec.sweep import Normalize
from hawsweep.text import counted

_MOST_KEPT = 1000


def read_prompts(path: Path, normalize: Normalize = "none") -> Iterator[str | Record]:
    """The prompts of a file: a text each line; in a ``.jsonl`` file records, or texts as
    ``{"prompt": ...}``.

    Raises:
        DataError: The file or a line of it cannot be read.
    """
    with readable(path), TextIOWrapper(open_regular(path), encoding="utf-8-sig") as file:
        lines = list(enumerate(limited_lines(file, str(path)), 1))
    is_json = path.suffix.lower() == ".jsonl"
    for number, line in lines:
        if line.strip():
            yield _of_json(line, f"{path}:{number}", normalize) if is_json else line.strip()


def _of_json(line: str, where: str, normalize: Normalize) -> str | Record:
    try:
        content = json.loads(line)
    except ValueError:
        content = None  # reading it as a record tells what is wrong
    is_alone = isinstance(content, dict) and content.keys() == {"prompt"}
    if is_alone:
        line = json.dumps({**content, "completion": ""})
    record = Record(read_line(line, where, normalize).content, where)
    if record.messages is None:
        raise DataError(f"{where} is plain text, which asks nothing. Name the text prompt.")
    return record.source if is_alone else record


def read_retention(spec: RetentionSpec) -> list[Record]:
    """The questions that the tuned model is to answer as the untuned one does.

    Raises:
        DataError: There is no such file, it has another form, no question, or more than
            ``_MOST_KEPT``.
    """
    is_bundled = spec.data == BUNDLED_RETENTION
    path = here(spec.data)
    if is_bundled:
        path = Path(str(resources.files("hawsweep"))) / "data" / "everyday.jsonl"
    elif path.suffix.lower() not in (".jsonl", ".txt"):
        raise DataError(
            f"retention.data is {spec.data!r}, must be {BUNDLED_RETENTION}, a .jsonl with prompts, "
            "or a .txt with a prompt a line. Save the prompts as one of these."
        )
    found = [_question(each, path) for each in read_prompts(path)]
    if not 0 < len(found) <= _MOST_KEPT:
        raise DataError(
            f"{path} has {counted(len(found), 'prompt')}: retention needs 1 to {_MOST_KEPT:,}. "
            "Forty are enough to see a loss."
        )
    return found


def _question(prompt: str | Record, path: Path) -> Record:
    """A record with any answer: the untuned model's takes its place."""
    if isinstance(prompt, str):
        prompt = Record({"messages": [{"role": "user", "content": prompt}]}, str(path))
    return with_answer(prompt, "?")


def with_answer(record: Record, answer: str) -> Record:
    """A record with another answer; one that ends with a question gets it."""
    messages = list(record.messages or ())
    if messages[-1]["role"] == "assistant":
        messages.pop()
    messages.append({"role": "assistant", "content": answer})
    return replace(record, content={**record.content, "messages": messages})
