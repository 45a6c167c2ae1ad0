import json
import shutil
from pathlib import Path

from hawsweep.machine.backend import mx, nn

import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import load, save_config, save_model

from hawsweep.errors import ModelError
from hawsweep.machine import backend
from hawsweep.models import load as loading
from hawsweep.models import resolve
from hawsweep.models.load import load_embedder, load_model
from hawsweep.models.resolve import BUNDLED, BUNDLED_EMBEDDERS, resolve_embedder, resolve_model
from hawsweep.prepare import validate
from hawsweep.spec.read import check_sweep


@pytest.fixture
def copied_model_dir(tiny_model_dir, tmp_path):
    return shutil.copytree(tiny_model_dir, tmp_path / "model")


def weights_of(model):
    return dict(tree_flatten(model.parameters()))


def test_local_folder_is_the_model(tiny_model_dir):
    assert resolve_model(str(tiny_model_dir)) == tiny_model_dir


def test_folder_of_the_home_directory_may_start_with_a_tilde(copied_model_dir, monkeypatch):
    monkeypatch.setenv("HOME", str(copied_model_dir.parent))
    assert resolve_model("~/model") == copied_model_dir


def test_folder_without_config_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"is a folder without config\.json\. Point `model` at"):
        resolve_model(str(tmp_path))


def test_cached_repository_is_the_model(hub_cache, tiny_model_dir):
    snapshot = hub_cache.add("model", "org/tiny")
    shutil.copytree(tiny_model_dir, snapshot, dirs_exist_ok=True)
    told = []
    assert resolve_model("org/tiny", told.append).resolve() == snapshot.resolve()
    assert told == []


def test_damaged_file_of_the_cache_is_fetched_again_by_its_repository(hub_cache, tiny_model_dir):
    snapshot = hub_cache.add("model", "org/tiny")
    shutil.copytree(tiny_model_dir, snapshot, dirs_exist_ok=True)
    (snapshot / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"again: `hf download org/tiny --revis") as caught:
        resolve_model("org/tiny")
    assert str(caught.value).endswith(f" --revision {snapshot.name} --force-download`.")


def test_interrupted_download_is_known_as_one(hub_cache, tiny_model_dir):
    snapshot = hub_cache.add("model", "org/tiny")
    shutil.copytree(tiny_model_dir, snapshot, dirs_exist_ok=True)
    assert not resolve.is_model_in_part("org/tiny")
    # As huggingface_hub notes what a repository has before it fetches that.
    files = {path.name: {"size": 1, "blob_id": "b"} for path in snapshot.iterdir()}
    noted = snapshot.parents[1] / "trees" / f"{snapshot.name}.json"
    noted.parent.mkdir()
    noted.write_text(json.dumps({"format_version": 1, "files": files}))
    assert not resolve.is_model_in_part("org/tiny")
    (snapshot / "model.safetensors").unlink()
    assert resolve.is_model_in_part("org/tiny")
    content = {"model": "org/tiny", "data": "phrasebook"}
    content["search"] = {"learning_rate": {"low": 1e-5, "high": 1e-3}}
    _, (found,) = validate._model(check_sweep(content, "a sweep"))
    assert (found.state, found.remedy) == (
        "warning",
        "Fetch it before the night begins: hf download org/tiny",
    )
    assert not resolve.is_model_in_part(str(tiny_model_dir))
    assert not resolve.is_model_in_part("org/nowhere")


def test_revision_of_a_cached_repository_is_the_model(hub_cache, tiny_model_dir):
    snapshots = {
        revision: hub_cache.add("model", "org/tiny", revision) for revision in ("main", "v1.0")
    }
    for revision, snapshot in snapshots.items():
        shutil.copytree(tiny_model_dir, snapshot, dirs_exist_ok=True)
        assert resolve_model(f"org/tiny@{revision}").resolve() == snapshot.resolve()
        assert resolve.find_model(f"org/tiny@{revision}").resolve() == snapshot.resolve()
    assert resolve.find_model("org/tiny").resolve() == snapshots["main"].resolve()


@pytest.mark.parametrize("revision", ["v2.0", ""])
def test_revision_that_is_not_there_is_refused(hub_cache, revision):
    hub_cache.add("model", "org/tiny")
    assert resolve.find_model(f"org/tiny@{revision}") is None
    with pytest.raises(ModelError, match=f"The model 'org/tiny@{revision}' was not found"):
        resolve_model(f"org/tiny@{revision}")


def test_folder_with_an_at_in_its_name_is_the_model(copied_model_dir):
    path = copied_model_dir.rename(copied_model_dir.with_name("model@home"))
    assert resolve_model(str(path)) == resolve.find_model(str(path)) == path


def test_unknown_model_lists_every_place(hub_cache):
    told = []
    with pytest.raises(ModelError) as caught:
        resolve_model("org/nowhere", told.append)
    message = str(caught.value)
    assert "The model 'org/nowhere' was not found" in message
    assert all(name in message for name in BUNDLED)
    assert f"a folder {Path('org/nowhere').absolute()}" in message
    assert f"the Hugging Face cache {hub_cache.folder}" in message
    assert "Check the spelling" in message
    assert "hf auth login" in message
    assert told == ["downloading org/nowhere from Hugging Face"]


def test_name_no_repository_can_have_is_refused(hub_cache):
    with pytest.raises(ModelError, match="the hub has no such names"):
        resolve_model("no/such/model")


def test_bundled_embedder_is_the_packages_folder(tmp_path, monkeypatch):
    (tmp_path / "embedder_package" / "inside").mkdir(parents=True)
    (tmp_path / "embedder_package" / "__init__.py").write_text("raise ImportError")
    monkeypatch.setitem(BUNDLED_EMBEDDERS, "small", ("embedder_package", "inside", "small==1.0"))
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve_embedder("small") == tmp_path / "embedder_package" / "inside"


def test_bundled_embedder_without_its_package_comes_from_the_hub(hub_cache, monkeypatch):
    monkeypatch.setattr(resolve.importlib.util, "find_spec", lambda _: None)
    snapshot = hub_cache.add("model", "sentence-transformers/all-MiniLM-L6-v2")
    assert resolve_embedder("all-MiniLM-L6-v2").resolve() == snapshot.resolve()


def test_bundled_embedder_that_is_nowhere_names_its_package(hub_cache, monkeypatch):
    monkeypatch.setattr(resolve.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError) as caught:
        resolve_embedder("all-MiniLM-L6-v2")
    message = str(caught.value)
    requirement = BUNDLED_EMBEDDERS["all-MiniLM-L6-v2"][2]
    assert f"the package {requirement} is not installed" in message
    assert str(hub_cache.folder) in message


def test_local_folder_is_the_embedder(tmp_path):
    assert resolve_embedder(str(tmp_path)) == tmp_path


def test_embedder_repository_needs_no_owner(hub_cache):
    snapshot = hub_cache.add("model", "sentence-transformers/small")
    assert resolve_embedder("small").resolve() == snapshot.resolve()


def test_folder_that_is_no_embedder_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded as a sentence-transformers model"):
        load_embedder(tmp_path)


def test_loaded_model_is_what_mlx_lm_loads(tiny_model_dir):
    ours, (theirs, tokenizer) = load_model(tiny_model_dir), load(str(tiny_model_dir))
    inputs = mx.array([[3, 4, 5]])
    assert mx.array_equal(ours.model(inputs), theirs(inputs))
    assert ours.tokenizer.encode("Aloha") == tokenizer.encode("Aloha")
    assert ours.config["model_type"] == "llama"
    assert ours.path == tiny_model_dir


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{}"),
        ("config.json", '{"model_type": "unheard_of"}'),
        ("model.safetensors", "not tensors"),
    ],
)
def test_folder_that_is_no_model_is_refused(copied_model_dir, name, content):
    (copied_model_dir / name).write_text(content)
    with pytest.raises(ModelError, match=f"{copied_model_dir} cannot be loaded as an MLX model: ."):
        load_model(copied_model_dir)


def test_weights_that_do_not_fit_the_config_are_refused(copied_model_dir):
    config = json.loads((copied_model_dir / "config.json").read_text())
    (copied_model_dir / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))
    with pytest.raises(ModelError, match="cannot be loaded as an MLX model"):
        load_model(copied_model_dir)


def test_model_without_chat_template_is_refused(copied_model_dir):
    (copied_model_dir / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match=r"has no chat template\. Use an instruction-tuned model"):
        load_model(copied_model_dir)


@pytest.fixture
def quantized_dir(copied_model_dir):
    model, _, config = load(str(copied_model_dir), return_config=True)
    nn.quantize(model, group_size=32, bits=4)
    save_model(copied_model_dir, model)
    quantization = {"group_size": 32, "bits": 4}
    save_config({**config, "quantization": quantization}, copied_model_dir / "config.json")
    return copied_model_dir


@pytest.mark.skipif(not backend.is_cpu(), reason="a GPU keeps the checkpoint's format")
def test_quantized_model_is_float32_with_the_same_values_on_a_cpu(quantized_dir):
    kept, _ = load(str(quantized_dir))
    ours = load_model(quantized_dir).model
    weights = weights_of(ours)
    assert {value.dtype for value in weights.values()} == {mx.float32}
    assert not any(name.endswith("scales") for name in weights)
    layer = kept.model.layers[0].self_attn.q_proj
    expected = mx.dequantize(layer.weight, layer.scales, layer.biases, group_size=32, bits=4)
    assert mx.array_equal(weights["model.layers.0.self_attn.q_proj.weight"], expected)
    inputs = mx.array([[3, 4, 5]])
    assert mx.allclose(ours(inputs), kept(inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not backend.is_cpu(), reason="a GPU keeps the checkpoint's format")
def test_half_precision_model_is_float32_on_a_cpu(copied_model_dir):
    model, _ = load(str(copied_model_dir))
    model.set_dtype(mx.bfloat16)
    save_model(copied_model_dir, model)
    weights = weights_of(load_model(copied_model_dir).model)
    assert {value.dtype for value in weights.values()} == {mx.float32}


@pytest.mark.skipif(not backend.is_cpu(), reason="a GPU keeps the checkpoint's format")
def test_model_too_large_for_float32_keeps_its_format_with_a_warning(quantized_dir, monkeypatch):
    monkeypatch.setattr(loading, "available_bytes", lambda: 0)
    with pytest.warns(UserWarning, match=r"needs 0\.0 GB as float32, too much for this machine"):
        loaded = load_model(quantized_dir)
    assert any(name.endswith("scales") for name in weights_of(loaded.model))
