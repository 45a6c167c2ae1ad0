"""``hawsweep export``."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hawsweep.cli.common import (
    fetch_files,
    json_option,
    option_that_went,
    place_options,
    print_json,
)
from hawsweep.cli.completion import study_completion, trial_completion
from hawsweep.study.place import Place
from hawsweep.views.terminal.console import make_console


@click.command()
@click.argument("name", shell_complete=study_completion)
@click.option(
    "--trial",
    "trial_number",
    type=int,
    metavar="N",
    help="Export this trial instead of the best.",
    shell_complete=trial_completion,
)
@click.option(
    "--checkpoint",
    type=click.IntRange(min=1),
    metavar="I",
    help="Export the kept checkpoint of iteration I.",
)
@click.option("--fuse", is_flag=True, help="Also write the fused model, quantized as its base is.")
@click.option("--dequantize", is_flag=True, help="Write the fused model without quantization.")
@click.option(
    "--ollama",
    is_flag=True,
    help="Also write a Modelfile for Ollama and the fused model without quantization.",
)
@click.option(
    "--peft", is_flag=True, help="Also write the adapter in the format of Hugging Face's PEFT."
)
@click.option(
    "--upload-repo",
    metavar="REPO",
    help="Upload the fused model, else the adapter, to this Hugging Face repository. A new "
    "repository is public, as with mlx_lm.",
)
@click.option("--private", is_flag=True, help="Make the repository of --upload-repo private.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write here instead of the study's folder export.",
)
@click.option("--force", is_flag=True, help="Replace all of an earlier export.")
@option_that_went(
    "--gguf",
    "use --fuse --dequantize, then llama.cpp's convert_hf_to_gguf.py on the folder fused",
    is_flag=True,
)
@json_option
@place_options
def export(
    name: str,
    upload_repo: str | None,
    private: bool,
    place: Place,
    as_json: bool,
    **asked: Any,
) -> None:
    """Write the best adapter of the study NAME, checked by its translations.

    A later export of the same trial is added to the earlier one.

    \b
    Example: hawsweep export lr-rank --fuse
             hawsweep export lr-rank --ollama
    """
    if private and upload_repo is None:
        raise click.UsageError("--private is for --upload-repo.")
    from hawsweep.export.export import Request, export_trial
    from hawsweep.export.upload import check_target
    from hawsweep.study.storage import check_folder, open_storage
    from hawsweep.study.study import load_study

    console = make_console(stderr=as_json)
    with console.status("exporting") as spinner:
        study = load_study(open_storage(place), name)
        check_folder(study, place)
        fetch_files(study, place, asked["trial_number"])
        target = None if upload_repo is None else check_target(upload_repo, private=private)
        exported = export_trial(study, place, Request(**asked, target=target), spinner.update)
    from hawsweep.views.terminal.export import export_picture, next_commands, places_picture

    output = [] if asked["output"] is None else [f"--output={exported.folder}"]
    commands = next_commands(exported, exported.example, [*place.options, *output])
    if as_json:
        content = {**asdict(exported), "folder": str(exported.folder), "next": commands}
        print_json(content)
        return
    console.print(export_picture(exported))
    console.print(places_picture(exported, commands), soft_wrap=True)
