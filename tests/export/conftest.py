"""A small study of the tiny model, made once, and copies of it to export from."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
from harness import Lab

from hawsweep.export.export import Request, export_trial
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import load_study

SYSTEM = "Translate Hawaiian to English."


@dataclass
class Made:
    """A study that ran, to export from."""

    studies: Path
    model_dir: Path

    @property
    def place(self):
        return Place(self.studies)

    @property
    def study(self) -> optuna.Study:
        return load_study(open_storage(self.place), "tiny")

    @property
    def folder(self):
        return self.studies / "tiny" / "export"

    def trial_dir(self, number=0):
        return self.place.trial_dir("tiny", number)

    def export(self, **asked):
        return export_trial(self.study, self.place, Request(**asked))

    def names(self):
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture(scope="session")
def ran(tmp_path_factory, tiny_model_dir, chat_data_dir):
    """Two trials that learned something: their answers are not the base's."""
    folder = tmp_path_factory.mktemp("ran")
    lab = Lab(
        folder,
        tiny_model_dir,
        chat_data_dir,
        trials=2,
        search={
            "learning_rate": {"low": 5e-3, "high": 2e-2, "log": True},
            "iters": {"choices": [24]},
        },
    )
    sweep = json.loads((folder / "sweep.yaml").read_text(encoding="utf-8"))
    sweep["train"] |= {
        "keep_checkpoints": 2,
        "steps_per_eval": 8,
        "lora_parameters": {"rank": 4, "alpha": 8},
    }
    (folder / "sweep.yaml").write_text(json.dumps(sweep), encoding="utf-8")
    with lab.start() as run:
        assert run.wait() == 0, run.events
    return lab.studies


@pytest.fixture
def made(ran, tmp_path, tiny_model_dir):
    shutil.copytree(ran, tmp_path / "studies")
    return Made(tmp_path / "studies", tiny_model_dir)
