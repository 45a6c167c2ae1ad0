"""The limits of a chat template, tried in a process of its own before it is used in this one."""

import hashlib
import importlib.metadata
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hawsweep.errors import ModelError
from hawsweep.files import replace_text
from hawsweep.machine import backend
from hawsweep.machine.children import child_command, child_environment, how_it_ended
from hawsweep.models.check_files import TEMPLATE_BYTES

SECONDS = 10
MEMORY_BYTES = 1_000_000_000
# Beyond those of the conversation. Long system prompts with the rules for tools have 20,000.
CHARACTERS = 1_000_000
# It waits for nothing. So on a busy machine it may take three times its seconds.
_WALL_FACTOR = 3
# Bumped when the conversations or the limits change.
_VERSION = 1


def check_templates(tokenizer: Any, folder: Path) -> None:
    """Render each chat template of a tokenizer once, for short and for long conversations.

    Another conversation may make the template do something else: the limits hold for these alone.
    What kept its limits is noted in the cache, by the template's hash, and not tried again.

    Args:
        folder: The model's, for messages.

    Raises:
        ModelError: One takes more than ``SECONDS``, ``MEMORY_BYTES`` or ``CHARACTERS``, or has more
            than ``TEMPLATE_BYTES``; the message has its file and the number.
    """
    found = tokenizer.chat_template
    named = found if isinstance(found, Mapping) else {"default": found}
    variables = {
        name: list(map(str, each)) if isinstance(each, list | tuple) else str(each)
        for name, each in tokenizer.special_tokens_map.items()
    }
    for name, template in named.items():
        fault = _fault_of(template, variables) if isinstance(template, str) else None
        if fault is not None:  # mlx-lm's own templates are code, and none of a stranger's
            raise ModelError(
                f"{_file_of(folder, name)}: the chat template {fault}. Correct it there, or use "
                "another model."
            )


def _fault_of(template: str, variables: Mapping[str, Any]) -> str | None:
    if len(template) > TEMPLATE_BYTES:
        return f"has {len(template):,} characters, and at most {TEMPLATE_BYTES:,} are read"
    parts = [_VERSION, importlib.metadata.version("jinja2"), template, variables]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
    noted = backend.cache_dir() / "templates" / digest
    if noted.exists():
        return None
    fault = _render(template, variables)
    if fault is None:
        with suppress(OSError):  # then it is tried again the next time
            noted.parent.mkdir(parents=True, exist_ok=True)
            replace_text(noted, "")
    return fault


def _render(template: str, variables: Mapping[str, Any]) -> str | None:
    limits = {"seconds": SECONDS, "bytes": MEMORY_BYTES, "characters": CHARACTERS}
    try:
        done = subprocess.run(
            child_command("-m", "hawsweep.models.render_template"),
            input=json.dumps({"template": template, "variables": variables, **limits}),
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
            env=child_environment(),
            timeout=_WALL_FACTOR * SECONDS,
        )
        verdict, code = done.stdout.strip(), done.returncode
    except subprocess.TimeoutExpired:
        verdict, code = "", -signal.SIGXCPU
    if verdict == "kept":
        return None
    if verdict == "length":
        return f"makes a prompt of over {CHARACTERS:,} characters from a conversation of few"
    if verdict == "memory":
        return f"needs more than {MEMORY_BYTES / 1e9:g} GB for a conversation"
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"takes more than {SECONDS:g} s for a conversation"
    return f"ended the process that rendered it {how_it_ended(code)}"


def _file_of(folder: Path, name: str) -> Path:
    files = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
    places = (folder / "additional_chat_templates" / f"{name}.jinja", *map(folder.joinpath, files))
    return next((path for path in places if os.path.exists(path)), folder)
