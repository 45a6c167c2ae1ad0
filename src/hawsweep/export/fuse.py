"""A fused model of an adapter and its base, made by mlx-lm in a child process."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hawsweep.machine.backend import code_dir

from hawsweep.errors import ExportError
from hawsweep.export.fidelity import Check
from hawsweep.files import read_regular, replace_text
from hawsweep.machine.children import child_command, child_environment
from hawsweep.models.check_files import TEMPLATE_BYTES
from hawsweep.models.config_file import CONFIG_BYTES, read_config
from hawsweep.models.load import load_template
from hawsweep.text import SayProgress


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
        stop_at_end(target, trust_remote_code=trust_remote_code)
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


def stop_at_end(model: Path, *, trust_remote_code: bool = False) -> None:
    """Add the token that ends an answer to those at which a model's users stop generating."""
    end = load_template(model, trust_remote_code=trust_remote_code).end
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
