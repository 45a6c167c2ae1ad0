"""Sweeps on several machines: who trains, and what is left after faults."""

import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from harness import wait_until
from optuna.trial import TrialState

from hawsweep.files import files_under

HOSTS = "host-1,host-2"
LEASE_S = 30  # as conftest sets it for all machines: six raises


def end_well(run, lab, n_trials):
    """A sweep's end, and what must be true then: nothing lost, nothing running, counts exact."""
    assert run.wait() == 0, run.events[-5:]
    lab.check(n_trials)
    done = [t for t in lab.trials() if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    about = [(t.number, t.state.name, t.user_attrs.get("repeats")) for t in lab.trials()]
    assert len(done) == n_trials, about
    for trial in done:
        if trial.state == TrialState.COMPLETE:
            folder = lab.studies / "tiny" / "trials" / f"{trial.number:04d}"
            assert (folder / "adapters" / "adapters.safetensors").is_file(), trial.number


def test_a_sweep_runs_on_all_hosts_of_one_name(room):
    """Machines that were copied have the same name; ssh knows them by others. One is renamed."""
    _, other = (room.machine(name, hostname="studio") for name in ("host-1", "host-2"))
    lab = room.lab(trials=8)
    run = room.start(lab, HOSTS)
    run.wait_for("trial_start", "host-2")
    other.rename("studio-9")
    end_well(run, lab, 8)
    assert not run.of("reaped")
    assert {"host-1", "host-2"} <= {each["host"] for each in run.of("trial_end")}
    for host in ("host-1", "host-2"):
        assert run.of("host", host)[0]["state"] == "joined"
    # Each trial's events have the host that had it.
    for ended in run.of("trial_end"):
        (begun,) = [each for each in run.of("trial_start") if each["number"] == ended["number"]]
        assert (begun["host"], begun["worker"]) == (ended["host"], ended["worker"])


def check_token_is_hidden(room, machine):
    """It is in the environment of the workers, and where others can look it is not."""
    environments = [
        Path(f"/proc/{pid}/environ").read_bytes() for pid in machine.processes("worker")
    ]
    found = re.search(rb"HAWSWEEP_ARTIFACTS_TOKEN=([^\0]+)", b"".join(environments))
    token = found[1]
    for each in psutil.process_iter():
        with suppress(psutil.Error):
            assert token.decode() not in " ".join(each.cmdline())
    for path in files_under(room.folder):
        if not path.is_relative_to(room.venv):
            with suppress(FileNotFoundError):  # the sweep goes on
                assert token not in path.read_bytes(), path


def test_ctrl_c_stops_all_hosts_and_the_same_start_goes_on(room):
    machines = [room.machine(name) for name in ("host-1", "host-2")]
    lab = room.lab(trials=6)
    run = room.start(lab, HOSTS)
    for host in ("host-1", "host-2"):
        run.wait_for("trial_start", host)
    check_token_is_hidden(room, machines[0])
    run.send_signal(signal.SIGINT)
    assert run.wait() == 130
    assert TrialState.RUNNING not in [trial.state for trial in lab.trials()]
    assert [machine.processes("command.py") for machine in machines] == [[], []]
    ended = lab.finished()
    again = room.start(lab, HOSTS)
    end_well(again, lab, 6)
    assert ended.items() <= lab.finished().items()


def press_twice(run, room, lab):
    for _ in range(2):
        run.send_signal(signal.SIGINT)
        time.sleep(0.3)


def stop_now(run, room, lab):
    room.command(lab, "stop", "tiny", "--now")


@pytest.mark.parametrize("stop", [press_twice, stop_now])
def test_all_end_at_once(room, stop):
    machine = room.machine("host-1")
    lab = room.lab(trials=50)
    run = room.start(lab, "host-1")
    run.wait_for("trial_start", "host-1")
    stop(run, room, lab)
    assert run.wait(45) == 130  # three seconds on an idle machine
    wait_until(lambda: machine.processes("command.py") == [])
    assert TrialState.RUNNING not in [trial.state for trial in lab.trials()]


def test_a_host_whose_processes_were_killed_joins_again(room):
    machine = room.machine("host-1")
    lab = room.lab(trials=8)
    run = room.start(lab, "host-1")
    run.wait_for("trial_start", "host-1")
    for pid in [*machine.processes("command.py"), *machine.processes("hawsweep")]:
        with suppress(ProcessLookupError):  # the last ones end with the first
            os.kill(pid, signal.SIGKILL)
    run.wait_for("host", "host-1", state="away")
    run.wait_for("host", "host-1", state="joined", number=2)
    end_well(run, lab, 8)


def test_a_host_whose_power_fails_is_left_and_its_trial_goes_on_elsewhere(room):
    machine = room.machine("host-1")
    lab = room.lab(trials=5)
    run = room.start(lab, "host-1")
    lost = run.wait_for("trial_start", "host-1")["number"]
    machine.close()
    away = run.wait_for("host", "host-1", state="away")["text"]
    assert away.startswith("has gone: ")
    assert away.endswith("It is tried again")
    end_well(run, lab, 5)
    assert lost in {each["number"] for each in run.of("reaped")}


def test_the_starters_death_ends_the_workers_of_hosts(room):
    machine = room.machine("host-1")
    lab = room.lab(trials=6)
    run = room.start(lab, "host-1")
    run.wait_for("trial_start", "host-1")
    run.kill()
    run.wait()
    deadline = time.monotonic() + 60
    while machine.processes("hawsweep"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    end_well(room.start(lab, "host-1"), lab, 6)


def test_hosts_that_cannot_take_part_say_why_and_the_others_go_on(room, chat_data_dir):
    room.machine("good")
    room.machine("without", hidden=room.venv)
    stranger = room.machine("stranger")
    known = room.folder / "known_hosts"
    other_key = (room.machines["good"].folder / "host_key.pub").read_text()
    known.write_text(
        known.read_text().replace(stranger.public_key, f"{stranger.address} {other_key}")
    )
    other = room.folder / "other"
    other.mkdir()
    (other / ".profile").write_text(f"PATH={other}:$PATH\n")
    fake = other / "hawsweep"
    fake.write_text("#!/bin/sh\necho 'Error: No such option: --tied' >&2\nexit 2\n")
    fake.chmod(0o755)
    room.machine("older", hidden=room.venv, HOME=other)
    room.machine("empty", hidden=chat_data_dir)
    room.know("off", "127.0.0.1", port=1)
    lab = room.lab(trials=6)
    run = room.start(lab, "off,good,without,stranger,older,empty")
    end_well(run, lab, 6)
    said = {host: [(e["state"], e["text"]) for e in run.of("host", host)] for host in room.machines}
    assert said["without"] == [
        ("left", "does not take part: it has no hawsweep, neither where it is here nor on the PATH")
    ]
    assert said["older"] == [
        (
            "left",
            "does not take part: it has another version of hawsweep: Error: No such option: --tied",
        )
    ]
    assert said["stranger"] == [
        ("away", "cannot be reached: Host key verification failed. It is tried again")
    ]
    assert said["good"][0][0] == "joined"
    ((state, text),) = said["empty"]
    assert state == "left"
    assert text.startswith(f"does not take part: {chat_data_dir} ")
    assert [(e["state"], e["text"]) for e in run.of("host", "off")] == [
        (
            "away",
            "cannot be reached: ssh: connect to host 127.0.0.1 port 1: Connection refused. "
            "It is tried again",
        )
    ]
    assert {each["host"] for each in run.of("trial_end")} <= {"", "good"}


@pytest.mark.parametrize("seconds", [3, 35])
def test_a_link_that_is_down(room, seconds):
    """For less than ssh waits nothing changes; for longer than a lease its trials go on here."""
    machine = room.machine("host-1")
    is_short = seconds < LEASE_S
    n_trials = 6 if is_short else 30
    lab = room.lab(trials=n_trials)
    run = room.start(lab, "host-1")
    run.wait_for("trial_start", "host-1")
    machine.set_link(False)
    time.sleep(seconds)
    machine.set_link(True)
    end_well(run, lab, n_trials)
    states = [each["state"] for each in run.of("host", "host-1")]
    if is_short:
        assert states == ["joined"]
    else:  # on a slow machine the others may have run all trials before it is tried again
        assert states[:2] == ["joined", "away"]
