"""The trained part of a model: added LoRA or DoRA layers, removed afterwards, or the blocks
themselves; and its files, in mlx-lm's layout.
"""

import errno
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hawsweep.machine.backend import mx, nn, seed, utils

from hawsweep.errors import ModelError
from hawsweep.files import replace_text, replacing
from hawsweep.layout import CONFIG_FILE, WEIGHTS_FILE
from hawsweep.spec.train import NARROW, LoraParameters, TrainSpec
from hawsweep.training.dropout import put_dropout
from hawsweep.training.optimizers import mlx_lm_schedule, optimizer_options

# Keys of ``train`` that mlx_lm.lora does not have.
_OUR_KEYS = (
    "max_grad_norm",
    "max_train_samples",
    "augment",
    "order",
    "difficulty",
    "early_stopping_patience",
    "early_stopping_threshold",
    "keep_checkpoints",
)


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


def with_count_of_blocks(train: TrainSpec, model: Any) -> TrainSpec:
    """The settings as mlx-lm reads them: a number of blocks instead of a share."""
    if isinstance(train.num_layers, int):
        return train
    return train.model_copy(update={"num_layers": train.n_blocks(len(model.layers))})


def mlx_lm_config(
    train: TrainSpec, model_path: Path, data_dir: Path, adapter_dir: Path
) -> dict[str, Any]:
    """The config with which ``mlx_lm.lora -c`` trains with the same settings, as plain values. Keys
    that it does not have are missing, see ``beyond_mlx_lm``.
    """
    ours = {"lora_parameters", "lr_schedule", "optimizer_config", *_OUR_KEYS}
    return {
        **train.model_dump(mode="json", exclude=ours),
        "grad_checkpoint": train.grad_checkpoint is True,
        "optimizer_config": {train.optimizer: optimizer_options(train)},
        "lr_schedule": mlx_lm_schedule(train),
        "model": str(model_path),
        "data": str(data_dir),
        "train": True,
        "adapter_path": str(adapter_dir),
        "lora_parameters": lora_config(train),
        "val_batches": -1,
    }


def beyond_mlx_lm(train: TrainSpec) -> list[str]:
    """The settings without a key in mlx_lm.lora, as ``key: value``."""
    lora, plain = train.lora_parameters, TrainSpec()
    found = [
        f"{key}: {getattr(train, key)}"
        for key in _OUR_KEYS
        if getattr(train, key) != getattr(plain, key)
        and not (key == "difficulty" and train.order == "shuffle")
    ]
    if lora.loraplus_lr_ratio is not None:
        found.append(f"lora_parameters.loraplus_lr_ratio: {lora.loraplus_lr_ratio:g}")
    if train.lr_schedule.name == "cyclic":
        found.append("lr_schedule.name: cyclic")
    return found


@contextmanager
def adapted(model: Any, train: TrainSpec) -> Iterator[None]:
    """Make the last ``num_layers`` blocks of a model trainable; on leaving, restore the model.

    With LoRA or DoRA new layers replace linear ones. Their initial values are drawn from
    MLX's process-wide generator, seeded here with ``train.seed``; in full fine-tuning the blocks'
    own values are trained.

    Raises:
        ModelError: The model has fewer blocks, no layer is named as in ``keys``, the rank is above
            a layer's width, or its weights cannot be trained because they are quantized.
    """
    n_blocks = train.n_blocks(len(model.layers))
    if n_blocks > len(model.layers):
        raise ModelError(
            f"train.num_layers is {train.num_layers}, but the model has {len(model.layers)} "
            "blocks. Use that many or fewer, or -1 for all."
        )
    model.freeze()
    modules = dict(model.named_modules())
    values: list[tuple[str, Any]] = []
    seed(train.seed)
    try:
        if train.fine_tune_type == "full":
            _unfreeze_blocks(model.layers[-n_blocks:])
            values = utils.tree_flatten(model.trainable_parameters())
        else:
            _put_adapted(model, train, n_blocks)
        yield
    finally:
        replaced = [
            (name, modules[name])
            for name, module in model.named_modules()
            if name in modules and modules[name] is not module
        ]
        model.update_modules(utils.tree_unflatten(replaced))
        model.update(utils.tree_unflatten(values))
        model.freeze()


def _unfreeze_blocks(blocks: Sequence[Any]) -> None:
    for block in blocks:
        if any(isinstance(m, nn.QuantizedLinear) for m in block.modules()):
            raise ModelError(
                "train.fine_tune_type is full, but the model's weights are quantized, and those "
                "cannot be trained. Use lora or dora, or the model in 16 bit."
            )
        block.unfreeze()


def _put_adapted(model: Any, train: TrainSpec, n_blocks: int) -> None:
    from mlx_lm.tuner.utils import linear_to_lora_layers

    lora = train.lora_parameters
    named = f"train.lora_parameters.keys {list(lora.keys or ())}"
    known = {
        name for part in (*model.layers[-n_blocks:], model) for name, _ in part.named_modules()
    }
    if unknown := [key for key in lora.keys or () if key not in known]:
        raise ModelError(
            f"train.lora_parameters.keys {unknown} match no layer of the model. Name them as they "
            "are inside a block, such as self_attn.q_proj."
        )
    use_dora = train.fine_tune_type == "dora"
    try:
        linear_to_lora_layers(model, n_blocks, lora_config(train), use_dora=use_dora)
    except ValueError as fault:
        if use_dora and lora.keys is None:
            raise ModelError(
                f"train.fine_tune_type is dora, but {fault} Use lora, or name the linear layers "
                "in train.lora_parameters.keys."
            ) from fault
        raise ModelError(
            f"{named} name what LoRA cannot adapt: {fault}. Name linear layers, such as "
            "self_attn.q_proj."
        ) from fault
    if not utils.tree_flatten(model.trainable_parameters()):
        raise ModelError(
            f"{named} match no layer of the model. Name them as they are inside a block, such as "
            "self_attn.q_proj."
        )
    if use_dora:
        _check_dora(model)
    _check_rank(model, lora)
    put_dropout(model, lora.dropout)


def _check_dora(model: Any) -> None:
    """Refuse what mlx-lm's DoRA makes of weights with bits that do not divide 32, and of quantized
    embeddings.
    """
    for name, module in model.named_modules():
        inner = module.get("linear", module.get("embedding")) if "lora_a" in module else None
        bits = getattr(inner, "bits", None)
        if bits and (32 % bits or isinstance(inner, nn.QuantizedEmbedding)):
            raise ModelError(
                f"train.fine_tune_type is dora, but {name} has weights of {bits} bits, of which "
                "mlx-lm's DoRA cannot be made. Use lora, or a model in 4 or 8 bits without "
                "embeddings in train.lora_parameters.keys."
            )


def _check_rank(model: Any, lora: LoraParameters) -> None:
    layers = [(name, m) for name, m in model.named_modules() if "lora_a" in m]
    experts = [name for name, module in layers if module.lora_a.ndim == 3]
    widths = [
        (min(module.lora_a.size, module.lora_b.size) // lora.rank, name)
        for name, module in layers
        # A router beside experts is as wide as there are experts, whatever the rank.
        if module.lora_a.ndim == 2
        and not any(each.startswith(f"{name.rpartition('.')[0]}.") for each in experts)
    ]
    widest, _ = max(widths, default=(0, ""))
    wide = (each for each in widths if each[0] > NARROW * widest)
    width, name = min(wide, default=(lora.rank, ""))
    if lora.rank > width:
        raise ModelError(
            f"train.lora_parameters.rank is {lora.rank}, above the width {width} of the layer "
            f"{name}. Use {width} or less, or leave the layer out by train.lora_parameters.keys."
        )


def save_adapter(model: Any, train: TrainSpec, folder: Path) -> None:
    """Write the trainable parameters and their configuration; each file is replaced at once."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "fine_tune_type": train.fine_tune_type,
        "num_layers": with_count_of_blocks(train, model).num_layers,
        "lora_parameters": lora_config(train),
    }
    replace_text(folder / CONFIG_FILE, json.dumps(config, indent=2) + "\n")
    weights = dict(utils.tree_flatten(model.trainable_parameters()))
    replace_safetensors(folder / WEIGHTS_FILE, weights)


def load_adapter(model: Any, folder: Path) -> None:
    """Load saved values into a model that is ``adapted`` already."""
    model.load_weights(str(folder / WEIGHTS_FILE), strict=False)


def replace_safetensors(
    path: Path, arrays: dict[str, Any], metadata: dict[str, str] | None = None
) -> None:
    """Replace ``path`` by a file of arrays; see ``files.replacing``.

    Raises:
        OSError: The disk is full.
    """
    with replacing(path) as beside:
        try:
            mx.save_safetensors(str(beside), arrays, metadata or {})
        except RuntimeError as fault:
            if "[write] unable to write" not in str(fault).lower():
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from fault
