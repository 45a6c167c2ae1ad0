"""Which gap at a rung tells best who ends ahead: plain, with the allowance of ``promotion``, or the
paired test of examples.

Of each two recorded settings one is ahead at a rung. Printed is how well three measures of its lead
tell the pairs that change places until the end from those that do not, as the area under the ROC
curve: .5 tells nothing, 1 all. See record_curves.py for the files.

- plain: the share of the loss by which the other is behind.
- allowance: the same, over what ``promotion.tolerance`` allows a trial of that rate.
- paired: the mean difference of the examples' losses over its standard error.

python tests/benchmarks/bench_rungs.py FILE ... [--json]
"""

import argparse
import json
from itertools import combinations
from pathlib import Path

import numpy as np
from bench_promotion import recorded_problem
from scipy.stats import mannwhitneyu

from hawsweep.search.curves import gain_at
from hawsweep.search.promotion import tolerance
from hawsweep.search.rungs import rungs


def areas(path: Path) -> dict[str, dict[str, float]]:
    """For each rung: pairs, those that change places, and the area of each measure."""
    with np.load(path) as known:
        parts = {key: known[key] for key in known.files}
    unit = json.loads(str(parts["about"]))["unit_of_example_losses"]
    weights = parts["n_targets"] / parts["n_targets"].mean()
    losses, steps = parts["val_loss"], parts["iteration"].tolist()
    # As ``curves.lowest_so_far``.
    means = np.sqrt(losses[:, 1:] * np.column_stack([losses[:, 1], losses[:, 1:-1]]))
    means = np.minimum.accumulate(means, axis=1)
    lasting = np.flatnonzero(np.isfinite(losses).all(axis=1))
    ends = np.nanmin(losses, axis=1)
    found = {}
    for share, step in rungs(recorded_problem(path).spec.train).items():
        at = steps.index(step)
        measures, changes = [], []
        for one, other in combinations(lasting, 2):
            ahead, behind = sorted((one, other), key=lambda each: losses[each, at])
            gap = losses[behind, at] / losses[ahead, at] - 1
            rates = parts["rate"][ahead] / parts["rate"][behind]
            examples = parts["example_losses"][[behind, ahead], at] * unit * weights
            differences = examples[0] - examples[1]
            error = differences.std(ddof=1) / np.sqrt(len(differences))
            gain = gain_at(dict(zip(steps[1:], means[ahead], strict=True)), step)
            allowance = tolerance(rates, share, gain)
            measures.append((gap, gap / allowance, differences.mean() / error))
            changes.append(ends[behind] < ends[ahead])
        stays = ~np.array(changes)
        found[f"{share:g}"] = {
            "pairs": len(changes),
            "change": sum(changes),
            **{
                name: float(mannwhitneyu(values[stays], values[~stays]).statistic)
                / max(1, stays.sum() * (~stays).sum())
                for name, values in zip(
                    ("plain", "allowance", "paired"), np.array(measures).T, strict=True
                )
            },
        }
    return found


def main() -> None:
    """Print a line for each rung of each file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("curves", type=Path, nargs="+")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = {path.stem: areas(path) for path in asked.curves}
    if asked.json:
        print(json.dumps(found, indent=2, default=int))
        return
    for name, at_rungs in found.items():
        print(name)
        for share, row in at_rungs.items():
            told = ", ".join(f"{key} {row[key]:.2f}" for key in ("plain", "allowance", "paired"))
            print(f"  at {share}: {row['change']:.0f} of {row['pairs']:.0f} pairs change: {told}")


if __name__ == "__main__":
    main()
