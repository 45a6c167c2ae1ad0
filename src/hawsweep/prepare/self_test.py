"""A self-test of training: a few steps, and an adapter saved and loaded.

``python -m hawsweep.prepare.self_test`` runs it and prints a line of JSON. It is a child process,
so that a crash ends only the test.
"""

import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hawsweep.errors import BackendError, is_out_of_memory
from hawsweep.machine import backend
from hawsweep.machine.children import child_command, child_environment
from hawsweep.machine.without_torch import keep_torch_out
from hawsweep.models import resolve
from hawsweep.models.load import load_model
from hawsweep.spec.train import TrainSpec

BUNDLED = "smollm2-135m-instruct"
_TIMEOUT_S = 300.0
_ITERS = 8
_EXAMPLES = 12
# The reloaded adapter gives the same numbers, within rounding.
_TOLERANCE = 1e-4
_RANDOM = "a tiny random model"


@dataclass(frozen=True)
class SelfTest:
    """The result of the few steps.

    Attributes:
        model: The trained model.
        before: The loss before the first step.
        after: The loss of the best adapter.
        reloaded: The same, of the adapter read from its file.
        seconds: Of training, without loading.
    """

    model: str
    before: float
    after: float
    reloaded: float
    seconds: float
    tokens_per_s: float

    @property
    def learned(self) -> bool:
        """Whether the loss fell."""
        return self.after < self.before

    @property
    def is_kept(self) -> bool:
        """Whether the saved adapter is the trained one."""
        return abs(self.reloaded - self.after) <= _TOLERANCE * max(1.0, abs(self.after))


def run_selftest() -> SelfTest:
    """Train in a child process.

    Raises:
        BackendError: The process died, hung or could not train; the message says how.
    """
    command = child_command("-m", "hawsweep.prepare.self_test")
    # As in workers: waiting threads slow the others down if other programs use the cores.
    environment = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", **child_environment()}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=_TIMEOUT_S,
            env=environment,
        )
    except subprocess.TimeoutExpired as fault:
        raise BackendError(f"it took more than {_TIMEOUT_S:.0f} seconds") from fault
    except OSError as fault:
        raise BackendError(f"no process could be started: {fault.strerror}") from fault
    return read_outcome(done.returncode, done.stdout, done.stderr)


def read_outcome(code: int, output: str, errors: str) -> SelfTest:
    """The result of the child process.

    Raises:
        BackendError: It did not finish.
    """
    if code == 0:
        try:
            return SelfTest(**json.loads(output.splitlines()[-1]))
        except (IndexError, TypeError, ValueError) as fault:
            raise BackendError(f"its output cannot be read: {output[-200:]!r}") from fault
    if is_out_of_memory(errors):
        raise BackendError("it ran out of memory")
    how = f"it was ended by signal {-code}" if code < 0 else f"it ended with code {code}"
    lines = [line for line in errors.splitlines() if line.strip()]
    raise BackendError(f"{how}: {lines[-1][:300]}" if lines else how)


def train_a_little(folder: Path) -> SelfTest:
    """Train the bundled model if it is converted, else a tiny random one."""
    backend.blas()  # before anything imports MLX
    path = resolve.find_model(BUNDLED)
    model, examples = _random() if path is None else _bundled(path)
    return _train(BUNDLED if path is not None else _RANDOM, model, examples, folder)


def _bundled(path: Path) -> tuple[Any, Sequence[Any]]:
    from hawsweep.data.load import load_data
    from hawsweep.data.tokens import encode
    from hawsweep.spec.sweep import DataSpec

    loaded = load_model(path)
    records = load_data([DataSpec.model_validate({"path": "phrasebook"})]).train[:_EXAMPLES]
    encoded = encode(records, loaded.template, TrainSpec(max_seq_length=64, mask_prompt=True))
    return loaded.model, encoded.examples


def _random() -> tuple[Any, Sequence[Any]]:
    from hawsweep.machine.backend import seed

    import numpy as np
    from mlx_lm.models import llama

    from hawsweep.data.tokens import Example

    seed(0)
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "rms_norm_eps": 1e-5,
        "vocab_size": 64,
        "tie_word_embeddings": True,
    }
    model = llama.Model(llama.ModelArgs.from_dict(config))
    tokens = np.tile(np.arange(2, 18, dtype=np.int32), (_EXAMPLES, 1))
    return model, [Example(each, 1) for each in tokens]


def _train(name: str, model: Any, examples: Sequence[Any], folder: Path) -> SelfTest:
    from hawsweep.data.batches import lengths_of, training_order
    from hawsweep.layout import ADAPTER_DIR
    from hawsweep.training.adapters import load_adapter
    from hawsweep.training.evaluation import make_evaluator
    from hawsweep.training.train import TrainCallback, train_adapter, trainable

    train = TrainSpec.model_validate(
        {
            "batch_size": 4,
            "iters": _ITERS,
            "steps_per_eval": _ITERS,
            "learning_rate": 1e-3,
            "num_layers": 4,
            "optimizer_config": {"adam": {"bias_correction": True}},
            "lora_parameters": {"rank": 8, "alpha": 32},
        }
    )
    backend.seed(train.seed)
    evaluate = make_evaluator(model, examples, 4)
    with trainable(model, train):
        before = evaluate(0).val_loss
        order = training_order(lengths_of(examples), train.batch_size, train.seed)
        started = time.perf_counter()
        result = train_adapter(model, train, examples, order, evaluate, folder, TrainCallback())
        seconds = time.perf_counter() - started
    backend.seed(train.seed + 1)  # other values than those that were trained
    with trainable(model, train):
        load_adapter(model, folder / ADAPTER_DIR)
        reloaded = evaluate(_ITERS).val_loss
    after = result.best.val_loss
    return SelfTest(name, before, after, reloaded, seconds, result.n_tokens / result.train_time_s)


def main() -> None:
    """Train in a temporary folder and print the result."""
    keep_torch_out()
    with tempfile.TemporaryDirectory(prefix="hawsweep-selftest-") as folder:
        print(json.dumps(asdict(train_a_little(Path(folder)))))


if __name__ == "__main__":
    main()
