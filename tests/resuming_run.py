"""A process that trains in a folder, going on from the state there; started again when killed.

The imports, which take most of the time, are done once: each life is a fork from before MLX
computed anything. What it does is told in lines.
"""

import json
import os
import signal
import sys
from pathlib import Path

from hawsweep.machine.backend import mx

import tiny_models
from tiny_training import Recorder, run, settings

from hawsweep.training.checkpoints import load_state

TRAIN = settings(
    iters=100,
    batch_size=3,
    grad_accumulation_steps=2,
    optimizer="adam",
    learning_rate=5e-3,
    steps_per_eval=5,
    steps_per_report=3,
    keep_checkpoints=2,
    lora_parameters={"dropout": 0.2},
)


class Teller(Recorder):
    """Says each step in a line, so that one may choose when to kill."""

    def on_iteration(self, iteration):
        tell("iteration", iteration)

    def on_report(self, report):
        tell("report", report.iteration, report.train_loss, report.grad_norm)

    def on_evaluation(self, evaluation, is_best):
        losses = evaluation.example_losses.tolist()
        tell("evaluation", evaluation.iteration, evaluation.val_loss, losses)


def tell(*values):
    print(json.dumps(values), flush=True)


def one_life(folder):
    tell("pid", os.getpid())
    model = tiny_models.build("llama", num_hidden_layers=2)
    examples = tiny_models.random_examples(10)
    state = load_state(folder, TRAIN)
    _, _, result = run(model, TRAIN, examples, folder, recorder=Teller(), state=state)
    mx.synchronize()
    tell("end", {"iteration": result.iteration, "n_tokens": result.n_tokens})


def main(folder):
    while True:
        child = os.fork()
        if child == 0:
            one_life(folder)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
