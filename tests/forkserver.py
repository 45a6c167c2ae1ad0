"""Starts processes that need the same slow imports, by forking one that has done them: importing
takes longer than the sweeps of tests.
"""

import gc
import json
import os
import queue
import select
import signal
import socket
import subprocess
import threading
from contextlib import suppress

_MAX_MESSAGE_BYTES = 4096


class ForkServer:
    """A process that calls ``serve``, as the one that asks it for processes sees it.

    Args:
        start: Gets the descriptor to serve; gives the process, as ``Popen`` is one.
    """

    def __init__(self, start):
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = start(theirs.fileno())
        self._asked_for = queue.SimpleQueue()
        self._is_ready = False
        threading.Thread(target=self._listen, daemon=True).start()

    def fork(self, log):
        """A new process; at first it begins when what it needs is imported."""
        with log.open("ab") as errors:
            stdin, writes = os.pipe()
            reads, stdout = os.pipe()
            forked = _Forked(
                self, os.fdopen(writes, "w", encoding="utf-8"), os.fdopen(reads, encoding="utf-8")
            )
            self._asked_for.put(forked)
            try:
                socket.send_fds(self._socket, [b"fork"], [stdin, stdout, errors.fileno()])
            except OSError:  # the server is dead, and has told those asked for before
                self._process.kill()
                forked.ended(self._process.wait())
            finally:
                os.close(stdin)
                os.close(stdout)
        return forked

    def is_alive(self):
        """Whether it can be asked."""
        return self._process.poll() is None

    def close(self):
        """End it, and what it has forked."""
        self._process.kill()
        self._process.wait()

    def give_up(self):
        """End it where it still imports; whether it did."""
        if not self._is_ready:
            self._process.kill()
        return not self._is_ready

    def _listen(self):
        """Tell processes what becomes of them."""
        living = {}
        while message := self._receive():
            told = json.loads(message)
            if "ready" in told:
                self._is_ready = True
            elif "code" in told:
                living.pop(told["pid"]).ended(told["code"])
            else:
                living[told["pid"]] = forked = self._asked_for.get()
                forked.begun(told["pid"])
        code = self._process.wait()
        for forked in living.values():  # nobody would tell of their end
            forked.kill()
            forked.ended(-signal.SIGKILL)
        while not self._asked_for.empty():
            self._asked_for.get().ended(code)
        self._socket.close()

    def _receive(self):
        try:
            return self._socket.recv(_MAX_MESSAGE_BYTES)
        except ConnectionError:
            return b""


class _Forked:
    """A process that a fork server was asked for.

    Attributes:
        pid: None before it begins.
    """

    def __init__(self, server, stdin, stdout):
        self.stdin = stdin
        self.stdout = stdout
        self._server = server
        self.pid = None
        self._code = None
        self._has_begun, self._has_ended = threading.Event(), threading.Event()

    def poll(self):
        return self._code

    def wait(self, timeout=None):
        if not self._has_ended.wait(timeout):
            raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
        assert self._code is not None
        return self._code

    def send_signal(self, sig):
        if self._server.give_up():
            return
        self._has_begun.wait()
        if self.pid is not None and self._code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def begun(self, pid):
        self.pid = pid
        self._has_begun.set()

    def ended(self, code):
        self._code = code
        self._has_begun.set()
        self._has_ended.set()


def serve(descriptor):
    """Fork whenever the ``ForkServer`` at the other end of a socket asks, and return in each forked
    process, whose standard streams are in place. The server itself ends with who started it.
    """
    requests = socket.socket(fileno=descriptor)
    gc.collect()
    gc.freeze()  # else collecting would write to, and so copy, every page that is shared
    woken, wakes = os.pipe()
    for end in (woken, wakes):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Sent to all processes of a service that is stopped; those forked are to end before it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.set_wakeup_fd(wakes)
    try:
        _tell(requests, ready=True)
        while True:
            ready, _, _ = select.select([descriptor, woken], [], [])
            if woken in ready:
                os.read(woken, _MAX_MESSAGE_BYTES)
                _tell_ends(requests)
            if descriptor not in ready:
                continue
            asked, streams, *_ = socket.recv_fds(requests, _MAX_MESSAGE_BYTES, 3)
            if not asked:
                os._exit(0)
            pid = os.fork()
            if pid == 0:
                break
            for stream in streams:
                os.close(stream)
            _tell(requests, pid=pid)
    except ConnectionError:
        os._exit(0)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    for standard, stream in enumerate(streams):
        os.dup2(stream, standard)
    for unused in (*streams, woken, wakes):
        os.close(unused)
    requests.close()
    os.setsid()


def _tell(requests, **message):
    requests.send(json.dumps(message).encode())


def _tell_ends(requests):
    with suppress(ChildProcessError):  # there is none
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            _tell(requests, pid=pid, code=os.waitstatus_to_exitcode(status))
