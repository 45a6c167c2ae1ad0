"""What users' machines measured, as ``hawsweep doctor --json`` tells it, beside what is planned for
them. A file has the calibrations of that output; a new one is tested as it is.
"""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from hawsweep.cli import main
from hawsweep.models.shape import ModelShape
from hawsweep.planning.calibration import fit, fit_speed
from hawsweep.planning.chips import assumed_speed
from hawsweep.planning.measured_steps import Observation
from hawsweep.planning.peak import COEFFICIENTS, training_peak

FILES = sorted(Path(__file__).with_name("machines").glob("*.json"))


CALIBRATIONS = [
    pytest.param(content, id=f"{path.stem}-{number}")
    for path in FILES
    for number, content in enumerate(json.loads(path.read_text())["calibrations"])
]


def read(content):
    observed = [Observation.of(each) for each in content["observed"][: content["n_calibration"]]]
    return ModelShape.of(content["shape"]), content["device"], observed


@pytest.mark.parametrize("content", CALIBRATIONS)
def test_peaks_are_within_what_is_said_of_them(content):
    shape, device, observed = read(content)
    before = COEFFICIENTS[device]
    for each in observed:
        peak = training_peak(shape, each.train, each.step, each.execution, before).total
        assert peak == pytest.approx(each.peak_bytes, rel=2 * before.error)
    after, residuals = fit(shape, device, observed)
    assert max(abs(each.error) for each in residuals) <= after.error
    assert after.error <= 2 * before.error


@pytest.mark.parametrize("content", CALIBRATIONS)
def test_speed_of_a_gpu_is_within_a_factor_of_two_of_what_is_assumed(content):
    shape, device, observed = read(content)
    if device == "cpu":
        pytest.skip("a CPU's speed is that of its cores, and of what else they do")
    measured, assumed = fit_speed(shape, device, observed), assumed_speed(device)
    assert 0.5 < measured.flops / assumed.flops < 2


def test_there_is_a_machine():
    assert CALIBRATIONS


def test_output_of_doctor_is_such_a_file(tmp_path, monkeypatch):
    content = json.loads(FILES[0].read_text())["calibrations"][0]
    monkeypatch.setenv("HAWSWEEP_CACHE", str(tmp_path))
    (tmp_path / "calibration").mkdir()
    (tmp_path / "calibration" / "one.json").write_text(json.dumps(content))
    done = CliRunner().invoke(main, ["doctor", "--json", "--quick", f"--studies-dir={tmp_path}"])
    [told] = json.loads(done.stdout)["calibrations"]
    assert read(told) == read(content)
