"""The embedder's process dies, and workers do without torch."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from hawsweep.machine.backend import code_dir

import psutil
import pytest
from harness import N_THREADS, children_of, count, kill, wait_until
from optuna.trial import TrialState
from tiny_sweep import LETTERS_DIR
from warm_cache import copy_settled

SCORING = {
    "metric": "semantic_similarity",
    "embedder": LETTERS_DIR,
    "max_examples": 4,
    "max_tokens": 4,
    "prompt": {"examples": 0},
}
# Imported by every process that finds it: at its end it says which libraries it had.
REPORTING = """
import atexit, os, sys
from pathlib import Path

def report():
    found = sorted({n.partition(".")[0] for n, module in list(sys.modules.items()) if module})
    name = "-".join(each.replace("/", "_") for each in sys.orig_argv[1:4])
    Path(os.environ["REPORTS"], f"{os.getpid()}-{name}"[:100]).write_text(" ".join(found))

atexit.register(report)
"""
METRIC = """
import torch
from transformers.utils import is_torch_available

def f(source, reference, output):
    return float(torch.tensor([is_torch_available()]))
"""


def embedders_of(pid):
    return children_of(psutil.Process(pid), "fake_embedder.py")


def test_killed_embedder_costs_no_trial_and_changes_no_score(lab):
    whole, struck = (lab(trials=2, scoring=SCORING) for _ in range(2))
    whole.finish()
    pids, seen = set(), 0
    with struck.start() as run:
        for kind in ("base_start", "scoring", "scoring"):
            event, seen = run.next((kind,), seen)
            assert event is not None
            wait_until(lambda: embedders_of(run.process.pid))
            (process,) = embedders_of(run.process.pid)
            pids.add(process.pid)
            kill(process.pid, signal.SIGKILL)
            count("embedder killed")
        assert run.wait() == 0
    assert not [event for event in run.events if event["kind"] in ("died", "embedder")]
    assert {trial.state for trial in struck.trials()} == {TrialState.COMPLETE}
    assert struck.finished() == whole.finished()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert (struck.studies / "tiny" / "embedder.log").is_file()


def test_two_workers_share_an_embedder_that_ends_with_the_supervisor(lab):
    here = lab(trials=1000, workers=2, scoring=SCORING)
    with here.start() as run:
        ended, seen = set(), 0
        while len(ended) < 2:
            event, seen = run.next(("trial_end",), seen)
            ended.add(event["worker"])
        (process,) = embedders_of(run.process.pid)
        kill(run.process.pid, signal.SIGKILL)
        count("supervisor killed")
        wait_until(lambda: not process.is_running())


@pytest.fixture
def reports(tmp_path):
    """Where processes that are started with the environment report; and that environment."""
    folder, site = tmp_path / "reports", tmp_path / "site"
    folder.mkdir()
    site.mkdir()
    (site / "sitecustomize.py").write_text(REPORTING)
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    cache = tmp_path / "cache"  # no model was measured yet; kernels are compiled as far as they are
    copy_settled(code_dir(), cache / code_dir().name)
    environment = {
        **os.environ,
        **N_THREADS,
        "PYTHONPATH": os.pathsep.join(paths),
        "REPORTS": str(folder),
        "HAWSWEEP_CACHE": str(cache),
    }
    return folder, environment


def test_no_process_but_the_embedders_has_torch(lab, reports):
    here, (folder, environment) = lab(trials=1, scoring=SCORING), reports
    # The command line has the real embedder.
    options = ("--set", "scoring.embedder=all-MiniLM-L6-v2")
    for command in (
        ("start", "sweep.yaml", "--plain", *options),
        ("status",),
        ("plan", "sweep.yaml", *options),
        ("--help",),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "hawsweep.cli", *command],
            cwd=here.folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    found = {path.name.partition("-")[2]: path.read_text().split() for path in folder.iterdir()}
    kinds = (
        "hawsweep.running.worker",
        "hawsweep.planning.measured_steps",
        "start",
        "status",
        "plan",
        "--help",
    )
    for kind in kinds:
        assert any(kind in name for name in found), (kind, list(found))
    (worker,) = (names for name, names in found.items() if "hawsweep.running.worker" in name)
    assert "transformers" in worker
    for name, names in found.items():
        assert not {"torch", "sentence_transformers"} & set(names), name


def test_metric_of_ones_own_finds_torch_also_in_transformers(lab):
    here = lab(trials=1, scoring={**SCORING, "metric": "mine:f"})
    Path(here.folder, "mine.py").write_text(METRIC)
    with here.start(warm=False) as run:
        assert run.wait() == 0, run.events
    ((state, score, *_),) = here.finished().values()
    assert (state, score) == (TrialState.COMPLETE, 1)
