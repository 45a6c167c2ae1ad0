"""How well `hawsweep curate` finds harm that was put into the phrase book, and what it proposes on
the phrase book as it is.

A share of the training pairs is harmed, in four kinds of equal number: references shuffled among
them, both sides exchanged, the source copied as the reference, a German sentence as the reference.
SmolLM2 is trained on that, and its losses go into the proposal as they do for a study.

    python tests/benchmarks/bench_curate.py --folder /tmp/curate --share 0.1
    python tests/benchmarks/bench_curate.py --folder /tmp/curate-clean --share 0

With ``--iters 0`` nothing is trained, and texts alone are judged.
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
from hawsweep.results.curate import Curation, curate, curated_trial
from hawsweep.spec.read import load_sweep
from hawsweep.spec.sweep import DataSpec
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import load_study, spec_of
from hawsweep.trial.pair_losses import pair_losses

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


def make_data(folder: Path, share: float) -> dict[int, str]:
    """Write the phrase book with harm; the kind of harm of each training record."""
    folder.mkdir(parents=True, exist_ok=True)
    bundled = Path(phrasebook.__file__).parent
    for split in ("valid", "test"):
        (folder / f"{split}.jsonl").write_bytes((bundled / f"{split}.jsonl").read_bytes())
    lines = (bundled / "train.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = [json.loads(line) for line in lines]
    kinds = harmed(pairs, share)
    text = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
    (folder / "train.jsonl").write_text(text, encoding="utf-8")
    return kinds


def train(folder: Path, iters: int) -> None:
    """A study ``pairs`` of one setting."""
    content = {
        "model": "smollm2-135m-instruct",
        "data": str(folder / "data"),
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
    run_sweep(load_sweep(content), "pairs", studies_dir=folder / "studies")


def propose(folder: Path) -> Curation:
    """The proposal for the study, as `hawsweep curate` makes it."""
    place = Place(folder / "studies")
    study = load_study(open_storage(place), "pairs")
    trial = curated_trial(study, None)
    splits = load_data(spec_of(study, trial).data)
    losses = pair_losses(study, place, trial.number, splits)
    return curate("pairs", trial.number, splits, losses.own, losses.other)


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
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--iters", type=int, default=100)
    asked = parser.parse_args()
    kinds = make_data(asked.folder / "data", asked.share)
    if asked.iters:
        train(asked.folder, asked.iters)
        report(propose(asked.folder), kinds)
        return
    splits = load_data([DataSpec(path=str(asked.folder / "data"))])
    unknown = np.full(len(splits.train), np.nan)
    report(curate("pairs", 0, splits, unknown, unknown), kinds)


if __name__ == "__main__":
    main()
