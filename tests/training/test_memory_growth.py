"""Memory stays flat over a long run with batches of many shapes."""

from itertools import islice

from hawsweep.machine.backend import mx

import numpy as np
import psutil
import pytest
import tiny_models
from tiny_training import Recorder, batch_order, run, settings

from hawsweep.data.batches import make_batch
from hawsweep.data.tokens import Example

LONGEST = 256
# Once every shape of a batch was traced.
ITERATIONS, SETTLED = 3000, 1000
MIB = 2**20


class Memory(Recorder):
    def __init__(self):
        super().__init__()
        self.active, self.resident = {}, {}

    def on_iteration(self, iteration):
        if iteration in (SETTLED, ITERATIONS):
            self.active[iteration] = mx.get_active_memory()
            self.resident[iteration] = psutil.Process().memory_info().rss


def examples_of_all_lengths():
    generator = np.random.default_rng(0)
    lengths = generator.integers(4, LONGEST, 400, endpoint=True)
    return [
        Example(generator.integers(0, 64, n, dtype=np.int32), int(generator.integers(1, n)))
        for n in lengths
    ]


@pytest.mark.parametrize(("batch_size", "most"), [(1, 150), (2, 200), (4, 256)])
def test_shapes_of_batches_are_few_whatever_the_lengths(batch_size, most):
    examples = examples_of_all_lengths()
    order = batch_order(settings(batch_size=batch_size), examples)
    batches = [make_batch(examples, indices) for indices in islice(order, ITERATIONS)]
    shapes = {(batch.inputs.shape, len(batch.targets)) for batch in batches}
    assert len({batch.inputs.shape[1] for batch in batches}) > 10
    assert len(shapes) <= most


@pytest.mark.real
def test_memory_does_not_grow_over_3000_iterations(tmp_path):
    model = tiny_models.build("llama", vocab_size=64, num_hidden_layers=2)
    train = settings(
        iters=ITERATIONS, batch_size=2, optimizer="adam", learning_rate=1e-4, steps_per_eval=500
    )
    memory = Memory()
    run(model, train, examples_of_all_lengths(), tmp_path, recorder=memory)
    assert memory.active[ITERATIONS] - memory.active[SETTLED] < MIB
    assert memory.resident[ITERATIONS] - memory.resident[SETTLED] < 32 * MIB
