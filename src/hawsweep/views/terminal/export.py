"""The result of an export: its parts, their checks, and the next commands."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from hawsweep.text import counted
from hawsweep.views.terminal.fitted_table import make_table
from hawsweep.views.terminal.text import Text

if TYPE_CHECKING:
    from hawsweep.export.export import Exported


def export_picture(exported: "Exported") -> RenderableType:
    """The parts with their checks."""
    table = make_table(
        " | >MB | >score | >identical | >nearly | ~", dropped=("nearly", "identical", "MB")
    )
    for part in exported.parts:
        check = part.check
        shares = ["" if each is None else f"{each:.0%}" for each in (check.identical, check.near)]
        remarks = [] if part.name in exported.new else ["was there"]
        remarks += ["dequantized"] if part.dequantized else []
        remarks += ["the adapter for PEFT"] if part.name == "peft" else []
        name = Text(f"{part.path}/")
        size = f"{part.n_bytes / 1e6:,.1f}"
        table.add_row(name, size, f"{check.score:.4f}", *shares, ", ".join(remarks))
    n_prompts = max(part.check.n_prompts for part in exported.parts)
    head = f"Trial {exported.trial_number} of {exported.study}"
    head += "" if exported.checkpoint is None else f" at iteration {exported.checkpoint}"
    if exported.score is not None:
        head += f", {exported.metric.replace('_', ' ')} {exported.score:.4f}"
    said = (
        f"Each part was loaded and translated the same {counted(n_prompts, 'prompt')}: its score, "
        "and the share of answers equal to the trial's, or nearly equal (chrF 90)."
    )
    if any(part.name == "peft" for part in exported.parts):
        said += " peft/ has the weights of adapters/, and its numbers."
    lines: list[RenderableType] = [Text(head, style="bold"), "", table, "", Text(said)]
    if exported.lost is not None:
        lost = (
            f"Fused into quantized weights it scored {exported.lost:.4f}, which lost the adapter: "
            "so it is dequantized."
        )
        lines.append(Text(lost, style="yellow"))
    if _is_requantized(exported):
        rounded = (
            "fused/ was quantized again, which rounds the adapter away in part: adapters/ and a "
            "dequantized fused model keep all of it."
        )
        lines.append(Text(rounded, style="yellow"))
    return Group(*lines)


def places_picture(exported: "Exported", commands: list[str]) -> RenderableType:
    """The folder and the next commands, to be printed without breaks, which would be copied."""
    lines: list[RenderableType] = ["", Text(f"Folder  {exported.folder}")]
    files = "README.md, the model card" + (", and Modelfile" if exported.has_modelfile else "")
    lines.append(Text(f"        with {files}"))
    if exported.url is not None:
        lines.append(Text(f"On the hub  {exported.url}"))
    lines += ["", Text("Next", style="bold"), *(Text(f"  {command}") for command in commands)]
    return Group(*lines)


def next_commands(exported: "Exported", prompt: str, options: Sequence[str] = ()) -> list[str]:
    """The next commands: let it answer, serve it, take it to other programs, upload.

    Args:
        options: Of commands that find the study and the export's folder.
    """
    by_name = {part.name: part for part in exported.parts}
    folder, study = exported.folder, exported.study
    is_fused = "fused" in by_name
    part = str(folder / by_name["fused" if is_fused else "adapters"].path)
    model, adapter = (part, None) if is_fused else (exported.base, part)
    again = ["hawsweep", "export", study, "--trial", str(exported.trial_number)]
    again += [] if exported.checkpoint is None else ["--checkpoint", str(exported.checkpoint)]
    commands = [exported.asking.command(model, adapter, prompt)]
    if is_fused:
        commands += [shlex.join(["mlx_lm.server", "--model", model]), _to_lm_studio(model, study)]
    if exported.has_modelfile:
        path = shlex.quote(str(folder / "Modelfile"))
        name = study.lower()
        commands += [f"ollama create {name} -f {path}", f"ollama run {name} {shlex.quote(prompt)}"]
    elif _is_requantized(exported):
        kept = ["--peft"] * ("peft" in by_name)  # --force removes what is not asked for
        commands.append(shlex.join([*again, *kept, "--dequantize", "--force", *options]))
    elif is_fused:
        words = ["python", "llama.cpp/convert_hf_to_gguf.py", model]
        commands.append(shlex.join([*words, "--outfile", f"{study}.gguf"]))
    if exported.url is None:
        commands.append(shlex.join([*again, "--upload-repo", f"NAME/{study}", *options]))
    return commands


def _to_lm_studio(model: str, study: str) -> str:
    target = f"~/.lmstudio/models/hawsweep/{study}"
    return f"mkdir -p {target} && rsync -a --delete {shlex.quote(model)}/ {target}/"


def _is_requantized(exported: "Exported") -> bool:
    """Whether the fused model is quantized, as its base is."""
    from hawsweep.export.fuse import is_quantized

    fused = [exported.folder / part.path for part in exported.parts if part.name == "fused"]
    return any(map(is_quantized, fused))
