"""The loss of a large vocabulary: one training step with all logits at once, and in slices.

A tiny random llama with a tied head over 262,144 tokens learns from every token of one row of
1,024. Arms, each in a fresh process with the fast BLAS, in turns:

- plain: mlx-lm's ``default_loss``, differentiated automatically;
- whole: hawsweep's loss with the logits of all tokens at once;
- sliced: hawsweep's loss as training uses it.

A step is forward, backward and update, compiled as both trainers do. The first is warm-up; of the
second, time and peak memory above what was held before it are told, and its CPU time, which other
processes disturb less. The aim: sliced takes at least 60 % less memory than plain and at most 15 %
more time.

    python tests/benchmarks/bench_loss.py --pairs 5
    python tests/benchmarks/bench_loss.py --pairs 3 --slice-mb 4 8 16 32 64
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from typing import Any

from hawsweep.machine.backend import mx, nn, optim, peak_memory_bytes, reset_peak_memory

from mlx_lm.models import llama
from mlx_lm.tuner.trainer import default_loss
from mlx_lm.tuner.utils import linear_to_lora_layers

from hawsweep.planning.peak import slice_tokens
from hawsweep.training.loss import target_losses

_VOCABULARY = 262_144
_HIDDEN = 128
_ARMS = ("plain", "whole", "sliced")
_MEASURES = {"time_s": "time", "cpu_time_s": "CPU time", "peak_bytes": "peak"}


def make_model() -> Any:
    """A random llama of two blocks with LoRA on both."""
    mx.random.seed(0)
    model = llama.Model(
        llama.ModelArgs(
            model_type="llama",
            hidden_size=_HIDDEN,
            num_hidden_layers=2,
            intermediate_size=4 * _HIDDEN,
            num_attention_heads=4,
            rms_norm_eps=1e-6,
            vocab_size=_VOCABULARY,
            tie_word_embeddings=True,
        )
    )
    model.freeze()
    linear_to_lora_layers(model, 2, {"rank": 8, "scale": 20.0, "dropout": 0.0})
    mx.eval(model.parameters())
    return model


def run_arm(n_tokens: int, tokens_at_once: int | None, is_plain: bool) -> dict[str, float]:
    """Two steps in this process; the second one's seconds and bytes."""
    model, optimizer = make_model(), optim.Adam(learning_rate=1e-5)
    optimizer.init(model.trainable_parameters())
    row = mx.random.randint(0, _VOCABULARY, (1, n_tokens + 1))
    arrays = (row[:, :-1], mx.arange(n_tokens), row[0, 1:], mx.ones(n_tokens), None)

    def plain_loss(model: Any) -> Any:
        return default_loss(model, row, mx.array([[0, n_tokens]]))[0]

    def our_loss(model: Any) -> Any:
        losses = target_losses(model, arrays, 0, tokens_at_once, gradient=True)
        return losses.sum() / n_tokens

    differentiate = nn.value_and_grad(model, plain_loss if is_plain else our_loss)
    state = [model.state, optimizer.state]

    @partial(mx.compile, inputs=state, outputs=state)
    def step() -> Any:
        loss, gradients = differentiate(model)
        optimizer.update(model, gradients)
        return loss

    measured = {}
    for _ in range(2):
        reset_peak_memory()
        before = mx.get_active_memory()
        started, cpu_started = time.perf_counter(), time.process_time()
        loss = step()
        mx.eval(loss, state)
        measured = {
            "time_s": time.perf_counter() - started,
            "cpu_time_s": time.process_time() - cpu_started,
            "peak_bytes": peak_memory_bytes() - before,
            "loss": loss.item(),
        }
    return measured


def measure(arm: str, n_tokens: int) -> dict[str, float]:
    """One arm in a process of its own."""
    command = [sys.executable, __file__, "--arm", arm, "--tokens", str(n_tokens)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    """Measure in turns and print minimum, median and maximum."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument(
        "--slice-mb", type=int, nargs="*", default=[], help="slices of other sizes too"
    )
    parser.add_argument("--tokens", type=int, default=1_024)
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.arm:
        sizes = {"plain": None, "whole": None, "sliced": slice_tokens(_VOCABULARY, "cpu")}
        size = sizes[asked.arm] if asked.arm in sizes else _tokens_of(asked.arm)
        print(json.dumps(run_arm(asked.tokens, size, asked.arm == "plain")))
        return
    arms = [*_ARMS, *(f"{size} MB" for size in asked.slice_mb)]
    print(
        f"{asked.tokens} tokens, vocabulary {_VOCABULARY:,}, slices of "
        f"{slice_tokens(_VOCABULARY, 'cpu')} tokens; load {os.getloadavg()[0]:.2f}",
        flush=True,
    )
    runs: list[dict[str, dict[str, float]]] = []
    for number in range(asked.pairs):
        runs.append(
            {arm: measure(arm, asked.tokens) for arm in (arms if number % 2 == 0 else arms[::-1])}
        )
    for arm in arms:
        _print(f"{arm} step, s", [run[arm]["time_s"] for run in runs])
        _print(f"{arm} step, CPU s", [run[arm]["cpu_time_s"] for run in runs])
        _print(f"{arm} peak, MB", [run[arm]["peak_bytes"] / 1e6 for run in runs])
    for arm in arms[1:]:
        for key, name in _MEASURES.items():
            _print(f"{arm} / plain, {name}", [run[arm][key] / run["plain"][key] for run in runs])
    losses = {f"{run[arm]['loss']:.4f}" for run in runs for arm in arms}
    print(f"loss {', '.join(sorted(losses))}; load {os.getloadavg()[0]:.2f}")


def _tokens_of(arm: str) -> int:
    return int(arm.split()[0]) * 2**20 // (4 * _VOCABULARY)


def _print(name: str, values: list[float]) -> None:
    low, middle, high = min(values), statistics.median(values), max(values)
    print(f"{name:28} {low:10.3f} {middle:10.3f} {high:10.3f}")


if __name__ == "__main__":
    main()
