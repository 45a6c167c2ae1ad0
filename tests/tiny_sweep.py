"""A sweep of the tiny model, whose trials take seconds, and its data."""

from pathlib import Path

from hawsweep.data import phrasebook

LETTERS_DIR = str(Path(__file__).with_name("letters"))
PHRASEBOOK = Path(phrasebook.__file__).parent
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
            "embedder": LETTERS_DIR,
            "max_examples": 4,
            "max_tokens": 4,
            "prompt": {"examples": 0},
        },
        "confirm": {"top": 0},
        "workers": 1,
        "machine": {"keep_awake": False},
        "trials": 4,
    }


def really_embedded(sweep):
    """The sweep for commands that start as users start them: those know nothing of letters."""
    return {**sweep, "scoring": {**sweep["scoring"], "embedder": "all-MiniLM-L6-v2"}}


def phrasebook_lines(split, n_lines):
    lines = (PHRASEBOOK / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return lines[:n_lines]
