"""``hawsweep explain``."""

from dataclasses import asdict

import click

from hawsweep.cli.common import json_option, print_json
from hawsweep.views.terminal.console import make_console


@click.command()
@click.argument("key", required=False)
@json_option
def explain(key: str | None, as_json: bool) -> None:
    """Explain a KEY of a sweep: its meaning, default, allowed values, and an example.

    KEY may be a section, such as lr_schedule, the last part of a name, or a word of mlx-lm, PEFT,
    transformers or trl. Without KEY all keys are listed.

    \b
    Example: hawsweep explain learning_rate
             hawsweep explain scoring
    """
    from hawsweep.spec.other_words import tell_word
    from hawsweep.spec.reference import all_keys, find_keys

    found = all_keys() if key is None else find_keys(key)
    if as_json:
        print_json([asdict(each) for each in found])
        return
    from hawsweep.views.terminal.sweep_file import key_picture, keys_picture

    console = make_console()
    if key is not None and (told := tell_word(key)):
        console.print(told, "", markup=False, highlight=False)
    console.print(key_picture(found[0]) if len(found) == 1 else keys_picture(found))
