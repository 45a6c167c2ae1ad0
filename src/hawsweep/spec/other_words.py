"""Words of other tools, and the keys that do the same here."""

_MLX_LM, _PEFT, _TRANSFORMERS, _TRL = "mlx-lm", "PEFT", "transformers", "trl"
_RANK, _LENGTH = "train.lora_parameters.rank", "train.max_seq_length"
_EVALUATION = "The adapter of the best evaluation is saved; train.keep_checkpoints keeps others."
# Each word with its tool, the key here, and the difference, as a sentence; maybe none.
_WORDS: dict[str, tuple[str, str, str]] = {
    "val_batches": (_MLX_LM, "validation.max_examples", "It counts examples, not batches."),
    "test_batches": (_MLX_LM, "scoring.max_examples", "It counts prompts, not batches."),
    "save_every": (_MLX_LM, "train.steps_per_eval", _EVALUATION),
    "clear_cache_threshold": (
        _MLX_LM,
        "memory.budget",
        "A worker bounds MLX's cache by itself, within this.",
    ),
    "r": (_PEFT, _RANK, ""),
    "lora_r": (_PEFT, _RANK, ""),
    "lora_alpha": (_PEFT, "train.lora_parameters.alpha", ""),
    "lora_dropout": (_PEFT, "train.lora_parameters.dropout", ""),
    "target_modules": (_PEFT, "train.lora_parameters.keys", "It has paths in a block."),
    "layers_to_transform": (_PEFT, "train.num_layers", "Blocks are counted from the last."),
    "use_dora": (_PEFT, "train.fine_tune_type", "Its value is then dora."),
    "per_device_train_batch_size": (_TRANSFORMERS, "train.batch_size", ""),
    "per_device_eval_batch_size": (_TRANSFORMERS, "validation.batch_size", ""),
    "gradient_accumulation_steps": (_TRANSFORMERS, "train.grad_accumulation_steps", ""),
    "num_train_epochs": (
        _TRANSFORMERS,
        "train.iters",
        "It counts batches: epochs x examples / batch_size.",
    ),
    "max_steps": (
        _TRANSFORMERS,
        "train.iters",
        "It counts batches, not updates: updates x grad_accumulation_steps.",
    ),
    "warmup_ratio": (_TRANSFORMERS, "train.lr_schedule.warmup_ratio", ""),
    "warmup_steps": (_TRANSFORMERS, "train.lr_schedule.warmup", ""),
    "lr_scheduler_type": (_TRANSFORMERS, "train.lr_schedule.name", ""),
    "optim": (_TRANSFORMERS, "train.optimizer", ""),
    "weight_decay": (
        _TRANSFORMERS,
        "train.optimizer_config",
        "Write optimizer_config: {adamw: {weight_decay: 0.01}}; to search it, "
        "optimizer_config.adamw.weight_decay.",
    ),
    "save_steps": (_TRANSFORMERS, "train.steps_per_eval", _EVALUATION),
    "save_total_limit": (_TRANSFORMERS, "train.keep_checkpoints", ""),
    "eval_steps": (_TRANSFORMERS, "train.steps_per_eval", ""),
    "logging_steps": (_TRANSFORMERS, "train.steps_per_report", ""),
    "gradient_checkpointing": (_TRANSFORMERS, "train.grad_checkpoint", ""),
    "max_length": (_TRL, _LENGTH, ""),
    "completion_only_loss": (_TRL, "train.mask_prompt", ""),
    "n_trials": ("Optuna", "trials", ""),
}


def key_of_word(asked: str) -> str | None:
    """The key here that a word of another tool means; None for other words."""
    found = _WORDS.get(asked.rpartition(".")[2])
    return None if found is None else found[1]


def tell_word(asked: str) -> str:
    """The key here for a word of another tool, in a sentence or two; empty for other words."""
    word = asked.rpartition(".")[2]
    if word not in _WORDS:
        return ""
    tool, key, difference = _WORDS[word]
    return " ".join(filter(None, (f"{word} of {tool} is {key} here.", difference)))
