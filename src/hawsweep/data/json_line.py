"""A line of JSON becomes one record: every format that is read, and what is refused.

mlx-lm decides by the first record which keys it takes of a file. Here each line is decided on its
own, with the same precedence, and the keys that lose are dropped.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hawsweep.data.normal_text import mend
from hawsweep.errors import DataError
from hawsweep.spec.sweep import Normalize

_CALLS = ("tool_calls", "function_call")
SYSTEM_ROLES = ("system", "developer")
_ROLES = (*SYSTEM_ROLES, "user", "assistant", "tool", "function", "ipython", "observation")
_FORMATS = 'one of {"messages": [...]}, {"prompt": ..., "completion": ...} and {"text": ...}'
_PAIR, _CHAT, _TEXT = ("prompt", "completion"), ("messages",), ("text",)
_SHAREGPT = "from to role (user for human, assistant for gpt) and value to content."
# Keys of other formats, and how their records become one of these.
_RENAMES: dict[tuple[str, ...], str] = {
    ("instruction", "output"): (
        "Rename instruction to prompt and output to completion, and put input at the end of prompt."
    ),
    ("conversations",): f"Rename conversations to messages, and in each {_SHAREGPT}",
    ("prompt", "response"): "Rename response to completion.",
    ("question", "answer"): "Rename question to prompt and answer to completion.",
    ("input", "output"): "Rename input to prompt and output to completion.",
}


@dataclass(frozen=True)
class Line:
    """A line of JSON as a record.

    Attributes:
        where: File and line, for messages.
        content: The JSON object with ``messages``, or ``prompt`` and ``completion``, or ``text``:
            exactly one of the three. No value is null, nor one in a message.
        format: ``pair``, ``chat`` or ``text``.
        is_plain: Whether mlx-lm takes the same of the line.
        fingerprinted: What the fingerprint of the data is of: the object as it stands in the line.
            The content instead if earlier versions read another record there, or none.
    """

    where: str
    content: dict[str, Any]
    format: str
    is_plain: bool
    fingerprinted: dict[str, Any]


def read_line(text: str, where: str, normalize: Normalize = "none") -> Line:
    """Read a record.

    Args:
        where: File and line, for messages.
        normalize: ``data.normalize``.

    Raises:
        DataError: It is no JSON object, or not in one of mlx-lm's formats.
    """
    found = _parse(text.removeprefix("\ufeff"), where)
    if not isinstance(found, dict):
        raise DataError(f"{where} holds a {type(found).__name__}, must be {_FORMATS}.")
    content = _read(found, where)
    if normalize != "none":
        content = _mended(content, normalize)
    if content == found:
        return Line(where, content, format_of(content), not text.startswith("\ufeff"), found)
    taken = _taken(content)
    is_plain = _taken(found) == taken and not text.startswith("\ufeff")
    fingerprinted = found if _was_read_so(found, content, taken) else content
    return Line(where, content, format_of(content), is_plain, fingerprinted)


class _TwiceError(Exception):
    """An object has a key twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(next(key for key in keys if keys.count(key) > 1))
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _parse(text: str, where: str) -> Any:
    try:
        return _DECODER.decode(text)
    except _TwiceError as fault:
        key = str(fault)[:80]
        raise DataError(f"{where} has the key {key!r} twice in one object. Remove one.") from fault
    except RecursionError as fault:
        raise DataError(
            f"{where} is JSON that is nested too deep to be read. Correct or remove the line."
        ) from fault
    except ValueError as fault:  # also of a number with thousands of digits
        raise DataError(f"{where} is not JSON: {fault}. Correct or remove the line.") from fault


def _read(found: dict[str, Any], where: str) -> dict[str, Any]:
    content = {key: value for key, value in found.items() if value is not None}
    kept = next((keys for keys in (_PAIR, _CHAT, _TEXT) if all(key in content for key in keys)), ())
    if not kept:
        raise _no_format(found, where)
    for key in {*_PAIR, *_CHAT, *_TEXT}.difference(kept):
        content.pop(key, None)
    if kept == _CHAT:
        content["messages"] = _messages(content["messages"], where)
    else:
        for key in kept:
            _check_text(content[key], key, where)
    if kept == _TEXT:
        return content
    if "tools" in content:
        content["tools"] = _tools(content["tools"], where)
    return _with_system(content, where) if content.get("system", "") != "" else content


def _no_format(found: Mapping[str, Any], where: str) -> DataError:
    nulls = [key for key in (*_PAIR, *_TEXT) if key in found and found[key] is None]
    if nulls:
        return DataError(
            f"{where} has a text that is not a string: {' and '.join(nulls)} null. Correct or "
            "remove the line."
        )
    if "messages" in found:
        _messages(found["messages"], where)
    keys = ", ".join(found)[:200] or "none"
    rename = next((how for old, how in _RENAMES.items() if all(key in found for key in old)), "")
    if not rename and sum(isinstance(each, str) for each in found.values()) > 1:
        rename = (
            "Rename two of them to prompt and completion, or save the pairs as a CSV, where "
            "data.source and data.target name the columns."
        )
    return DataError(f"{where} has the keys {keys}, must be {_FORMATS}. {rename}".rstrip())


def _check_text(text: Any, name: str, where: str) -> None:
    if not isinstance(text, str):
        raise DataError(f"{where} has a {name} that is not a string. Correct or remove the line.")


def _messages(messages: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(messages, list) or not messages:
        raise DataError(
            f"{where} has messages that are not a list of at least one. Correct or remove the line."
        )
    read = [_message(message, where) for message in messages]
    if all(message["role"] == "assistant" for message in read):
        raise DataError(
            f"{where} has only the assistant's messages: there is nothing before the answer. Put "
            "the user's message before it, or remove the line."
        )
    return read


def _message(found: Any, where: str) -> dict[str, Any]:
    message = _without_null_values(found) if isinstance(found, dict) else {}
    is_call = message.get("content") == "" and any(message.get(each) for each in _CALLS)
    if "role" not in message or "content" not in message or is_call:
        raise _incomplete(found, message, where)
    if message["role"] not in _ROLES:
        raise DataError(
            f"{where} has a message with the role {repr(message['role'])[:80]}, must be user "
            f"or assistant, or one of {', '.join(_ROLES)}. Correct the role."
        )
    if isinstance(message["content"], list):
        message["content"] = "".join(_part(part, where) for part in message["content"])
    _check_text(message["content"], "text", where)
    return message


def _incomplete(found: Any, message: Mapping[str, Any], where: str) -> DataError:
    called = next((each for each in _CALLS if message.get(each)), None)
    if "role" in message and called:
        return DataError(
            f"{where} has a message with {called} and no content: only text can be learned. "
            "Write the call into content as the model writes it, or remove the line."
        )
    if "role" in message and "content" in found:
        return DataError(
            f"{where} has a text that is not a string: the content of a message is null. Correct "
            "or remove the line."
        )
    rename = f"Rename {_SHAREGPT}" if "from" in message and "value" in message else ""
    return DataError(
        f"{where} has a message without role and content. {rename or 'Correct or remove the line.'}"
    )


def _part(part: Any, where: str) -> str:
    """The text of one part of a message's content."""
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    if not isinstance(part, dict) or kind != "text":
        raise DataError(
            f"{where} has a message with a part of the type {repr(kind)[:80]}, must be 'text'. "
            "Remove the part or the line."
        )
    _check_text(part.get("text"), "text", where)
    return str(part["text"])


def _tools(tools: Any, where: str) -> list[dict[str, Any]]:
    found = _parse(tools, f"{where}, in its tools,") if isinstance(tools, str) else tools
    if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in found):
        raise DataError(
            f"{where} has tools that are not a list of objects: {repr(tools)[:80]}. Correct or "
            "remove tools."
        )
    return found


def _with_system(content: dict[str, Any], where: str) -> dict[str, Any]:
    """The record with the text in its key ``system`` as the first message."""
    system = content["system"]
    _check_text(system, "system", where)
    chat = as_chat(content)
    first = chat["messages"][0]
    if first["role"] in SYSTEM_ROLES:
        if first["content"] == system:
            return content
        raise DataError(
            f"{where} has the key system and another {first['role']} message. Keep one of them."
        )
    del chat["system"]
    return {**chat, "messages": [{"role": "system", "content": system}, *chat["messages"]]}


def as_chat(content: Mapping[str, Any]) -> dict[str, Any]:
    """A record that is no plain text, with ``messages`` in place of a pair."""
    others = {key: value for key, value in content.items() if key not in _PAIR}
    return {**others, "messages": conversation(content)}


def conversation(content: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The messages of a record; None for plain text."""
    if "messages" in content:
        messages: list[dict[str, Any]] = content["messages"]
        return messages
    if "prompt" in content:
        return [
            {"role": "user", "content": content["prompt"]},
            {"role": "assistant", "content": content["completion"]},
        ]
    return None


def _mended(content: dict[str, Any], how: Normalize) -> dict[str, Any]:
    texts: dict[str, Any] = {
        key: mend(content[key], how) for key in (*_PAIR, *_TEXT) if key in content
    }
    if "messages" in content:
        texts["messages"] = [
            {**message, "content": mend(message["content"], how)} for message in content["messages"]
        ]
    return {**content, **texts}


def format_of(content: Mapping[str, Any]) -> str:
    """``pair``, ``chat`` or ``text``, as mlx-lm chooses."""
    if all(key in content for key in _PAIR):
        return "pair"
    return "chat" if "messages" in content else "text"


def _taken(content: Mapping[str, Any]) -> list[Any]:
    """What mlx-lm takes of a record, its format first."""
    chosen = format_of(content)
    keys = {"pair": (*_PAIR, "tools"), "chat": (*_CHAT, "tools"), "text": _TEXT}[chosen]
    return [chosen, *(content.get(key) for key in keys)]


def _without_null_values(message: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in message.items() if value is not None}


def _was_read_so(found: Mapping[str, Any], content: Mapping[str, Any], taken: list[Any]) -> bool:
    """Whether earlier versions read the same record. They preferred ``messages``, even null, and
    gave null in a message to the chat template.
    """
    if "messages" not in found:
        return _taken(found) == taken
    if "messages" not in content or not isinstance(found["messages"], list):
        return False
    messages = [_without_null_values(each) for each in found["messages"] if isinstance(each, dict)]
    return _taken({**found, "messages": messages}) == taken
