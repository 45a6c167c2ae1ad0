"""Servers of a study's storage: Optuna's gRPC proxy."""

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from optuna.storages import get_storage
from optuna.storages._grpc.server import make_server


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@contextmanager
def serving_storage(url):
    """Serve a storage as ``run_grpc_proxy_server`` does; give the proxy's URL."""
    pytest.importorskip("grpc")
    port = free_port()
    with ThreadPoolExecutor(4) as threads:
        server = make_server(get_storage(url), "127.0.0.1", port, threads)
        server.start()
        try:
            yield f"grpc://127.0.0.1:{port}"
        finally:
            server.stop(grace=None).wait()
