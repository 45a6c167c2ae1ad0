"""What is measured of a model here, how it is kept, and what is made of it."""

import json
from dataclasses import replace

from hawsweep.machine.backend import mx

import pytest
import tiny_models

from hawsweep.errors import BackendError
from hawsweep.machine import backend, memory
from hawsweep.models import shape
from hawsweep.models.shape import shape_of
from hawsweep.planning import calibration
from hawsweep.planning.calibration import cache_file, calibrated, fit, fit_speed, note_trial
from hawsweep.planning.chips import assumed_speed
from hawsweep.planning.measured_steps import Observation, Point, points
from hawsweep.planning.peak import COEFFICIENTS, Execution, Step, slice_tokens, training_peak
from hawsweep.planning.trial_plan import Speed

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
TINY_POINT = Point(Step(1, 16, 8), 1, 4, Execution(1, False, None))
POINTS = points(SHAPE.n_layers, slice_tokens(SHAPE.vocabulary, "cpu"))
CPU = COEFFICIENTS["cpu"]


def observed_with(coefficients, todo=POINTS, speed=None, shape=SHAPE):
    """What would be measured where ``coefficients`` hold exactly."""

    def observe(point):
        peak = training_peak(shape, point.train(), point.step, point.execution, coefficients).total
        seconds = speed and speed.seconds(shape, point.train(), point.step, point.execution)
        return Observation(point.train(), point.step, point.execution, peak, seconds)

    return [observe(point) for point in todo]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model of which only the config is there, and an empty cache."""
    monkeypatch.setenv("HAWSWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(backend, "device_here", lambda: "cpu")
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(CONFIG))
    return model


@pytest.fixture
def written(folder):
    """The same, calibrated."""
    calibration._write(cache_file(folder), observed_with(CPU), 2, SHAPE)
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


def test_fit_moves_where_a_peak_is_a_few_megabytes():
    """There a small change of a coefficient is less than a byte."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 64, "vocab_size": 400}
    small = shape_of({**CONFIG, **sizes, "num_attention_heads": 2, "num_key_value_heads": 1})
    todo = [
        Point(Step(1, 16, 4), -1, 4, Execution(1, is_checkpointed, None))
        for is_checkpointed in (False, True)
    ]
    real = CPU.replaced({"fixed_bytes": 1.5 * CPU.fixed_bytes})
    _, residuals = fit(small, "cpu", observed_with(real, todo, shape=small))
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


def test_steps_that_cannot_be_told_apart_are_one_that_took_the_most():
    observed = observed_with(CPU)
    again = [replace(observed[0], peak_bytes=observed[0].peak_bytes - n) for n in range(1000)]
    expected, residuals = fit(SHAPE, "cpu", observed)
    found, found_residuals = fit(SHAPE, "cpu", [*again[1:], *observed])
    assert (found, found_residuals[1:]) == (expected, residuals[1:])
    assert len(found_residuals) == len(observed)


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
    wider = replace(point.step, width=point.step.width + 1)
    exact = observed_with(CPU, [point, replace(point, step=wider)])
    two = [
        replace(each, peak_bytes=round(factor * each.peak_bytes))
        for each, factor in zip(exact, (0.9, 1.1), strict=True)
    ]
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
    assert assumed == assumed_speed("cpu")


def test_calibration_is_read_as_it_was_written(written):
    kept = [Observation.of(each) for each in content_of(written)["observed"]]
    assert kept == observed_with(CPU)
    found = calibrated(written)
    assert found.how == f"calibrated here by {len(POINTS)} steps"
    assert found.error == calibration._LEAST_ERROR


def test_model_that_was_never_calibrated_goes_by_its_shape(folder):
    assert calibrated(folder) is None
    found = calibration.cost_model(folder)
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
        without("n_workers"),
        changed(n_workers="x"),
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
    assert calibration.cost_model(written).coefficients == CPU
    assert not calibration.cost_model(written).is_calibrated  # so that it is measured again
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


def without_measuring(monkeypatch, observed, load=None):
    monkeypatch.setattr(calibration, "n_competing", lambda: load)
    monkeypatch.setattr(calibration, "measure", lambda *_, **__: observed)
    monkeypatch.setattr(calibration, "profitable_workers", lambda *_: 1)


def test_calibration_of_which_no_step_was_measured_is_an_error(folder, monkeypatch):
    without_measuring(monkeypatch, [])
    with pytest.raises(BackendError, match="could be measured"):
        calibration.calibrate(folder)
    assert not cache_file(folder).exists()


def test_start_goes_by_the_shape_where_nothing_could_be_measured(folder, monkeypatch):
    without_measuring(monkeypatch, [])
    known = calibration.cost_model(folder)
    told = []
    assert calibration.ensure_calibrated(folder, known, 1e9, told.append) is known
    assert "its shape alone" in told[-1]


def test_start_measures_a_model_once(folder, monkeypatch):
    without_measuring(monkeypatch, observed_with(CPU))
    known = calibration.cost_model(folder)
    first = calibration.ensure_calibrated(folder, known, 64e9, lambda _: None)
    assert first.how.startswith("calibrated")
    told = []
    assert calibration.ensure_calibrated(folder, first, 64e9, told.append) is first
    assert not told


def test_model_measured_under_load_is_measured_again_on_an_idle_machine(folder, monkeypatch):
    without_measuring(monkeypatch, observed_with(CPU), load=5.0)
    told = []
    busy = calibration.ensure_calibrated(folder, None, 64e9, told.append)
    assert "measured under load: 5.0 processes compete for the cores" in told
    assert busy.speed.how.endswith("under load; the next start measures again")
    assert calibration.cost_model(folder).under_load
    # As long as it is busy that would be no better.
    assert calibration.ensure_calibrated(folder, busy, 64e9, told.append) is busy
    monkeypatch.setattr(calibration, "n_competing", lambda: None)
    told.clear()
    idle = calibration.ensure_calibrated(folder, busy, 64e9, told.append)
    assert told[0].startswith("this model was measured while other programs used the cores")
    assert not idle.under_load
    assert "load" not in idle.speed.how
    assert calibration.ensure_calibrated(folder, idle, 64e9, told.append) is idle


def test_points_that_need_more_than_there_is_are_not_measured(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(calibration, "measure", lambda _, todo, *__, **___: asked.extend(todo))
    with pytest.raises(BackendError):
        calibration.calibrate(folder, budget_bytes=1.05e9)
    assert 0 < len(asked) < len(POINTS)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    # Of this process alone: children would compile anew in an empty cache.
    monkeypatch.setattr(backend, "cache_dir", lambda: tmp_path / "cache")
    larger = Point(Step(4, 128, 256), 3, 8, Execution(4, False, None))
    monkeypatch.setattr(calibration, "points", lambda *_: [TINY_POINT, larger])
    return tmp_path


def test_child_measures_a_real_model_and_its_calibration_is_kept(tiny_model_dir, own_cache):
    model, residuals = calibration.calibrate(tiny_model_dir)
    small, large = [each.observation for each in residuals]
    assert small.step == TINY_POINT.step
    assert model.shape.weight_bytes() < small.peak_bytes < large.peak_bytes
    assert small.seconds > 0
    assert calibrated(tiny_model_dir) == model
    assert 1 <= model.speed.n_workers <= memory.usable_cores()


def test_unknown_architecture_is_guessed_until_it_is_calibrated(
    tiny_model_dir, own_cache, monkeypatch
):
    known = calibration.cost_model(tiny_model_dir)
    monkeypatch.setattr(shape, "_FAMILIES", {})  # the child's own still knows it
    monkeypatch.setattr(calibration, "profitable_workers", lambda *_: 1)
    guessed = calibration.cost_model(tiny_model_dir)
    assert guessed.how == "guessed from the layers of llama, not calibrated here"
    assert guessed.error == 0.5
    assert guessed.shape.weight_bytes() == known.shape.weight_bytes()
    told = []
    found = calibration.ensure_calibrated(tiny_model_dir, guessed, 64e9, told.append)
    assert "calibrated here by 2 steps alone: the architecture" in found.how
    assert found.error >= calibration._UNKNOWN_ERROR
    assert found.shape.weight_bytes() == known.shape.weight_bytes()
    assert found.shape.linears == known.shape.linears
    assert calibration.cost_model(tiny_model_dir) == found


def test_unknown_architecture_that_cannot_be_loaded_has_no_memory_model(folder, monkeypatch):
    config = {**CONFIG, "model_type": "no-such-architecture"}
    (folder / "config.json").write_text(json.dumps(config))
    told = []
    assert calibration.ensure_calibrated(folder, None, 64e9, told.append) is None
    assert "mlx-lm cannot build" in told[-1]
    assert "Going by nothing" in told[-1]


def test_weights_that_another_library_quantized_are_as_large_as_their_files(folder, monkeypatch):
    config = tiny_models.config_of("mixtral") | {"quantization_config": {"quant_method": "mxfp4"}}
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(backend, "device_here", lambda: "metal")
    unknown = calibration.cost_model(folder).shape  # without files: as if it had 16 bits
    mx.save_safetensors(str(folder / "model-1.safetensors"), {"a": mx.zeros((4096,), mx.uint8)})
    found = calibration.cost_model(folder).shape
    n_bytes = (folder / "model-1.safetensors").stat().st_size
    assert found.weight_bytes() == n_bytes < unknown.weight_bytes()
    monkeypatch.setattr(backend, "device_here", lambda: "cpu")  # where all are float32
    assert calibration.cost_model(folder).shape.weight_bytes() > n_bytes
