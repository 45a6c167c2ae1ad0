"""Leases of many hosts in a virtual time: `study/leases.py` as it is, on a database that serves one
call after another. What takes hours takes seconds, and each run is the same.

python tests/benchmarks/bench_leases.py [--hosts N ...] [--call-ms MS] [--ask-s S]
"""

import argparse
import heapq
import random
from types import SimpleNamespace

import greenlet
from optuna.trial import TrialState

from hawsweep.errors import StudyBusyError
from hawsweep.study import leases
from hawsweep.study.attributes import LEASE, SUPERVISOR, WORKER

# As the supervisor looks at trials on other machines.
_LOOK_S = 6.0


class World:
    """Processes that run one at a time, each until it waits; then the time goes on."""

    def __init__(self, seed: int = 0) -> None:
        self.now, self._waiting, self._n = 0.0, [], 0
        self.random = random.Random(seed)
        self._main, self._killed = greenlet.getcurrent(), []

    def clock(self) -> float:
        """The virtual time, in seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let the other processes run for so long."""
        self._wait(greenlet.getcurrent(), seconds)
        self._main.switch()

    def spawn(self, run, after: float = 0.0) -> greenlet.greenlet:
        """Begin a process."""
        process = greenlet.greenlet(run, self._main)
        self._wait(process, after)
        return process

    def kill(self) -> None:
        """End the process that runs, as by SIGKILL: nothing of it runs any more."""
        self._killed.append(greenlet.getcurrent())  # else its `finally` would run
        self._main.switch()

    def _wait(self, process: greenlet.greenlet, seconds: float) -> None:
        self._n += 1
        heapq.heappush(self._waiting, (self.now + max(0.0, seconds), self._n, process))

    def run(self, until: float) -> None:
        """Go on until a time."""
        while self._waiting and self._waiting[0][0] <= until:
            self.now, _, process = heapq.heappop(self._waiting)
            if not process.dead:
                process.switch()
        self.now = until

    def threads(self) -> SimpleNamespace:
        """What `leases` takes from the module ``threading``."""
        world = self

        class Event:
            def __init__(self) -> None:
                self._is_set = False

            def set(self) -> None:
                self._is_set = True

            def is_set(self) -> bool:
                return self._is_set

            def wait(self, seconds: float) -> None:
                world.sleep(seconds)

        class Thread:
            def __init__(self, target, daemon: bool) -> None:
                self._target = target

            def start(self) -> None:
                world.spawn(self._target)

            def join(self, seconds: float) -> None:
                world.sleep(0.0)

        return SimpleNamespace(Event=Event, Thread=Thread)


class Database:
    """A study and its trials on a server that serves one call after another."""

    study_name = "lr-rank"

    def __init__(self, world: World, call_ms: float) -> None:
        self._world, self._call_s = world, call_ms / 1000
        self._attrs, self.trials, self._free_at = {}, [], 0.0
        self.n_calls, self._away_until = 0, 0.0

    def _call(self, cost: float = 1.0) -> None:
        self.n_calls += 1
        began = self._world.now
        self._free_at = max(self._free_at, began) + cost * self._call_s
        self._world.sleep(self._free_at - began)

    def is_away_until(self, time: float) -> None:
        """Answer no call before a time."""
        self._free_at = self._away_until = max(self._free_at, time)

    def busy(self, seconds: float) -> float:
        """The share of a time that the calls so far take."""
        return self.n_calls * self._call_s / seconds

    @property
    def user_attrs(self) -> dict[str, object]:
        self._call()
        return dict(self._attrs)

    def set_user_attr(self, key: str, value: object) -> None:
        self._call()
        self._attrs[key] = value

    def get_trials(self, deepcopy: bool = True) -> list[SimpleNamespace]:
        self._call()
        return list(self.trials)

    @property
    def _storage(self) -> "Database":
        return self

    def set_trial_user_attr(self, trial_id: int, key: str, value: object) -> None:
        if self._world.now < self._away_until:
            return  # a lease's thread does not wait: it raises the counter the next time
        self._call()
        trial = self.trials[trial_id]
        self.trials[trial_id] = SimpleNamespace(
            **{**vars(trial), "user_attrs": {**trial.user_attrs, key: value}}
        )

    def add_running(self, host: str) -> int:
        """Have a host run a new trial; give its number."""
        number, owner = len(self.trials), {"host": host, "machine": host, "boot": "", "pid": 1}
        attrs = {WORKER: owner, LEASE: None}
        self.trials.append(
            SimpleNamespace(
                number=number, _trial_id=number, state=TrialState.RUNNING, user_attrs=attrs
            )
        )
        return number


def make_world(call_ms: float) -> tuple[World, Database]:
    """A world in whose time `leases` runs, and its database."""
    world = World()
    leases.time = SimpleNamespace(monotonic=world.clock, sleep=world.sleep)
    leases.threading = world.threads()
    leases.Watched.__init__.__defaults__ = (world.clock,)
    return world, Database(world, call_ms)


def counters(n_hosts: int, call_ms: float, outage_s: float = 0.0) -> list[str]:
    """All hosts train, and a tenth dies: after how long are their trials freed, and only theirs?

    Args:
        outage_s: The database does not answer for so long, at the time of their death.
    """
    world, database = make_world(call_ms)
    dies_at, freed = 300.0, {}
    n_dying = max(1, n_hosts // 10)

    def host(number: int):
        def run() -> None:
            lives_s = dies_at if number < n_dying else 1e9
            while world.now < lives_s:
                database.set_trial_user_attr(number, LEASE, world.now)
                world.sleep(leases.raise_s())

        return run

    def supervisor() -> None:
        watched = leases.Watched(world.clock)
        while True:
            for number in watched.look(leases.elsewhere(database.get_trials())):
                freed.setdefault(number, world.now - dies_at)
            world.sleep(_LOOK_S)

    for number in range(n_hosts):
        database.add_running(f"host-{number}")
        world.spawn(host(number), world.random.uniform(0.0, leases.raise_s()))
    world.spawn(supervisor)
    world.run(dies_at)
    database.is_away_until(dies_at + outage_s)
    world.run(dies_at + outage_s + 300.0)
    lost = sorted(freed.keys() - set(range(n_dying)))
    assert not lost, f"{len(lost)} living hosts lost their trials"
    assert len(freed) == n_dying
    return [f"{max(freed.values()):.0f} s", f"{database.busy(world.now):.1%}"]


def starts(n_hosts: int, call_ms: float, *, after_death: bool) -> list[str]:
    """All hosts start the same study within a second: how many lead, and when is it one?"""
    world, database = make_world(call_ms)
    lead, refused, most, one_since = set(), set(), 0, 0.0
    if after_death:
        dead = {"host": "old", "machine": "old", "boot": "", "pid": 1}
        database._attrs[SUPERVISOR] = {**dead, "by": "0", "n": 7}

    def host(number: int):
        def run() -> None:
            nonlocal most, one_since
            leases.identity = lambda pid=None: {
                "host": f"host-{number}",
                "machine": f"{number}",
                "boot": "",
                "pid": 1,
            }
            try:
                with leases.leading(database, "hawsweep worker lr-rank", lambda _: None) as lost:
                    lead.add(number)
                    most = max(most, len(lead))
                    while not lost.is_set():
                        world.sleep(1.0)
                    lead.remove(number)
                    refused.add(number)
                    one_since = world.now
            except StudyBusyError:
                refused.add(number)

        return run

    known = leases.identity
    try:
        for number in range(n_hosts):
            world.spawn(host(number), world.random.uniform(0.0, 1.0))
        world.run(900.0)
    finally:
        leases.identity = known
    assert len(lead) == 1, f"{len(lead)} lead"
    assert len(refused) == n_hosts - 1
    return [f"{most}", f"{one_since:.0f} s" if most > 1 else "at once"]


def turns(n_hosts: int, call_ms: float, ask_s: float, *, one_dies: bool = False) -> list[str]:
    """All hosts ask for a trial at once: one at a time, and when has the last one asked?"""
    world, database = make_world(call_ms)
    inside, done = set(), []

    def host(number: int):
        def run() -> None:
            for _ in range(2 if one_dies else 1):
                with leases.turn(database, f"{number:04d}"):
                    assert not inside, f"{number} asks beside {inside}"
                    if one_dies and number == 0:
                        world.kill()
                    inside.add(number)
                    world.sleep(ask_s)
                    inside.remove(number)
                done.append(world.now)

        return run

    for number in range(n_hosts):
        world.spawn(host(number))
    world.run(20_000.0)
    expected = 2 * (n_hosts - 1) if one_dies else n_hosts
    assert len(done) == expected, f"{len(done)} of {expected} have asked"
    last = done[-1]
    return [f"{last:.0f} s", f"{last / len(done):.2f} s", f"{database.busy(last):.0%}"]


def _table(title: str, heads: list[str], rows: list[list[str]]) -> None:
    print(f"\n{title}")
    widths = [max(len(row[n]) for row in [heads, *rows]) for n in range(len(heads))]
    for row in [heads, *rows]:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def main() -> None:
    """Print a table for each kind of load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--most-asking", type=int, default=300)
    parser.add_argument("--call-ms", type=float, default=1.0)
    parser.add_argument("--ask-s", type=float, default=0.3)
    asked = parser.parse_args()
    ms = asked.call_ms
    _table(
        f"A tenth of the hosts dies (a call takes {ms:g} ms)",
        ["hosts", "freed within", "database busy"],
        [[str(n), *counters(n, ms)] for n in asked.hosts],
    )
    rows = [[str(s), *counters(asked.hosts[0], ms, s)] for s in (10.0, 50.0, 90.0, 110.0, 200.0)]
    _table("... while the database is away", ["seconds", "freed within", "database busy"], rows)
    for title, after_death in (("All start within a second", False), ("... a host died", True)):
        rows = [[str(n), *starts(n, ms, after_death=after_death)] for n in asked.hosts]
        _table(title, ["hosts", "lead at most", "one leads from"], rows)
    few = [n for n in asked.hosts if n <= asked.most_asking]
    heads = ["hosts", "last after", "for each", "database busy"]
    rows = [[str(n), *turns(n, ms, asked.ask_s)] for n in few]
    _table(f"All ask at once, each for {asked.ask_s:g} s", heads, rows)
    rows = [[str(n), *turns(n, ms, asked.ask_s, one_dies=True)] for n in few[:1]]
    _table("... twice, and one dies in its first turn", heads, rows)


if __name__ == "__main__":
    main()
