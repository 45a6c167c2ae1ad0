"""Putting LoRA layers into a model, taking them out again, and their files in mlx-lm's layout."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hawsweep.backend import mx, seed

from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from hawsweep.errors import ModelError
from hawsweep.spec import TrainSpec

WEIGHTS_FILE = "adapters.safetensors"
CONFIG_FILE = "adapter_config.json"


def lora_config(train: TrainSpec) -> dict[str, Any]:
    """``lora_parameters`` as mlx-lm reads them: rank, scale, dropout and, where given, keys."""
    lora = train.lora_parameters
    config: dict[str, Any] = {
        "rank": lora.rank,
        "scale": lora.effective_scale,
        "dropout": lora.dropout,
    }
    if lora.keys is not None:
        config["keys"] = list(lora.keys)
    return config


def mlx_lm_config(
    train: TrainSpec, model_path: Path, data_dir: Path, adapter_dir: Path
) -> dict[str, Any]:
    """What ``mlx_lm.lora -c`` needs to train with the same settings, as plain values."""
    return {
        **train.model_dump(mode="json", exclude={"lora_parameters"}),
        "model": str(model_path),
        "data": str(data_dir),
        "train": True,
        "fine_tune_type": "lora",
        "adapter_path": str(adapter_dir),
        "lora_parameters": lora_config(train),
        "val_batches": -1,
    }


@contextmanager
def lora_layers(model: Any, train: TrainSpec) -> Iterator[None]:
    """Adapt the last ``num_layers`` blocks of a model; on leaving, put the original layers back.

    The initial values are drawn from MLX's process-wide generator, seeded here with ``train.seed``.

    Raises:
        ModelError: The model has fewer blocks, or no layer is named as in ``keys``.
    """
    if train.num_layers > len(model.layers):
        raise ModelError(
            f"train.num_layers is {train.num_layers}, but the model has {len(model.layers)} "
            "blocks. "
            "Use that many or fewer, or -1 for all."
        )
    model.freeze()
    before = dict(model.named_modules())
    seed(train.seed)
    try:
        try:
            linear_to_lora_layers(model, train.num_layers, lora_config(train))
        except ValueError as fault:
            raise ModelError(
                f"train.lora_parameters.keys {list(train.lora_parameters.keys or ())} name what "
                f"LoRA cannot adapt: {fault}. Name linear layers, such as self_attn.q_proj."
            ) from fault
        if not tree_flatten(model.trainable_parameters()):
            raise ModelError(
                f"train.lora_parameters.keys {list(train.lora_parameters.keys or ())} match "
                "no layer "
                "of the model. Name them as they are inside a block, such as self_attn.q_proj."
            )
        yield
    finally:
        replaced = [
            (name, before[name])
            for name, module in model.named_modules()
            if name in before and before[name] is not module
        ]
        model.update_modules(tree_unflatten(replaced))


def save_adapter(model: Any, train: TrainSpec, folder: Path) -> None:
    """Write the trainable parameters and their configuration; each file is replaced at once."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "fine_tune_type": "lora",
        "num_layers": train.num_layers,
        "lora_parameters": lora_config(train),
    }
    replace_text(folder / CONFIG_FILE, json.dumps(config, indent=2) + "\n")
    weights = dict(tree_flatten(model.trainable_parameters()))
    beside = folder / f"~{WEIGHTS_FILE}"
    mx.save_safetensors(str(beside), weights)
    os.replace(beside, folder / WEIGHTS_FILE)


def load_adapter(model: Any, folder: Path) -> None:
    """Load saved values into LoRA layers that are in the model already."""
    model.load_weights(str(folder / WEIGHTS_FILE), strict=False)


def replace_text(path: Path, text: str) -> None:
    """Write a text file beside its name and rename it, so that no reader finds half of it."""
    beside = path.with_name(f"~{path.name}")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
