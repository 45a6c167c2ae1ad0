"""`hawsweep start --detach --hosts`: the sweep and its hosts go on without the terminal."""

import json
import re
import sys

import pytest
from click.testing import CliRunner
from harness import wait_until
from optuna.trial import TrialState
from tiny_sweep import really_embedded

from hawsweep.cli import main
from hawsweep.errors import StudyError
from hawsweep.machine.processes import supervisor_of
from hawsweep.running.hosts import check_tools
from hawsweep.study.attributes import ARTIFACT


def test_hosts_of_a_sweep_in_the_background_train_until_it_is_stopped(room):
    host = room.machine("host-1")
    # Trials so long that none ends before the sweep is stopped.
    lab = room.lab(trials=50, search={"iters": {"choices": [4000]}})
    path, folder = lab.folder / "sweep.yaml", lab.studies / "tiny"
    path.write_text(json.dumps(really_embedded(json.loads(path.read_text()))))

    def of_host():
        """Its trials that were evaluated."""
        told = re.findall(r"trial (\d+) starts on host-1", (folder / "sweep.log").read_text())
        trials = [lab.trials()[int(number)] for number in told]
        return [trial for trial in trials if trial.intermediate_values]

    asked = ("sweep.yaml", "--study=tiny", "--hosts=host-1", "--detach")
    told = room.command(lab, "start", *asked)
    try:
        assert f"as process {supervisor_of(folder)['pid']}." in told
        wait_until(of_host)
    finally:
        told = room.command(lab, "stop", "tiny")
    assert told == (  # no sweep is named tiny
        "Stopped. To go on: hawsweep start studies/tiny/spec.yaml --study=tiny\n"
    )
    assert supervisor_of(folder) is None
    assert host.processes("command.py") == []
    assert {trial.state for trial in lab.trials()} == {TrialState.WAITING}
    # A request to stop that came to the host twice would stop its trials at once.
    saved = of_host()[0].user_attrs[ARTIFACT]
    assert (folder / "artifacts" / saved["id"]).is_file()  # the starter has its state


def test_missing_ssh_is_told_before_the_sweep_is_in_the_background(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    asked = ["start", "lr-rank", "--hosts=host-1", "--detach", f"--studies-dir={tmp_path}"]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 1
    assert done.stderr == "Error: --hosts needs ssh, which is not installed on this machine.\n"


def test_missing_grpc_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(StudyError, match=r"^--hosts needs the package grpcio, which is missing\."):
        check_tools()
