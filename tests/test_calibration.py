"""What is measured of a model here, how it is kept, and what is made of it."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from hawsweep import calibration
from hawsweep.calibration import (
    Observation,
    Point,
    cache_file,
    calibrated,
    fit,
    fit_speed,
    measure,
    measure_step,
    note_trial,
    points,
)
from hawsweep.errors import BackendError
from hawsweep.peak import COEFFICIENTS, Execution, Step, slice_tokens, training_peak
from hawsweep.planning import Speed
from hawsweep.shapes import shape_of

CONFIG = {
    "model_type": "llama",
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "torch_dtype": "float32",
}
SHAPE = shape_of(CONFIG)
POINTS = points(SHAPE.n_layers, slice_tokens(SHAPE.vocabulary, "cpu"))
CPU = COEFFICIENTS["cpu"]
TINY_POINT = Point(Step(1, 16, 8), 1, 4, Execution(1, False, None))


def observed_with(coefficients, todo=POINTS, speed=None):
    """What would be measured where ``coefficients`` hold exactly."""

    def observe(point):
        peak = training_peak(SHAPE, point.train(), point.step, point.execution, coefficients).total
        seconds = speed and speed.seconds(SHAPE, point.train(), point.step, point.execution)
        return Observation(point.train(), point.step, point.execution, peak, seconds)

    return [observe(point) for point in todo]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model of which only the config is there, and an empty cache."""
    monkeypatch.setenv("HAWSWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(calibration, "device_here", lambda: "cpu")
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(CONFIG))
    return model


@pytest.fixture
def written(folder):
    """The same, calibrated."""
    calibration._write(cache_file(folder), observed_with(CPU))
    return folder


def content_of(folder):
    return json.loads(cache_file(folder).read_text())


@pytest.mark.parametrize(
    ("name", "factor"), [("kept", 1.5), ("head", 0.6), ("again", 1.5), ("backward", 1.4)]
)
def test_fit_finds_a_coefficient_that_differs(name, factor):
    real = CPU.replaced({name: factor * getattr(CPU, name)})
    fitted, residuals = fit(SHAPE, "cpu", observed_with(real))
    assert getattr(fitted, name) == pytest.approx(getattr(real, name), rel=0.15)
    assert max(abs(each.error) for each in residuals) < 0.03


def test_fit_says_of_other_steps_what_they_would_take():
    real = CPU.scaled(1.5)
    fitted, _ = fit(SHAPE, "cpu", observed_with(real))
    others = [
        replace(point, step=Step(2, 320, 32), execution=Execution(2, checkpointed, None))
        for point, checkpointed in [(POINTS[1], False), (POINTS[6], True)]
    ]
    for asked, wanted in zip(
        observed_with(fitted, others), observed_with(real, others), strict=True
    ):
        assert asked.peak_bytes == pytest.approx(wanted.peak_bytes, rel=0.05)
    for asked, wanted in zip(observed_with(CPU, others), observed_with(real, others), strict=True):
        assert asked.peak_bytes < 0.95 * wanted.peak_bytes  # or fitting would show nothing


def test_fit_keeps_the_devices_own_where_nothing_differs():
    fitted, residuals = fit(SHAPE, "cpu", observed_with(CPU))
    for name in calibration._FITTED:
        assert getattr(fitted, name) == pytest.approx(getattr(CPU, name), rel=1e-3)
    assert all(abs(each.error) < 1e-4 for each in residuals)
    assert fitted.error == calibration._LEAST_ERROR


def test_residuals_and_the_band_tell_of_a_step_that_does_not_fit():
    observed = observed_with(CPU)
    odd = 3
    observed[odd] = replace(observed[odd], peak_bytes=round(0.6 * observed[odd].peak_bytes))
    fitted, residuals = fit(SHAPE, "cpu", observed)
    worst = max(residuals, key=lambda each: abs(each.error))
    assert worst.observation == observed[odd]
    assert worst.error > 0.03  # predicted too high
    assert fitted.error == pytest.approx(1.5 * worst.error)


def test_prediction_that_is_too_low_weighs_more():
    point = POINTS[4]
    [exact] = observed_with(CPU, [point])
    two = [replace(exact, peak_bytes=round(each * exact.peak_bytes)) for each in (0.9, 1.1)]
    _, residuals = fit(SHAPE, "cpu", two)
    assert abs(residuals[1].error) < abs(residuals[0].error) / 2


def test_speed_is_found_in_the_measured_times():
    real = Speed(37e9, 0.4, "made up")
    todo = [point for point in POINTS if point.execution.tokens_at_once is None]
    found = fit_speed(SHAPE, "cpu", observed_with(CPU, todo, real))
    assert found.flops == pytest.approx(real.flops, rel=1e-3)
    assert found.step_s == pytest.approx(real.step_s, rel=1e-3)
    assert found.how == f"measured here in {len(todo)} steps"
    assumed = fit_speed(SHAPE, "cpu", observed_with(CPU))
    assert assumed == calibration._ASSUMED_SPEED["cpu"]


def test_calibration_is_read_as_it_was_written(written):
    kept = [Observation.of(each) for each in content_of(written)["observed"]]
    assert kept == observed_with(CPU)
    found = calibrated(written)
    assert found.how == f"calibrated here by {len(POINTS)} steps"
    assert found.error == calibration._LEAST_ERROR


def test_model_that_was_never_calibrated_goes_by_its_shape(folder):
    assert calibrated(folder) is None
    found = calibration.memory_model(folder)
    assert found.coefficients == CPU
    assert found.shape == SHAPE


def test_other_weights_are_another_calibration(written):
    assert calibrated(written) is not None
    (written / "model.safetensors").write_bytes(b"1")
    assert calibrated(written) is None


def half(text):
    return text[: len(text) // 2]


def changed(**changes):
    return lambda text: json.dumps({**json.loads(text), **changes})


def without(key):
    return lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != key})


def without_peaks(text):
    content = json.loads(text)
    for each in content["observed"]:
        del each["peak_bytes"]
    return json.dumps(content)


@pytest.mark.parametrize(
    "damage",
    [
        half,
        changed(version=0),
        changed(observed=[]),
        changed(observed=None),
        changed(observed=7),
        changed(observed=[7]),
        changed(observed=["x"]),
        changed(n_calibration="x"),
        without("version"),
        without("observed"),
        without("n_calibration"),
        without_peaks,
        lambda _: "",
        lambda _: "garbage",
        lambda _: "[1, 2]",
        lambda _: "null",
        lambda _: '{"a": \udcff}',
    ],
)
def test_damaged_calibration_is_as_none(written, damage):
    path = cache_file(written)
    assert calibrated(written) is not None
    damaged = damage(path.read_text()).encode(errors="surrogateescape")
    path.write_bytes(damaged)
    assert calibrated(written) is None
    assert calibration.memory_model(written).coefficients == CPU
    note_trial(written, observed_with(CPU)[0])  # nor does it end a trial


def test_trial_is_added_to_a_calibration_only(folder):
    note_trial(folder, observed_with(CPU)[0])
    assert not cache_file(folder).exists()


def test_what_a_trial_took_changes_what_is_predicted(written):
    more = replace(observed_with(CPU)[0], peak_bytes=2 * observed_with(CPU)[0].peak_bytes)
    note_trial(written, more)
    assert [Observation.of(each) for each in content_of(written)["observed"]] == [
        *observed_with(CPU),
        more,
    ]
    assert calibrated(written).how == f"calibrated here by {len(POINTS) + 1} steps"
    assert calibrated(written).error > calibration._LEAST_ERROR


def test_only_the_newest_trials_are_kept_beside_the_calibration(written, monkeypatch):
    monkeypatch.setattr(calibration, "_MOST_OBSERVED", 3)
    first = observed_with(CPU)[0]
    for number in range(5):
        note_trial(written, replace(first, peak_bytes=1000 + number))
    kept = [each["peak_bytes"] for each in content_of(written)["observed"]]
    assert kept[: len(POINTS)] == [each.peak_bytes for each in observed_with(CPU)]
    assert kept[len(POINTS) :] == [1002, 1003, 1004]


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

    def start(model_path, part):
        child = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(len(part))
        plain = [{"rank": point.rank} for point in part]
        child.stdin.write(json.dumps({"points": plain}) + "\n")
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
    monkeypatch.setattr(calibration, "_start_child", start)
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
    monkeypatch.setattr(calibration, "_start_child", start)
    observed = measure("model", of_rank(1, 2, 3, 4), lambda _: None, n_children=1)
    assert [each.peak_bytes for each in observed] == [1, 3, 4]
    assert started == [4, 2]


def test_line_that_a_dying_child_half_wrote_is_left_out(monkeypatch):
    start, _ = child_that(
        f"each = asked[0]\nprint({LINE})\nsys.stdout.write('{{\"peak_b')\nsys.exit(1)"
    )
    monkeypatch.setattr(calibration, "_start_child", start)
    observed = measure("model", of_rank(1, 2, 3), lambda _: None)
    assert [each.peak_bytes for each in observed] == [1, 3]


def test_points_are_shared_among_children(monkeypatch):
    start, started = child_that(f"for each in asked:\n    print({LINE})")
    monkeypatch.setattr(calibration, "_start_child", start)
    observed = measure("model", of_rank(1, 2, 3, 4, 5), lambda _: None, n_children=2)
    assert sorted(each.peak_bytes for each in observed) == [1, 2, 3, 4, 5]
    assert started == [3, 2]


def test_calibration_of_which_no_step_was_measured_is_an_error(folder, monkeypatch):
    start, started = child_that("sys.exit(1)")
    monkeypatch.setattr(calibration, "_start_child", start)
    monkeypatch.setattr(calibration, "points", lambda *_: of_rank(1, 2))
    with pytest.raises(BackendError, match="could be measured"):
        calibration.calibrate(folder)
    assert started == [1, 1]
    assert not cache_file(folder).exists()


def test_child_measures_a_real_model_and_its_calibration_is_kept(
    tiny_model_dir, tmp_path, monkeypatch
):
    monkeypatch.setenv("HAWSWEEP_CACHE", str(tmp_path))
    larger = Point(Step(4, 128, 256), 3, 8, Execution(4, False, None))
    monkeypatch.setattr(calibration, "points", lambda *_: [TINY_POINT, larger])
    model, residuals = calibration.calibrate(tiny_model_dir)
    small, large = [each.observation for each in residuals]
    assert (small.step, large.step) == (TINY_POINT.step, larger.step)
    assert model.shape.weight_bytes() < small.peak_bytes < large.peak_bytes
    assert small.seconds > 0
    assert calibrated(tiny_model_dir) == model


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
