"""Semantic similarity of two texts: the cosine of their sentence embeddings."""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hawsweep.files import cached_array, files_under
from hawsweep.machine import backend
from hawsweep.scoring.embedder_process import Vectors, own_embedder
from hawsweep.spec.scoring import ScoringSpec

# Unit vectors of texts, ``[texts, width]``.
Encode = Callable[[Sequence[str]], Vectors]

# The prompts of models that need a word before each text, for comparing texts of one kind (from
# their model cards).
_PROMPTS = (
    ("nomic-embed-text", "clustering: "),
    ("e5-small", "query: "),
    ("e5-base", "query: "),
    ("e5-large", "query: "),
)


LONGER_EMBEDDER = (
    "Set scoring.metric: chrf, or scoring.embedder: nomic-ai/nomic-embed-text-v1.5, which reads "
    "8,192 (with trust_remote_code: true)."
)


def prompt_for(name: str) -> str:
    """The prompt before each text for an embedder, by its name; mostly empty."""
    last = name.lower()
    return next((prompt for part, prompt in _PROMPTS if part in last), "")


def prompt_of(spec: ScoringSpec) -> str:
    """The prompt that a sweep's embedder gets."""
    asked = spec.embedder_prompt
    return prompt_for(spec.embedder) if asked == "auto" else asked


class Embedder:
    """A sentence-transformers model in another process.

    Args:
        prompt: Put before each text.
        encode: Gives vectors; by default a process that is started at the first use.
    """

    def __init__(
        self,
        path: Path,
        prompt: str = "",
        *,
        trust_remote_code: bool = False,
        encode: Encode | None = None,
    ) -> None:
        self._path = path
        self._prompt = prompt
        self._trust_remote_code = trust_remote_code
        self._encode = encode
        self._kept: dict[str, Vectors] = {}
        self._known: dict[str, Vectors] = {}

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, ``[texts, width]``; texts embedded before are not embedded again."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            if self._encode is None:
                self._encode = own_embedder(self._path, trust_remote_code=self._trust_remote_code)
            vectors = self._encode([f"{self._prompt}{text}" for text in new])
            self._known.update(zip(new, vectors, strict=True))
        return np.stack([self._known[text] for text in texts])

    def references(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, also kept in the cache for other processes and studies."""
        files = [(path, path.stat()) for path in files_under(self._path)]
        stat = [(str(path), found.st_size, found.st_mtime_ns) for path, found in files]
        key = hashlib.sha256(repr((stat, self._prompt, list(texts))).encode()).hexdigest()[:24]
        if key not in self._kept:
            path = backend.cache_dir() / "embeddings" / f"{key}.npy"
            self._kept[key] = cached_array(path, lambda: self.embed(texts))
        return self._kept[key]

    def unread(self, texts: Sequence[str]) -> str | None:
        """Says how many texts are longer than the model reads, which cuts them silently; None if it
        reads all to their ends, or its files do not tell.
        """
        config, vocabulary = self._path / "sentence_bert_config.json", self._path / "tokenizer.json"
        if not (config.is_file() and vocabulary.is_file()):
            return None
        from tokenizers import Tokenizer

        most = json.loads(config.read_text(encoding="utf-8")).get("max_seq_length")
        tokenizer = Tokenizer.from_file(str(vocabulary))
        tokenizer.no_truncation()
        found = tokenizer.encode_batch([f"{self._prompt}{text}" for text in texts])
        n_longer = sum(sum(each.attention_mask) > (most or math.inf) for each in found)
        if not n_longer:
            return None
        return (
            f"the embedder reads {most} tokens of a text, and {n_longer} of {len(texts)} "
            "references are longer: what an answer says after that does not count"
        )

    def similarity(self, references: Sequence[str], outputs: Sequence[str]) -> list[float]:
        """The cosine of each output with its reference; 0 for an empty output."""
        cosines = np.sum(self.references(references) * self.embed(outputs), axis=1)
        return [
            round(float(each), 6) if output.strip() else 0.0
            for each, output in zip(cosines, outputs, strict=True)
        ]
