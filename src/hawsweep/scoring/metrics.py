"""Metrics of an answer against its reference, and obvious faults of answers."""

import math
import zlib
from collections.abc import Callable, Sequence

from hawsweep.data.normal_text import nfc
from hawsweep.errors import ScoringError
from hawsweep.machine.own_code import load_function

# A metric of one item: (source, reference, output) to a number, more is better.
Metric = Callable[[str, str, str], float]

# The lowest and the highest score of each built-in metric.
BOUNDS = {
    "semantic_similarity": (-1.0, 1.0),
    "chrf": (0.0, 100.0),
    "bleu": (0.0, 100.0),
    "exact_match": (0.0, 1.0),
}
BUILT_IN = tuple(BOUNDS)
CUT, REASONING_CUT = "cut", "reasoning cut"
FAULTS = ("empty", CUT, REASONING_CUT, "repetition", "copied source")
# Shorter texts are not checked for repetition.
_LEAST_REPEATED = 60
# Deflate compresses prose to about half, and repeated words to far less.
_REPEATED_RATIO = 0.3
_RAW = -15  # deflate without a header


def normalized(text: str) -> str:
    """A text as exact match compares it: in NFC, without case, and with single spaces."""
    return " ".join(nfc(text).split()).casefold()


def exact_match(source: str, reference: str, output: str) -> float:
    """1 where the output is the reference, but for case, spaces and Unicode form."""
    return float(normalized(output) == normalized(reference))


def chrf(source: str, reference: str, output: str) -> float:
    """Sentence chrF in NFC, 0 to 100 (sacrebleu)."""
    import sacrebleu

    return float(sacrebleu.sentence_chrf(nfc(output), [nfc(reference)]).score)


def bleu(source: str, reference: str, output: str) -> float:
    """Sentence BLEU in NFC, 0 to 100 (sacrebleu, smoothed)."""
    import sacrebleu

    return float(sacrebleu.sentence_bleu(nfc(output), [nfc(reference)]).score)


def length_ratio(references: Sequence[str], outputs: Sequence[str]) -> float:
    """Characters of all outputs for each of all references, in NFC."""
    n_out, n_right = (sum(len(nfc(each)) for each in texts) for texts in (outputs, references))
    return n_out / max(1, n_right)


def fault_of(
    source: str, reference: str, output: str, cut: str | None = None, message: str = ""
) -> str | None:
    """The obvious fault of an output: one of ``FAULTS``, or None.

    Args:
        cut: ``CUT`` where it was ended because it had ``max_tokens`` tokens; ``REASONING_CUT``
            where none of them was of an answer.
        message: The source as it was asked, with what nearly all questions begin and end with; a
            copy may have some of that.
    """
    text = normalized(output)
    if not text:
        return REASONING_CUT if cut == REASONING_CUT else "empty"
    encoded = text.encode()
    if (
        len(encoded) >= _LEAST_REPEATED
        and len(zlib.compress(encoded, 9, _RAW)) < _REPEATED_RATIO * len(encoded)
        and text != normalized(reference)
    ):
        return "repetition"
    if cut:
        return cut
    asked = normalized(source)
    is_copied = text == asked or (asked != "" and asked in text and text in normalized(message))
    if is_copied and text != normalized(reference):
        return "copied source"
    return None


def corpus_scores(references: Sequence[str], outputs: Sequence[str]) -> dict[str, float]:
    """chrF and BLEU of all outputs together in NFC, 0 to 100 (sacrebleu)."""
    import sacrebleu

    answers, right = [nfc(each) for each in outputs], [nfc(each) for each in references]
    return {
        "chrf": float(sacrebleu.corpus_chrf(answers, [right]).score),
        "bleu": float(sacrebleu.corpus_bleu(answers, [right]).score),
    }


def signatures() -> dict[str, str]:
    """The signatures of sacrebleu's metrics, with which others can compute the same."""
    from sacrebleu.metrics import BLEU, CHRF

    found = {}
    for name, metric in (("chrf", CHRF()), ("bleu", BLEU())):
        metric.corpus_score([""], [[""]])  # a signature says how many references there were
        found[name] = str(metric.get_signature())
    return found


def find_metric(name: str) -> Metric | None:
    """The metric that ``scoring.metric`` names; None for semantic similarity, which needs all items
    at once.

    Raises:
        SpecError: There is no such metric.
    """
    known: dict[str, Metric | None] = {
        "semantic_similarity": None,
        "chrf": chrf,
        "bleu": bleu,
        "exact_match": exact_match,
    }
    if name in known:
        return known[name]
    return _checked(name, load_function("scoring.metric", name, BUILT_IN))


def _checked(name: str, metric: Callable[[str, str, str], object]) -> Metric:
    def measure(source: str, reference: str, output: str) -> float:
        item = f"for the source {source[:80]!r} and the output {output[:80]!r}"
        try:
            value = float(metric(source, reference, output))  # type: ignore[arg-type]
        except Exception as fault:  # whatever a person's code does
            raise ScoringError(f"scoring.metric {name} fails {item}: {fault!r}.") from fault
        if not math.isfinite(value):
            raise ScoringError(f"scoring.metric {name} gives {value} {item}.")
        return value

    return measure
