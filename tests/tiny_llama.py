"""Random llamas with tokenizers of their own, as folders that every part of hawsweep reads."""

from hawsweep.machine.backend import mx

from mlx_lm.models import llama
from mlx_lm.utils import save_config, save_model
from tiny_sweep import phrasebook_lines
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast


def tokenizer(bos, eos, chat_template, vocab_size):
    """Byte-level BPE, learned from the phrase book."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[bos, eos],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(phrasebook_lines("train", 100), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=bos, eos_token=eos, chat_template=chat_template
    )


def save(folder, tokenizer, *, seed, **sizes):
    """Random weights, config and tokenizer."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_attention_heads": 4,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 256,
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": True,
        **sizes,
    }
    mx.random.seed(seed)
    save_model(folder, llama.Model(llama.ModelArgs.from_dict(config)))
    save_config(config, folder / "config.json")
    tokenizer.save_pretrained(folder)
