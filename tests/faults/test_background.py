"""A sweep in the background: it runs without the terminal it was started from."""

import json
import os

import pytest
from click.testing import CliRunner
from harness import wait_until
from tiny_sweep import really_embedded

from hawsweep.cli import main
from hawsweep.errors import StudyBusyError, WorkerError
from hawsweep.machine.processes import supervisor_of
from hawsweep.running import background
from hawsweep.running.background import start_detached
from hawsweep.study.place import STORAGE_VARIABLE as VARIABLE
from hawsweep.study.place import Place, find_place


def command(here, *more):
    sweep = here.folder / "sweep.yaml"
    # JSON is YAML; a sweep's file is known by its ending.
    return ["start", str(sweep), "--study=tiny", f"--studies-dir={here.studies}", *more]


def test_sweep_goes_on_in_the_background_until_it_is_stopped(lab):
    here = lab(trials=50)
    path = here.folder / "sweep.yaml"
    path.write_text(json.dumps(really_embedded(json.loads(path.read_text()))))
    place = Place(here.studies, f"sqlite:///{here.folder}/other.db")
    pid, log = start_detached(command(here), "tiny", place)
    assert supervisor_of(place.study_dir("tiny"))["pid"] == pid
    assert os.getsid(pid) == pid  # no terminal's end reaches it
    with pytest.raises(StudyBusyError, match=f"process {pid} already"):
        start_detached(command(here), "tiny", place)
    wait_until(lambda: "trial 0" in log.read_text())
    done = CliRunner().invoke(main, ["stop", "tiny", *place.options])
    assert done.exit_code == 0, done.output
    kept = place.study_dir("tiny") / "spec.yaml"  # tiny is no sweep's name
    assert f"Stopped. To go on: hawsweep start {kept} --study=tiny" in done.output
    assert f"--storage={place.storage_url}" in log.read_text()  # of the commands that it prints
    assert supervisor_of(place.study_dir("tiny")) is None
    again = CliRunner().invoke(main, ["stop", "tiny", *place.options])
    assert "No process on this machine runs study 'tiny'" in again.output


@pytest.mark.parametrize(
    ("url", "is_an_option"),
    [
        ("postgresql://me@host/s", True),
        ("postgresql://me@host/s?options=-csearch_path%3Dours", False),  # may be a secret
    ],
)
def test_password_of_the_database_is_no_argument(lab, monkeypatch, url, is_an_option):
    def popen(command, env, **_):
        raise RuntimeError(f"{[each for each in command if 'storage' in each]} {env.get(VARIABLE)}")

    here = lab()
    monkeypatch.setenv("HAWSWEEP_STORAGE_PASSWORD", "sesame")
    monkeypatch.setattr(background.subprocess, "Popen", popen)
    place = find_place(here.studies, url)
    assert "sesame" in place.storage_url
    with pytest.raises(RuntimeError) as started:
        start_detached(command(here), "tiny", place)
    expected = f"['--storage={url}'] None" if is_an_option else f"[] {place.storage_url}"
    assert str(started.value) == expected


def test_first_start_is_stopped_while_it_prepares(lab):
    here = lab()
    place = Place(here.studies)
    with here.start("hold=preparing") as run:
        assert run.next(("preparing",))[0] is not None
        stop = ["stop", "tiny", f"--studies-dir={here.studies}"]
        other = CliRunner().invoke(main, [*stop, f"--storage=sqlite:///{here.folder}/other.db"])
        assert other.exit_code == 1  # of that name in another database
        assert supervisor_of(place.study_dir("tiny")) is not None
        done = CliRunner().invoke(main, stop)
        assert "Stopped while it prepared: there is no study yet" in done.output
        assert supervisor_of(place.study_dir("tiny")) is None
        assert run.wait() != 0
    again = CliRunner().invoke(main, stop)
    assert (again.exit_code, "There is no study 'tiny'" in again.output) == (1, True)
    here.finish()


def test_fault_of_the_start_is_told_at_once(lab):
    here = lab()
    with pytest.raises(WorkerError, match="There is no sweep file"):
        start_detached(["start", "none.yaml"], "tiny", Place(here.studies))


def test_sweep_that_is_refused_after_preparing_is_told_by_its_reason(lab):
    here = lab(trials=2)
    with pytest.raises(WorkerError, match=r"^No setting of this sweep fits"):
        start_detached([*command(here), "--set=memory.budget=1MB"], "tiny", Place(here.studies))
