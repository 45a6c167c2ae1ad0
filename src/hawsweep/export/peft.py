"""An adapter in the format of Hugging Face's PEFT, which transformers and others load."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hawsweep.machine.backend import mx

from hawsweep.errors import ExportError
from hawsweep.files import replace_text
from hawsweep.layout import CONFIG_FILE, WEIGHTS_FILE

PEFT_WEIGHTS = "adapter_model.safetensors"
# Model types whose layers mlx-lm names as transformers 5 does: what a name begins with in mlx-lm,
# and in transformers. tests/ecosystem/test_peft_answers.py compares all.
_NAMES = {
    **dict.fromkeys(
        (
            *("cohere", "gemma", "gemma2", "gemma3_text", "llama", "mistral", "phi3", "qwen2"),
            *("qwen3", "smollm3"),
        ),
        ("model.", "model."),
    ),
    "gemma3": ("language_model.model.", "model.language_model."),
}
# PEFT's names of mlx-lm's arrays.
_KINDS = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight", "m": "lora_magnitude_vector"}


def to_peft(adapters: Path, model_type: str, base: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """An adapter as PEFT's config and arrays.

    mlx-lm adds ``scale * x @ lora_a @ lora_b`` to a layer's output, PEFT
    ``lora_alpha / r * x @ lora_A.T @ lora_B.T``.

    Args:
        model_type: The base's.
        base: The base's repository, for PEFT's own commands; empty if transformers cannot load it.

    Raises:
        ExportError: PEFT cannot hold it.
    """
    config = json.loads((adapters / CONFIG_FILE).read_text(encoding="utf-8"))
    lora = config.get("lora_parameters", {})
    kind = config.get("fine_tune_type", "lora")
    if kind == "full" or "scale" not in lora:
        what = "all weights were trained" if kind == "full" else f"its {CONFIG_FILE} has no scale"
        raise ExportError(f"There is no adapter to write for PEFT: {what}. Export with --fuse.")
    if model_type not in _NAMES:
        raise ExportError(
            f"The adapter cannot be written for PEFT: how transformers names the layers of "
            f"{model_type!r} is not known here, only of {', '.join(sorted(_NAMES))}. Export with "
            "--fuse."
        )
    ours, theirs = _NAMES[model_type]
    arrays: dict[str, Any] = {}
    modules: dict[str, None] = {}
    weights: Any = mx.load(str(adapters / WEIGHTS_FILE))
    for name, array in weights.items():
        module, _, array_kind = name.rpartition(".")
        if not module.startswith(f"{ours}layers.") or array.ndim > 2 or array_kind not in _KINDS:
            raise ExportError(
                f"The adapter cannot be written for PEFT, which holds adapted linear layers: "
                f"{name} has shape {list(array.shape)}. Leave it out by "
                "train.lora_parameters.keys, or export with --fuse."
            )
        module = theirs + module.removeprefix(ours)
        modules[module] = None
        arrays[f"base_model.model.{module}.{_KINDS[array_kind]}"] = array.T
    return _config(lora, list(modules), base, use_dora=kind == "dora"), arrays


def _config(
    lora: Mapping[str, Any], modules: list[str], base: str, *, use_dora: bool
) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora["rank"],
        "lora_alpha": lora["scale"] * lora["rank"],
        "lora_dropout": lora.get("dropout", 0.0),
        "use_rslora": False,  # which would divide by the root of r
        "use_dora": use_dora,
        # Whole names: the end of a name would also fit layers of a vision tower.
        "target_modules": modules,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def write_peft(folder: Path, config: Mapping[str, Any], arrays: dict[str, Any]) -> None:
    """Write what ``to_peft`` gives."""
    folder.mkdir()
    replace_text(folder / CONFIG_FILE, json.dumps(config, indent=2) + "\n")
    mx.save_safetensors(str(folder / PEFT_WEIGHTS), arrays, {"format": "pt"})
