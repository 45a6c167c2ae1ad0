"""Two tiny models with tokens and templates of their own, and one that fits nowhere."""

import json
import shutil

import pytest
import tiny_llama

OTHER_TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}] {{ message.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


@pytest.fixture(scope="session")
def other_model_dir(tmp_path_factory):
    """A second tiny model: wider, with a smaller vocabulary and another template."""
    folder = tmp_path_factory.mktemp("wide") / "tiny-wide"
    folder.mkdir()
    tokenizer = tiny_llama.tokenizer("<s>", "</s>", OTHER_TEMPLATE, vocab_size=280)
    sizes = {"hidden_size": 96, "num_hidden_layers": 2, "intermediate_size": 160}
    tiny_llama.save(folder, tokenizer, seed=11, num_key_value_heads=4, **sizes)
    return folder


@pytest.fixture(scope="session")
def giant_dir(tmp_path_factory, tiny_model_dir):
    """A model that says it has far more blocks than any machine holds; it is never loaded."""
    folder = tmp_path_factory.mktemp("giant") / "tiny-giant"
    shutil.copytree(tiny_model_dir, folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "hidden_size": 65536, "num_hidden_layers": 1000}))
    return folder
