"""Generate, embed, compare: how well a model says what the references say."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hawsweep.adapters import replace_text
from hawsweep.encoding import encode_prompt
from hawsweep.errors import DataError
from hawsweep.models import LoadedModel, load_embedder
from hawsweep.records import Record
from hawsweep.spec import ScoringSpec


@dataclass(frozen=True)
class Sample:
    """One translation and how it was judged.

    Attributes:
        similarity: Cosine of the embeddings of output and reference.
        chrf: Sentence chrF, 0 to 100.
    """

    source: str
    reference: str
    output: str
    similarity: float
    chrf: float
    group: str | None = None


@dataclass(frozen=True)
class Score:
    """A model's score on a list of prompts.

    Attributes:
        similarity: Mean cosine, at most 1.
        chrf: Corpus chrF, 0 to 100 (sacrebleu).
        bleu: Corpus BLEU, 0 to 100 (sacrebleu).
    """

    similarity: float
    chrf: float
    bleu: float
    time_s: float
    samples: tuple[Sample, ...]

    def summary(self) -> dict[str, float]:
        """The numbers, without the samples."""
        return {key: value for key, value in asdict(self).items() if key != "samples"}


class Scorer:
    """Judges outputs by one embedder, loaded on first use; references are embedded once."""

    def __init__(self, embedder_path: Path, spec: ScoringSpec) -> None:
        self._path = embedder_path
        self._spec = spec
        self._known: dict[str, Any] = {}

    def score(self, loaded: LoadedModel, records: Sequence[Record]) -> Score:
        """Let the model answer the records' prompts, greedily, and compare with their references.

        Raises:
            DataError: A record has no reference.
        """
        started = time.perf_counter()
        outputs = translate(loaded, records, self._spec)
        return self.compare(records, outputs, started)

    def compare(
        self, records: Sequence[Record], outputs: Sequence[str], started: float | None = None
    ) -> Score:
        """Compare outputs with the records' references; see ``score``."""
        import sacrebleu

        started = time.perf_counter() if started is None else started
        references = [reference_of(record) for record in records]
        similarities = np.sum(self._embed(references, keep=True) * self._embed(outputs), axis=1)
        samples = tuple(
            Sample(
                record.source,
                reference,
                output,
                round(float(similarity), 6),
                round(sacrebleu.sentence_chrf(output, [reference]).score, 3),
                record.group,
            )
            for record, reference, output, similarity in zip(
                records, references, outputs, similarities, strict=True
            )
        )
        return Score(
            float(np.mean(similarities)),
            float(sacrebleu.corpus_chrf(list(outputs), [references]).score),
            float(sacrebleu.corpus_bleu(list(outputs), [references]).score),
            time.perf_counter() - started,
            samples,
        )

    @cached_property
    def _embedder(self) -> Any:
        return load_embedder(self._path)

    def _embed(self, texts: Sequence[str], *, keep: bool = False) -> Any:
        missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        vectors = (
            self._embedder.encode(
                missing, normalize_embeddings=True, show_progress_bar=False, batch_size=32
            )
            if missing
            else []
        )
        found = {**self._known, **dict(zip(missing, vectors, strict=True))}
        if keep:
            self._known = found
        return np.stack([found[text] for text in texts]).astype(np.float64)


def reference_of(record: Record) -> str:
    """The record's answer.

    Raises:
        DataError: It has none.
    """
    if record.reference is None:
        raise DataError(
            f"{record.where} has no answer to compare with. Scoring needs prompt and "
            "completion, or messages that end "
            "with the assistant's."
        )
    return record.reference


def translate(loaded: LoadedModel, records: Sequence[Record], spec: ScoringSpec) -> list[str]:
    """The model's greedy answers, generated in batches, longest prompt first.

    Batched text may differ slightly from text generated alone, so the same records in the same
    batches are used for everything that is compared.
    """
    from hawsweep.backend import mx

    from mlx_lm import batch_generate

    prompts = [encode_prompt(record, loaded.tokenizer) for record in records]
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    loaded.model.eval()
    outputs = [""] * len(prompts)
    for at in range(0, len(order), spec.batch_size):
        chosen = order[at : at + spec.batch_size]
        response = batch_generate(
            loaded.model,
            loaded.tokenizer,
            [prompts[i] for i in chosen],
            max_tokens=spec.max_tokens,
            completion_batch_size=spec.batch_size,
            prefill_batch_size=spec.batch_size,
        )
        for i, text in zip(chosen, response.texts, strict=True):
            outputs[i] = text.strip()
    mx.clear_cache()
    return outputs


def write_samples(path: Path, score: Score) -> None:
    """Write the samples as JSON lines."""
    lines = (json.dumps(asdict(sample), ensure_ascii=False) for sample in score.samples)
    replace_text(path, "".join(f"{line}\n" for line in lines))
