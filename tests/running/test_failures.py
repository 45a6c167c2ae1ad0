"""When a sweep gives up."""

from pathlib import Path

import pytest

from hawsweep.errors import WorkerError
from hawsweep.running.failures import Failures
from hawsweep.study.place import Place


@pytest.fixture
def failures(clock):
    return Failures("pairs", Place(Path("studies")), clock)


def test_three_failures_of_a_kind_in_a_row_end_a_sweep(failures):
    for kind in ("gpu", "gpu", None, "gpu", "gpu", "bug", "bug"):
        failures.count(kind, "it failed")
    with pytest.raises(WorkerError, match=r"^3 failures in a row, the last: it failed"):
        failures.count("bug", "it failed")


@pytest.mark.parametrize(("every_s", "n"), [(30, 121), (120, 31), (600, 20)])
def test_watchdog_has_an_hour_until_the_display_sleeps(failures, clock, every_s, n):
    for _ in range(n - 1):
        failures.count("watchdog", "the display is on")
        clock.now += every_s
    with pytest.raises(WorkerError, match=f"^{n} failures in a row.* Let the display sleep"):
        failures.count("watchdog", "the display is on")


def test_workers_rest_from_the_seventh_death_by_the_watchdog_on(failures):
    rests = []
    for _ in range(8):
        failures.count("watchdog", "the display is on")
        rests.append(failures.rest_s)
    assert rests == [0.0] * 6 + [60.0] * 2
    failures.count(None, "")
    assert failures.rest_s == 0.0


def test_hour_of_the_watchdog_begins_anew_after_a_trial(failures, clock):
    for kind in ("watchdog", None, "watchdog"):
        failures.count(kind, "the display is on")
        clock.now += 3000
    for _ in range(19):
        failures.count("watchdog", "the display is on")
