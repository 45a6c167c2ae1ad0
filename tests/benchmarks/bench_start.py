"""How long a worker takes from its start to its first training step, and what the processes of a
sweep with two workers take of memory.

A tiny llama is swept, so that starting is most of it: first a study whose base is measured, then
from the start of two workers to the first step of a trial, and what both take with the embedder's
process, at most, as each trial ends. Memory is shared out among those that share it (PSS),
or is resident (RSS) where the system has no PSS. ``--beside SRC`` runs the sources of another
checkout in turns with these.

    python tests/benchmarks/bench_start.py --beside ../other/src --pairs 3
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

import conftest
import tiny_llama
from tiny_sweep import phrasebook_lines, really_embedded, tiny_sweep

SRC = TESTS.parent / "src"
# Runs in a process of its own, with either checkout.
SIDE = """
import json, sys, tempfile, time
from contextlib import suppress
import psutil
from hawsweep import load_sweep, run_sweep

times, most = {}, {"bytes": 0}

def pss(process):
    found = process.memory_full_info()
    return getattr(found, "pss", found.rss)

def listen(event):
    times.setdefault(event.kind, time.perf_counter())
    if event.kind == "trial_end":
        total = 0
        for each in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                total += pss(each)
        most["bytes"] = max(most["bytes"], total)

sweep = sys.argv[1]
with tempfile.TemporaryDirectory() as folder:
    for changes in ({"trials": 1}, {"trials": 5, "workers": 2}):
        times.clear()
        most["bytes"] = 0
        run_sweep(load_sweep(sweep, changes), "start", studies_dir=folder, on_event=listen)
start_s = times["iteration"] - times["study"]
print(json.dumps({"start_s": start_s, "GB": most["bytes"] / 1e9}))
"""


def measure(src: Path, sweep: Path) -> dict[str, float]:
    """Seconds to the first step, and GB of the processes that the supervisor started."""
    environment = {**os.environ, "PYTHONPATH": str(src), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", SIDE, str(sweep)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/")
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure, and print each pair and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--beside", type=Path, metavar="SRC", help="Another checkout's src.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, data, sweep = (Path(folder, name) for name in ("model", "data", "sweep.yaml"))
        model.mkdir()
        data.mkdir()
        tokenizer = tiny_llama.tokenizer(
            "<|im_start|>", "<|im_end|>", conftest.CHAT_TEMPLATE, vocab_size=400
        )
        sizes = {"hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 128}
        tiny_llama.save(model, tokenizer, seed=7, num_key_value_heads=2, **sizes)
        for split, n_records in conftest.N_RECORDS.items():
            lines = phrasebook_lines(split, n_records)
            (data / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        made = really_embedded(tiny_sweep(model, data))
        sweep.write_text(json.dumps(made), encoding="utf-8")
        pairs = []
        for number in range(asked.pairs):
            sides = [SRC] if asked.beside is None else [SRC, asked.beside][:: (-1) ** number]
            found = {side: measure(side, sweep) for side in sides}
            print(*(f"{side}: {values}" for side, values in found.items()), sep="\n", flush=True)
            pairs.append(found)
    for name in pairs[0][SRC]:
        ours = [pair[SRC][name] for pair in pairs]
        print(f"{name}: {min(ours):.2f} / {statistics.median(ours):.2f} / {max(ours):.2f}")
        if asked.beside is not None:
            ratios = [pair[SRC][name] / pair[asked.beside][name] for pair in pairs]
            shown = f"{min(ratios):.2f} / {statistics.median(ratios):.2f} / {max(ratios):.2f}"
            print(f"{name}, of what it is beside: {shown} (min / median / max)")


if __name__ == "__main__":
    main()
