"""Single training steps of a model, each measured in a child process with its peak reset.

Started as ``python -m hawsweep.planning.measured_steps`` this is the child: one line of JSON on its
standard input names the points to measure, each line on its output is a measurement; or it has a
config, and the line is the shape of its model.
"""

import gc
import json
import math
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hawsweep.machine import backend
from hawsweep.machine.children import child_command, child_environment, start_child, tell_child
from hawsweep.machine.without_torch import keep_torch_out, keep_trackers_out
from hawsweep.models.shape import ModelShape
from hawsweep.planning.peak import Execution, Step
from hawsweep.spec.train import TrainSpec
from hawsweep.text import SayProgress, counted, duration

# Of a process that builds a model's shape, and of all processes that measure steps.
_CHILD_TIMEOUT_S = 600
# Until a child's first step, with libraries and weights, and of each later one. On an idle machine
# a step takes seconds.
_FIRST_STEP_S, _STEP_S = 300.0, 90.0
# More workers are worth their memory if together they are this much faster.
_LEAST_GAIN = 1.1


@dataclass(frozen=True)
class Point:
    """A training step to measure."""

    step: Step
    num_layers: int
    rank: int
    execution: Execution
    optimizer: str = "adam"
    iters: int = 2

    def train(self) -> TrainSpec:
        """The settings of the step."""
        return TrainSpec.model_validate(
            {
                "batch_size": self.step.rows,
                "num_layers": self.num_layers,
                "iters": self.iters,
                "optimizer": self.optimizer,
                "grad_checkpoint": self.execution.grad_checkpoint,
                "lora_parameters": {"rank": self.rank},
            }
        )

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Point":
        """A point from plain values, as ``dataclasses.asdict`` gives them."""
        step, execution = Step(**values["step"]), Execution(**values["execution"])
        return cls(**{**values, "step": step, "execution": execution})


@dataclass(frozen=True)
class Observation:
    """A step and its peak memory.

    Attributes:
        peak_bytes: Of MLX's arrays.
        seconds: A step's time, compiled before; None where unknown.
    """

    train: TrainSpec
    step: Step
    execution: Execution
    peak_bytes: int
    seconds: float | None = None

    def to_plain(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "train": self.train.model_dump(mode="json", exclude_unset=True)}

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Observation":
        """One out of plain values."""
        train = TrainSpec.model_validate(values["train"])
        step, execution = Step(**values["step"]), Execution(**values["execution"])
        return cls(train, step, execution, values["peak_bytes"], values["seconds"])


# A step that shows only how much workers slow each other down.
PACE = Point(Step(1, 64, 32), 1, 8, Execution(1, False, None), iters=4)


def points(n_layers: int, slice_tokens: int) -> list[Point]:
    """The steps to measure: each shows one of the coefficients, at sizes that take seconds."""

    def point(
        layers: int, rows: int, width: int, targets: int, checkpoint: bool, **others: Any
    ) -> Point:
        execution = Execution(rows, checkpoint, others.get("at_once"))
        step = Step(rows, width, rows * targets)
        return Point(step, min(layers, n_layers), others.get("rank", 8), execution)

    n_sliced = -(-4 * slice_tokens // 128) * 128
    rows = -(-n_sliced // 512)
    return [
        point(2, 1, 128, 32, False),
        point(6, 1, 256, 32, False),
        point(3, 2, 384, 24, False),
        point(4, 1, 256, 32, False, rank=64),
        point(2, 1, 128, 128, False),
        point(2, 1, 128, 32, True),
        point(6, 2, 256, 16, True),
        point(n_layers, 1, 384, 32, True),
        point(4, 1, 256, 128, True, rank=64),
        point(2, rows, n_sliced // rows, n_sliced // rows, True, at_once=slice_tokens),
    ]


def profitable_workers(model_path: Path, most: int, n_cores: int, progress: SayProgress) -> int:
    """The number of workers that are worth it: doubled as long as together they do a tenth more
    steps a second.

    Args:
        most: The most workers tried.
        n_cores: Cores to share among them.
    """
    rates: dict[int, float] = {}
    n_workers = 1
    while n_workers <= most:
        progress(f"measuring {counted(n_workers, 'worker')} at a time")
        done = measure(
            model_path,
            [PACE] * n_workers,
            n_children=n_workers,
            n_threads=max(1, n_cores // n_workers),
        )
        if len(done) < n_workers:
            break
        rates[n_workers] = sum(1 / (each.seconds or math.inf) for each in done)
        if n_workers > 1 and rates[n_workers] < _LEAST_GAIN * rates[n_workers // 2]:
            break
        best, n_workers = n_workers, 2 * n_workers
    return best if rates else 1


def measure(
    model_path: Path,
    todo: Sequence[Point],
    progress: SayProgress = lambda _: None,
    *,
    n_children: int = 1,
    n_threads: int = 1,
    budget_bytes: float = math.inf,
) -> list[Observation]:
    """Measure points in child processes, ``n_children`` at a time with ``n_threads`` each.

    The point at which a child died is left out. One that takes too long is tried again after the
    others, and then left out. After ten minutes no child is started.

    Args:
        budget_bytes: Of all children together: near it MLX waits instead of running ahead.
    """
    waiting = [list(todo[start::n_children]) for start in range(n_children)]
    observed: list[Observation] = []
    slow: list[Point] = []
    ends = time.monotonic() + _CHILD_TIMEOUT_S

    def start(part: Sequence[Point]) -> "subprocess.Popen[str]":
        asked: dict[str, Any] = {
            "model_path": str(model_path),
            "points": [asdict(each) for each in part],
        }
        if math.isfinite(budget_bytes):
            asked["budget_bytes"] = budget_bytes / n_children
        return _start_child(asked, n_threads)

    running = [(start(part), part) for part in waiting if part]
    while running:
        child, part = running.pop(0)
        left = list(part)
        for line in _lines(child):
            point = left.pop(0)
            observed.append(Observation(point.train(), point.step, point.execution, **line))
            progress(f"measured {len(observed)} of {len(todo)} training steps")
        was_slow = _end(child)
        if not left:
            continue
        point = left.pop(0)  # at which it died, or was too slow
        if was_slow:
            progress(f"a training step took more than {duration(_STEP_S)}")
            if point not in slow:
                slow.append(point)
                left.append(point)
        if left and time.monotonic() < ends:
            running.append((start(left), left))
    return observed


def _lines(child: "subprocess.Popen[str]") -> Iterator[dict[str, Any]]:
    """The measurements of a child as they come, until it ends or one takes too long."""
    said: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert child.stdout is not None
        for line in child.stdout:
            said.put(line)
        said.put("")

    threading.Thread(target=read, daemon=True).start()
    limit_s = _FIRST_STEP_S
    try:
        while (line := said.get(timeout=limit_s)).endswith("\n"):  # else it is empty or half
            yield json.loads(line)
            limit_s = _STEP_S
        child.wait(timeout=_STEP_S)
    except (queue.Empty, subprocess.TimeoutExpired):
        return
    except BaseException:
        _end(child)  # Ctrl-C does not reach it
        raise


def _end(child: "subprocess.Popen[str]") -> bool:
    """End a child; whether it still ran."""
    is_running = child.poll() is None
    if is_running:
        child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()
    return is_running


def built_shape(config: Mapping[str, Any], *, in_float32: bool) -> ModelShape | None:
    """The shape of a model of any architecture that mlx-lm has, found by a child process that
    builds it without weights; None if it cannot be built.
    """
    child = _start_child({"config": config, "in_float32": in_float32}, 1)
    out = _output(child)
    return ModelShape.of(json.loads(out)) if child.returncode == 0 else None


def _output(child: "subprocess.Popen[str]") -> str:
    """What a child says until it ends, or hangs and is killed."""
    try:
        out, _ = child.communicate(timeout=_CHILD_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        out, _ = child.communicate()
    except BaseException:
        child.kill()  # Ctrl-C does not reach it
        raise
    return out


def _start_child(asked: Mapping[str, Any], n_threads: int) -> "subprocess.Popen[str]":
    child = start_child(
        child_command("-m", "hawsweep.planning.measured_steps"),
        None,
        {
            **child_environment(),
            "OPENBLAS_NUM_THREADS": str(n_threads),
            "OMP_NUM_THREADS": str(n_threads),
        },
    )
    tell_child(child, json.dumps(asked))
    return child


def measure_step(model: Any, point: Point) -> dict[str, float]:
    """Train on random tokens; give the peak and the time of a later step than the first.

    The arrays of steps measured before are freed first, so that a point's peak is its own.
    """
    from hawsweep.machine.backend import mx

    from hawsweep.data.tokens import Example
    from hawsweep.training.evaluation import Evaluation
    from hawsweep.training.forward import FrozenBlocks
    from hawsweep.training.train import TrainCallback, train_adapter, trainable

    gc.collect()
    mx.clear_cache()
    generator = np.random.default_rng(0)
    step, train = point.step, point.train()
    n_targets = step.n_targets // step.rows
    tokens = generator.integers(0, 256, (step.rows, step.width + 1), dtype=np.int32)
    examples = [Example(row, step.width + 1 - n_targets) for row in tokens]

    class Clock(TrainCallback):
        """Records the peak, and the mean time of later steps, during a run."""

        since, seconds, peak_bytes = 0.0, 0.0, 0

        def on_iteration(self, iteration: int) -> None:
            now = time.perf_counter()
            if iteration == 1:
                self.since = now
            else:
                self.seconds = (now - self.since) / (iteration - 1)
            self.peak_bytes = backend.peak_memory_bytes()

    def order() -> Any:
        while True:
            yield tuple(range(step.rows))

    def no_evaluation(iteration: int) -> Evaluation:
        return Evaluation(iteration, 1.0, np.zeros(1, np.float32), 0.0)

    frozen, clock = FrozenBlocks(model, budget_bytes=0), Clock()
    with trainable(model, train), frozen.in_use(), tempfile.TemporaryDirectory() as folder:
        train_adapter(
            model,
            train,
            examples,
            order(),
            no_evaluation,
            Path(folder),
            clock,
            frozen=frozen,
            tokens_at_once=point.execution.tokens_at_once,
        )
    return {"peak_bytes": clock.peak_bytes, "seconds": clock.seconds}


def main() -> None:
    """Run as the child: measure the points that the line on standard input names."""
    keep_torch_out()
    keep_trackers_out()
    asked = json.loads(sys.stdin.readline())
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if (config := asked.get("config")) is not None:
        from hawsweep.planning.loaded_shape import shape_of_built

        shape = shape_of_built(config, in_float32=asked["in_float32"])
        print(json.dumps(shape.to_plain()), file=out, flush=True)
        return

    from hawsweep.models.load import load_weights

    backend.limit_cache(0)
    if (budget_bytes := asked.get("budget_bytes")) is not None:
        backend.limit_memory(budget_bytes)
    model, _ = load_weights(Path(asked["model_path"]))
    for values in asked["points"]:
        out.write(json.dumps(measure_step(model, Point.of(values))) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
