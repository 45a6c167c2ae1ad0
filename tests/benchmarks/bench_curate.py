"""How well `hawsweep curate` finds harm that was put into data, and what it proposes on the data as
they are: the phrase book, or another folder of chat records (``--data``).

A share of the training pairs is harmed, in four kinds of equal number: references shuffled among
them, both sides exchanged, the source copied as the reference, a German sentence as the reference.
SmolLM2 is trained on that, and its losses go into the proposal as they do for a study.

    python tests/benchmarks/bench_curate.py --folder /tmp/curate --share 0.1
    python tests/benchmarks/bench_curate.py --folder /tmp/curate-clean --share 0

With ``--iters 0`` nothing is trained, and texts alone are judged. With ``--recover 3`` the same
settings are then trained on the data as they are, on those with harm and on the proposal, with
three seeds: which share of the loss that the harm cost does the proposal bring back?
"""

import argparse
import json
import random
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from hawsweep import run_sweep
from hawsweep.data import phrasebook
from hawsweep.data.load import load_data
from hawsweep.layout import LOSSES_FILE
from hawsweep.results.curate import Curation, curate, write_proposal
from hawsweep.spec.read import load_sweep
from hawsweep.spec.sweep import DataSpec
from hawsweep.study.confirm import chosen_trial
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import load_study, spec_of
from hawsweep.trial.pair_losses import pair_losses

_N_VALID = 200
KINDS = ("shuffled", "wrong direction", "copy", "another language")
_WHO = (
    "Der alte Mann",
    "Meine Schwester",
    "Unser Nachbar",
    "Das Kind",
    "Die Frau",
    "Mein Onkel",
)
_WHAT = (
    "liest heute ein Buch.",
    "kocht eine Suppe für alle.",
    "wohnt nicht in der Stadt.",
    "hat gestern den Hund gesehen.",
    "trinkt morgens schwarzen Kaffee.",
    "geht am Abend zum Strand.",
    "möchte ein neues Haus bauen.",
    "schreibt einen langen Brief.",
)
_GERMAN = [f"{who} {what}" for who, what in product(_WHO, _WHAT)]


def harmed(pairs: list[dict[str, Any]], share: float, seed: int = 0) -> dict[int, str]:
    """Harm a share of the pairs in place; the kind of harm of each."""
    generator = random.Random(seed)
    n_each = round(share * len(pairs) / len(KINDS))
    chosen = generator.sample(range(len(pairs)), n_each * len(KINDS))
    kinds = {at: KINDS[i // n_each] for i, at in enumerate(chosen)}
    old = [[each["content"] for each in pair["messages"][-2:]] for pair in pairs]
    for i, at in enumerate(chosen):
        source, reference = old[at]
        following = old[chosen[(i + 1) % n_each]][1]  # that of another shuffled pair
        new = {
            "shuffled": (source, following),
            "wrong direction": (reference, source),
            "copy": (source, source),
            "another language": (source, generator.choice(_GERMAN)),
        }[kinds[at]]
        for message, text in zip(pairs[at]["messages"][-2:], new, strict=True):
            message["content"] = text
    return kinds


def make_data(data: Path, folder: Path, share: float) -> dict[int, str]:
    """Write the data with harm; the kind of harm of each training record."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (data / "valid.jsonl", data / "test.jsonl"):
        if path.exists():
            (folder / path.name).write_bytes(path.read_bytes())
    lines = (data / "train.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = [json.loads(line) for line in lines]
    kinds = harmed(pairs, share)
    text = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
    (folder / "train.jsonl").write_text(text, encoding="utf-8")
    return kinds


def train(folder: Path, data: str, name: str, iters: int, **changes: Any) -> None:
    """A study of one setting."""
    content = {
        "model": "smollm2-135m-instruct",
        "data": data,
        "train": {
            "batch_size": 4,
            "iters": iters,
            "num_layers": -1,
            "mask_prompt": True,
            "max_seq_length": 256,
            "steps_per_eval": 50,
            "optimizer_config": {"adam": {"bias_correction": True}},
            "lora_parameters": {"alpha": 32, "rank": 16},
        },
        "search": {"learning_rate": {"choices": [1e-3]}},
        "validation": {"max_examples": 40},
        "scoring": {"max_examples": 16, "max_tokens": 24, "test": False, "metric": "chrf"},
        "pruning": {"name": "none"},
        "confirm": {"top": 0},
        "workers": 1,
        "trials": 1,
    }
    run_sweep(load_sweep(content, changes), name, studies_dir=folder / "studies")


def recover(data: Path, folder: Path, iters: int, n_seeds: int) -> None:
    """Train on all three sets with new seeds, and print their losses on the same validation set."""
    sets = {
        "clean": str(data),
        "harmed": str(folder / "data"),
        "proposal": str(folder / "proposal"),
    }
    losses: dict[str, list[float]] = {name: [] for name in sets}
    for seed in range(1, n_seeds + 1):
        for name, path in sets.items():
            changes = {
                "train.seed": seed,
                "train.steps_per_eval": iters,
                "validation.max_examples": _N_VALID,
                "scoring.max_examples": 1,
            }
            train(folder, path, f"{name}-{seed}", iters, **changes)
            trial = folder / "studies" / f"{name}-{seed}" / "trials" / "0000"
            losses[name].append(float(np.load(trial / LOSSES_FILE).mean()))
        said = (f"{name} {each[-1]:.4f}" for name, each in losses.items())
        print(f"seed {seed}: {', '.join(said)}", flush=True)
    clean, harm, again = (float(np.mean(each)) for each in losses.values())
    share = (harm - again) / (harm - clean)
    print(f"the harm costs {harm - clean:.4f}; {harm - again:.4f} is brought back ({share:.0%})")


def propose(folder: Path) -> Curation:
    """The proposal for the study, as `hawsweep curate` makes and writes it."""
    place = Place(folder / "studies")
    study = load_study(open_storage(place), "pairs")
    trial = chosen_trial(study)
    splits = load_data(spec_of(study, trial).data)
    losses = pair_losses(study, place, trial.number, splits)
    found = curate("pairs", trial.number, splits, losses.own, losses.other)
    if found.removed:
        data = spec_of(study, trial).data
        write_proposal(found, splits, data, folder / "proposal")
    return found


def report(found: Curation, kinds: dict[int, str]) -> None:
    """Print which share of each kind was found, and which share of the proposed was harmed."""
    proposed = {each.at: each.reasons for each in found.removed}
    print(f"{len(proposed)} of {found.n_records} proposed ({len(proposed) / found.n_records:.1%})")
    for kind in KINDS if kinds else ():
        places = [at for at, each in kinds.items() if each == kind]
        n_found = sum(at in proposed for at in places)
        print(f"{kind}: {n_found} of {len(places)} found ({n_found / len(places):.0%})")
    for reason in found.counts():
        places = [at for at, reasons in proposed.items() if reason in reasons]
        n_right = sum(at in kinds for at in places)
        print(f"reason {reason}: {n_right} of {len(places)} harmed ({n_right / len(places):.0%})")
    if proposed:
        n_right = len(proposed.keys() & kinds)
        print(f"all: {n_right} of {len(proposed)} harmed ({n_right / len(proposed):.0%})")


def main() -> None:
    """Harm, train, propose, and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path(phrasebook.__file__).parent)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--iters", type=int, default=100)
    parser.add_argument("--recover", type=int, default=0, metavar="SEEDS")
    asked = parser.parse_args()
    kinds = make_data(asked.data, asked.folder / "data", asked.share)
    if asked.iters:
        train(asked.folder, str(asked.folder / "data"), "pairs", asked.iters)
        report(propose(asked.folder), kinds)
        if asked.recover and (asked.folder / "proposal").exists():
            recover(asked.data, asked.folder, asked.iters, asked.recover)
        return
    splits = load_data([DataSpec(path=str(asked.folder / "data"))])
    unknown = np.full(len(splits.train), np.nan)
    report(curate("pairs", 0, splits, unknown, unknown), kinds)


if __name__ == "__main__":
    main()
