"""Sweeps of several models, as a spec and as a folder."""

import json

from harness import Lab

from hawsweep.spec.read import check_sweep

RATES = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}


def lab_of(folder, data_dir, model_dirs, **changes):
    """A sweep of several models; the harness writes one."""
    made = Lab(folder, "none", data_dir, **changes)
    path = folder / "sweep.yaml"
    content = json.loads(path.read_text())
    del content["model"]
    content["search"]["model"] = {"choices": list(map(str, model_dirs))}
    path.write_text(json.dumps(content))
    return made


def sweep(**changes):
    content = {
        "data": "phrasebook",
        "search": {"model": {"choices": ["org/one", "other/two"]}, **RATES},
    }
    return check_sweep({**content, **changes}, "a sweep")


# What a sweep says
