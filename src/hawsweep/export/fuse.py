"""A fused model of an adapter and its base, made by mlx-lm in a child process."""

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hawsweep.machine.backend import code_dir, mx

from hawsweep.errors import ExportError
from hawsweep.export.fidelity import Check
from hawsweep.files import read_regular, replace_text
from hawsweep.layout import WEIGHTS_FILE
from hawsweep.machine.children import child_command, child_environment
from hawsweep.models.check_files import TEMPLATE_BYTES
from hawsweep.models.config_file import CONFIG_BYTES, read_config
from hawsweep.models.load import load_template
from hawsweep.text import SayProgress
from hawsweep.training.adapters import replace_safetensors

_FLOATS = (mx.float16, mx.bfloat16, mx.float32)


@dataclass(frozen=True)
class Fused:
    """A fused model.

    Attributes:
        dequantized: Whether its base is quantized and it is not.
        lost: The scores of a fusion into quantized weights that lost the adapter; else None.
    """

    check: Check
    dequantized: bool
    lost: float | None = None


def is_quantized(folder: Path) -> bool:
    """Whether a model's weights are quantized."""
    return bool(read_config(folder).get("quantization"))


def fuse_checked(
    base: Path,
    adapters: Path,
    target: Path,
    judge: Callable[[Path], Check],
    *,
    dequantize: bool,
    trust_remote_code: bool,
    progress: SayProgress,
) -> Fused:
    """Fuse. If mlx-lm's requantizing lost the adapter, fuse dequantized.

    Raises:
        ExportError: Neither fused model agrees with the trial.
    """
    tried: list[Check] = []
    ways = [True] if dequantize else [False, True] if is_quantized(base) else [False]
    for way in ways:
        progress("fusing" + (" dequantized" if way else ""))
        shutil.rmtree(target, ignore_errors=True)
        run_fuse(base, adapters, target, dequantize=way, trust_remote_code=trust_remote_code)
        answer_as_trained(target, trust_remote_code=trust_remote_code)
        progress("checking the fused model's translations")
        tried.append(judge(target))
        if tried[-1].holds:
            lost = tried[0].score if len(tried) > 1 else None
            return Fused(tried[-1], way and is_quantized(base), lost)
    scores = " and dequantized ".join(each.describe() for each in tried)
    raise ExportError(
        f"The fused model scores {scores}: fusing lost the adapter. Use the adapter with "
        "mlx_lm.generate --adapter-path instead (export without --fuse)."
    )


def answer_as_trained(model: Path, *, trust_remote_code: bool = False) -> None:
    """Have programs that take a fused model ask and stop as its training did."""
    template = load_template(model, trust_remote_code=trust_remote_code)
    stop_at_end(model, template.end)
    set_switches(model, template.switches)


def set_switches(model: Path, switches: Mapping[str, bool]) -> None:
    """Set options in a model's chat template: programs that answer with it give it none."""
    lines = "".join(f"{{%- set {key} = {str(on).lower()} %}}\n" for key, on in switches.items())
    path, config_path = model / "chat_template.jinja", model / "tokenizer_config.json"
    if not lines:
        return
    if path.is_file():
        replace_text(path, lines + read_regular(path, TEMPLATE_BYTES).decode())
        return
    config = json.loads(read_regular(config_path, CONFIG_BYTES))
    if isinstance(config.get("chat_template"), str):
        config["chat_template"] = lines + config["chat_template"]
        replace_text(config_path, json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def stop_at_end(model: Path, end: int) -> None:
    """Add the token that ends an answer to those at which a model's users stop generating."""
    for path in (model / "config.json", model / "generation_config.json"):
        if not path.exists():
            continue
        config = json.loads(read_regular(path, CONFIG_BYTES))
        known = config.get("eos_token_id")
        stops = known if isinstance(known, list) else [] if known is None else [known]
        if end not in stops:
            config["eos_token_id"] = [*stops, end]
            replace_text(path, json.dumps(config, indent=2) + "\n")


def run_fuse(
    base: Path, adapters: Path, target: Path, *, dequantize: bool, trust_remote_code: bool
) -> None:
    """Run ``mlx_lm fuse``.

    Raises:
        ExportError: It failed; the message has its last line.
    """
    command = child_command("-m", "mlx_lm", "fuse", "--model", str(base))
    command += ["--adapter-path", str(adapters), "--save-path", str(target)]
    command += ["--dequantize"] if dequantize else []
    command += ["--trust-remote-code"] if trust_remote_code else []
    environment = {**child_environment(), "TMPDIR": str(code_dir())}  # see machine.backend
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise ExportError(f"mlx_lm.fuse failed with exit code {done.returncode}: {last}")
    copy_tokenizer(base, target)
    keep_types(base, adapters, target)


def keep_types(base: Path, adapters: Path, target: Path) -> None:
    """Give the weights that an adapter changed their base's type: mlx-lm leaves those with DoRA,
    and the scales of those that it quantized again, in float32.
    """
    known = {
        name: each.dtype
        for path in base.glob("model*.safetensors")
        for name, each in _read(path)[0].items()
        if each.dtype in _FLOATS
    }
    # Where the model has another name for it than its file.
    usual = Counter(known.values()).most_common(1)[0][0]
    changed = {name.rpartition(".")[0] for name in _read(adapters / WEIGHTS_FILE)[0]}

    def kept(name: str, weight: Any) -> Any:
        if weight.dtype not in _FLOATS or name.rpartition(".")[0] not in changed:
            return weight
        scales = f"{name.removesuffix('weight')}scales"  # the base's, where it is dequantized here
        return weight.astype(known.get(name, known.get(scales, usual)))

    for path in sorted(target.glob("model*.safetensors")):
        weights, about = _read(path)
        cast = {name: kept(name, weight) for name, weight in weights.items()}
        if any(cast[name].dtype != weight.dtype for name, weight in weights.items()):
            replace_safetensors(path, cast, about)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    found: Any = mx.load(str(path), return_metadata=True)
    weights, about = found
    return weights, about


def copy_tokenizer(base: Path, target: Path) -> None:
    """Give a fused model what mlx-lm leaves out: the vocabulary that Ollama and llama.cpp read of a
    model with sentencepiece, and the template of older checkpoints, from where all read it.
    """
    if (vocabulary := base / "tokenizer.model").is_file():
        shutil.copyfile(vocabulary, target / vocabulary.name)
    old, new = base / "chat_template.json", target / "chat_template.jinja"
    if old.is_file() and not new.exists():
        config = json.loads((target / "tokenizer_config.json").read_text(encoding="utf-8"))
        if "chat_template" not in config:
            content = json.loads(read_regular(old, TEMPLATE_BYTES))
            replace_text(new, str(content["chat_template"]))
