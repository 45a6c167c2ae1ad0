"""Runs sweeps as ``driver.py`` does, each in a process forked from one that has imported all that a
supervisor and its workers need: importing takes longer than such a sweep.

What workers are forked from is itself forked, before the supervisor has threads. There is no spare
worker.
"""

import json
import os
import signal
import sys
import threading
import time

import driver
import forkserver

from hawsweep.running import supervisor, worker
from hawsweep.running.worker import import_ahead


class Forked:
    """A forked process: as much of ``Popen`` as is used."""

    def __init__(self, pid):
        self._lock, self._code, self.pid = threading.Lock(), None, pid

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


class Starter:
    """Starts workers, by forking: as much of ``WorkerStarter`` as is used."""

    def __init__(self):
        self._server = forkserver.ForkServer(self._fork)
        self.environment = dict(os.environ)
        self.start, self.close = self._server.fork, self._server.close

    @staticmethod
    def _fork(descriptor):
        pid = os.fork()
        if pid:
            return Forked(pid)
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1):
            os.dup2(nothing, standard)
        os.closerange(3, descriptor)  # the other end among them, which tells when it is closed
        os.closerange(descriptor + 1, 256)
        os.setsid()
        sys.argv = ["worker.py"]
        forkserver.serve(descriptor)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as it lives
        worker.main()
        sys.exit()

    def keep_spare(self, log):
        pass


def main():
    import_ahead()
    forkserver.serve(int(sys.argv[1]))
    asked = json.loads(sys.stdin.readline())
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["arguments"][0])
    sys.argv[1:] = asked["arguments"]
    starter = Starter()
    supervisor.WorkerStarter = lambda *_, **__: starter
    driver.main()


if __name__ == "__main__":
    main()
