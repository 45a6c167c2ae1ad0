"""The exponential that the loss takes on this device."""

from hawsweep.machine.backend import mx

import numpy as np
import pytest

from hawsweep.training.loss import _exp


def test_exponential_is_exact_enough_and_keeps_what_is_not_finite():
    values = np.linspace(-80, 0, 1001, dtype=np.float32)
    assert np.array(_exp(mx.array(values))) == pytest.approx(
        np.exp(values.astype(np.float64)), rel=5e-6
    )
    assert mx.isnan(_exp(mx.array([float("nan")]))).item()
    assert _exp(mx.array([float("-inf")])).item() == 0
