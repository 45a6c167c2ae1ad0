"""Scoring of a model: its answers compared with the references."""

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hawsweep.data.leaks import cut_sources
from hawsweep.data.records import Record
from hawsweep.data.tokens import encode_prompt
from hawsweep.errors import DataError
from hawsweep.files import replace_text
from hawsweep.models.load import LoadedModel
from hawsweep.scoring import metrics
from hawsweep.scoring.embedding import Embedder, Encode, prompt_of
from hawsweep.scoring.intervals import UNBOUNDED, Unbounded, mean_interval
from hawsweep.scoring.metrics import CUT, REASONING_CUT, corpus_scores, fault_of, find_metric
from hawsweep.spec.scoring import ScoringSpec
from hawsweep.text import short_repr


@dataclass(frozen=True, repr=False)
class Sample:
    """One answer and its scores.

    Attributes:
        score: By ``scoring.metric``.
        similarity: Cosine of the embeddings of output and reference.
        chrf: Sentence chrF, 0 to 100.
        fault: One of ``metrics.FAULTS``, or None.
    """

    source: str
    reference: str
    output: str
    score: float
    similarity: float
    chrf: float
    fault: str | None = None
    group: str | None = None

    __repr__ = short_repr


@dataclass(frozen=True)
class Scores:
    """What a model scores on a list of prompts.

    Attributes:
        score: Mean of the samples' scores, by ``scoring.metric``; a study's value.
        low, high: Its 95 % bootstrap interval over the prompts.
        similarity: Mean cosine, at most 1.
        chrf: Corpus chrF, 0 to 100 (sacrebleu).
        bleu: Corpus BLEU, 0 to 100 (sacrebleu).
        exact_match: Share of the outputs that are their reference.
        length_ratio: Characters of the outputs for each of the references.
        faults: How many outputs have which fault.
    """

    score: float
    low: Unbounded
    high: Unbounded
    similarity: float
    chrf: float
    bleu: float
    exact_match: float
    length_ratio: float
    time_s: float
    faults: Mapping[str, int]


@dataclass(frozen=True)
class Score(Scores):
    """The same with the samples that it is the score of."""

    samples: tuple[Sample, ...] = ()

    def summary(self) -> dict[str, Any]:
        """The numbers, without the samples."""
        return {
            key: _rounded(value) if isinstance(value, float) else value
            for key, value in asdict(self).items()
            if key != "samples"
        }


def _rounded(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None  # JSON has no infinity


class Scorer:
    """Scores outputs by a sweep's metric, and by all other metrics.

    Args:
        embedder_path: A sentence-transformers model.
        trust_remote_code: Whether code that comes with it may run.
        encode: See ``Embedder``.

    Raises:
        SpecError: There is no such metric.
    """

    def __init__(
        self,
        embedder_path: Path,
        spec: ScoringSpec,
        *,
        trust_remote_code: bool = False,
        encode: Encode | None = None,
    ) -> None:
        self.embedder = Embedder(
            embedder_path,
            prompt_of(spec),
            trust_remote_code=trust_remote_code,
            encode=encode,
        )
        self._spec = spec
        self._metric = find_metric(spec.metric)

    def unread(self, references: Sequence[str]) -> str | None:
        """See ``Embedder.unread``; None where the metric does not embed."""
        return self.embedder.unread(references) if self._metric is None else None

    def score(
        self,
        loaded: LoadedModel,
        records: Sequence[Record],
        on_batch: Callable[[], None] = lambda: None,
    ) -> Score:
        """Let the model answer the records' prompts, greedily, and compare with their references.

        Args:
            on_batch: Called after each batch of answers; what it raises goes through.

        Raises:
            DataError: A record has no reference.
            ScoringError: A custom metric failed.
        """
        started = time.perf_counter()
        answers = translate(loaded, records, self._spec, on_batch)
        return self.compare(
            records,
            [each.text for each in answers],
            [each.cut for each in answers],
            started=started,
        )

    def compare(
        self,
        records: Sequence[Record],
        outputs: Sequence[str],
        cuts: Sequence[str | None] | None = None,
        *,
        started: float | None = None,
    ) -> Score:
        """Compare outputs with the records' references; see ``score``."""
        started = time.perf_counter() if started is None else started
        references = [reference_of(record) for record in records]
        similarities = self.embedder.similarity(references, outputs)
        messages = [record.source for record in records]
        samples = tuple(
            self._sample(record, source, reference, output, similarity, cut)
            for record, source, reference, output, similarity, cut in zip(
                records,
                cut_sources(messages, messages),
                references,
                outputs,
                similarities,
                cuts or [None] * len(outputs),
                strict=True,
            )
        )
        interval = mean_interval(
            [each.score for each in samples],
            bounds=metrics.BOUNDS.get(self._spec.metric, UNBOUNDED),
        )
        matches = [metrics.exact_match("", each.reference, each.output) for each in samples]
        return Score(
            interval.mean,
            interval.low,
            interval.high,
            float(np.mean(similarities)),
            **corpus_scores(references, outputs),
            exact_match=float(np.mean(matches)),
            length_ratio=metrics.length_ratio(references, outputs),
            time_s=time.perf_counter() - started,
            faults=dict(Counter(each.fault for each in samples if each.fault)),
            samples=samples,
        )

    def _sample(
        self,
        record: Record,
        source: str,
        reference: str,
        output: str,
        similarity: float,
        cut: str | None,
    ) -> Sample:
        texts = (record.source, reference, output)
        return Sample(
            *texts,
            similarity if self._metric is None else self._metric(*texts),
            similarity,
            round(metrics.chrf(*texts), 3),
            fault_of(source, reference, output, cut, record.source),
            record.group,
        )


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


@dataclass(frozen=True)
class Answer:
    """A model's answer.

    Attributes:
        text: Without reasoning; empty where reasoning took all tokens.
        cut: ``CUT`` or ``REASONING_CUT`` where it had ``max_tokens`` tokens; see ``fault_of``.
    """

    text: str
    cut: str | None


def translate(
    loaded: LoadedModel,
    records: Sequence[Record],
    spec: ScoringSpec,
    on_batch: Callable[[], None] = lambda: None,
) -> list[Answer]:
    """The model's greedy answers, generated in batches, longest prompt first.

    Text generated in a batch may differ slightly from text generated alone, so compared systems
    answer the same records in the same batches.
    """
    from hawsweep.machine.backend import mx

    from mlx_lm import batch_generate

    prompts = [encode_prompt(record, loaded.template) for record in records]
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    loaded.tokenizer.add_eos_token(str(loaded.template.end))
    loaded.model.eval()
    answers = [Answer("", None)] * len(prompts)
    for at in range(0, len(order), spec.batch_size):
        chosen = order[at : at + spec.batch_size]
        response = batch_generate(
            loaded.model,
            loaded.tokenizer,
            [prompts[i] for i in chosen],
            max_tokens=spec.max_tokens,
            completion_batch_size=spec.batch_size,
            prefill_batch_size=spec.batch_size,
            return_token_ids=True,
        )
        for i, tokens in zip(chosen, response.token_ids, strict=True):
            answers[i] = _read_answer(loaded, tokens, spec)
        on_batch()
    mx.clear_cache()
    return answers


def stream_answer(loaded: LoadedModel, record: Record, spec: ScoringSpec) -> Iterator[Answer]:
    """The model's greedy answer to one record: after each token, what it has said so far.

    Args:
        record: A conversation; its own answer is not needed.
    """
    from hawsweep.machine.backend import mx

    from mlx_lm import stream_generate

    prompt = loaded.template.prompt(record.messages or (), record.tools)
    loaded.tokenizer.add_eos_token(str(loaded.template.end))
    loaded.model.eval()
    tokens: list[int] = []
    for said in stream_generate(loaded.model, loaded.tokenizer, prompt, max_tokens=spec.max_tokens):
        if said.finish_reason != "stop":
            tokens.append(said.token)
        yield _read_answer(loaded, tokens, spec)
    mx.clear_cache()


def _read_answer(loaded: LoadedModel, tokens: Sequence[int], spec: ScoringSpec) -> Answer:
    text = loaded.template.answer(tokens)
    cut = CUT if text is not None else REASONING_CUT
    return Answer(text or "", cut if len(tokens) >= spec.max_tokens else None)


def write_samples(path: Path, score: Score) -> None:
    """Write the samples as JSON lines."""
    lines = (json.dumps(asdict(sample), ensure_ascii=False) for sample in score.samples)
    replace_text(path, "".join(f"{line}\n" for line in lines))
