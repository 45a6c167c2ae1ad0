"""The keys of a sweep of the tiny model, whose trials take seconds."""

INTERVAL = 4  # iterations between evaluations


def tiny_sweep(model_dir, data_dir):
    return {
        "model": str(model_dir),
        "data": str(data_dir),
        "train": {
            "batch_size": 4,
            "num_layers": 2,
            "mask_prompt": True,
            "steps_per_eval": INTERVAL,
            "steps_per_report": INTERVAL,
            "lora_parameters": {"alpha": 8},
        },
        "search": {
            "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
            "lora_parameters.rank": {"choices": [2, 4]},
            "iters": {"choices": [24, 40]},
        },
        "validation": {"max_examples": 8},
        "pruning": {"name": "none"},
        "sampler": {"name": "random"},
        "scoring": {
            "metric": "chrf",
            "max_examples": 4,
            "max_tokens": 4,
            "prompt": {"examples": 0},
        },
        "confirm": {"top": 0},
        "workers": 1,
        "machine": {"on_memory_pressure": "run", "on_battery": "run", "keep_awake": False},
        "trials": 4,
    }
