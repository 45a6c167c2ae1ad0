"""YAML from untrusted files: repaired, within limits, and every fault a ``ValueError``."""

import math
import re
from collections.abc import Hashable
from typing import Any

import yaml

MAX_LEVELS = 50
# Counted after aliases are written out: a few lines of them can stand for billions.
MAX_NODES = 100_000
_MAX_DIGITS = 100
_MAX_SAID = 300
_MAX_INT = 2**63 - 1
_TAG = "tag:yaml.org,2002:"


def parse_yaml(text: str) -> Any:
    """The plain values of a YAML document; None of an empty one.

    As in YAML 1.2, ``1e-5`` is a number, and ``10:00`` is none.

    Raises:
        ValueError: It is not YAML, is beyond a limit, has a key twice, a number that does not fit
            into 64 bits, or half of a character. The message gives line and column.
    """
    try:
        return yaml.load(text, _Loader)  # nosec B506 # it is a SafeLoader
    except yaml.MarkedYAMLError as fault:
        said = [text for text in (fault.context, fault.problem) if text]
        mark = fault.problem_mark or fault.context_mark
        where = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
        raise ValueError(f"{', '.join(said)[:_MAX_SAID]}{where}") from fault
    except yaml.YAMLError as fault:
        raise ValueError(" ".join(str(fault).split())) from fault


def dump_yaml(content: Any) -> str:
    """Plain values as text from which ``parse_yaml`` gives the same."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = self._deepest = self._n_nodes = 0
        self._finished: dict[yaml.Node, tuple[int, int]] = {}  # its nodes, and levels below it

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        before, above = self._n_nodes, self._deepest
        self._level += 1
        self._n_nodes += 1
        self._deepest = self._level
        self._check_limits(event)
        node = super().compose_node(parent, index)
        assert node is not None
        if isinstance(event, yaml.AliasEvent):
            if node not in self._finished:
                raise _fault(f"*{event.anchor} stands inside of what it stands for", event)
            n_nodes, n_levels = self._finished[node]
            self._n_nodes = before + n_nodes
            self._deepest = self._level + n_levels
            self._check_limits(event)
        else:
            self._finished[node] = self._n_nodes - before, self._deepest - self._level
        self._level -= 1
        self._deepest = max(above, self._deepest)
        return node

    def _check_limits(self, event: yaml.Event) -> None:
        if self._deepest > MAX_LEVELS:
            raise _fault(f"it is nested deeper than {MAX_LEVELS} levels", event)
        if self._n_nodes > MAX_NODES:
            raise _fault(f"it has more than {MAX_NODES:,} values, aliases written out", event)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        is_number = node.tag in (f"{_TAG}int", f"{_TAG}float")
        if is_number and len(node.value) > _MAX_DIGITS:
            raise _fault(f"{node.value[:20]}... is a number of {len(node.value)} characters", node)
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, str):
                value.encode()
        except (ValueError, LookupError, TypeError, AttributeError) as fault:
            # PyYAML converts 2001-02-30 and !!int x without a look.
            kind = node.tag.removeprefix(_TAG)
            raise _fault(f"{ascii(node.value)[:80]} is no {kind}", node) from fault
        if isinstance(value, int) and abs(value) > _MAX_INT:
            raise _fault(f"{node.value} is too large, must fit into 64 bits", node)
        if isinstance(value, float) and math.isinf(value) and "inf" not in node.value.lower():
            raise _fault(f"{node.value} is too large a number", node)
        return value

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> Any:
        is_time = kind is yaml.ScalarNode and implicit[0] and _SEXAGESIMAL.fullmatch(value)
        if is_time:
            return f"{_TAG}str"
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        # Of what only says that it is a mapping, the safe loader complains.
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key_node.tag == f"{_TAG}merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable) or key in seen:
                fault = "is there twice" if isinstance(key, Hashable) else "cannot be a key"
                raise _fault(f"{repr(key)[:80]} {fault}", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    pass


_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")


_Loader.add_implicit_resolver(
    f"{_TAG}float",
    exponent := re.compile(r"^[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    digits := list("-+0123456789"),
)
# Else a name such as 1e5 would be written without quotes.
_Dumper.add_implicit_resolver(f"{_TAG}float", exponent, digits)


def _fault(problem: str, at: yaml.Node | yaml.Event) -> yaml.YAMLError:
    mark: Any = at.start_mark
    return yaml.constructor.ConstructorError(None, None, problem, mark)
