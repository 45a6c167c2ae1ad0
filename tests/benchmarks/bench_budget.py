"""A sweep in less memory than its largest setting needs, with its plan and without.

Both runs have the same limit on their address space, below which an allocation fails. The first is
told so by ``memory.budget``; the second believes that there is no end of memory, as a tool without
a plan does. Real model, real data, a few iterations a trial.

    python tests/benchmarks/bench_budget.py --data FOLDER
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from hawsweep.models.resolve import resolve_model
from hawsweep.planning import calibration
from hawsweep.planning.peak import process_bytes
from hawsweep.planning.sweep_plan import plan_sweep
from hawsweep.spec.read import find_sweep, parse_override, read_sweep

_SETTINGS = [
    "model=smollm2-135m-instruct",
    "train.batch_size=4",
    "train.max_seq_length=256",
    "train.steps_per_eval=2",
    "train.optimizer_config={}",
    "search.learning_rate={low: 1e-5, high: 1e-3, log: true}",
    "search.lora_parameters.rank.choices=[8, 32, 192]",
    "train.iters=2",
    "search.grad_accumulation_steps.choices=[1, 2]",
    "enqueue=[]",
    "pruning={name: none}",
    "sampler={name: random}",
    "validation={max_examples: 4}",
    "scoring={metric: semantic_similarity, max_examples: 4, max_tokens: 4}",
    "workers=1",
    "trials=6",
]
# The address space of a worker beside its arrays and what is resident of the rest: libraries that
# are mapped and not used, threads' stacks.
_MAPPED_BYTES = 1_600_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="phrasebook")
    parser.add_argument("--share", type=float, default=0.6)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--runs", nargs="*", default=["planned", "unplanned"])
    asked = parser.parse_args()
    settings = [*_SETTINGS, f"data={asked.data}", f"trials={asked.trials}"]
    spec = read_sweep(find_sweep("lr-rank"), dict(map(parse_override, settings)))
    path = resolve_model(spec.model)
    known = calibration.cost_model(path)
    known = calibration.ensure_calibrated(path, known, 64e9, print)
    plan = plan_sweep(spec)
    needed = process_bytes(plan.largest.least.needed_bytes, known.coefficients)
    budget = round(asked.share * needed)
    limit = budget + _MAPPED_BYTES
    print(
        f"the largest setting needs {needed / 1e9:.2f} GB at the least, executed as "
        f"{plan.largest.how}; budget {budget / 1e9:.2f} GB",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as studies:
        for name in asked.runs:
            told = budget if name == "planned" else 10**12
            told_text = f"memory.budget={told / 1e6:.0f}MB"
            sets = [part for each in (*settings, told_text) for part in ("--set", each)]
            command = [sys.executable, "-m", "hawsweep.cli", "start", "lr-rank", *sets]
            done = subprocess.run(
                [*command, "--study", name, "--studies-dir", studies],
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
                check=False,
                capture_output=True,
                text=True,
            )
            print(f"{name}: exit code {done.returncode}", flush=True)
            print(done.stderr[-600:] if done.returncode else "", end="")
            _report(name, studies)


def _report(name: str, studies: str) -> None:
    command = [sys.executable, "-m", "hawsweep.cli", "status", name, "--json"]
    shown = subprocess.run(
        [*command, "--studies-dir", studies], capture_output=True, text=True, check=True
    )
    rows = [row for row in json.loads(shown.stdout)["trials"] if row["state"] != "base"]
    print(f"  {dict(Counter(row['state'] for row in rows))}")
    for row in rows:
        peak = f"{row['peak_memory_bytes'] / 1e9:.2f} GB" if row["peak_memory_bytes"] else ""
        time_s = f"{row['time_s']:.2f} s" if row["time_s"] is not None else ""
        rank = row["settings"].get("lora_parameters.rank")
        print(f"  {row['state']:11} rank {rank} {time_s:>9} {peak:>8}  {row['reason'] or ''}")
    if not Path(studies, name).is_dir():
        raise SystemExit(f"{name} left no folder")


if __name__ == "__main__":
    main()
