"""Semantic similarity of two texts: the cosine of their sentence embeddings."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hawsweep.files import files_under, replacing
from hawsweep.machine import backend
from hawsweep.scoring.embedder_process import Vectors, own_embedder

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


def prompt_for(name: str) -> str:
    """The prompt before each text for an embedder, by its name; mostly empty."""
    last = name.lower()
    return next((prompt for part, prompt in _PROMPTS if part in last), "")


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
            self._kept[key] = self._cached(key, texts)
        return self._kept[key]

    def _cached(self, key: str, texts: Sequence[str]) -> Vectors:
        path = backend.cache_dir() / "embeddings" / f"{key}.npy"
        try:
            found: Vectors = np.load(path)
            if found.ndim == 2 and len(found) == len(texts):
                return found
        except (OSError, ValueError, EOFError):
            pass  # missing or half-written
        vectors = self.embed(texts)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as beside:
                np.save(beside, vectors)
        except OSError:
            pass  # a full disk costs the time to embed again
        return vectors

    def similarity(self, references: Sequence[str], outputs: Sequence[str]) -> list[float]:
        """The cosine of each output with its reference; 0 for an empty output."""
        cosines = np.sum(self.references(references) * self.embed(outputs), axis=1)
        return [
            round(float(each), 6) if output.strip() else 0.0
            for each, output in zip(cosines, outputs, strict=True)
        ]
