"""What supervision, storage and the bookkeeping of evaluations cost of a trial's wall time.

Each trial's time, from its start to its end as the supervisor sees both, less what the model did in
it: training steps, evaluations and scoring. What is left is state and adapter files, the database,
metrics, events and the planning of the trial. Beside it the supervisor's own processor time.

    python tests/benchmarks/bench_overhead.py --trials 3 --iters 140
"""

import argparse
import statistics
import tempfile
import time

import psutil

from hawsweep.running.events import Event
from hawsweep.running.start import run_sweep
from hawsweep.spec.read import find_sweep, read_sweep

LONG = {
    "search.lora_parameters.rank.choices": [8, 16],
    "train.steps_per_eval": 20,
    "pruning.name": "none",
    "confirm.top": 0,
    "workers": 1,
}


class Times:
    """When each trial began and ended, and the supervisor's processor time meanwhile."""

    def __init__(self) -> None:
        self.wall_s: dict[int, float] = {}
        self.supervisor_s: dict[int, float] = {}
        self._began: dict[int, tuple[float, float]] = {}

    def __call__(self, event: Event) -> None:
        """Note an event."""
        now, busy = time.perf_counter(), sum(psutil.Process().cpu_times()[:2])
        if event.kind == "trial_start":
            self._began[event.values["number"]] = now, busy
        elif event.kind == "trial_end" and event.values["state"] == "complete":
            number = event.values["number"]
            began, busy_then = self._began[number]
            self.wall_s[number] = now - began
            self.supervisor_s[number] = busy - busy_then


def main() -> None:
    """Run the sweep and print each trial's shares."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--iters", type=int, default=140, help="140 take five minutes on two cores")
    asked = parser.parse_args()
    changes = {"train.iters": asked.iters, "trials": asked.trials}
    spec = read_sweep(find_sweep("lr-rank"), LONG | changes)
    times, shares = Times(), []
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_sweep(spec, "overhead", studies_dir=folder, on_event=times)
        trials = outcome.study.get_trials(deepcopy=False)
    print("trial  wall s  training  evaluation  scoring   rest  supervisor")
    for number, wall_s in sorted(times.wall_s.items()):
        known = trials[number].user_attrs
        parts = [known[key] for key in ("train_time_s", "eval_time_s", "score_time_s")]
        rest, watched = 1 - sum(parts) / wall_s, times.supervisor_s[number] / wall_s
        shares.append(rest + watched)
        print(
            f"{number:5}  {wall_s:6.1f}  {parts[0] / wall_s:8.1%}  {parts[1] / wall_s:10.1%}  "
            f"{parts[2] / wall_s:7.1%}  {rest:5.2%}  {watched:10.2%}"
        )
    print(
        f"rest and supervisor together: median {statistics.median(shares):.2%}, "
        f"{min(shares):.2%} to {max(shares):.2%} of {len(shares)} trials"
    )


if __name__ == "__main__":
    main()
