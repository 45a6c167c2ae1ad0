"""A Gaussian process on settings: what losses are expected where nothing was trained.

Inputs are coordinates (``coordinates.py``): one unit is a distance at which losses differ. The
process is an average over scales and amplitudes, weighted by how well they explain what was
observed, so that a dozen runs neither fix them nor hang on a guess.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Hyperparameters that are averaged: factors of all distances, and standard deviations of the
# relative loss among settings.
_STRETCHES = (0.5, 0.75, 1.0, 1.5)
_AMPLITUDES = (0.02, 0.05, 0.1, 0.2)
# The mean of all settings is not known: it has a standard deviation of its own.
_MEAN_SD = 0.1
# How far a setting stands behind too much early, for a unit of lag; and the error of that, as a
# share of it. Negative: distances grow.
_LAGS = (-0.08, -0.04, -0.02, 0.0, 0.02, 0.04, 0.08, 0.16)
_ERROR_OF_LAG = 0.3
# Less likely ones, relative to the likeliest, are left out.
_LEAST_LIKELY = 0.001
# How far a prior belief of unit stretch and of an amplitude of 5 % weighs, in log evidence.
_PRIOR = {1.0: 0.0, 0.75: -0.5, 1.5: -0.5, 0.5: -1.5}


@dataclass(frozen=True)
class Posterior:
    """Normal distributions at some points, one for each hyperparameter.

    Attributes:
        weights: Of the hyperparameters, (h,); they sum to 1.
        means: (h, n).
        sds: Standard deviations without the noise of a measurement, (h, n).
    """

    weights: Array
    means: Array
    sds: Array

    @property
    def mean(self) -> Array:
        """The expected values, (n,)."""
        mean: Array = self.weights @ self.means
        return mean

    def expected_improvement(self, below: float) -> Array:
        """How far each point is expected to fall below a value, counting 0 where it does not."""
        from scipy.special import ndtr

        gap = below - self.means
        z = gap / self.sds
        each = gap * ndtr(z) + self.sds * np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
        improvement: Array = self.weights @ each
        return improvement


class GaussianProcess:
    """A process that has seen some values.

    Args:
        at: Coordinates of what was observed, (n, d).
        values: Relative losses, (n,): logarithms of ratios.
        noise: Standard deviations of their errors, (n,).
        kinds: By coordinate, whether it is a name: two names are equal or not, (d,).
        lag: How much of an unknown lag is in each value, (n,); none by default.
    """

    def __init__(
        self,
        at: Array,
        values: Array,
        noise: Array,
        kinds: NDArray[np.bool_],
        lag: Array | None = None,
    ) -> None:
        self._at, self._kinds = at, kinds
        fits: list[tuple[float, float, Any, Array]] = []
        squared = _squared_distances(at, at, kinds)
        evidence = []
        lag = np.zeros(len(at)) if lag is None else lag
        lags = _LAGS if lag.any() else (0.0,)
        for factor, stretch, amplitude in itertools.product(lags, _STRETCHES, _AMPLITUDES):
            left = values - factor * lag
            errors = np.diag(noise**2 + (_ERROR_OF_LAG * factor * lag) ** 2)
            shape = np.exp(-0.5 * squared / stretch**2)
            lower = np.linalg.cholesky(amplitude**2 * shape + _MEAN_SD**2 + errors)
            weights = np.linalg.solve(lower.T, np.linalg.solve(lower, left))
            fits.append((stretch, amplitude, lower, weights))
            evidence.append(_PRIOR[stretch] - 0.5 * left @ weights - np.log(np.diag(lower)).sum())
        likely = np.exp(np.array(evidence) - max(evidence))
        kept = np.flatnonzero(likely > _LEAST_LIKELY)
        self._fits = [fits[n] for n in kept]
        self._weights: Array = likely[kept] / likely[kept].sum()

    def posterior(self, at: Array) -> Posterior:
        """What is expected at other points, (n, d)."""
        squared = _squared_distances(at, self._at, self._kinds)
        means, sds = [], []
        for stretch, amplitude, lower, weights in self._fits:
            crossed = amplitude**2 * np.exp(-0.5 * squared / stretch**2) + _MEAN_SD**2
            means.append(crossed @ weights)
            explained = np.linalg.solve(lower, crossed.T)
            left = amplitude**2 + _MEAN_SD**2 - (explained**2).sum(axis=0)
            sds.append(np.sqrt(np.maximum(left, 1e-12)))
        return Posterior(self._weights, np.array(means), np.array(sds))

    def samples(self, at: Array, n_samples: int, random: np.random.Generator) -> Array:
        """Functions that the process holds possible, at other points, (n_samples, n)."""
        between = _squared_distances(at, at, self._kinds)
        squared = _squared_distances(at, self._at, self._kinds)
        drawn = []
        counts = random.multinomial(n_samples, self._weights)
        for count, (stretch, amplitude, lower, weights) in zip(counts, self._fits, strict=True):
            if count == 0:
                continue
            crossed = amplitude**2 * np.exp(-0.5 * squared / stretch**2) + _MEAN_SD**2
            explained = np.linalg.solve(lower, crossed.T)
            prior = amplitude**2 * np.exp(-0.5 * between / stretch**2) + _MEAN_SD**2
            values, vectors = np.linalg.eigh(prior - explained.T @ explained)
            root = vectors * np.sqrt(np.maximum(values, 0.0))
            drawn.append(crossed @ weights + random.standard_normal((count, len(at))) @ root.T)
        return np.concatenate(drawn)


def _squared_distances(a: Array, b: Array, kinds: NDArray[np.bool_]) -> Array:
    apart = a[:, None, :] - b[None, :, :]
    squared: Array = (np.where(kinds, apart != 0, apart) ** 2).sum(axis=2)
    return squared
