"""A process that serves a study's storage to other machines: Optuna's gRPC proxy, on 127.0.0.1.

Started as ``python -m hawsweep.running.storage_proxy``. The first line on its standard input is the
setting (JSON): the URL may hold a password. The first line on its standard output is the port.
"""

import json
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.storages import get_storage, run_grpc_proxy_server

from hawsweep.errors import HawsweepError, StudyError
from hawsweep.machine.children import (
    child_command,
    child_environment,
    last_words,
    log_size,
    start_child,
    tell_child,
)
from hawsweep.machine.output import make_output_visible
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage

_COMMAND = child_command("-m", "hawsweep.running.storage_proxy")
_ON = "127.0.0.1"
_LOG_BYTES = 2000


@contextmanager
def serving(place: Place, log: Path) -> Iterator[int]:
    """Serve the storage of ``place`` during the block; give the port.

    Its process ends some seconds after this one: workers elsewhere can still say what they saved.

    Args:
        log: Gets what the process prints.

    Raises:
        StudyError: It cannot be served; the message has the process's words.
    """
    start = log_size(log)
    process = start_child(_COMMAND, log, child_environment())
    assert process.stdout is not None
    try:
        tell_child(process, json.dumps([str(place.studies_dir), place.storage_url]))
        port = process.stdout.readline()
        if not port:
            said = last_words(log, start, _LOG_BYTES).strip().rpartition("\n")[2]
            raise StudyError(f"The study cannot be served to other machines: {said}")
        yield int(port)
    finally:
        process.kill()
        process.communicate()


def main() -> None:
    """Serve until the process is killed."""
    port_line = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    make_output_visible()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    studies_dir, url = json.loads(sys.stdin.readline())
    try:
        import grpc  # noqa: F401
    except ImportError:
        sys.exit("the package grpcio is missing. Install it: in a clone, pip install '.[grpc]'")
    try:
        storage = open_storage(Place(Path(studies_dir), url), only_look=False)
    except HawsweepError as fault:
        sys.exit(str(fault))
    # gRPC does not tell which free port it takes. Until it serves, the port is held for it.
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((_ON, 0))
        port = held.getsockname()[1]
        print(port, file=port_line, flush=True)
        run_grpc_proxy_server(get_storage(storage), host=_ON, port=port)


if __name__ == "__main__":
    main()
