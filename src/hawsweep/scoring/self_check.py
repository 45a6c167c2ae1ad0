"""The self-check of a sweep's scoring, before trials run."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hawsweep.data.leaks import Leak
from hawsweep.data.records import Record
from hawsweep.scoring.embedding import LONGER_EMBEDDER
from hawsweep.scoring.intervals import Unbounded, detectable_difference, items_for
from hawsweep.scoring.score import Score, Scorer, reference_of

# Below this share of the scale between floor and ceiling a metric hardly tells right from wrong.
_LEAST_SPAN = 0.1


@dataclass(frozen=True)
class SelfCheck:
    """The scale of a sweep's metric, and what its prompts can tell apart.

    Attributes:
        floor: The score of answers that are other prompts' references.
        ceiling: The score of the references themselves.
        base: The untuned model's.
        n_prompts: Validation prompts used.
        detectable: The smallest difference between two trials that is found in 80 % of cases, if
            the scores of two trials on a prompt correlate by one half. Infinite where the base's
            scores, which say how much they vary, are all the same.
        wanted: The difference that matters: ``scoring.difference`` times (ceiling - floor).
        n_needed: Prompts that would find it; 0 if that is not known.
        warnings: Faults, in words.
    """

    floor: float
    ceiling: float
    base: float
    n_prompts: int
    detectable: Unbounded
    wanted: float
    n_needed: int
    warnings: tuple[str, ...]


def check_scoring(
    scorer: Scorer,
    records: Sequence[Record],
    base: Score,
    wanted: float,
    leaks: Sequence[Leak] = (),
    seed: int = 0,
) -> SelfCheck:
    """Score references as answers, right and shuffled, and give warnings.

    Args:
        records: The validation prompts.
        base: The untuned model's score on them.
        wanted: ``scoring.difference``.
    """
    references = [reference_of(record) for record in records]
    floor = scorer.compare(records, _shuffled(references, seed)).score
    ceiling = scorer.compare(records, references).score
    scores = [sample.score for sample in base.samples]
    deviation = float(np.std(scores, ddof=1)) if len(set(scores)) > 1 else math.inf
    # Of a difference: the square root of 2 (1 - correlation) times one score's.
    detectable = detectable_difference(deviation, len(records))
    warnings = [str(leak) for leak in leaks]
    if unread := scorer.unread(references):
        warnings.append(f"{unread}. {LONGER_EMBEDDER}")
    if len(set(references)) == 1:
        warnings.append("all references are the same: the score cannot tell an answer's prompt")
    elif ceiling - floor < _LEAST_SPAN * max(abs(ceiling), abs(floor)):
        warnings.append(
            f"the metric hardly tells right from wrong: references score {ceiling:.3f}, other "
            f"prompts' references {floor:.3f}"
        )
    difference = wanted * abs(ceiling - floor)
    needed = items_for(deviation, difference) if math.isfinite(deviation) and difference else 0
    return SelfCheck(
        floor, ceiling, base.score, len(records), detectable, difference, needed, tuple(warnings)
    )


def _shuffled(texts: Sequence[str], seed: int) -> list[str]:
    """The texts in another order, none at its own place."""
    order = list(range(len(texts)))
    random.Random(seed).shuffle(order)
    following = dict(zip(order, [*order[1:], *order[:1]], strict=True))
    return [texts[following[place]] for place in range(len(texts))]
