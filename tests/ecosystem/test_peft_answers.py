"""An exported adapter, loaded by PEFT on the same base, answers as it does in MLX."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from hawsweep.machine.backend import mx, nn, utils

import numpy as np
import pytest
from mlx_lm.utils import _get_classes, load_model

from hawsweep.export import peft
from hawsweep.spec.train import TrainSpec
from hawsweep.training.adapters import adapted, save_adapter

pytest.importorskip("peft")

SCRIPT = Path(__file__).with_name("torch_side.py")
PROMPT = [3, 17, 41, 8, 95, 22, 60, 7]
N_ANSWER = 8


def torch_side(*arguments):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass
class Case:
    """How an adapter was trained; its scale is as with alpha / rank, or alpha / root of rank."""

    base: str
    kind: str = "lora"
    scale: float = 2.0
    num_layers: int = -1

    def __str__(self):
        return f"{self.base}-{self.kind}-{self.num_layers}"


CASES = [
    Case("llama"),
    Case("llama", "dora", num_layers=2),
    Case("qwen3", scale=8 / 4**0.5),
    Case("qwen3", "dora"),
    Case("gemma3_text", num_layers=3),
    Case("gemma3_text", "dora"),
    Case("gemma3"),
]


def answer_in_mlx(model):
    tokens = list(PROMPT)
    logits = np.array(model(mx.array([tokens]))[0].astype(mx.float32))
    for _ in range(N_ANSWER):
        tokens.append(int(mx.argmax(model(mx.array([tokens]))[0, -1])))
    return logits, tokens


def learned(model, seed):
    """Random values in place of trained ones, so that the adapter changes every layer."""
    mx.random.seed(seed)
    values = utils.tree_flatten(model.trainable_parameters())
    new = [
        (name, value * 1.2 if name.endswith(".m") else mx.random.normal(value.shape) * 0.1)
        for name, value in values
    ]
    model.update(utils.tree_unflatten(new))


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Of each case: logits of the base, then logits and tokens in MLX and by PEFT."""
    folder = tmp_path_factory.mktemp("peft")
    torch_side("make", folder)
    asked, found = [], {}
    for number, case in enumerate(CASES):
        base, place = folder / case.base, folder / str(number)
        model, config = load_model(base)
        untuned, _ = answer_in_mlx(model)
        lora = {"rank": 4, "scale": case.scale}
        train = TrainSpec(
            fine_tune_type=case.kind, num_layers=case.num_layers, lora_parameters=lora
        )
        with adapted(model, train):
            learned(model, number)
            save_adapter(model, train, place)
            model.eval()
            found[str(case)] = [untuned, *answer_in_mlx(model)]
        files = peft.to_peft(place, config["model_type"], case.base)
        peft.write_peft(place / "peft", *files)
        asked += [base, place / "peft", place / "out.npz"]
    torch_side("answer", *asked)
    for case, out in zip(CASES, asked[2::3], strict=True):
        with np.load(out) as known:
            found[str(case)] += [known["logits"], known["tokens"]]
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_adapter_answers_by_peft_as_in_mlx(answers, case):
    untuned, logits, tokens, logits_by_peft, tokens_by_peft = answers[str(case)]
    assert np.abs(logits - untuned).max() > 0.1  # the adapter does something
    assert np.abs(logits - logits_by_peft).max() < 1e-3
    assert tokens == tokens_by_peft.tolist()


def test_layers_are_named_as_transformers_names_them():
    found = json.loads(torch_side("names", *peft._NAMES))
    for kind, (ours, theirs) in peft._NAMES.items():
        model_class, args_class = _get_classes(found[kind]["config"])
        model = model_class(args_class.from_dict(found[kind]["config"]))
        modules = [name for name, each in model.named_modules() if isinstance(each, nn.Linear)]
        blocks = f"{theirs}layers."
        in_mlx = {theirs + name.removeprefix(ours) for name in modules if f"{ours}layers." in name}
        assert len(in_mlx) >= 16, kind
        assert in_mlx == {name for name in found[kind]["layers"] if blocks in name}, kind
