"""Training beside ``mlx_lm.lora``: real tokens per second and peak memory, in pairs; and
accumulated batches that run as one beside the same batches alone.

Both arms train the same model with the same settings on one epoch of the same examples, each in a
fresh process with the fast BLAS, one after the other in turns. The other arm is mlx-lm's own code,
called as ``mlx_lm.lora`` calls it, without a validation set. The sample is some batches of
hawsweep's order over all records; mlx-lm, which does not sort chats by length, takes their records
shuffled. Real tokens are those of the examples without padding, ``len(tokens) - 1`` each, counted
from what was trained on, and must be the same in both.

Time is what each trainer's own clock says of its iterations, from a batch in hand to its update
evaluated: no import, loading or tokenizing; every batch counts, the first with its tracing too.
Before the pairs each arm runs once uncounted on one batch, so that MLX's compiled kernels are on
the disk. Peak memory is of training alone, weights included.

The cases ``...-1x4`` have batches of one and an update after four. Both arms are hawsweep's: four
batches as one (``joined``), and each alone. What the plan of such a trial would choose is printed.

    python tests/benchmarks/bench_training.py
    python tests/benchmarks/bench_training.py --case fornander-1 --pairs 5 --no-mask-prompt
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from hawsweep.machine.backend import mx, optim, peak_memory_bytes, reset_peak_memory

import numpy as np
from mlx_lm.lora import CONFIG_DEFAULTS
from mlx_lm.tuner import datasets, trainer
from mlx_lm.tuner.utils import linear_to_lora_layers

from hawsweep.data.batches import (
    lengths_of,
    make_batch,
    padded_width,
    targets_of,
    training_order,
    training_steps,
)
from hawsweep.data.load import load_data
from hawsweep.data.records import Record
from hawsweep.data.tokens import Encoded, encode
from hawsweep.models import resolve
from hawsweep.models.chat_template import ChatTemplate
from hawsweep.models.load import LoadedModel, load_model, load_template
from hawsweep.planning.calibration import cost_model
from hawsweep.planning.peak import slice_tokens
from hawsweep.planning.trial_plan import describe, plans
from hawsweep.planning.workload import Workload
from hawsweep.spec.sweep import DataSpec
from hawsweep.spec.train import LoraParameters, TrainSpec
from hawsweep.training.adapters import lora_config
from hawsweep.training.evaluation import Evaluation
from hawsweep.training.forward import FrozenBlocks
from hawsweep.training.train import TrainCallback, train_adapter, trainable

_ROOT = Path(__file__).resolve().parents[2]
_MODEL = "smollm2-135m-instruct"


@dataclass(frozen=True)
class Case:
    """What is trained on, and the ratio that it should reach, if there is one.

    Attributes:
        n_accumulated: Batches an update; of more than one, hawsweep is beside itself.
    """

    data: str
    batch_size: int
    n_examples: int
    bar: float | None
    n_accumulated: int = 1

    @property
    def arms(self) -> tuple[str, str]:
        """The arms; a ratio is the first over the second."""
        return ("hawsweep", "mlx-lm") if self.n_accumulated == 1 else ("joined", "alone")


CASES = {
    "fornander-4": Case("fornander", 4, 16, 1.5),
    "fornander-1": Case("fornander", 1, 6, 1.05),
    "phrasebook-4": Case("phrasebook", 4, 48, 1.2),
    "phrasebook-1x4": Case("phrasebook", 1, 48, None, 4),
    "fornander-1x4": Case("fornander", 1, 8, None, 4),
}


@dataclass(frozen=True)
class Measured:
    """What one arm came to.

    Attributes:
        cpu_time_s: Of the whole call of the trainer; other processes disturb it less.
    """

    n_tokens: int
    n_padded: int
    time_s: float
    cpu_time_s: float
    peak_memory_bytes: int

    @property
    def tokens_per_s(self) -> float:
        """Real tokens a second."""
        return self.n_tokens / self.time_s


def read_records(name: str, folder: Path) -> list[Record]:
    """The training records; without the Fornander passages, the longest of the phrase book."""
    if name == "fornander" and (folder / name / "train.jsonl").is_file():
        return load_data([DataSpec(path=str(folder / name))]).train
    records = load_data([DataSpec(path="phrasebook")]).train
    if name == "fornander":
        longest = sorted(records, key=lambda record: -len(str(record.content)))
        return longest[: len(records) // 10]
    return records


def draw_sample(name: str, template: ChatTemplate, asked: argparse.Namespace) -> list[Record]:
    """The records of some batches of hawsweep's order over all of them, batch after batch.

    Records drawn one by one would pad more than training does: a few hold no four of one length.
    """
    case, train = CASES[name], make_spec(name, 1, asked)
    records = read_records(case.data, asked.data)
    encoded = encode(records, template, train)
    lengths = [len(example.tokens) - 1 for example in encoded.examples]
    n_batches = len(lengths) // case.batch_size
    order = islice(
        training_order(lengths_of(encoded.examples), case.batch_size, asked.seed), n_batches
    )
    batches = [indices for indices in order if len(indices) == case.batch_size]
    ours = sum(padded_width(max(lengths[i] for i in batch)) for batch in batches)
    n_real = sum(lengths[i] for batch in batches for i in batch)
    print(
        f"  sample of {len(lengths)} examples; padded / real tokens of hawsweep over all: "
        f"{ours * case.batch_size / n_real:.3f}"
    )
    if case.n_accumulated > 1:
        work = Workload(lengths_of(encoded.examples), targets_of(encoded.examples), "as tokenized")
        print_plan(train.model_copy(update={"iters": n_batches}), work)
    chosen = batches[: (asked.examples or case.n_examples) // case.batch_size]
    return [records[int(encoded.record_indices[i])] for indices in chosen for i in indices]


def print_plan(train: TrainSpec, work: Workload) -> None:
    """What a trial would do on this machine with enough memory, and why."""
    known = cost_model(resolve.resolve_model(_MODEL))
    assert known is not None
    plan, speed = plans(known, train, work)[0], known.speed
    print(f"  plan: {describe(plan, train)}; speed {speed.how}: {speed.step_s:.3f} s a step")


def make_spec(name: str, n_examples: int, asked: argparse.Namespace) -> TrainSpec:
    """The settings of a case for one epoch: mlx-lm's defaults, but the longest example."""
    batch_size = CASES[name].batch_size
    return TrainSpec(
        batch_size=batch_size,
        grad_accumulation_steps=CASES[name].n_accumulated,
        iters=max(1, n_examples // batch_size),
        num_layers=asked.num_layers,
        mask_prompt=asked.mask_prompt,
        max_seq_length=1024,
        lora_parameters=LoraParameters(**CONFIG_DEFAULTS["lora_parameters"]),
        steps_per_eval=10**6,
        steps_per_report=10**6,
    )


def train_hawsweep(
    loaded: LoadedModel,
    kept: list[Record],
    chosen: Encoded,
    train: TrainSpec,
    n_joined: int = 1,
) -> Measured:
    """Train by ``train_adapter``; its evaluation costs nothing."""
    micro_batch = n_joined * train.batch_size
    model, examples = loaded.model, chosen.examples
    frozen = FrozenBlocks(model, budget_bytes=0)
    starts = range(0, len(examples), train.batch_size)
    order = [tuple(range(start, start + train.batch_size)) for start in starts]
    with tempfile.TemporaryDirectory() as folder, trainable(model, train), frozen.in_use():
        started = time.process_time()
        result = train_adapter(
            model,
            train,
            examples,
            iter(order),
            lambda iteration: Evaluation(iteration, 0.0, np.zeros(0, np.float32), 0.0),
            Path(folder),
            TrainCallback(),
            frozen=frozen,
            micro_batch=micro_batch,
            tokens_at_once=slice_tokens(loaded.config["vocab_size"], "cpu"),
        )
        cpu_time_s = time.process_time() - started
    steps = training_steps(train, iter(order), micro_batch)
    n_padded = sum(make_batch(examples, part).inputs.size for _, parts in steps for part in parts)
    return Measured(
        result.n_tokens, n_padded, result.train_time_s, cpu_time_s, result.peak_memory_bytes
    )


def train_mlx_lm(
    loaded: LoadedModel, kept: list[Record], chosen: Encoded, train: TrainSpec
) -> Measured:
    """Train by ``mlx_lm.tuner.trainer.train``, set up as ``mlx_lm.lora`` does."""
    model = loaded.model
    np.random.seed(train.seed)
    mx.random.seed(train.seed)
    model.freeze()
    linear_to_lora_layers(model, train.num_layers, lora_config(train))
    records = [{"messages": record.messages} for record in kept]
    random.Random(train.seed).shuffle(records)  # it takes them as they come
    dataset = datasets.ChatDataset(records, loaded.tokenizer, mask_prompt=train.mask_prompt)
    shapes: list[tuple[int, int]] = []

    def counted(*args: Any, **kwargs: Any) -> Iterator[Any]:
        for batch, lengths in trainer.iterate_batches(*args, **kwargs):
            shapes.append((int((lengths[:, 1] - 1).sum()), batch.shape[0] * (batch.shape[1] - 1)))
            yield batch, lengths

    last = _LastReport()
    with tempfile.TemporaryDirectory() as folder:
        arguments = trainer.TrainingArgs(
            batch_size=train.batch_size,
            iters=train.iters,
            steps_per_report=train.iters,
            steps_per_save=CONFIG_DEFAULTS["save_every"],
            adapter_file=Path(folder) / "adapters.safetensors",
            max_seq_length=train.max_seq_length,
        )
        reset_peak_memory()
        started = time.process_time()
        trainer.train(
            model,
            optim.Adam(learning_rate=train.learning_rate),
            datasets.CacheDataset(dataset),
            args=arguments,
            iterate_batches=counted,
            training_callback=last,
        )
        cpu_time_s = time.process_time() - started
    n_tokens, n_padded = (sum(column) for column in zip(*shapes, strict=True))
    return Measured(n_tokens, n_padded, last.train_time_s, cpu_time_s, peak_memory_bytes())


class _LastReport(trainer.TrainingCallback):
    """Takes mlx-lm's seconds out of its report: it counts target tokens."""

    train_time_s = math.nan

    def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
        self.train_time_s = train_info["trained_tokens"] / train_info["tokens_per_second"]


ARMS: dict[str, Callable[..., Measured]] = {
    "hawsweep": train_hawsweep,
    "mlx-lm": train_mlx_lm,
    "alone": train_hawsweep,
    "joined": partial(train_hawsweep, n_joined=4),
}


def run_arm(asked: argparse.Namespace) -> Measured:
    """One arm on the sample in a file, in this process."""
    records = [Record(json.loads(line)) for line in asked.sample.read_text("utf-8").splitlines()]
    train = make_spec(asked.case, len(records), asked)
    loaded = load_model(resolve.resolve_model(_MODEL))
    chosen = encode(records, loaded.template, train)
    kept = [records[i] for i in chosen.record_indices]
    return ARMS[asked.arm](loaded, kept, chosen, train)


def measure(arm: str, name: str, sample: list[Record], asked: argparse.Namespace) -> Measured:
    """One arm on a sample, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sample.jsonl")
        lines = [json.dumps(record.content, ensure_ascii=False) for record in sample]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        command = [sys.executable, __file__, "--arm", arm, "--case", name, "--sample", str(path)]
        command += ["--num-layers", str(asked.num_layers)]
        command += ["--mask-prompt" if asked.mask_prompt else "--no-mask-prompt"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def run_case(name: str, template: ChatTemplate, asked: argparse.Namespace) -> dict[str, Any]:
    """The pairs of one case, told at their end."""
    case = CASES[name]
    source = case.data
    if source == "fornander" and not (asked.data / source).is_dir():
        source = f"the longest of the phrase book ({asked.data / source} is not there)"
    masked = "prompt masked" if asked.mask_prompt else "prompt learned"
    print(f"{name}: {source}, batch {case.batch_size}, {masked}, {asked.num_layers} layers")
    sample = draw_sample(name, template, asked)
    print(f"  {len(sample)} examples; load {os.getloadavg()[0]:.2f}", flush=True)
    for arm in case.arms:
        measure(arm, name, sample[: case.batch_size * case.n_accumulated], asked)
    pairs = []
    for number in range(asked.pairs):
        names = case.arms if number % 2 == 0 else case.arms[::-1]
        pair = {arm: measure(arm, name, sample, asked) for arm in names}
        if len({each.n_tokens for each in pair.values()}) > 1:
            raise SystemExit(f"The arms trained on different tokens: {pair}")
        pairs.append(pair)
    for arm in case.arms:
        first = pairs[0][arm]
        _print(f"{arm} tokens/s", [pair[arm].tokens_per_s for pair in pairs])
        _print(f"{arm} CPU s", [pair[arm].cpu_time_s for pair in pairs])
        _print(f"{arm} peak memory, MB", [pair[arm].peak_memory_bytes / 1e6 for pair in pairs])
        _print(f"{arm} padded / real tokens", [first.n_padded / first.n_tokens])
    ratios = {
        "speed": [_ratio(pair, case.arms, "tokens_per_s") for pair in pairs],
        "CPU time": [_ratio(pair, case.arms, "cpu_time_s") for pair in pairs],
        "memory": [_ratio(pair, case.arms, "peak_memory_bytes") for pair in pairs],
    }
    bars = {"speed": f" (>= {case.bar})", "memory": " (<= 1)"} if case.bar else {}
    for measure_name, values in ratios.items():
        _print(f"{' / '.join(case.arms)}, {measure_name}{bars.get(measure_name, '')}", values)
    print(f"  {first.n_tokens} real tokens a run; load {os.getloadavg()[0]:.2f}", flush=True)
    return {
        "case": name,
        "n_examples": len(sample),
        "data": source,
        "bar": case.bar,
        "ratios": ratios,
        "pairs": [{arm: asdict(each) for arm, each in pair.items()} for pair in pairs],
    }


def main() -> None:
    """Run each case's pairs and print minimum, median and maximum."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--case", choices=CASES, help="one case only")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--examples", type=int, help="how many, instead of each case's own number")
    parser.add_argument("--mask-prompt", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--num-layers", type=int, default=CONFIG_DEFAULTS["num_layers"])
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--data", type=Path, default=_ROOT.parent / "shared" / "data")
    parser.add_argument("--json", type=Path, help="write what was measured to a file too")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--sample", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.arm:
        print(f"\n{json.dumps(asdict(run_arm(asked)))}", flush=True)
        return
    names = [asked.case] if asked.case else list(CASES)
    for name in names:
        if asked.examples and asked.examples % CASES[name].batch_size:
            raise SystemExit(
                f"--examples is {asked.examples}, must be a multiple of {CASES[name].batch_size}."
            )
    path = resolve.resolve_model(_MODEL)  # converted once, before any arm
    template = load_template(path)
    cases = [run_case(name, template, asked) for name in names]
    if asked.json:
        asked.json.write_text(json.dumps(cases, indent=2) + "\n", encoding="utf-8")


def _ratio(pair: dict[str, Measured], arms: tuple[str, str], name: str) -> float:
    first, second = (getattr(pair[arm], name) for arm in arms)
    return float(first / second)


def _print(name: str, values: list[float]) -> None:
    low, middle, high = min(values), statistics.median(values), max(values)
    print(f"  {name:40} {low:9.3f} {middle:9.3f} {high:9.3f}")


if __name__ == "__main__":
    main()
