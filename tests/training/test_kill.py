"""A run killed at any moment ends, when started again, as one that never was: bit for bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "resuming_run.py"
N_KILLS = 25
INTERVAL = 5  # iterations between evaluations


def trained(folder, kills=()):
    """What a run told, by kind and iteration, with each life killed after so many lines of a
    kind, and seconds; how often it was; and the files it left.
    """
    kills = list(kills)
    told, n_killed, evaluated, is_first = {}, 0, 0, True
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder)], stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            kind, *values = json.loads(line)
            if kind == "pid":
                (child,) = values
                fatal, n_lines, delay_s = kills.pop(0) if kills else (None, 0, 0)
                is_first = True
                continue
            if kind == "iteration" and is_first:
                # The state of the last evaluation may not have been written; the one before was.
                assert values[0] > evaluated - INTERVAL
                is_first = False
            if kind == "evaluation":
                evaluated = values[0]
            # Told again after a kill: the same, or the run took another way.
            key = f"{kind} {values[0]}" if kind != "end" else kind
            assert told.setdefault(key, values) == values
            if kind == fatal:
                n_lines -= 1
                if n_lines == 0:
                    time.sleep(delay_s)
                    os.kill(child, signal.SIGKILL)
                    n_killed += 1
    assert process.returncode == 0
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "state.safetensors"  # it has times
    }
    return told, n_killed, files


@pytest.mark.real
def test_run_killed_25_times_ends_as_one_that_was_not(tmp_path):
    generator = random.Random(0)
    # Anywhere between two evaluations, and while files are written.
    kills = [
        ("iteration", generator.randint(1, 2 * INTERVAL - 1), generator.uniform(0, 0.02))
        if generator.random() < 0.5
        else ("evaluation", 1, generator.uniform(0, 0.005))
        for _ in range(N_KILLS)
    ]
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole, none, whole_files = trained(tmp_path / "whole")
    told, n_killed, files = trained(tmp_path / "killed", kills)
    assert (none, n_killed) == (0, N_KILLS)
    assert {"adapters/adapters.safetensors", "adapters/adapter_config.json"} < files.keys()
    assert told == whole
    assert files == whole_files
