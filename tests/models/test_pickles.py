"""What comes from elsewhere is read as data: a pickle in it is refused, and never executed."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from hawsweep.errors import ModelError
from hawsweep.layout import CONFIG_FILE, STATE_FILE, WEIGHTS_FILE
from hawsweep.models.load import load_embedder, load_model
from hawsweep.models.resolve import resolve_embedder
from hawsweep.planning.workload import _read_lengths
from hawsweep.scoring.embedding import Embedder
from hawsweep.spec.train import TrainSpec
from hawsweep.training.checkpoints import load_state

BERT = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 8,
    "vocab_size": 8,
}


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def sprung(tmp_path):
    return tmp_path / "sprung"


@pytest.fixture
def trap(sprung):
    return pickle.dumps(Trap(sprung))


def test_the_trap_works(trap, sprung):
    pickle.loads(trap)
    assert sprung.exists()


def make_embedder(folder, **settings):
    """A folder in which sentence-transformers comes as far as the weights."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(BERT))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"model_kwargs": settings}))
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


@pytest.mark.parametrize("inside", ["", "2_Dense"])
def test_embedder_of_pickled_weights_is_refused(tmp_path, trap, sprung, inside):
    folder = make_embedder(tmp_path / "model", weights_only=False)
    (folder / inside).mkdir(exist_ok=True)
    file = folder / inside / "pytorch_model.bin"
    file.write_bytes(trap)
    with pytest.raises(ModelError, match="holds weights as a pickle") as caught:
        load_embedder(folder)
    assert str(file) in str(caught.value)
    assert not sprung.exists()


@pytest.mark.parametrize("name", ["model-2.safetensors", "model.safetensors"])
def test_embedder_cannot_ask_for_its_pickle_beside_safetensors(tmp_path, trap, sprung, name):
    folder = make_embedder(tmp_path / "model", weights_only=False, use_safetensors=False)
    (folder / "pytorch_model.bin").write_bytes(trap)
    (folder / name).write_bytes(trap)
    with pytest.raises(ModelError, match="cannot be loaded as a sentence-transformers model"):
        load_embedder(folder)
    assert not sprung.exists()


def test_code_of_an_embedder_is_not_run(tmp_path, sprung):
    folder = make_embedder(tmp_path / "model")
    modules = [{"idx": 0, "name": "0", "path": "", "type": "trap.Module"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "trap.py").write_text(f"open({str(sprung)!r}, 'w')\nModule = None\n")
    with pytest.raises(ModelError, match="cannot be loaded as a sentence-transformers model"):
        load_embedder(folder)
    assert not sprung.exists()


def test_bundled_embedder_is_safetensors():
    vectors = load_embedder(resolve_embedder("all-MiniLM-L6-v2")).encode(["the sea", "the ocean"])
    assert vectors.shape == (2, 384)
    assert vectors[0] @ vectors[1] > 0.5 * np.linalg.norm(vectors[0]) * np.linalg.norm(vectors[1])


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "model.npz"])
def test_model_of_pickled_weights_is_refused(tiny_model_dir, tmp_path, trap, sprung, name):
    folder = shutil.copytree(tiny_model_dir, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(trap)
    with pytest.raises(ModelError, match="cannot be loaded as an MLX model"):
        load_model(folder)
    assert not sprung.exists()


def test_code_of_a_model_is_not_run(tiny_model_dir, tmp_path, sprung):
    folder = shutil.copytree(tiny_model_dir, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_file": "trap.py"}))
    (folder / "trap.py").write_text(f"open({str(sprung)!r}, 'w')")
    with pytest.raises(ModelError, match="cannot be loaded as an MLX model"):
        load_model(folder)
    assert not sprung.exists()


def test_adapter_of_pickled_weights_is_refused(tiny_model_dir, tmp_path, trap, sprung):
    (tmp_path / WEIGHTS_FILE).write_bytes(trap)
    lora = {"rank": 4, "scale": 1.0, "dropout": 0.0}
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"num_layers": 1, "lora_parameters": lora}))
    with pytest.raises(ModelError, match=r"adapters\.safetensors is not a safetensors file"):
        load_model(tiny_model_dir, tmp_path)
    assert not sprung.exists()


def test_pickled_state_of_a_run_is_no_state(tmp_path, trap, sprung):
    (tmp_path / STATE_FILE).write_bytes(trap)
    assert load_state(tmp_path, TrainSpec()) is None
    assert not sprung.exists()


def test_pickled_arrays_in_the_cache_are_made_again(tmp_path, monkeypatch, sprung):
    monkeypatch.setenv("HAWSWEEP_CACHE", str(tmp_path / "cache"))
    folder = make_embedder(tmp_path / "model")
    monkeypatch.setattr(Embedder, "embed", lambda _, texts: np.ones((len(texts), 2)))
    Embedder(folder).references(["aloha"])
    (cached,) = (tmp_path / "cache" / "embeddings").iterdir()
    np.save(cached, np.array([Trap(sprung)], dtype=object), allow_pickle=True)
    assert Embedder(folder).references(["aloha"]).tolist() == [[1.0, 1.0]]
    lengths = tmp_path / "lengths.npz"
    np.savez(lengths, lengths=np.array([Trap(sprung)], dtype=object), n_targets=np.zeros(1))
    assert _read_lengths(lengths) is None
    assert not sprung.exists()
