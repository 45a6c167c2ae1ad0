"""Runs sweeps as ``driver.py`` does, each in a process forked from one that has imported all that a
supervisor and its workers need: importing takes longer than such a sweep.

What workers are forked from is itself forked, before the supervisor has threads, and used once.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import driver

from hawsweep import forkserver, worker


class Server:
    """A process that waits to be what workers are forked from: as much of ``Popen`` as is used."""

    def __init__(self):
        self._ours, theirs = socket.socketpair()
        self._lock, self._code = threading.Lock(), None
        self.pid = os.fork()
        if self.pid == 0:
            self._ours.close()
            self._serve(theirs)
        theirs.close()
        forkserver.subprocess = SimpleNamespace(**{**vars(subprocess), "Popen": self._popen})

    def _serve(self, requests):
        message, descriptors, *_ = socket.recv_fds(requests, 1 << 20, 2)
        if not message:
            os._exit(0)  # the supervisor needs none
        os.environ.update(json.loads(message))
        requests.close()
        served, log = descriptors
        for standard in (1, 2):
            os.dup2(log, standard)
        os.setsid()
        sys.argv = ["worker.py", str(served)]
        worker.main()
        sys.exit()

    def _popen(self, command, **options):
        forkserver.subprocess = subprocess  # the next one is started as ever
        environment = json.dumps(options["env"]).encode()
        descriptors = [*options["pass_fds"], options["stderr"].fileno()]
        socket.send_fds(self._ours, [environment], descriptors)
        self._ours.close()
        return self

    def poll(self):
        with self._lock:
            if self._code is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self._code = os.waitstatus_to_exitcode(status) if pid else None
            return self._code

    def wait(self, timeout=None):
        while self.poll() is None:
            time.sleep(0.01)
        return self._code

    def kill(self):
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def main():
    worker.import_ahead()
    forkserver.serve(int(sys.argv[1]))
    asked = json.loads(sys.stdin.readline())
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["arguments"][0])
    sys.argv[1:] = asked["arguments"]
    Server()
    driver.main()


if __name__ == "__main__":
    main()
