"""The example notebook, run by nbconvert as its readers would run it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import IPython.display
from tiny_sweep import really_embedded, tiny_sweep

from hawsweep.running.events import Event
from hawsweep.views.terminal import notebook

NOTEBOOK = Path(__file__).parents[2] / "docs" / "sweep.ipynb"


def test_example_notebook_runs_and_shows_the_sweep(tmp_path, tiny_model_dir, chat_data_dir):
    sweep = really_embedded(tiny_sweep(tiny_model_dir, chat_data_dir))
    del sweep["search"]["iters"]
    (tmp_path / "tiny.yaml").write_text(json.dumps(sweep), encoding="utf-8")
    ran = tmp_path / "ran.ipynb"
    done = subprocess.run(
        [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", NOTEBOOK]
        + [f"--output={ran}"],
        # Else the studies would be made in the notebook's folder.
        env={**os.environ, "HAWSWEEP_SWEEP": str(tmp_path / "tiny.yaml")}
        | {"HAWSWEEP_STUDIES_DIR": str(tmp_path / "studies")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    cells = {each["id"]: each for each in json.loads(ran.read_text(encoding="utf-8"))["cells"]}
    (shown,) = cells["run"]["outputs"]
    assert shown["data"]["text/plain"][0].startswith("finished; notebook: Use ")
    (outcome,) = cells["outcome"]["outputs"]
    assert outcome["data"]["text/plain"][0].startswith("Outcome(")
    table = "".join(outcome["data"]["text/html"])
    assert table.startswith("<p><b>Use ")
    assert table.count("<tr>") == 1 + 3 + 1  # titles, trials, base
    (samples,) = cells["samples"]["outputs"]
    assert len("".join(samples["text"]).splitlines()) >= 9


def test_running_sweep_is_one_picture_that_changes(monkeypatch):
    shown = []

    class Handle:
        def update(self, picture, *, raw):
            shown.append(picture)

    def display(picture, *, raw, display_id):
        assert shown == []
        shown.append(picture)
        return Handle()

    monkeypatch.setattr(IPython.display, "display", display)
    monkeypatch.setattr(notebook, "_INTERVAL_S", 0.0)
    follow = notebook.NotebookDisplay(n_trials=2)
    follow(Event("preparing", values={"text": "reading <b>the</b> data"}))
    follow(Event("trial_start", 0, {"number": 1, "settings": {"optimizer": "<b>\x1b"}}))
    follow(Event("iteration", 0, {"iteration": 3, "iters": 9}))
    assert "0/2 trials" in shown[0]["text/plain"]
    assert "reading &lt;b&gt;the&lt;/b&gt; data" in shown[0]["text/html"]
    assert "3/9" in shown[-1]["text/plain"]
    assert "optimizer &lt;b&gt;\\x1b" in shown[-1]["text/html"]
    assert len(shown) == 3
