"""Float32 matrix products of MLX on the CPU, with its own BLAS and with hawsweep's, in turn.

python tests/benchmarks/bench_blas.py
"""

import os
import statistics
import subprocess
import sys

_ONE_RUN = """
import time
from hawsweep.machine.backend import blas, mx
a, b = mx.random.normal((1024, 1024)), mx.random.normal((1024, 1024))
mx.eval(a @ b)
started = time.perf_counter()
mx.eval([a @ b for _ in range(4)])
print(blas().name, 4 * 2 * 1024**3 / (time.perf_counter() - started) / 1e9)
"""
_PAIRS = 5


def measure(choice: str) -> tuple[str, float]:
    """The BLAS that ``HAWSWEEP_BLAS=choice`` gives, and its GFLOP/s at 1024 x 1024 x 1024."""
    environment = {**os.environ, "HAWSWEEP_BLAS": choice}
    command = [sys.executable, "-c", _ONE_RUN]
    out = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout
    name, rate = out.split()
    return name, float(rate)


def main() -> None:
    """Measure in pairs and print the rates and their ratio, each as minimum, median and maximum."""
    pairs = [(measure("off"), measure("auto")) for _ in range(_PAIRS)]
    for side in (0, 1):
        _print(f"{pairs[0][side][0]} GFLOP/s", [pair[side][1] for pair in pairs])
    _print("ratio", [fast / slow for (_, slow), (_, fast) in pairs])


def _print(name: str, values: list[float]) -> None:
    low, middle, high = min(values), statistics.median(values), max(values)
    print(f"{name:28} {low:8.1f} {middle:8.1f} {high:8.1f}")


if __name__ == "__main__":
    main()
