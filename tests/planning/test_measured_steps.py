"""Steps measured in child processes: which, and what a child that dies costs."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from hawsweep.planning import measured_steps
from hawsweep.planning.measured_steps import (
    Observation,
    Point,
    measure,
    measure_step,
    points,
    profitable_workers,
)
from hawsweep.planning.peak import Execution, Step

TINY_POINT = Point(Step(1, 16, 8), 1, 4, Execution(1, False, None))


def test_points_fit_the_model_and_use_each_way_to_execute():
    for n_layers in (1, 30):
        found = points(n_layers, 85)
        assert {point.num_layers for point in found} <= set(range(1, n_layers + 1))
        assert {point.execution.grad_checkpoint for point in found} == {True, False}
        assert any(point.execution.tokens_at_once == 85 for point in found)
        for point in found:
            assert point.step.n_targets % point.step.rows == 0
            assert point.step.n_targets <= point.step.n_tokens


def child_that(script):
    """Starts a child that gets the points as ``asked``, instead of the one that measures."""
    code = f"import json, os, sys\nasked = json.loads(sys.stdin.readline())['points']\n{script}"

    def start(asked, n_threads):
        child = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(len(asked["points"]))
        child.stdin.write(json.dumps(asked) + "\n")
        child.stdin.flush()
        return child

    started = []
    return start, started


LINE = "json.dumps({'peak_bytes': each['rank'], 'seconds': 1.0})"


def of_rank(*ranks):
    return [replace(TINY_POINT, rank=rank) for rank in ranks]


def test_child_that_dies_costs_its_point_only(monkeypatch):
    # Each child measures one point and dies of the next.
    start, started = child_that(f"each = asked[0]\nprint({LINE})\nsys.exit(1)")
    monkeypatch.setattr(measured_steps, "_start_child", start)
    told = []
    observed = measure("model", of_rank(1, 2, 3, 4, 5), told.append)
    assert [each.peak_bytes for each in observed] == [1, 3, 5]
    assert [each.train.lora_parameters.rank for each in observed] == [1, 3, 5]
    assert started == [5, 3, 1]
    assert told[-1] == "measured 3 of 5 training steps"


def test_child_that_is_killed_at_one_point_goes_on_after_it(monkeypatch):
    script = (
        "for each in asked:\n"
        "    if each['rank'] == 2:\n"
        "        sys.stdout.flush()\n"
        "        os.kill(os.getpid(), 9)\n"
        f"    print({LINE})\n"
    )
    start, started = child_that(script)
    monkeypatch.setattr(measured_steps, "_start_child", start)
    observed = measure("model", of_rank(1, 2, 3, 4), lambda _: None, n_children=1)
    assert [each.peak_bytes for each in observed] == [1, 3, 4]
    assert started == [4, 2]


def test_step_that_takes_too_long_is_tried_again_after_the_others(monkeypatch, tmp_path):
    # The child waits once at rank 2 and always at rank 3.
    start, started = child_that(
        "import time\n"
        "for each in asked:\n"
        "    seen = os.path.exists(str(each['rank']))\n"
        "    open(str(each['rank']), 'w').close()\n"
        "    if each['rank'] == 3 or (each['rank'] == 2 and not seen):\n"
        "        time.sleep(60)\n"
        f"    print({LINE}, flush=True)"
    )
    monkeypatch.setattr(measured_steps, "_start_child", start)
    monkeypatch.setattr(measured_steps, "_STEP_S", 1.0)
    monkeypatch.setattr(measured_steps, "_FIRST_STEP_S", 4.0)
    monkeypatch.chdir(tmp_path)
    told = []
    observed = measure("model", of_rank(1, 2, 3, 4), told.append)
    assert [each.peak_bytes for each in observed] == [1, 4, 2]
    assert started == [4, 3, 3]
    assert told.count("a training step took more than 1 s") == 3
    assert told[-2:] == [*("measured 3 of 4 training steps", "a training step took more than 1 s")]


def test_line_that_a_dying_child_half_wrote_is_left_out(monkeypatch):
    start, _ = child_that(
        f"each = asked[0]\nprint({LINE})\nsys.stdout.write('{{\"peak_b')\nsys.exit(1)"
    )
    monkeypatch.setattr(measured_steps, "_start_child", start)
    observed = measure("model", of_rank(1, 2, 3), lambda _: None)
    assert [each.peak_bytes for each in observed] == [1, 3]


def test_points_are_shared_among_children(monkeypatch):
    start, started = child_that(f"for each in asked:\n    print({LINE})")
    monkeypatch.setattr(measured_steps, "_start_child", start)
    observed = measure("model", of_rank(1, 2, 3, 4, 5), lambda _: None, n_children=2)
    assert sorted(each.peak_bytes for each in observed) == [1, 2, 3, 4, 5]
    assert started == [3, 2]


def test_children_share_the_budget(monkeypatch):
    start, _ = child_that(f"for each in asked:\n    print({LINE})")
    given = []

    def noting(asked, n_threads):
        given.append(asked.get("budget_bytes"))
        return start(asked, n_threads)

    monkeypatch.setattr(measured_steps, "_start_child", noting)
    measure("model", of_rank(1, 2), n_children=2, budget_bytes=8e9)
    measure("model", of_rank(1), n_children=1)
    assert given == [4e9, 4e9, None]


def rates(monkeypatch, *steps_a_second):
    """What so many at a time, doubled, do together."""
    asked = []

    def fake(model_path, todo, *, n_children, n_threads):
        asked.append((n_children, n_threads))
        rate = steps_a_second[len(asked) - 1] / n_children
        return [
            Observation(point.train(), point.step, point.execution, 1, rate and 1 / rate)
            for point in todo[: None if rate else -1]
        ]

    monkeypatch.setattr(measured_steps, "measure", fake)
    return asked


@pytest.mark.parametrize(
    ("steps_a_second", "best"),
    [((1.0, 1.9, 3.5, 3.6), 4), ((1.0, 1.05), 1), ((1.0, 1.9, 0), 2), ((0,), 1), ((1, 2, 4, 8), 8)],
)
def test_workers_are_doubled_as_long_as_that_is_worth_it(monkeypatch, steps_a_second, best):
    asked = rates(monkeypatch, *steps_a_second)
    assert profitable_workers("model", 8, 8, lambda _: None) == best
    assert asked == [(1, 8), (2, 4), (4, 2), (8, 1)][: len(steps_a_second)]


def test_no_more_workers_are_tried_than_asked(monkeypatch):
    asked = rates(monkeypatch, 1, 2)
    assert profitable_workers("model", 3, 3, lambda _: None) == 2
    assert asked == [(1, 3), (2, 1)]
    assert profitable_workers("model", 0, 3, lambda _: None) == 1


def test_measured_peak_grows_with_the_step_and_leaves_the_model_as_it_was(
    tiny_model,
):
    model = tiny_model.model
    before = {type(module) for module in model.modules()}
    small = measure_step(model, TINY_POINT)
    large = measure_step(model, replace(TINY_POINT, step=Step(4, 64, 256)))
    again = measure_step(model, TINY_POINT)
    assert 0 < small["peak_bytes"] < large["peak_bytes"]
    assert again["peak_bytes"] < large["peak_bytes"] / 2  # nothing of the large one is left
    assert {type(module) for module in model.modules()} == before
