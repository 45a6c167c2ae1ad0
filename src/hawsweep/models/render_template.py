"""A process that renders a chat template for the first time, within limits of time and memory.

A template is a stranger's program. The sandbox of jinja2 decides what it may touch, not how long it
runs and how much it holds. This process imports nothing large, so that it starts fast.
"""

import json
import math
import resource
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hawsweep.models.chat_template import PROBES, QUESTION, SYSTEM

_N_TURNS, _N_WORDS = 32, 40
_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks a word up.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
    },
}


def main() -> None:
    """Read a template, its variables and its limits as JSON; print the verdict.

    Linux ends the process at both limits. macOS refuses that of memory.
    """
    asked = json.load(sys.stdin)
    seconds = math.ceil(asked["seconds"])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    with suppress(ValueError, OSError):  # below what a process has mapped on a Mac
        resource.setrlimit(resource.RLIMIT_AS, (asked["bytes"], asked["bytes"]))
    print(judge(asked["template"], asked["variables"], asked["characters"]))


def judge(template: str, variables: Mapping[str, Any], most_characters: int) -> str:
    """Render a template for short and long conversations, with and without a tool.

    A template that refuses one of them keeps its limits: that is told where a record is rendered.

    Args:
        variables: The special tokens, by their names.
        most_characters: Of a prompt, beyond those of the conversation.

    Returns:
        ``kept``, ``length`` or ``memory``.
    """
    try:
        compiled = _environment().from_string(template)
    except MemoryError:
        return "memory"
    except Exception:  # told with its reason where it is first used
        return "kept"
    for given in _givens():
        n_left = most_characters + len(json.dumps(given))
        try:
            for part in compiled.generate(**variables, **given):
                n_left -= len(part)
                if n_left < 0:
                    return "length"
        except MemoryError:
            return "memory"
        except Exception:  # nosec B112 # told where a record is rendered
            continue
    return "kept"


def _givens() -> Iterator[dict[str, Any]]:
    """What a template is given: first what ``ChatTemplate`` tries it on."""
    answer, other = ({"role": "assistant", "content": text} for text in PROBES)
    long = "word " * _N_WORDS
    turns = [{"role": role, "content": long} for role in ("user", "assistant")] * _N_TURNS
    short = ([QUESTION], [QUESTION, answer], [QUESTION, other], [SYSTEM, QUESTION, answer])
    for messages in (*short, turns, turns[:-1]):
        for tools in (None, [_TOOL]):
            yield {
                "messages": messages,
                "tools": tools,
                "documents": None,
                "add_generation_prompt": messages[-1]["role"] == "user",
                "enable_thinking": False,
                "thinking": False,
            }


class _Generation(Extension):
    """The tag around what a model says; it shows its content."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_shown"), [], [], body).set_lineno(line)

    def _shown(self, caller: Macro) -> str:
        return caller()


def _environment() -> ImmutableSandboxedEnvironment:
    """The one in which transformers renders."""
    found = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    found.filters["tojson"] = _to_json
    found.globals |= {"raise_exception": _raise, "strftime_now": datetime.now().strftime}
    return found


def _raise(message: str) -> None:
    raise TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


if __name__ == "__main__":
    main()
