import json
import subprocess
import sys
from dataclasses import asdict

from hawsweep.machine.backend import code_dir

import pytest
from warm_cache import copy_settled

from hawsweep.errors import BackendError
from hawsweep.models import resolve
from hawsweep.prepare import self_test
from hawsweep.prepare.self_test import SelfTest, read_outcome, run_selftest, train_a_little

DONE = SelfTest("a model", 4.0, 3.0, 3.0, 1.0, 100.0)


def test_random_model_learns_and_its_adapter_is_the_same_when_loaded_again(tmp_path, monkeypatch):
    monkeypatch.setattr(resolve, "find_model", lambda name: None)
    done = train_a_little(tmp_path)
    assert done.model == "a tiny random model"
    assert done.after < done.before
    assert done.learned
    assert done.reloaded == pytest.approx(done.after, rel=1e-6)
    assert done.is_kept


def test_other_adapter_than_the_trained_one_is_noticed():
    assert not SelfTest("a model", 4.0, 3.0, 4.0, 1.0, 100.0).is_kept
    assert not SelfTest("a model", 4.0, 4.5, 4.5, 1.0, 100.0).learned


def test_outcome_is_the_last_line_of_a_process_that_ended():
    assert read_outcome(0, f"some library\n{json.dumps(asdict(DONE))}\n", "") == DONE


@pytest.mark.parametrize(
    ("code", "output", "errors", "says"),
    [
        (0, "", "", "its output cannot be read"),
        (0, '{"model": 1}', "", "its output cannot be read"),
        (-11, "", "", "it was ended by signal 11$"),
        (1, "", "Traceback\nValueError: no g++\n\n", "it ended with code 1: ValueError: no g"),
        (-6, "", "[METAL] Insufficient Memory", "it ran out of memory"),
    ],
)
def test_process_that_did_not_end_well_is_told_from_others(code, output, errors, says):
    with pytest.raises(BackendError, match=says):
        read_outcome(code, output, errors)


def test_process_that_hangs_or_cannot_be_started_is_said(monkeypatch):
    monkeypatch.setattr(self_test, "_TIMEOUT_S", 0.01)
    with pytest.raises(BackendError, match="it took more than 0 seconds"):
        run_selftest()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(BackendError, match="no process could be started: No such file"):
        run_selftest()


def test_process_prints_one_line_of_json_and_leaves_no_folder(tmp_path):
    # Without a bundled model in the cache the random one is trained.
    copy_settled(code_dir(), tmp_path / code_dir().name)
    environment = {"HAWSWEEP_CACHE": str(tmp_path), "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    module = "hawsweep.prepare.self_test"
    code = "import os, runpy; os.environ.update({}); runpy.run_module('MODULE', {})"
    code = code.replace("MODULE", module)
    code = code.format(environment, {}).replace(", {})", ", run_name='__main__')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_outcome(0, done.stdout, "").learned
    assert [path for path in (tmp_path / "tmp").iterdir() if "selftest" in path.name] == []
