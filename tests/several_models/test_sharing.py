"""Memory shared by workers and several models."""

from pathlib import Path

import pytest
from several import RATES, sweep

from hawsweep.errors import MemoryBudgetError
from hawsweep.models.known_configs import find_known
from hawsweep.models.shape import shape_of
from hawsweep.planning import calibration
from hawsweep.planning.calibration import uncalibrated
from hawsweep.planning.peak import EMBEDDER_BYTES
from hawsweep.planning.share_memory import share_memory

SIZES = {"smollm2-135m-instruct": 0.5e9, "mlx-community/aya-23-8B-4bit": 4e9}


@pytest.fixture
def known_by_shape(monkeypatch):
    """Models of the catalogue, whose memory is known by their shape alone."""

    def known(path):
        return uncalibrated(shape_of(find_known(str(path))), "metal")

    monkeypatch.setattr(calibration, "cost_model", known)
    monkeypatch.setattr(calibration, "ensure_calibrated", lambda path, *_: known(path))


def share(budget, **changes):
    spec = sweep(
        search={"model": {"choices": list(SIZES)}, **RATES}, memory={"budget": budget}, **changes
    )
    paths = {model: Path(model) for model in spec.models}
    return share_memory(spec, paths, lambda _: None)


def test_models_too_large_for_the_budget_are_left_out_with_what_they_lack(known_by_shape):
    shares = share("5.5GB", workers=1)
    assert (shares.n_workers, shares.bytes_each) == (1, 5.5e9 - EMBEDDER_BYTES)
    assert list(shares.left_out) == ["mlx-community/aya-23-8B-4bit"]
    reason, short_gb = shares.left_out["mlx-community/aya-23-8B-4bit"]
    assert "No setting of this sweep fits" in reason
    assert 0 < short_gb < 20


def test_workers_share_what_the_largest_model_needs(known_by_shape):
    roomy = share("40GB", workers=4)
    assert roomy.n_workers == 4
    assert not roomy.left_out
    assert list(share("24GB", workers=4).left_out) == ["mlx-community/aya-23-8B-4bit"]


def test_sweep_of_which_no_model_fits_is_refused(known_by_shape):
    with pytest.raises(MemoryBudgetError) as caught:
        share("1GB", workers=1)
    assert "No model of this sweep fits" in str(caught.value)
    for model in SIZES:
        assert f"{model}: No setting" in str(caught.value)
