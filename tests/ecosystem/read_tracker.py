"""What a tracker has kept, read by its own interface and printed as JSON.

python read_tracker.py trackio | mlflow | wandb     each run's group, config, text and values
python read_tracker.py trackio-ids | mlflow-ids     the ids of all runs
"""

import json
import os
import struct
import sys
from pathlib import Path


def trackio():
    from trackio.sqlite_storage import SQLiteStorage

    found = {}
    for name in SQLiteStorage.get_runs("hawsweep"):
        config = SQLiteStorage.get_run_config("hawsweep", name)
        values, text = {}, ""
        for row in SQLiteStorage.get_logs("hawsweep", name):
            step = row.pop("step")
            row.pop("timestamp")
            text = row.pop("verdict", {}).get("_value", text)
            for key, value in row.items():
                values.setdefault(key, []).append([step, value])
        found[name] = {"group": config["_Group"], "config": config, "text": text, "values": values}
    return found


def trackio_ids():
    from trackio.sqlite_storage import SQLiteStorage

    return [each["id"] for each in SQLiteStorage.get_run_records("hawsweep")]


def mlflow_runs(client):
    experiment = client.get_experiment_by_name("hawsweep")
    return client.search_runs([experiment.experiment_id])


def mlflow():
    from mlflow import MlflowClient

    client = MlflowClient()
    runs = mlflow_runs(client)
    names = {run.info.run_id: run.info.run_name for run in runs}
    found = {}
    for run in runs:
        values = {}
        for key in run.data.metrics:
            history = client.get_metric_history(run.info.run_id, key)
            values[key] = sorted([each.step, each.value] for each in history)
        tags = run.data.tags
        found[run.info.run_name] = {
            "group": names[tags.get("mlflow.parentRunId", run.info.run_id)],
            "config": run.data.params,
            "text": tags.get("mlflow.note.content", ""),
            "values": values,
        }
    return found


def mlflow_ids():
    from mlflow import MlflowClient

    return [run.info.run_id for run in mlflow_runs(MlflowClient())]


def records_of(path):
    """The records of a .wandb file: LevelDB's log format behind a header of seven bytes."""
    data, at, record = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def wandb():
    from wandb.proto.wandb_internal_pb2 import Record

    found, ids = {}, set()
    for path in sorted(Path(os.environ["WANDB_DIR"]).glob("wandb/offline-run-*/*.wandb")):
        name = ""
        for record in map(Record.FromString, records_of(path)):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                name = record.run.display_name
                ids.add((name, record.run.run_id))
                run = found.setdefault(name, {"text": "", "values": {}, "summary": {}})
                run["group"] = record.run.run_group
                run["text"] = record.run.notes or run["text"]
                config = {each.key: each.value_json for each in record.run.config.update}
                run["config"] = {key: json.loads(value) for key, value in config.items()}
            elif kind == "history":
                items = {
                    "/".join(each.nested_key) or each.key: json.loads(each.value_json)
                    for each in record.history.item
                }
                for key, value in items.items():
                    if not key.startswith("_"):
                        run["values"].setdefault(key, []).append([items["_step"], value])
            elif kind == "summary":
                items = {each.key: json.loads(each.value_json) for each in record.summary.update}
                run["summary"].update(items)
    assert len(ids) == len(found)  # those that went on have one id
    return found


if __name__ == "__main__":
    kinds = {"trackio": trackio, "mlflow": mlflow, "wandb": wandb}
    kinds |= {"trackio-ids": trackio_ids, "mlflow-ids": mlflow_ids}
    print(json.dumps(kinds[sys.argv[1]]()))
