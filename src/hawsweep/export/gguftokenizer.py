"""A byte-level tokenizer in a GGUF file: how llama.cpp is told of it, and how it is read back."""

import json
from pathlib import Path
from typing import Any

from hawsweep.encoding import end_of_turn

_LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# What comes before the byte-level step of a tokenizer, by llama.cpp's name of the whole.
_PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [],
    "smollm": [{"type": "Digits", "individual_digits": True}],
    "llama-bpe": [
        {
            "type": "Split",
            "pattern": {"Regex": _LLAMA3_PATTERN},
            "behavior": "Isolated",
            "invert": False,
        }
    ],
}


def why_not_tokenizer(path: Path) -> str | None:
    """Why a ``tokenizer.json`` cannot be written into a GGUF file; None where it can."""
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    if _pre_tokenizer(tokenizer) is not None:
        return None
    outer = tokenizer.get("pre_tokenizer") or {}
    steps = [str(step.get("type")) for step in outer.get("pretokenizers", [outer])]
    return (
        "its tokenizer is none of byte-level BPE as in GPT-2, SmolLM and Llama 3 "
        f"({tokenizer['model'].get('type')} after {', '.join(steps)})"
    )


def _pre_tokenizer(tokenizer: dict[str, Any]) -> str | None:
    """llama.cpp's name of how a tokenizer cuts text before it merges; None for one that has no name
    here.
    """
    outer = tokenizer.get("pre_tokenizer") or {}
    steps = outer.get("pretokenizers", [outer])
    if tokenizer["model"].get("type") != "BPE" or tokenizer.get("normalizer") or not steps:
        return None
    *before, last = steps
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return None
    for name, known in _PRE_TOKENIZERS.items():
        if before == known and last.get("use_regex", True) == (name != "llama-bpe"):
            return name
    return None


def add_tokenizer(writer: Any, folder: Path, n_rows: int) -> None:
    """Say all of a tokenizer in a GGUF file, its chat template too.

    Args:
        n_rows: Of the embedding.
    """
    import gguf
    from mlx_lm.utils import load_tokenizer

    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(folder)
    # A row of the embedding that no token has gets one that never comes.
    tokens = [f"[PAD{number}]" for number in range(n_rows)]
    kinds = [gguf.TokenType.UNUSED] * n_rows
    normal, control, own = (
        gguf.TokenType.NORMAL,
        gguf.TokenType.CONTROL,
        gguf.TokenType.USER_DEFINED,
    )
    known = [(number, token, normal) for token, number in content["model"]["vocab"].items()]
    for each in content["added_tokens"]:
        known.append((each["id"], each["content"], control if each["special"] else own))
    for number, token, kind in known:
        if number < n_rows:  # a model may have fewer than its tokenizer
            tokens[number], kinds[number] = token, kind
    merges = content["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(content))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([each if isinstance(each, str) else " ".join(each) for each in merges])
    for name in ("bos", "eos", "unk", "pad"):
        number = getattr(tokenizer, f"{name}_token_id", None)
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    turn = end_of_turn(tokenizer)
    if turn is not None and turn != tokenizer.eos_token_id:
        writer.add_eot_token_id(turn)
    starts = tokenizer.encode("a")
    writer.add_add_bos_token(len(starts) > 1 and starts[0] == tokenizer.bos_token_id)
    writer.add_add_space_prefix(False)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def read_tokenizer(metadata: dict[str, Any]) -> Any:
    """The tokenizer that a file's own fields describe.

    transformers reads one too, but takes every byte-level tokenizer for GPT-2's.
    """
    import gguf
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    def field(name: str) -> Any:
        return metadata.get(f"tokenizer.ggml.{name}")

    tokens, kinds, pre = field("tokens"), field("token_type").tolist(), field("pre")
    merges = [tuple(each.split(" ")) for each in field("merges")]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    inner = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=pre == "llama-bpe"))
    steps: list[Any] = []
    if pre == "smollm":
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if pre == "llama-bpe":
        steps.append(pre_tokenizers.Split(Regex(_LLAMA3_PATTERN), "isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre != "llama-bpe"))
    inner.pre_tokenizer = pre_tokenizers.Sequence(steps)
    inner.decoder = decoders.ByteLevel()
    for kind, is_special in ((gguf.TokenType.CONTROL, True), (gguf.TokenType.USER_DEFINED, False)):
        chosen = [token for token, each in zip(tokens, kinds, strict=True) if each == kind]
        inner.add_tokens(
            [AddedToken(each, special=is_special, normalized=False) for each in chosen]
        )
    names = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        if (number := field(f"{key}_token_id")) is not None:
            names[f"{name}_token"] = tokens[number.item()]
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, chat_template=metadata.get("tokenizer.chat_template"), **names
    )
