"""A stranger's tokenizer files: what holds no tokenizer ends in a sentence."""

import json
import shutil
import time
from pathlib import Path

import pytest

from hawsweep.errors import DataError, ModelError
from hawsweep.models.chat_template import ChatTemplate
from hawsweep.models.load import load_template, load_tokenizer

DEEP_LIST, DEEP_MAPPING = "[" * 100_000, '{"a":' * 100_000
BPE = '{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": %d}, "merges": []}%s}'
CONTENTS = {
    "tokenizer.json": (
        *("", "{}", "[", "[1]", "null", "1", "\xff", DEEP_LIST, DEEP_MAPPING),
        BPE % (-1, ""),
        BPE % (2**32 - 1, ', "added_tokens": []'),
    ),
    "tokenizer_config.json": (
        *("", "[", "[1]", "null", DEEP_LIST, DEEP_MAPPING, '{"tokenizer_class": 1}'),
        '{"chat_template": 1}',
        '{"chat_template": [1]}',
        '{"chat_template": [{"name": "default"}]}',
        '{"chat_template": {"a": 1}}',
        '{"chat_template": "x", "chat_template_type": "../../os"}',
        '{"chat_template": "x", "bos_token": {"a": 1}}',
        '{"chat_template": "x", "model_max_length": "NaN"}',
    ),
    "special_tokens_map.json": ("", "[1]", "null", DEEP_LIST, '{"bos_token": 1}'),
    "chat_template.json": (
        "",
        "[1]",
        "null",
        "{}",
        DEEP_LIST,
        DEEP_MAPPING,
        '{"chat_template": ""}',
    ),
}
CASES = [(name, content) for name, contents in CONTENTS.items() for content in contents]


@pytest.fixture
def folder(tiny_model_dir, tmp_path):
    """A copy of a small model, whose template is in no file."""
    copied = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    (copied / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((copied / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (copied / "tokenizer_config.json").write_text(json.dumps(config))
    return copied


def tried(path):
    """The template of a tokenizer that mlx-lm loads."""
    return ChatTemplate(load_tokenizer(path, {}))


@pytest.mark.parametrize(
    ("name", "content"), CASES, ids=[f"{name}-{content[:30]}" for name, content in CASES]
)
@pytest.mark.parametrize("load", [load_template, tried])
def test_file_of_a_tokenizer_that_holds_none_ends_in_a_sentence(folder, load, name, content):
    (folder / name).write_text(content)
    started = time.monotonic()
    with pytest.raises((ModelError, DataError)) as fault:
        load(folder)
    assert "\n" not in str(fault.value)
    assert time.monotonic() - started < 10
