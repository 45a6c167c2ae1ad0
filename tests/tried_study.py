"""A study of the tiny model with one trial, whose adapters were made up: its answers are others."""

from hawsweep.machine.backend import mx, utils

import tiny_llama
from optuna.trial import create_trial
from tiny_sweep import tiny_sweep

from hawsweep.models.load import load_model
from hawsweep.search.distributions import distributions
from hawsweep.spec.read import check_sweep
from hawsweep.spec.space import apply_settings
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study
from hawsweep.training.adapters import adapted, save_adapter

SETTINGS = {"learning_rate": 1e-3, "lora_parameters.rank": 2, "iters": 24}
CHECKPOINT = 12
MAX_TOKENS = 12


def save_model(folder, tokenizer):
    """A model that answers in letters, and differently where it is shown examples."""
    folder.mkdir()
    sizes = {"hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 128}
    tiny_llama.save(folder, tokenizer, seed=24, num_key_value_heads=2, **sizes)
    return folder


def make_tried_study(place, model_dir, data, *, n_examples=2):
    """The study ``tiny`` and its sweep."""
    content = tiny_sweep(model_dir, data)
    content["data"] = data if isinstance(data, dict) else str(data)
    content["scoring"] |= {"max_tokens": MAX_TOKENS, "prompt": {"examples": n_examples}}
    spec = check_sweep(content, "tiny")
    study, _ = create_study(open_storage(place, create=True), place, "tiny", spec, {})
    known = distributions(spec.search)
    study.add_trial(create_trial(params=SETTINGS, distributions=known, value=0.5))
    model, train = load_model(model_dir).model, apply_settings(spec.train, SETTINGS)
    for name in ("adapters", f"checkpoints/{CHECKPOINT:07d}"):
        with adapted(model, train):
            trained = utils.tree_flatten(model.trainable_parameters())
            drawn = [(key, mx.random.normal(value.shape)) for key, value in trained]
            model.load_weights(drawn, strict=False)
            save_adapter(model, train, place.trial_dir("tiny", 0) / name)
            train = train.model_copy(update={"seed": train.seed + 1})
    return study, spec
