"""The files of a run: its best adapter, kept checkpoints, and the state to resume from.

The state is one file, written beside its name and renamed: it is whole even if a run is killed.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hawsweep.machine.backend import mx

import numpy as np

from hawsweep.files import remove_half_written, replacing
from hawsweep.layout import CHECKPOINT_DIR, STATE_FILE
from hawsweep.spec.train import TrainSpec
from hawsweep.training.adapters import replace_safetensors, save_adapter
from hawsweep.training.evaluation import Evaluation

# Keys of ``train`` that change the cost or the reports of a run, not its result.
_NO_INFLUENCE = {"grad_checkpoint", "keep_checkpoints"}


@dataclass
class RunProgress:
    """The progress of a run without its arrays, as plain numbers, which JSON keeps exactly.

    Attributes:
        iteration: Batches trained on.
        n_updates: Of the optimizer.
        loss_sum: Of the target tokens since the last report; likewise the next three.
        n_since_best: Evaluations without an improvement on ``to_improve``.
        kept: Validation loss and iteration of the adapters kept to compare.
        random_seed: The seed of the present state of MLX's generator; see ``backend.random_seed``.
    """

    iteration: int = 0
    n_updates: int = 0
    n_tokens: int = 0
    train_time_s: float = 0.0
    eval_time_s: float = 0.0
    peak_memory_bytes: int = 0
    learning_rate: float = 0.0
    grad_norm: float = 0.0
    loss_sum: float = 0.0
    n_targets: int = 0
    n_padded: int = 0
    reported_tokens: int = 0
    reported_time_s: float = 0.0
    to_improve: float | None = None
    n_since_best: int = 0
    kept: list[tuple[float, int]] = field(default_factory=list)
    random_seed: int = 0

    def __post_init__(self) -> None:
        self.kept = [(loss, iteration) for loss, iteration in self.kept]  # JSON has no tuples


@dataclass
class TrainState:
    """A run at one moment.

    Attributes:
        adapter: The trainable parameters, flat.
        optimizer: The optimizer's state, flat.
        pending: Gradients and targets since the last update, flat; empty after an update.
        best: The evaluation whose adapter is kept.
    """

    progress: RunProgress
    adapter: dict[str, Any]
    optimizer: dict[str, Any]
    pending: dict[str, Any]
    best: Evaluation | None


def save_state(folder: Path, train: TrainSpec, state: TrainState) -> None:
    """Write a state; the old one stays until the new one is whole."""
    arrays = {
        **_prefixed("adapter", state.adapter),
        **_prefixed("optimizer", state.optimizer),
        **_prefixed("pending", state.pending),
    }
    content: dict[str, Any] = {"train": trajectory(train), "progress": asdict(state.progress)}
    if state.best is not None:
        arrays["best"] = mx.array(state.best.example_losses)
        best = {"iteration": state.best.iteration, "val_loss": state.best.val_loss}
        content["best"] = {**best, "time_s": state.best.time_s}
    replace_safetensors(folder / STATE_FILE, arrays, {"hawsweep": json.dumps(content)})


def load_state(folder: Path, train: TrainSpec) -> TrainState | None:
    """The state from which a run with these settings can resume; None without one.

    A state of the same settings with fewer ``iters`` is used if its values do not depend on that
    number.
    """
    try:
        loaded: Any = mx.load(str(folder / STATE_FILE), return_metadata=True)
        arrays, metadata = loaded
        content = json.loads(metadata["hawsweep"])
        progress = RunProgress(**content["progress"])
        if not _leads_to(content["train"], train):
            return None
        best = content.get("best")
        return TrainState(
            progress,
            _without_prefix("adapter", arrays),
            _without_prefix("optimizer", arrays),
            _without_prefix("pending", arrays),
            best and Evaluation(example_losses=np.array(arrays["best"]), **best),
        )
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):
        return None  # no state, or another program's: training starts anew


def trajectory(train: TrainSpec) -> dict[str, Any]:
    """The settings that decide the result of a run, as plain values."""
    return train.model_dump(mode="json", exclude=_NO_INFLUENCE)


def remove_state(folder: Path) -> None:
    """Remove a state, and a half-written one."""
    (folder / STATE_FILE).unlink(missing_ok=True)
    remove_half_written(folder)


def take_state(source: Path, folder: Path, *, keep: bool) -> bool:
    """Move or copy a state to another folder; give whether it was there."""
    target = folder / STATE_FILE
    try:
        if not keep:
            os.replace(source / STATE_FILE, target)
            return True
        with replacing(target) as beside:
            shutil.copyfile(source / STATE_FILE, beside)
    except FileNotFoundError:  # another worker took it
        return False
    return True


def can_be_extended(train: TrainSpec) -> bool:
    """Whether a run with more ``iters`` passes through the end of this one."""
    ends_between = (
        train.iters % train.grad_accumulation_steps
        or train.iters % train.steps_per_eval
        or train.iters % train.steps_per_report
    )
    return not (
        ends_between or train.lr_schedule.depends_on_length() or train.order == "curriculum"
    )


def keep_checkpoint(
    model: Any, train: TrainSpec, folder: Path, kept: list[tuple[float, int]]
) -> None:
    """Keep the adapter of the latest evaluation in ``kept`` if it is among the best."""
    if train.keep_checkpoints == 0:
        return
    newest = kept[-1][1]
    if train.keep_checkpoints != "every":
        best = sorted(kept)[: train.keep_checkpoints]
        kept[:] = [each for each in kept if each in best]
    wanted = {f"{iteration:07d}" for _, iteration in kept}
    if f"{newest:07d}" in wanted:
        save_adapter(model, train, folder / CHECKPOINT_DIR / f"{newest:07d}")
    for path in (folder / CHECKPOINT_DIR).glob("[0-9]*"):
        if path.name not in wanted:
            shutil.rmtree(path)


def _leads_to(saved: dict[str, Any], train: TrainSpec) -> bool:
    saved = trajectory(TrainSpec.model_validate(saved))  # an earlier version has fewer keys
    if saved == trajectory(train):
        return True
    shorter = train.model_copy(update={"iters": saved["iters"]})
    is_shorter = saved == trajectory(shorter) and shorter.iters < train.iters
    return is_shorter and can_be_extended(shorter)


def _prefixed(prefix: str, arrays: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def _without_prefix(prefix: str, arrays: dict[str, Any]) -> dict[str, Any]:
    start = f"{prefix}/"
    return {
        name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)
    }
