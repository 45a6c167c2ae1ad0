"""A study with files that nothing trained, for notes, artifacts and pages, and its dashboard."""

import json
import threading
from contextlib import contextmanager

from hawsweep.search.distributions import distributions
from hawsweep.spec.read import check_sweep
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study
from hawsweep.views.dashboard.serve import make_server

SPEC = check_sweep(
    {
        "description": "A sweep | of <b>two</b> kinds.",
        "model": "some/model",
        "data": "phrasebook",
        "search": {
            "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
            "lora_parameters.rank": {"choices": [4, 8]},
        },
        "trials": 3,
    },
    "a sweep",
)
SOURCES = ["ʻO kēia kaʻu waiū.", "Aloha!"]
LOSSES = {20: 2.5, 40: 1.5}
PLAN = {"micro_batch": 4, "tokens_at_once": 512, "peak_bytes": 2_000_000_000, "text": "whole"}


def make_study(place, name="rates"):
    """A study whose base is measured."""
    study, _ = create_study(open_storage(place, create=True), place, name, SPEC, {"test": "0:"})
    study.set_user_attr("how", {"trials": SPEC.trials})
    study.set_user_attr("base", {"score": 0.1, "similarity": 0.1, "val_loss": 3.5})
    folder = place.study_dir(name) / "base"
    folder.mkdir(exist_ok=True)
    write_samples(folder, ["nonsense", "Hello."], [0.1, 0.1])
    return study


def begin(study, place, *, folder_of=None, losses=LOSSES):
    """A trial that was evaluated, and what it has written until then."""
    trial = study.ask(distributions(SPEC.search))
    trial.set_user_attr("plan", PLAN)
    trial.set_user_attr("worker", {"host": "mac", "pid": 7})
    folder = (folder_of or place.trial_dir)(study.study_name.removesuffix(".confirm"), trial.number)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("model: some/model\n")
    lines = []
    for iteration, loss in losses.items():
        trial.report(-loss, iteration)
        lines.append({"type": "train", "iteration": iteration, "train_loss": loss + 0.1})
        lines.append({"type": "eval", "iteration": iteration, "val_loss": loss})
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    if losses:
        trial.set_user_attr("val_loss", min(losses.values()))
        trial.set_user_attr("best_iteration", min(losses, key=losses.get))
    return trial, folder


def complete(study, place, score, outputs=("This is my milk.", "Hello!"), **attributes):
    """A trial that ended well; gives its number."""
    trial, folder = begin(study, place)
    write_samples(folder, outputs, [score, score])
    adapter = folder / "adapters"
    adapter.mkdir()
    config = {"fine_tune_type": "lora", "lora_parameters": {"rank": 8, "scale": 4.0}}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    (adapter / "adapters.safetensors").write_bytes(bytes(3_000_000))
    known = {"score": score, "low": score - 0.05, "high": score + 0.05, "similarity": score}
    known |= {"peak_memory_bytes": 1_900_000_000, "faults": {"cut": 1}, "chrf": 40.0}
    for key, value in {**known, **attributes}.items():
        trial.set_user_attr(key, value)
    study.tell(trial, score)
    return trial.number


def write_samples(folder, outputs, scores):
    samples = [
        {
            "source": source,
            "reference": "This is my milk.",
            "output": output,
            "score": score,
            "similarity": score,
        }
        for source, output, score in zip(SOURCES, outputs, scores, strict=True)
    ]
    (folder / "samples.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in samples))


@contextmanager
def serving(place):
    """A dashboard's server that answers in a thread."""
    with make_server(place, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
