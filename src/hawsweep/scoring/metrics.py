"""Metrics of an answer against its reference, and obvious faults of answers."""

import importlib.util
import math
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from hawsweep.data.normal_text import nfc
from hawsweep.errors import ScoringError, SpecError
from hawsweep.files import check_regular
from hawsweep.machine.without_torch import let_torch_in

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


def fault_of(source: str, reference: str, output: str, cut: str | None = None) -> str | None:
    """The obvious fault of an output: one of ``FAULTS``, or None.

    Args:
        cut: ``CUT`` where it was ended because it had ``max_tokens`` tokens; ``REASONING_CUT``
            where none of them was of an answer.
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
    if text == normalized(source) and text != normalized(reference):
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

    ``module:function`` is a function of ``module.py`` in the current folder only. So a sweep file
    cannot call other installed code.

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
    module, _, function = name.partition(":")
    path = Path(f"{module}.py")
    if not (module.isidentifier() and function.isidentifier()):
        raise SpecError(
            f"scoring.metric is {name!r}, must be one of {', '.join(BUILT_IN)}, or "
            "module:function, with module.py in the current folder."
        )
    try:
        check_regular(path)
    except FileNotFoundError as fault:
        raise SpecError(
            f"scoring.metric is {name!r}, but {path} is not in the current folder "
            f"({Path.cwd().name}). Start hawsweep in its folder."
        ) from fault
    except OSError as fault:
        raise SpecError(f"scoring.metric: {path} cannot be read: {fault.strerror}.") from fault
    loaded = importlib.util.spec_from_file_location(module, path)
    assert loaded is not None
    assert loaded.loader is not None
    code = importlib.util.module_from_spec(loaded)
    let_torch_in()
    try:
        loaded.loader.exec_module(code)
    except ModuleNotFoundError as fault:
        raise SpecError(
            f"scoring.metric: {path} imports {fault.name}, which is not installed. Nothing is "
            "imported from the current folder: install it, or name its folder in PYTHONPATH, as "
            "an absolute path."
        ) from fault
    except Exception as fault:  # whatever a person's code does
        raise SpecError(f"scoring.metric: {path} fails: {fault!r}.") from fault
    found = getattr(code, function, None)
    if not callable(found):
        raise SpecError(f"scoring.metric is {name!r}, but {path} has no function {function}.")
    return _checked(name, found)


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
