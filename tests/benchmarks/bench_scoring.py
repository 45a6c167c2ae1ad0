"""Answers in batches beside one at a time: time, similarity, and the order of adapters.

The bundled model, with each given adapter, answers the same prompts one by one and in batches, in
turns in one process. What is compared is tokens a second of whole answers, mean similarity, and
how the adapters rank by each.

    python tests/benchmarks/bench_scoring.py --adapters studies/lr-rank/trials/*/adapters
"""

import argparse
import statistics
import time
from pathlib import Path

from hawsweep.data.load import choose_subset, load_data
from hawsweep.models import resolve
from hawsweep.models.load import load_model
from hawsweep.scoring.score import Scorer, translate
from hawsweep.spec.scoring import ScoringSpec
from hawsweep.spec.sweep import DataSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--data", default="phrasebook")
    parser.add_argument("--adapters", nargs="+", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=8)
    asked = parser.parse_args()

    splits = load_data((DataSpec(path=asked.data),))
    records = list(choose_subset(splits.valid, asked.prompts, 0))
    path = resolve.resolve_model(asked.model)
    scores: dict[int, list[float]] = {1: [], asked.batch_size: []}
    ratios, same = [], []
    print(f"{len(records)} prompts, up to {asked.max_tokens} tokens")
    print("adapter                    one by one   batched   ratio   similarity one, batched")
    for adapter in asked.adapters:
        loaded = load_model(path, adapter)
        seconds, outputs = {}, {}
        for batch_size in scores:
            spec = ScoringSpec(batch_size=batch_size, max_tokens=asked.max_tokens)
            started = time.perf_counter()
            outputs[batch_size] = [each.text for each in translate(loaded, records, spec)]
            seconds[batch_size] = time.perf_counter() - started
            scorer = Scorer(resolve.resolve_embedder(spec.embedder), spec)
            found = scorer.compare(records, outputs[batch_size])
            scores[batch_size].append(found.similarity)
        ratios.append(seconds[1] / seconds[asked.batch_size])
        same.append(sum(a == b for a, b in zip(*outputs.values(), strict=True)) / len(records))
        print(
            f"{adapter.parent.name[-24:]:24} {seconds[1]:10.1f} s "
            f"{seconds[asked.batch_size]:7.1f} s {ratios[-1]:7.2f}   {scores[1][-1]:.4f} "
            f"{scores[asked.batch_size][-1]:.4f}",
            flush=True,
        )
    alone, batched = scores.values()
    print(
        f"ratio: minimum {min(ratios):.2f}, median {statistics.median(ratios):.2f}, maximum "
        f"{max(ratios):.2f}; identical outputs: {statistics.mean(same):.0%}"
    )
    print(
        f"similarity differs by at most "
        f"{max(abs(a - b) for a, b in zip(alone, batched, strict=True)):.4f}; order of adapters "
        f"{'unchanged' if _order(alone) == _order(batched) else 'changed'}"
    )


def _order(values: list[float]) -> list[int]:
    return sorted(range(len(values)), key=lambda i: -values[i])


if __name__ == "__main__":
    main()
