"""A study of the tiny model, and a bench for its trials; outputs are judged by a fake scorer."""

import json
from pathlib import Path

import numpy as np
import optuna

from hawsweep.data.load import load_data
from hawsweep.scoring.score import Sample, Score
from hawsweep.search.distributions import distributions
from hawsweep.spec.read import check_sweep
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study
from hawsweep.training.train import Interrupted
from hawsweep.trial.context import make_context
from hawsweep.trial.run import run_trial

TRAIN = {
    "batch_size": 4,
    "num_layers": 2,
    "mask_prompt": True,
    "max_seq_length": 256,
    "steps_per_eval": 4,
    "steps_per_report": 2,
    "lora_parameters": {"scale": 2.0, "dropout": 0.1},
}
SETTINGS = {"learning_rate": 1e-3, "lora_parameters.rank": 4, "iters": 8}


class FixedScorer:
    """Gives every model the same score; the tiny one says nothing worth comparing."""

    def score(self, loaded, records, on_batch):
        self.asked.append(records)
        return judged([0.5 for _ in records])

    def compare(self, records, outputs):
        pairs = zip(records, outputs, strict=True)
        return judged([float(record.reference == output) for record, output in pairs])

    def unread(self, references):
        return None

    def __init__(self):
        self.asked = []


def judged(scores):
    samples = tuple(Sample("", "", "", each, each, 0.0) for each in scores)
    mean = float(np.mean(scores))
    return Score(mean, 0.4, 0.6, mean, 10.0, 1.0, 0.1, 1.0, 0.0, {}, samples)


class Sweep:
    """A study with the tiny model, and a bench for its trials."""

    def __init__(self, model, data_dir, folder, **changes):
        train = {**TRAIN, **changes.pop("train", {})}
        search = {
            "learning_rate": {"low": 1e-4, "high": 1e-2},
            "lora_parameters.rank": {"choices": [2, 4]},
            "iters": {"choices": [8, 12]},
            **changes.pop("search", {}),
        }
        content = {
            "model": str(model.path),
            "data": str(data_dir),
            "train": {key: value for key, value in train.items() if key not in search},
            "search": search,
        }
        self.spec = check_sweep({**content, "pruning": {"name": "none"}, **changes}, "a sweep")
        self.place = Place(folder)
        splits = load_data(self.spec.data)
        storage = open_storage(self.place, create=True)
        self.study, _ = create_study(storage, self.place, "tiny", self.spec, splits.fingerprint())
        self.base_dir = self.place.study_dir("tiny") / "base"
        self.context = make_context(
            self.spec, model, splits, FixedScorer(), Path(data_dir), self.base_dir
        )

    def run(self, tell=lambda *_, **__: None, **settings):
        """Run a trial with these settings; give it as a row, its folder and its metrics."""
        self.study.enqueue_trial({**SETTINGS, **settings})
        trial = self.study.ask(distributions(self.spec.search))
        folder = self.place.trial_dir("tiny", trial.number)
        state, value = optuna.trial.TrialState.COMPLETE, None
        try:
            value = run_trial(self.context, trial, folder, tell)
        except Interrupted:
            state = optuna.trial.TrialState.FAIL
        except optuna.TrialPruned:
            state = optuna.trial.TrialState.PRUNED
        self.study.tell(trial, value, state=state)
        frozen = self.study.get_trials(deepcopy=False)[trial.number]
        text = (folder / "metrics.jsonl").read_text()
        return frozen, folder, [json.loads(line) for line in text.splitlines()]
