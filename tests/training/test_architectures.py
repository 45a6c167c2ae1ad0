"""Whatever the architecture: running in parts gives what the whole model gives, and a run trains,
resumes and leaves an adapter that mlx-lm loads.
"""

from dataclasses import dataclass
from pathlib import Path

from hawsweep.machine.backend import mx

import numpy as np
import pytest
import tiny_models
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import load_model
from tiny_models import ARCHITECTURES, N_BLOCKS, VOCABULARY, random_examples
from tiny_training import EndsAt, run, settings

from hawsweep.spec.train import TrainSpec
from hawsweep.training.adapters import adapted, load_adapter
from hawsweep.training.checkpoints import load_state
from hawsweep.training.evaluation import make_evaluator
from hawsweep.training.forward import FrozenBlocks, logits_at

EXAMPLES = random_examples(4)
TRAIN = settings(
    iters=14,
    batch_size=3,
    optimizer="adam",
    learning_rate=2e-2,
    steps_per_eval=7,
    lora_parameters={"dropout": 0.05},
)
TOKENS_AT_ONCE = 16
# The others run uncompiled: on a CPU each compiles kernels of its own, for seconds.
COMPILED = "gemma3"


@dataclass
class Trained:
    """A model that was trained in ``folder``, whose base is in ``model_dir``."""

    model: object
    model_dir: Path
    folder: Path
    recorder: object
    result: object


@pytest.fixture(params=ARCHITECTURES)
def model(request):
    return tiny_models.build(request.param)


def train_tiny(model, folder, **options):
    frozen = FrozenBlocks(model, budget_bytes=10**7)
    return run(
        model, TRAIN, EXAMPLES, folder, frozen=frozen, tokens_at_once=TOKENS_AT_ONCE, **options
    )


@pytest.fixture(
    scope="module",
    params=[(name, quantized) for name in ARCHITECTURES for quantized in (False, True)],
    ids=lambda param: f"{param[0]}-{'4-bit' if param[1] else 'dense'}",
)
def trained(request, tmp_path_factory):
    architecture, quantized = request.param
    folder = tmp_path_factory.mktemp(architecture)
    model = tiny_models.build(architecture, quantized=quantized)
    tiny_models.save(model, folder / "model", architecture)
    if architecture != COMPILED:
        mx.disable_compile()
    try:
        _, recorder, result = train_tiny(model, folder / "whole")
        yield Trained(model, folder / "model", folder / "whole", recorder, result)
    finally:
        mx.enable_compile()


def test_parts_give_what_the_whole_gives(model):
    inputs = mx.array(np.random.default_rng(0).integers(0, VOCABULARY, (2, 20)))
    positions = mx.array([3, 25, 39])
    whole = model(inputs).reshape(-1, VOCABULARY)[positions]
    assert mx.allclose(whole, logits_at(model, inputs, positions), rtol=1e-4, atol=1e-5)
    with adapted(model, TrainSpec(num_layers=1)):
        frozen = FrozenBlocks(model, budget_bytes=10**7)
        with frozen.in_use():
            assert frozen.n_blocks == N_BLOCKS - 1
            states = frozen.states("train", (0, 1), inputs)
            parts = logits_at(model, inputs, positions, frozen.n_blocks, states)
    assert mx.allclose(whole, parts, rtol=1e-4, atol=1e-5)


def test_training_lowers_the_loss_of_what_it_trains_on(trained):
    base = make_evaluator(trained.model, EXAMPLES, 4)(0)
    assert trained.result.best.val_loss < base.val_loss - 0.1


def test_evaluation_does_not_depend_on_its_batch_size(trained):
    with adapted(trained.model, TRAIN):
        load_adapter(trained.model, trained.folder / "adapters")
        one, four = (make_evaluator(trained.model, EXAMPLES, n)(0) for n in (1, 4))
    assert one.val_loss == pytest.approx(trained.result.best.val_loss, rel=1e-5)
    assert four.val_loss == pytest.approx(one.val_loss, rel=1e-5)
    assert four.example_losses == pytest.approx(one.example_losses, rel=1e-5)


def test_resumed_run_leaves_the_same_adapter_bit_for_bit(trained, tmp_path):
    with pytest.raises(InterruptedError):
        train_tiny(trained.model, tmp_path, recorder=EndsAt(TRAIN.iters))
    state = load_state(tmp_path, TRAIN)
    assert state.progress.iteration == TRAIN.steps_per_eval
    _, recorder, result = train_tiny(trained.model, tmp_path, state=state)
    assert recorder.iterations == list(range(TRAIN.steps_per_eval + 1, TRAIN.iters + 1))
    assert recorder.losses == trained.recorder.losses[TRAIN.steps_per_eval :]
    assert result.best.val_loss == trained.result.best.val_loss
    for name in ("adapters.safetensors", "adapter_config.json"):
        ours, whole = (folder / "adapters" / name for folder in (tmp_path, trained.folder))
        assert ours.read_bytes() == whole.read_bytes()


def test_adapter_gives_the_same_logits_in_mlx_lm(trained):
    inputs = mx.array(EXAMPLES[0].tokens)[None]
    base = trained.model(inputs)
    with adapted(trained.model, TRAIN):
        load_adapter(trained.model, trained.folder / "adapters")
        trained.model.eval()
        ours = trained.model(inputs)
    theirs, _ = load_model(trained.model_dir)
    load_adapters(theirs, str(trained.folder / "adapters"))
    theirs.eval()
    assert mx.allclose(theirs(inputs), ours, rtol=1e-5, atol=1e-5)
    assert not mx.allclose(base, ours, rtol=1e-1, atol=1e-1)
