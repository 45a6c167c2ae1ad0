"""Two tiny models with tokens and templates of their own, and one that fits nowhere."""

import json
import shutil

from hawsweep.backend import mx

import pytest
from mlx_lm.models import llama
from mlx_lm.utils import save_config, save_model
from tiny_sweep import phrasebook_lines
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

OTHER_TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}] {{ message.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


@pytest.fixture(scope="session")
def other_model_dir(tmp_path_factory):
    """A second tiny model: wider, with a smaller vocabulary and another template."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(phrasebook_lines("train", 100), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", chat_template=OTHER_TEMPLATE
    )
    folder = tmp_path_factory.mktemp("wide") / "tiny-wide"
    folder.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 96,
        "num_hidden_layers": 2,
        "intermediate_size": 160,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 256,
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": True,
    }
    mx.random.seed(11)
    save_model(folder, llama.Model(llama.ModelArgs.from_dict(config)))
    save_config(config, folder / "config.json")
    tokenizer.save_pretrained(folder)
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
