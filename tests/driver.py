"""Runs a sweep and says each event in a line of JSON, so that a test may choose when to strike.

python driver.py FOLDER [join] [hold=KIND] [KEY=VALUE ...]: FOLDER has sweep.yaml and gets the
studies. At its first event of KIND the sweep waits until FOLDER has a file "go_on".
"""

import json
import sys
import time
from functools import partial
from pathlib import Path

from hawsweep.errors import HawsweepError
from hawsweep.running.start import join_sweep, run_sweep
from hawsweep.scoring import embedder_process
from hawsweep.spec.read import parse_override, read_sweep
from hawsweep.study.place import find_place


def tell(kind, **values):
    line = {"kind": kind, "time": time.monotonic(), **values}
    print(json.dumps(line, default=str), flush=True)


def listen(event, held=None, go_on=None):
    if event.kind not in ("tick", "alive"):
        tell(event.kind, worker=event.worker, values=event.values)
    while event.kind == held and not go_on.exists():
        time.sleep(0.01)


def main():
    embedder_process._COMMAND = (sys.executable, str(Path(__file__).with_name("fake_embedder.py")))
    folder, *changes = sys.argv[1:]
    folder, joins = Path(folder), "join" in changes
    overrides = dict(parse_override(change) for change in changes if change != "join")
    told = partial(listen, held=overrides.pop("hold", None), go_on=folder / "go_on")
    spec = read_sweep(folder / "sweep.yaml", overrides)
    place = find_place(folder / "studies")
    try:
        if joins:
            here = {key: Path(overrides[key]) for key in ("model", "data") if key in overrides}
            outcome = join_sweep("tiny", place, told, 1, **here)
        else:
            outcome = run_sweep(spec, "tiny", studies_dir=place.studies_dir, on_event=told)
    except HawsweepError as fault:
        tell("error", error=type(fault).__name__, message=str(fault))
        sys.exit(1)
    tell("ended", how=outcome.ended)


if __name__ == "__main__":
    main()
