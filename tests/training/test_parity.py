"""With settings that both have, training losses are those of mlx-lm's own trainer."""

from itertools import islice

from hawsweep.machine.backend import mx, optim

import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.trainer import TrainingArgs, train
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load
from tiny_training import assert_same_adapter, batch_order, run, settings

from hawsweep.data.tokens import Example
from hawsweep.training.adapters import lora_config

ITERATIONS = 20


class Losses(TrainingCallback):
    def __init__(self):
        self.losses = []

    def on_train_loss_report(self, train_info):
        self.losses.append(train_info["train_loss"])


@pytest.fixture(params=["dense", "4-bit"])
def model_dir(request, tiny_model_dir):
    return tiny_model_dir if request.param == "dense" else request.getfixturevalue("quantized_dir")


def mlx_lm_batches(examples, indices):
    """Batches of one example as mlx-lm's trainer takes them, of one width.

    mlx-lm's own ``iterate_batches`` gives (offset, length) where its loss takes (offset, last
    target): a token of padding more for each example. Here the last target is given.
    """
    width = max(len(example.tokens) for example in examples)
    for (index,) in indices:
        tokens, offset = examples[index].tokens, examples[index].offset
        padded = mx.pad(mx.array(tokens)[None], [(0, 0), (0, width - len(tokens))])
        yield padded, mx.array([[offset, len(tokens) - 1]])


def train_by_mlx_lm(model, settings, examples, folder):
    """Losses of each iteration, and the adapter at the end, by mlx-lm's trainer."""
    order = list(islice(batch_order(settings, examples), settings.iters))
    mx.random.seed(settings.seed)
    model.freeze()
    linear_to_lora_layers(model, settings.num_layers, lora_config(settings))
    told = Losses()
    train(
        model,
        optim.Adam(learning_rate=settings.learning_rate),
        examples,
        args=TrainingArgs(
            batch_size=settings.batch_size,
            iters=settings.iters,
            steps_per_report=1,
            grad_accumulation_steps=settings.grad_accumulation_steps,
            adapter_file=folder / "mlx_lm.safetensors",
        ),
        iterate_batches=lambda **_: mlx_lm_batches(examples, order),
        training_callback=told,
    )
    return told.losses, dict(tree_flatten(model.trainable_parameters()))


def assert_parity(model_dir, examples, folder, **changes):
    """20 losses are the same, and have changed; so is the adapter at the end."""
    asked = settings(
        iters=ITERATIONS,
        batch_size=1,
        optimizer="adam",
        learning_rate=1e-3,
        lora_parameters={"rank": 8},
        **changes,
    )
    theirs, their_adapter = train_by_mlx_lm(load(str(model_dir))[0], asked, examples, folder)
    adapter, recorder, _ = run(load(str(model_dir))[0], asked, examples, folder)
    assert len(theirs) == ITERATIONS
    assert recorder.losses == pytest.approx(theirs, rel=1e-4)
    assert min(theirs[-5:]) < theirs[0] - 0.1  # else untrained losses would do
    assert_same_adapter(adapter, their_adapter, 1e-3)


@pytest.mark.parametrize("split", ["train_examples", "unmasked_examples"])
def test_losses_are_those_of_mlx_lms_trainer(model_dir, split, request, tmp_path):
    assert_parity(model_dir, request.getfixturevalue(split), tmp_path)


def test_losses_with_accumulation_are_mlx_lms_where_batches_have_as_many_targets(
    model_dir, train_examples, tmp_path
):
    n_targets = min(example.n_targets for example in train_examples)
    alike = [Example(e.tokens[: e.offset + n_targets], e.offset) for e in train_examples]
    assert len({len(example.tokens) for example in alike}) > 1
    # A mean of means is then the mean of all targets.
    assert_parity(model_dir, alike, tmp_path, grad_accumulation_steps=2)
