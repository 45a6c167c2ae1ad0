"""Training runs of a few steps on the tiny model, and what they are compared with."""

from contextlib import nullcontext

from hawsweep.machine.backend import mx

from mlx.utils import tree_flatten
from mlx_lm.tuner.trainer import default_loss

from hawsweep.data.batches import lengths_of, training_order
from hawsweep.spec.train import TrainSpec
from hawsweep.training.evaluation import make_evaluator
from hawsweep.training.train import train_adapter, trainable


class Recorder:
    """Keeps what a run tells."""

    def __init__(self):
        self.iterations, self.reports, self.evaluations = [], [], []

    def on_iteration(self, iteration):
        self.iterations.append(iteration)

    def on_report(self, report):
        self.reports.append(report)

    def on_evaluation(self, evaluation, is_best):
        self.evaluations.append((evaluation, is_best))

    @property
    def losses(self):
        return [report.train_loss for report in self.reports]


class EndsAt(Recorder):
    """Raises at an evaluation, as a pruner does."""

    def __init__(self, iteration):
        super().__init__()
        self._iteration = iteration

    def on_evaluation(self, evaluation, is_best):
        super().on_evaluation(evaluation, is_best)
        if evaluation.iteration == self._iteration:
            raise InterruptedError("ended by the test")


def settings(**changes):
    lora = {"rank": 4, "scale": 2.0, **changes.pop("lora_parameters", {})}
    fixed = {"iters": 4, "batch_size": 4, "learning_rate": 0.1, "optimizer": "sgd"}
    fixed |= {"num_layers": 2, "steps_per_report": 1, "lora_parameters": lora}
    return TrainSpec.model_validate(fixed | changes)


def batch_order(train, examples):
    """The batches a run trains on, as indices of ``examples``."""
    return training_order(lengths_of(examples), train.batch_size, train.seed)


def run(
    model,
    train,
    examples,
    folder,
    *,
    evaluate=None,
    recorder=None,
    frozen=None,
    micro_batch=None,
    tokens_at_once=None,
    state=None,
    should_stop=lambda: False,
):
    """Train; give the adapter as it ended, what the run told and its result.

    No block is skipped without ``frozen``.
    """
    recorder = recorder or Recorder()
    with trainable(model, train), frozen.in_use() if frozen else nullcontext():
        evaluate = evaluate or make_evaluator(
            model, examples[:4], 4, frozen, tokens_at_once=tokens_at_once
        )
        result = train_adapter(
            model,
            train,
            examples,
            batch_order(train, examples),
            evaluate,
            folder,
            recorder,
            frozen=frozen,
            micro_batch=micro_batch,
            tokens_at_once=tokens_at_once,
            state=state,
            should_stop=should_stop,
        )
        return dict(tree_flatten(model.trainable_parameters())), recorder, result


def mlx_lm_loss(model, example):
    """The mean loss and the count of one example alone, by mlx-lm."""
    lengths = mx.array([[example.offset, len(example.tokens) - 1]])
    return default_loss(model, mx.array(example.tokens)[None], lengths)


def assert_same_adapter(ours, theirs, tolerance):
    """All values agree within ``tolerance`` of each matrix's largest."""
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        largest = mx.abs(expected).max().item()
        assert mx.abs(ours[name] - expected).max().item() <= tolerance * largest, name
