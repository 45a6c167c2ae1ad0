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


def export_picture(exported: "Exported", commands: list[str]) -> RenderableType:
    """The parts with their checks, then the commands."""
    table = make_table(
        " | >MB | >score | >identical | >nearly | ~", dropped=("nearly", "identical", "MB")
    )
    for part in exported.parts:
        check = part.check
        shares = ["" if each is None else f"{each:.0%}" for each in (check.identical, check.near)]
        remarks = [] if part.name in exported.new else ["was there"]
        remarks += ["dequantized"] if part.dequantized else []
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
    lines: list[RenderableType] = [Text(head, style="bold"), "", table, "", Text(said)]
    if exported.lost is not None:
        lost = (
            f"Fused into quantized weights it scored {exported.lost:.4f}, which lost the adapter: "
            "so it is dequantized."
        )
        lines.append(Text(lost, style="yellow"))
    # Not a table: its cells would be folded, and a command copied from it broken.
    lines += ["", Text(f"Folder  {exported.folder}")]
    files = "README.md, the model card" + (", and Modelfile" if exported.has_modelfile else "")
    lines.append(Text(f"        with {files}"))
    if exported.url is not None:
        lines.append(Text(f"On the hub  {exported.url}"))
    lines += ["", Text("Next", style="bold"), *(Text(f"  {command}") for command in commands)]
    return Group(*lines)


def next_commands(exported: "Exported", prompt: str, options: Sequence[str] = ()) -> list[str]:
    """The next commands: let it answer, make a model for Ollama or llama.cpp, upload.

    Args:
        options: Of commands that look at the study.
    """
    from hawsweep.export.fuse import is_quantized
    from hawsweep.export.model_card import generate_command

    by_name = {part.name: part for part in exported.parts}
    folder, system = exported.folder, exported.system
    if "fused" in by_name:
        model, adapter = str(folder / by_name["fused"].path), None
    else:
        model, adapter = exported.base, str(folder / by_name["adapters"].path)
    commands = [generate_command(model, adapter, system, prompt)]
    if exported.has_modelfile:
        path = shlex.quote(str(folder / "Modelfile"))
        name = exported.study.lower()
        commands += [f"ollama create {name} -f {path}", f"ollama run {name} {shlex.quote(prompt)}"]
    elif "fused" in by_name and not is_quantized(folder / by_name["fused"].path):
        words = ["python", "llama.cpp/convert_hf_to_gguf.py", model]
        commands.append(shlex.join([*words, "--outfile", f"{exported.study}.gguf"]))
    if exported.url is None:
        name = exported.study
        upload = ["hawsweep", "export", name, "--upload-repo", f"NAME/{name}", *options]
        commands.append(shlex.join(upload))
    return commands
