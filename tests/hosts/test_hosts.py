"""Sweeps on several machines: who trains, and what is left after faults."""


def test_a_sweep_runs_on_all_hosts(room):
    for name in ("host-1", "host-2"):
        room.machine(name)
    lab = room.lab(trials=8)
    run = room.start(lab, "host-1,host-2")
    assert run.wait() == 0
    lab.check(8)
    where = {each["host"] for each in run.of("trial_end")}
    assert {"host-1", "host-2"} <= where
