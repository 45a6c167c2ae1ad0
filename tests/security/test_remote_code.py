"""Code that lies in a model's folder: it runs only where a sweep trusts it."""

import json
import shutil
from contextlib import suppress

import pytest

from hawsweep.errors import ModelError
from hawsweep.models.load import load_embedder, load_model, load_template
from hawsweep.models.resolve import resolve_embedder

# What a model's files say to have their own module run, by file.
OF_MODEL = {
    "model_file": {"config.json": {"model_file": "theirs.py"}},
    "model_file by path": {"config.json": {"model_file": "../model/theirs.py"}},
    "model and config": {
        "config.json": {
            "model_type": "theirs",
            "auto_map": {
                "AutoConfig": "theirs.Config",
                "AutoModelForCausalLM": "theirs.Model",
                "AutoTokenizer": ["theirs.Tokenizer", None],
            },
        }
    },
    "tokenizer": {
        "tokenizer_config.json": {
            "tokenizer_class": "Tokenizer",
            "auto_map": {"AutoTokenizer": ["theirs.Tokenizer", "theirs.Tokenizer"]},
        }
    },
    "tokenizer of a known class": {
        "tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["theirs.Tokenizer", None]}}
    },
    "kind of model": {"config.json": {"model_type": "..theirs"}},
    "kind of template": {"tokenizer_config.json": {"chat_template_type": "..theirs"}},
    "kind of tools": {"tokenizer_config.json": {"tool_parser_type": "..theirs"}},
}
OF_EMBEDDER = {
    "module": [{"idx": 0, "name": "0", "path": "", "type": "theirs.Module"}],
    "module of a package": [{"idx": 0, "name": "0", "path": "", "type": "theirs.theirs.Module"}],
}
each_model = pytest.mark.parametrize("files", OF_MODEL.values(), ids=OF_MODEL)


def write_module(folder, marker):
    code = f"from pathlib import Path\nPath({str(marker)!r}).touch()\n"
    names = ("Model", "ModelArgs", "Config", "Tokenizer", "Module")
    (folder / "theirs.py").write_text(code + "".join(f"class {name}: pass\n" for name in names))


@pytest.fixture
def marker(tmp_path):
    """The file that the module makes when it is run."""
    return tmp_path / "was-run"


@pytest.fixture
def model_with(tmp_path, tiny_model_dir, marker):
    def make(files):
        folder = tmp_path / "model"
        shutil.copytree(tiny_model_dir, folder)
        write_module(folder, marker)
        for name, changes in files.items():
            content = json.loads((folder / name).read_text())
            (folder / name).write_text(json.dumps(content | changes))
        return folder

    return make


@each_model
@pytest.mark.parametrize("load", [load_model, load_template])
def test_code_of_a_model_is_not_run(load, files, model_with, marker, monkeypatch):
    folder = model_with(files)
    monkeypatch.chdir(folder)
    with suppress(ModelError):  # refused, or read without the code
        load(folder)
    assert not marker.exists()


@pytest.mark.parametrize("modules", OF_EMBEDDER.values(), ids=OF_EMBEDDER)
def test_code_of_an_embedder_is_not_run(modules, tmp_path, marker, monkeypatch):
    folder = tmp_path / "embedder"
    shutil.copytree(resolve_embedder("all-MiniLM-L6-v2"), folder)
    write_module(folder, marker)
    (folder / "modules.json").write_text(json.dumps(modules))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="embedder"):
        load_embedder(folder)
    assert not marker.exists()


def test_code_that_is_trusted_is_run(model_with, marker):
    """The test above can fail: the same module is found where it may be."""
    folder = model_with(OF_MODEL["model_file"])
    with pytest.raises(ModelError):
        load_model(folder, trust_remote_code=True)
    assert marker.exists()
