"""How often the bands of a data curve hold, on studies whose truth is known.

Each study has five sizes between 20 and 500 to 10,000 examples, a floor, a power and a noise by
chance. Every other one begins late: it falls slowly up to 20 to 2,000 examples, then steeply. The
largest size is predicted from the four smaller ones; then the gain of half as much
again from all five.

    python tests/benchmarks/bench_data_curve.py --studies 1000
"""

import argparse

import numpy as np

from hawsweep.results.data_curve import PowerLaw

_LARGEST = (500, 1854, 2831, 10_000)


def main() -> None:
    """Simulate, and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    generator = np.random.default_rng(asked.seed)
    held = np.array([_simulated(generator, study) for study in range(asked.studies)])
    for kind, of_it in (("all", held), ("at once", held[::2]), ("late", held[1::2])):
        largest, gain = 100 * of_it.mean(0)
        print(f"{len(of_it)} {kind}: largest size held in {largest:.1f} %, gain in {gain:.1f} %")


def _simulated(generator: np.random.Generator, seed: int) -> tuple[bool, bool]:
    """Whether both 95 % bands hold in a study."""
    sizes = np.geomspace(20, generator.choice(_LARGEST), 5).round()
    floor, power = generator.uniform(0, 0.95), np.exp(generator.uniform(np.log(0.1), np.log(1.2)))
    late = 0.0
    if seed % 2:
        late = sizes[0] * np.exp(generator.uniform(0, np.log(100)))
        power = np.exp(generator.uniform(np.log(0.3), np.log(5)))
    scale = np.exp(generator.uniform(np.log(0.3), np.log(6)))
    noise = np.exp(generator.uniform(np.log(0.002), np.log(0.03)))

    def true(size: float) -> float:
        return float(scale * (floor + (1 - floor) * ((size + late) / (sizes[0] + late)) ** -power))

    losses = [true(size) * (1 + noise * generator.normal()) for size in sizes]
    smaller, whole = PowerLaw(sizes[:4], losses[:4], seed), PowerLaw(sizes, losses, seed)
    more = 1.5 * sizes[-1]
    return (
        _holds(smaller.run_at(sizes[-1]), losses[-1]),
        _holds(whole.at(sizes[-1]) - whole.at(more), true(sizes[-1]) - true(more)),
    )


def _holds(draws: np.ndarray, value: float) -> bool:
    low, high = np.quantile(draws, (0.025, 0.975))
    return bool(low <= value <= high)


if __name__ == "__main__":
    main()
