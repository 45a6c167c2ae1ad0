import json
import os
from collections.abc import Iterator
from pathlib import Path

# Read by huggingface_hub when it is imported: no test may reach the network.
os.environ["HF_HUB_OFFLINE"] = "1"

from hawsweep.backend import mx

import pytest
from mlx_lm.models import llama
from mlx_lm.utils import save_config, save_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from hawsweep.models import LoadedModel, load_model
from hawsweep.phrasebook import generate

PHRASEBOOK = Path(generate.__file__).parent
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
N_RECORDS = {"train": 24, "valid": 8, "test": 8}


def phrasebook_lines(split: str, n_lines: int) -> list[str]:
    lines = (PHRASEBOOK / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return lines[:n_lines]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    specials = ["<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(phrasebook_lines("train", 100), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=specials[0],
        eos_token=specials[1],
        chat_template=CHAT_TEMPLATE,
    )


@pytest.fixture(scope="session")
def tiny_model_dir(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast
) -> Path:
    folder = tmp_path_factory.mktemp("tiny-llama")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 256,
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": True,
    }
    mx.random.seed(7)
    save_model(folder, llama.Model(llama.ModelArgs.from_dict(config)))
    save_config(config, folder / "config.json")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_model(tiny_model_dir: Path) -> LoadedModel:
    return load_model(tiny_model_dir)


@pytest.fixture(scope="session")
def chat_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chat-data")
    for split, n_records in N_RECORDS.items():
        text = "".join(f"{line}\n" for line in phrasebook_lines(split, n_records))
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return folder


class HubCache:
    """Repositories laid out as huggingface_hub's cache keeps them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, kind: str, repo: str) -> Path:
        """The folder where the files of a cached ``model`` or ``dataset`` go."""
        sha = "0123456789abcdef" * 2 + "01234567"
        root = self.folder / f"{kind}s--{repo.replace('/', '--')}"
        snapshot = root / "snapshots" / sha
        snapshot.mkdir(parents=True)
        (root / "refs").mkdir()
        (root / "refs" / "main").write_text(sha)
        return snapshot


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubCache:
    from huggingface_hub import constants

    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return HubCache(folder)
