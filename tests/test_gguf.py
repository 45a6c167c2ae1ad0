"""Models written as GGUF and read back: weights, positions and tokens are the model's own."""

import json
import shutil

from hawsweep.backend import mx

import gguf
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.gguf import convert_to_gguf
from mlx_lm.models import llama
from mlx_lm.models.rope_utils import Llama3RoPE
from mlx_lm.utils import save_config, save_model
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

from hawsweep.errors import ExportError
from hawsweep.ggufwriting import read_gguf, rope_factors, why_not, write_gguf
from hawsweep.models import load_model

TEXTS = [
    "Ua heluhelu ʻo Leilani i ka puke.",
    "<|im_start|>user\nAloha kākou!  I'll see you   in 2024 or 12345.\n\n<|im_end|>\n",
    "naïve 🏝 ʻĀina\t",
]
SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.fixture
def changed(tiny_model_dir, tmp_path):
    """The tiny model with another config, its weights random anew."""

    def make(**changes):
        folder = tmp_path / "changed"
        shutil.copytree(tiny_model_dir, folder)
        config = {**json.loads((folder / "config.json").read_text()), **changes}
        mx.random.seed(3)
        save_model(folder, llama.Model(llama.ModelArgs.from_dict(config)))
        save_config(config, folder / "config.json")
        return folder

    return make


def read_back(folder, tmp_path):
    path, target = tmp_path / "m.gguf", tmp_path / "read"
    write_gguf(folder, path, "m")
    target.mkdir()
    read_gguf(path, target)
    return gguf.GGUFReader(path), target


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": False},
        {"head_dim": 32},
        {"rope_scaling": SCALING},
        {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 5e5},
        {"vocab_size": 416},  # more rows than tokens
        {"model_type": "mistral"},
    ],
    ids=lambda changes: next(iter(changes), "as it is"),
)
def test_model_is_the_same_when_read_back(changed, tmp_path, changes):
    folder = changed(**changes)
    assert why_not(folder) is None
    _, target = read_back(folder, tmp_path)
    one, other = load_model(folder), load_model(target)
    weights = dict(tree_flatten(other.model.parameters()))
    for name, value in tree_flatten(one.model.parameters()):
        wanted = value if value.ndim == 1 else value.astype(mx.float16).astype(mx.float32)
        assert mx.array_equal(weights.pop(name), wanted), name
    assert weights == {}
    tokens = mx.array([one.tokenizer.encode(TEXTS[0] * 4)])
    assert tokens.shape[1] > 64  # past where positions begin to be stretched
    difference = mx.abs(one.model(tokens) - other.model(tokens)).max().item()
    assert difference < 0.01 * mx.abs(one.model(tokens)).max().item()


def test_rope_factors_are_those_mlx_uses():
    head_dim, base = 64, 5e5
    rope = Llama3RoPE(dims=head_dim, base=base, scaling_config=SCALING)
    plain = base ** (np.arange(0, head_dim, 2) / head_dim)
    wanted = np.array(rope._freqs) / plain  # MLX keeps the inverses of frequencies
    found = rope_factors(SCALING, base, head_dim)
    assert np.allclose(found, wanted, rtol=1e-5)
    assert (found[0], found[-1]) == (1.0, 8.0)


def test_rope_factors_that_do_not_fit_are_refused(changed, tmp_path):
    folder = changed(rope_scaling=SCALING)
    path = tmp_path / "m.gguf"
    write_gguf(folder, path, "m")
    reader = gguf.GGUFReader(path, mode="r+")
    next(t for t in reader.tensors if t.name == "rope_freqs.weight").data[:] = 1
    reader.data.flush()
    (tmp_path / "read").mkdir()
    with pytest.raises(ExportError, match=r"m\.gguf has other rope factors than its scaling"):
        read_gguf(path, tmp_path / "read")


STEPS = {
    "gpt-2": [pre_tokenizers.ByteLevel(add_prefix_space=False)],
    "smollm": [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ],
    "llama-bpe": [
        pre_tokenizers.Split(
            Regex(
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| "
                r"?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            ),
            "isolated",
        ),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ],
}


def with_steps(folder, steps):
    inner = Tokenizer.from_file(str(folder / "tokenizer.json"))
    inner.pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)
    inner.save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize("name", STEPS)
def test_tokens_are_the_same_when_read_back(changed, tmp_path, name):
    folder = changed()
    with_steps(folder, STEPS[name])
    reader, target = read_back(folder, tmp_path)
    assert reader.fields["tokenizer.ggml.pre"].contents() == name
    assert reader.fields["tokenizer.ggml.token_type"].types[-1] == gguf.GGUFValueType.INT32
    one, other = (AutoTokenizer.from_pretrained(str(each)) for each in (folder, target))
    for text in TEXTS:
        tokens = one.encode(text)
        assert other.encode(text) == tokens
        assert other.decode(tokens) == one.decode(tokens)
    chat = [{"role": "user", "content": TEXTS[0]}]
    assert other.apply_chat_template(chat, tokenize=False) == one.apply_chat_template(
        chat, tokenize=False
    )
    for key in ("bos_token_id", "eos_token_id", "all_special_ids"):
        assert getattr(other, key) == getattr(one, key)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "gemma3_text"}, "its architecture is gemma3_text, hawsweep writes llama"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "its rope scaling is yarn"),
        ({"rope_traditional": True}, "its rotary embedding is the traditional one"),
        ({"attention_bias": True}, "its layers have biases"),
        ({"layer_types": ["sliding_attention"] * 3}, "attend to a window only"),
    ],
)
def test_model_that_cannot_be_written_is_refused(tiny_model_dir, tmp_path, changes, reason):
    shutil.copytree(tiny_model_dir, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, **changes}))
    assert reason in str(why_not(tmp_path / "m"))
    with pytest.raises(ExportError, match="m cannot be written as GGUF: "):
        write_gguf(tmp_path / "m", tmp_path / "m.gguf", "m")
    assert not (tmp_path / "m.gguf").exists()


def test_tokenizer_that_llama_cpp_is_not_told_of_is_refused(changed):
    folder = changed()
    with_steps(folder, [pre_tokenizers.WhitespaceSplit(), STEPS["gpt-2"][0]])
    assert "(BPE after WhitespaceSplit, ByteLevel)" in str(why_not(folder))
    Tokenizer(models.Unigram()).save(str(folder / "tokenizer.json"))
    assert "(Unigram after None)" in str(why_not(folder))
    (folder / "tokenizer.json").unlink()
    assert why_not(folder) == "it has no tokenizer.json"


def test_weight_that_no_llama_has_is_refused(changed, tmp_path):
    folder = changed()
    weights = mx.load(str(folder / "model.safetensors"))
    mx.save_safetensors(
        str(folder / "model.safetensors"),
        {**weights, "model.layers.0.self_attn.q_norm.weight": mx.ones(16)},
    )
    with pytest.raises(
        ExportError, match=r"layers\.0\.self_attn\.q_norm\.weight is none of a llama's"
    ):
        write_gguf(folder, tmp_path / "m.gguf", "m")


def test_mlx_lms_own_export_is_still_none_that_llama_cpp_loads(changed, tmp_path):
    # When this fails, mlx-lm's export may do, and ggufwriting.py may go.
    folder = changed()
    config = json.loads((folder / "config.json").read_text())
    weights = dict(mx.load(str(folder / "model.safetensors")))
    convert_to_gguf(folder, weights, config, str(tmp_path / "theirs.gguf"))
    fields = gguf.GGUFReader(tmp_path / "theirs.gguf").fields
    assert fields["tokenizer.ggml.model"].contents() == "llama"  # SentencePiece, which it is not
    # "invalid gguf type for tokenizer.ggml.token_type": it must be INT32.
    assert fields["tokenizer.ggml.token_type"].types[-1] == gguf.GGUFValueType.UINT32
    for missing in ("tokenizer.ggml.merges", "tokenizer.ggml.pre", "tokenizer.chat_template"):
        assert missing not in fields
