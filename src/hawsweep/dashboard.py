"""optuna-dashboard over the studies, on this machine only."""

import socket
from collections.abc import Callable

from optuna_dashboard import run_server

from hawsweep.errors import BackendError
from hawsweep.study import Place, open_storage

HOST = "127.0.0.1"


def serve(place: Place, port: int | None, ready: Callable[[str], None]) -> None:
    """Serve the dashboard until interrupted.

    Args:
        port: None for 8080, or a free one where that is taken.
        ready: Is told the address.

    Raises:
        StudyError: There are no studies.
        BackendError: The port is taken.
    """
    storage = open_storage(place)
    chosen = _free_port(8080) or _free_port(0) if port is None else _free_port(port)
    if chosen is None:
        raise BackendError(
            f"Port {port} of {HOST} is taken. Choose another with --port, or leave it out."
        )
    ready(f"http://{HOST}:{chosen}/")
    run_server(storage, host=HOST, port=chosen)


def _free_port(port: int) -> int | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return None
        return int(probe.getsockname()[1])
