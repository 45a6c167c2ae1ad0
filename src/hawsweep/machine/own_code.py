"""Functions of a person's own, which a sweep names as ``module:function``."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hawsweep.errors import SpecError
from hawsweep.files import check_regular
from hawsweep.machine.without_torch import let_torch_in


def load_function(key: str, name: str, built_in: Sequence[str]) -> Callable[..., Any]:
    """The function that a key of a sweep names.

    It is one of ``module.py`` in the current folder only. So a sweep file cannot call other
    installed code.

    Args:
        built_in: The names that the key has beside functions.

    Raises:
        SpecError: There is no such function.
    """
    module, _, function = name.partition(":")
    path = Path(f"{module}.py")
    if not (module.isidentifier() and function.isidentifier()):
        raise SpecError(
            f"{key} is {name!r}, must be one of {', '.join(built_in)}, or module:function, with "
            "module.py in the current folder."
        )
    try:
        check_regular(path)
    except FileNotFoundError as fault:
        raise SpecError(
            f"{key} is {name!r}, but {path} is not in the current folder ({Path.cwd().name}). "
            "Start hawsweep in its folder."
        ) from fault
    except OSError as fault:
        raise SpecError(f"{key}: {path} cannot be read: {fault.strerror}.") from fault
    loaded = importlib.util.spec_from_file_location(module, path)
    assert loaded is not None
    assert loaded.loader is not None
    code = importlib.util.module_from_spec(loaded)
    let_torch_in()
    try:
        loaded.loader.exec_module(code)
    except ModuleNotFoundError as fault:
        raise SpecError(
            f"{key}: {path} imports {fault.name}, which is not installed. Nothing is imported from "
            "the current folder: install it, or name its folder in PYTHONPATH, as an absolute path."
        ) from fault
    except Exception as fault:  # whatever a person's code does
        raise SpecError(f"{key}: {path} fails: {fault!r}.") from fault
    found: Callable[..., Any] | None = getattr(code, function, None)
    if not callable(found):
        raise SpecError(f"{key} is {name!r}, but {path} has no function {function}.")
    return found
