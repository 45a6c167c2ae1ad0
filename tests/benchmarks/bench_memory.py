"""How well the memory model predicts a training step's peak.

For each model the calibration steps of hawsweep are measured and its coefficients fitted to them;
then the peaks of other, random settings are predicted and written to a file; then those are
measured. Every measurement is a process's own, on the CPU, of MLX's peak memory, weights included.

    python tests/benchmarks/bench_memory.py --out predictions.json
"""

import argparse
import importlib
import json
import random
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from hawsweep.data.batches import padded_targets
from hawsweep.models.shape import is_known, shape_of
from hawsweep.planning.calibration import find_shape, fit
from hawsweep.planning.measured_steps import Observation, Point, points
from hawsweep.planning.peak import COEFFICIENTS, Execution, Step, slice_tokens, training_peak

_COMMON = {
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 8192,
    "rope_theta": 1e6,
    "torch_dtype": "float32",
}
_LLAMA = {
    "model_type": "llama",
    "hidden_size": 768,
    "num_hidden_layers": 6,
    "intermediate_size": 2048,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "vocab_size": 32_000,
    "tie_word_embeddings": False,
    **_COMMON,
}
_QWEN3 = {
    "model_type": "qwen3",
    "hidden_size": 512,
    "num_hidden_layers": 6,
    "intermediate_size": 1536,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "vocab_size": 151_936,
    "tie_word_embeddings": True,
    **_COMMON,
}
_GEMMA3 = {
    "model_type": "gemma3_text",
    "hidden_size": 640,
    "num_hidden_layers": 4,
    "intermediate_size": 2048,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "vocab_size": 262_144,
    "sliding_window": 512,
    "sliding_window_pattern": 2,
    "query_pre_attn_scalar": 256,
    "tie_word_embeddings": False,  # as mlx-lm builds it without weights to load
    "rope_local_base_freq": 1e4,
    **_COMMON,
}
# Three of four blocks have linear attention, whose states a step keeps.
_QWEN35 = {
    "model_type": "qwen3_5",
    "text_config": {
        "model_type": "qwen3_5_text",
        "hidden_size": 384,
        "num_hidden_layers": 8,
        "intermediate_size": 1024,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "linear_num_key_heads": 4,
        "linear_num_value_heads": 8,
        "linear_key_head_dim": 64,
        "linear_value_head_dim": 64,
        "vocab_size": 32_000,
        "tie_word_embeddings": True,
        **_COMMON,
    },
}
_4BIT = {"quantization": {"group_size": 64, "bits": 4}}
# On a CPU products with 4-bit weights are slow, so those models are narrow.
_NARROW = {"hidden_size": 256, "intermediate_size": 768}
_MODELS = {
    "smollm2": None,
    "llama": _LLAMA,
    "qwen3": _QWEN3,
    "gemma3": _GEMMA3,
    "qwen3.5": _QWEN35,
    "llama 4-bit": {**_LLAMA, **_NARROW, **_4BIT, "num_attention_heads": 4},
    "qwen3 4-bit": {**_QWEN3, **_NARROW, **_4BIT, "num_attention_heads": 4},
    "gemma3 4-bit": {**_GEMMA3, **_NARROW, **_4BIT, "num_attention_heads": 2},
}
_RULE = 20  # of "20 to 50 times the model's size", the end nearer to what was measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--held-out", type=int, default=9, help="settings a model")
    parser.add_argument("--models", nargs="*", default=list(_MODELS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("predictions.json"))
    asked = parser.parse_args()

    shapes = {name: _shape(name) for name in asked.models}
    todo = {
        name: points(shape.n_layers, slice_tokens(shape.vocabulary, "cpu"))
        for name, shape in shapes.items()
    }
    calibration = _measure_all(todo, asked.jobs)
    held_out = {
        name: _random_points(shape, asked.held_out, random.Random(f"{asked.seed} {name}"))
        for name, shape in shapes.items()
    }
    rows = []
    for name, shape in shapes.items():
        fitted, residuals = fit(shape, "cpu", calibration[name])
        worst = max(abs(each.error) for each in residuals)
        print(f"{name}: {len(residuals)} steps fitted, worst residual {worst:.1%}", flush=True)
        for point in held_out[name]:
            rows.append(_predictions(name, shape, point, fitted))
    asked.out.write_text(json.dumps(rows, indent=1))
    print(f"{len(rows)} predictions written to {asked.out}", flush=True)

    measured = _measure_all(held_out, asked.jobs)
    flat = [each for name in asked.models for each in measured[name]]
    for row, observation in zip(rows, flat, strict=True):
        row["measured"] = observation.peak_bytes
    asked.out.with_suffix(".measured.json").write_text(json.dumps(rows, indent=1))
    _report(rows, sum(map(len, calibration.values())))


def _predictions(name, shape, point, fitted):
    def peak(coefficients, **changes):
        predicted = training_peak(shape, point.train(), point.step, point.execution, coefficients)
        return sum({**vars(predicted), **changes}.values())

    return {
        "model": name,
        "point": asdict(point),
        "calibrated": round(peak(fitted)),
        "by shape alone": round(peak(COEFFICIENTS["cpu"])),
        "without the logits": round(peak(COEFFICIENTS["cpu"], head=0)),
        f"{_RULE} x the model": _RULE * shape.weight_bytes(),
    }


def _report(rows, n_fitted):
    print(f"\n{len(rows)} settings held out, {n_fitted} steps fitted; predicted / measured - 1")
    kinds = [key for key in rows[0] if key not in ("model", "point", "measured")]
    print(f"{'':20} {'median of |error|':>18} {'lowest':>8} {'highest':>8}")
    for kind in kinds:
        errors = [row[kind] / row["measured"] - 1 for row in rows]
        median = statistics.median(map(abs, errors))
        print(f"{kind:20} {median:18.1%} {min(errors):8.1%} {max(errors):8.1%}")
    for name in dict.fromkeys(row["model"] for row in rows):
        errors = [row["calibrated"] / row["measured"] - 1 for row in rows if row["model"] == name]
        median = statistics.median(map(abs, errors))
        print(f"  {name:18} {median:18.1%} {min(errors):8.1%} {max(errors):8.1%}")
    for row in sorted(rows, key=lambda row: row["calibrated"] / row["measured"])[:5]:
        error = row["calibrated"] / row["measured"] - 1
        print(f"  {error:.1%} {row['model']} {row['measured'] / 1e6:.0f} MB {row['point']}")


def _random_points(shape, n_points, generator):
    found = []
    at_once = slice_tokens(shape.vocabulary, "cpu")
    while len(found) < n_points:
        rows = generator.choice([1, 2, 4])
        width = generator.choice([64, 128, 256, 384, 512])
        if rows * width > 1024:
            continue
        targets = rows * generator.choice([width // 8, width // 2, width])
        targets = padded_targets(targets, rows * width)
        execution = Execution(rows, generator.random() < 0.5, generator.choice([None, at_once]))
        layers = generator.choice([2, shape.n_layers // 2, shape.n_layers])
        optimizer = generator.choice(["adam", "sgd", "adafactor"])
        rank = generator.choice([4, 16, 64])
        found.append(Point(Step(rows, width, targets), layers, rank, execution, optimizer))
    return found


def _shape(name):
    if (config := _MODELS[name]) is not None:
        return shape_of(config) if is_known(config["model_type"]) else find_shape(config, "cpu")
    return shape_of(json.loads((_smollm2() / "config.json").read_text())).dequantized()


def _smollm2():
    from hawsweep.models.resolve import resolve_model

    return resolve_model("smollm2-135m-instruct")


def _measure_all(todo, n_jobs):
    with ThreadPoolExecutor(n_jobs) as pool:
        found = pool.map(lambda item: _measure(*item), todo.items())
        return dict(zip(todo, found, strict=True))


def _measure(name, wanted):
    asked = json.dumps([asdict(point) for point in wanted])
    command = [sys.executable, __file__, "--child", name]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if len(lines) < len(wanted):
        raise SystemExit(f"{name} died after {len(lines)} settings: {done.stderr[-2000:]}")
    return [
        Observation(point.train(), point.step, point.execution, line["peak_bytes"], line["seconds"])
        for point, line in zip(wanted, lines, strict=True)
    ]


def _child(name):
    from hawsweep.machine.backend import mx, nn

    from hawsweep.planning.measured_steps import measure_step

    config = _MODELS[name]
    if config is None:
        from hawsweep.models.load import load_model

        model = load_model(_smollm2()).model
    else:
        module = importlib.import_module(f"mlx_lm.models.{config['model_type']}")
        model = module.Model(module.ModelArgs.from_dict(config))
        if "quantization" in config:
            nn.quantize(model, **config["quantization"])
        mx.eval(model.parameters())
    for values in json.loads(sys.stdin.read()):
        print(json.dumps(measure_step(model, Point.of(values))), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2])
    else:
        main()
