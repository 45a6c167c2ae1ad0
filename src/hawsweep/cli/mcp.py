"""``hawsweep mcp``: the commands as tools of the Model Context Protocol, for agents.

A tool is a command with some of its options, run in this process; its result is what the command
prints, JSON where it has ``--json``. So tools and commands cannot differ. Two things are an agent's
alone: paths that leave the root are refused, and so are exports that the verdict does not carry.
"""

import asyncio
import json
import os
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout, suppress
from importlib.metadata import version
from inspect import cleandoc
from io import StringIO
from operator import eq
from pathlib import Path
from typing import Any

import click

from hawsweep.errors import ExportError, HawsweepError, SpecError
from hawsweep.machine.output import plain_stream, visible_output

# The tools, each a command, and which of its arguments and options an agent may give.
TOOLS: dict[str, tuple[str, ...]] = {
    "list": (),
    "validate": ("name", "model", "data", "study_name", "settings"),
    "plan": ("name", "model", "data", "ram", "settings"),
    "preview": ("name", "model", "data", "split", "n_each", "record", "settings"),
    "start": ("name", "model", "data", "trials", "timeout", "workers", "study_name", "settings"),
    "status": ("name", "why", "by_group", "price"),
    "show": ("name", "trial", "examples"),
    "compare": ("name", "other", "trials", "base"),
    "enqueue": ("name", "settings"),
    "extend": ("name", "trials", "timeout", "trial", "iters"),
    "stop": ("name", "trial"),
    "report": ("name", "markdown"),
    "export": ("name", "fuse", "dequantize"),
}
# Keys of a sweep that decide what is trusted, or what leaves the machine: a model's own code, the
# runs with new seeds, the test, trackers, where files of trials go.
_A_PERSONS = (
    *("trust_remote_code", "confirm", "prefer", "scoring.test", "report_to", "artifacts"),
)
_INSTRUCTIONS = """
hawsweep finds settings for LoRA fine-tuning with MLX. A sweep is a file that asks for a study; a
study has trials. In this order: list, validate, plan, preview, start, then status from time to time
while `left.is_running`, then report and export. Trials take minutes to hours.

Decide by `verdict` in status, never by the best score of a trial: it is too high by chance. A
setting is tried once; the best are trained again with new seeds, and the test split is opened once
for each winner.
"""


@click.command()
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=".",
    show_default="the current folder",
    metavar="DIR",
    help="Where sweeps/ and studies/ are; paths that an agent gives lie inside.",
)
def mcp(root: Path) -> None:
    """Serve the commands to an agent: a server of the Model Context Protocol, on standard input and
    output.

    \b
    Example: hawsweep mcp --root ~/translation
    """
    try:
        import mcp as _  # noqa: F401
    except ImportError as fault:
        raise HawsweepError("This needs the package mcp: pip install mcp") from fault
    if sys.stdin.isatty():
        raise click.UsageError(
            "An agent starts this and talks to it: name it in its configuration."
        )
    root = root.resolve()
    os.chdir(root)
    commands = click.get_current_context().find_root().command
    assert isinstance(commands, click.Group)
    # The protocol takes the stream itself, not the one that shows control characters.
    with redirect_stdout(plain_stream(sys.stdout)):
        try:
            asyncio.run(_serve(commands, root))
        except* BrokenPipeError:
            pass  # the agent is gone


async def _serve(commands: click.Group, root: Path) -> None:
    from mcp import types
    from mcp.server.lowlevel import Server
    from mcp.server.stdio import stdio_server

    from hawsweep.views.json_schema import OUTPUTS

    def output_schema(name: str) -> dict[str, Any] | None:
        # The protocol asks for objects, which a choice between two of them does not say.
        return {"type": "object", **OUTPUTS[name].json_schema()} if name in OUTPUTS else None

    tools = [
        types.Tool(
            name=name,
            description=cleandoc((commands.commands[name].help or "").split("\b")[0]),
            input_schema=_input_schema(commands.commands[name]),
            output_schema=output_schema(name),
        )
        for name in TOOLS
    ]
    # One call at a time, since all that the process prints is redirected; and all in one thread,
    # since MLX's streams belong to the thread that made them.
    one = ThreadPoolExecutor(1)

    async def list_tools(*_: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=tools)

    async def call_tool(_: Any, asked: types.CallToolRequestParams) -> types.CallToolResult:
        def answer() -> str:
            return run_tool(commands, root, asked.name, asked.arguments or {})

        try:
            text = await asyncio.get_running_loop().run_in_executor(one, answer)
        except Exception as fault:
            content = types.TextContent(type="text", text=_sentence(fault))
            return types.CallToolResult(content=[content], is_error=True)
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=text)],
            structured_content=json.loads(text) if asked.name in OUTPUTS else None,
        )

    server = Server(
        "hawsweep",
        version=version("hawsweep"),
        instructions=_INSTRUCTIONS.strip(),
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
    async with stdio_server() as (reader, writer):
        await server.run(reader, writer, server.create_initialization_options())


def _sentence(fault: Exception) -> str:
    if isinstance(fault, click.ClickException):
        return fault.format_message()
    return str(fault) if isinstance(fault, HawsweepError) else f"{type(fault).__name__}: {fault}"


def run_tool(commands: click.Group, root: Path, name: str, given: Mapping[str, Any]) -> str:
    """What a tool's command prints.

    Raises:
        HawsweepError: As the command does; a path leads out of the root; or an export is not what
            the verdict says to use.
        click.ClickException: There is no such tool or argument, or a value has another type.
    """
    if name not in TOOLS:
        raise click.UsageError(f"There is no tool {name!r}. Tools: {', '.join(TOOLS)}.")
    command = commands.commands[name]
    _check_paths(given, root)
    typed = _typed(command, given)
    _check_settings(command, given, root)
    if name == "export":
        _check_verdict(json.loads(run_tool(commands, root, "status", {"name": given["name"]})))
        _check_tests(given["name"])
    with redirect_stdout(StringIO()) as printed, visible_output(), suppress(SystemExit):
        # With the help option that the command has otherwise: it is made once.
        command.main(typed, prog_name=name, standalone_mode=False, **commands.context_settings)
    return printed.getvalue()


def _check_settings(command: click.Command, given: Mapping[str, Any], root: Path) -> None:
    """Check what the command reads in the texts, which a key with ``=`` or a space changes."""
    from hawsweep.spec.read import parse_override

    for name, parameter in _offered(command).items():
        if not _is_settings(parameter):
            continue
        for text in _assigned(given.get(name) or {}):
            key, value = parse_override(text)
            parts = key.split(".")
            # A section is a person's too if one of its keys is.
            if any(all(map(eq, parts, each.split("."))) for each in _A_PERSONS):
                raise SpecError(f"{key} is for a person to set, in the sweep's file.")
            _check_paths(value, root)


def _check_paths(value: Any, root: Path) -> None:
    if isinstance(value, Mapping):
        value = value.values()
    if isinstance(value, str):
        with suppress(ValueError, RuntimeError):  # no path: a null byte, an unknown user's home
            if not (root / Path(value).expanduser()).resolve().is_relative_to(root):
                raise SpecError(f"{value} leads out of {root}, to which this server keeps.")
    elif isinstance(value, Iterable):
        for each in value:
            _check_paths(each, root)


def _check_verdict(status: Mapping[str, Any]) -> None:
    """Refuse an export that a person could still ask for: by luck alone a trial is often best."""
    verdict, left = status["verdict"], status["left"]
    if verdict is None or left["runs_with_new_seeds"] or left["test"]:
        raise ExportError(
            f"Study {status['study']!r} is not judged here yet: its best trials are to be trained "
            "with new seeds and tested, or their answers are on another machine. Wait, or go on "
            f"with {left['command']}."
        )
    if not verdict["ships"]:
        raise ExportError(verdict["sentences"][0])


def _check_tests(name: str) -> None:
    """Refuse an export of a study whose winner is never tested, such as that of a data curve."""
    from hawsweep.study.place import find_place
    from hawsweep.study.storage import open_storage
    from hawsweep.study.study import known_spec, load_study

    spec = known_spec(load_study(open_storage(find_place()), name))
    if spec is not None and not spec.scoring.test:
        raise ExportError(
            f"Study {name!r} does not test its winner (scoring.test: false): its export is for a "
            "person to decide."
        )


def _offered(command: click.Command) -> dict[str, click.Parameter]:
    """The parameters that an agent may give, as it names them."""
    return {
        max(each.opts, key=len).lstrip("-"): each
        for each in command.params
        if each.name in TOOLS[str(command.name)]
    }


def _input_schema(command: click.Command) -> dict[str, Any]:
    offered = _offered(command)
    return {
        "type": "object",
        "properties": {name: _property(each) for name, each in offered.items()},
        "required": [name for name, each in offered.items() if each.required],
        "additionalProperties": False,
    }


def _property(parameter: click.Parameter) -> dict[str, Any]:
    about = {"description": text} if (text := getattr(parameter, "help", None)) else {}
    kind: dict[str, Any] = {"type": "string"}
    if _is_settings(parameter):
        kind = {"type": "object"}
    elif isinstance(parameter.type, click.Choice):
        kind = {"enum": list(parameter.type.choices)}
    elif getattr(parameter, "is_flag", False):
        kind = {"type": "boolean"}
    elif isinstance(parameter.type, click.types.IntParamType):
        kind = {"type": "integer"}
    if getattr(parameter, "multiple", False) and not _is_settings(parameter):
        kind = {"type": "array", "items": kind}
    return {**kind, **about}


def _is_settings(parameter: click.Parameter) -> bool:
    return str(parameter.metavar).startswith("KEY=VALUE")


def _assigned(settings: Mapping[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def _typed(command: click.Command, given: Mapping[str, Any]) -> list[str]:
    """What a person would type."""
    offered = _offered(command)
    if unknown := given.keys() - offered.keys():
        known, wrong = ", ".join(offered) or "nothing", ", ".join(sorted(unknown))
        raise click.UsageError(f"{command.name} takes no {wrong}; it takes: {known}.")
    if missing := [key for key, each in offered.items() if each.required and not given.get(key)]:
        raise click.UsageError(f"{command.name} needs {' and '.join(missing)}.")
    options: list[str] = []
    arguments: list[str] = []
    for name, parameter in offered.items():
        value = given.get(name)
        if value is None or value is False:
            continue
        if isinstance(value, dict) is not _is_settings(parameter):
            form = "an" if _is_settings(parameter) else "no"
            raise click.UsageError(f"{name} must be {form} object.")
        if isinstance(value, dict):
            value = _assigned(value)
        texts = value if isinstance(value, list) else [value]
        if isinstance(parameter, click.Argument):
            arguments += map(str, texts)
        elif getattr(parameter, "is_flag", False):
            options += [parameter.opts[0]] * bool(value)
        else:
            for text in texts:
                options += [parameter.opts[0], str(text)]
    if command.name == "start":
        options.append("--detach")
    if any(each.name == "as_json" for each in command.params):
        options.append("--json")
    return [*options, "--", *arguments]
