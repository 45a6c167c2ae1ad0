"""``hawsweep curate``."""

from dataclasses import replace
from pathlib import Path

import click

from hawsweep.cli.common import json_option, place_options, print_json
from hawsweep.cli.companion import run_companion
from hawsweep.cli.completion import study_completion, trial_completion
from hawsweep.study.place import Place
from hawsweep.views.terminal.console import make_console


@click.command()
@click.argument("name", shell_complete=study_completion)
@click.option(
    "--trial",
    type=int,
    metavar="N",
    shell_complete=trial_completion,
    help="Take this trial's losses and settings instead of the best one's.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where the proposal is written; default: DATA-curated beside the data, "
    "or DATA-best-first.",
)
@click.option(
    "--best-first",
    is_flag=True,
    help="Order the training records: those first whose source tells most of their reference.",
)
@click.option("--prove", is_flag=True, help="Train the settings on both, and compare.")
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="With --prove: runs on each of both.",
)
@click.option("--plain", is_flag=True, help="Print lines instead of a live picture.")
@json_option
@place_options
def curate(
    name: str,
    trial: int | None,
    out: Path | None,
    best_first: bool,
    prove: bool,
    seeds: int,
    plain: bool,
    place: Place,
    as_json: bool,
) -> None:
    """Propose the data of the study NAME without the training records that harm.

    Each has its reasons, by its texts and by the best trial's losses. The data stay as they are.
    With --prove, train the best settings on all records and on the proposal, as trials of the
    studies NAME-curated-N-all and NAME-curated-N for trial N. With --best-first, its first epoch
    takes the records in that order; a run shorter than an epoch takes the first of them.

    \b
    Example: hawsweep curate lr-rank
             hawsweep curate lr-rank --prove --seeds 3
             hawsweep curate lr-rank --best-first --out ordered
    """
    from hawsweep.data.load import load_data
    from hawsweep.results.curate import best_first as rank
    from hawsweep.results.curate import (
        check_no_weights,
        proposal_folder,
        write_proposal,
    )
    from hawsweep.results.curate import curate as propose
    from hawsweep.results.curate_proof import proof_specs, read_proof
    from hawsweep.study.confirm import chosen_trial
    from hawsweep.study.storage import open_storage
    from hawsweep.study.study import load_study, spec_of
    from hawsweep.trial.pair_losses import pair_losses
    from hawsweep.views.terminal.curate import curation_picture, proof_picture

    study = load_study(open_storage(place), name)
    chosen = chosen_trial(study, trial, is_complete=False)
    data = spec_of(study, chosen, place).data
    with make_console(stderr=True).status("reading the data") as spinner:
        splits = load_data(data, spinner.update)
        check_no_weights(splits)
        losses = pair_losses(study, place, chosen.number, splits, spinner.update)
        spinner.update("looking at the records")
        found = propose(name, chosen.number, splits, losses.own, losses.other)
    if found.removed or best_first:
        folder = out or proposal_folder(data, "best-first" if best_first else "curated")
        ranked = rank(losses.own, losses.other) if best_first else None
        write_proposal(found, splits, data, folder, ranked)
        found = replace(found, folder=str(folder), is_ordered=best_first)
    console = make_console()
    if not as_json:
        console.print(curation_picture(found))
    if prove and found.folder is not None:
        folder = Path(found.folder)
        order = {"order": "curriculum", "difficulty": "place"} if best_first else {}
        specs = proof_specs(study, place, chosen, splits, folder, len(found.removed), seeds, order)
        again = [name, f"--trial={chosen.number}", f"--seeds={seeds}", f"--out={folder}", "--prove"]
        again += ["--best-first"] if best_first else []
        everything, proposal = (
            run_companion(
                spec,
                study_name,
                place,
                plain=plain,
                as_json=as_json,
                differs=f"Study {study_name!r} proved another proposal, or was made otherwise: to "
                "prove this one, delete it in the dashboard and move "
                f"{place.study_dir(study_name)} away.",
                again=place.command("curate", *again),
            )
            for study_name, spec in specs.items()
        )
        found = replace(found, proof=read_proof(everything, proposal, place))
        if not as_json:
            console.print(proof_picture(found))
    if as_json:
        print_json(found.to_plain())
