"""The archive of a trial's folder: what is in it, and what of a hostile one is refused."""

import hashlib
import io
import os
import tarfile

import optuna
import pytest

from hawsweep.errors import TravelError
from hawsweep.study import travel
from hawsweep.study.attributes import ARTIFACT, ARTIFACTS
from hawsweep.study.place import Place

FILES = {
    "adapters/adapters.safetensors": os.urandom(3000),
    "checkpoints/0000020/adapters.safetensors": b"kept",
    "metrics.jsonl": b"{}\n",
    "state.safetensors": b"state",
}


def first(study):
    return study.get_trials()[0]


class Machines:
    """Two machines' folders of studies, a study in one database, and the store of its files."""

    def __init__(self, folder):
        self.there, self.here = Place(folder / "there"), Place(folder / "here")
        self.store = folder / "store"
        self.store.mkdir()
        self.study = optuna.create_study(study_name="s", direction="maximize")
        self.study.set_user_attr(ARTIFACTS, str(self.store))
        self.study.ask()

    def write(self, files=FILES):
        for name, content in files.items():
            path = self.there.trial_dir("s", 0) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def files(self, place):
        folder = place.trial_dir("s", 0)
        paths = (path for path in folder.rglob("*") if path.is_file())
        found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        return {name: found[name] for name in found if name != "archive.sha256"}

    @property
    def artifact(self):
        return self.study.get_trials()[0].user_attrs.get(ARTIFACT)

    def place_archive(self, content, **changes):
        """Have the database and the store name another archive: whoever writes both can."""
        (self.store / "x.tar").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        named = {"id": "x.tar", "sha256": digest, "bytes": len(content), **changes}
        self.study._storage.set_trial_user_attr(0, ARTIFACT, named)

    def refused(self, said):
        """Fetching is refused in one sentence, and the folder here is as it was."""
        before = self.files(self.here)
        with pytest.raises(TravelError, match=said) as fault:
            travel.fetch(self.study, self.here, first(self.study))
        assert "\n" not in str(fault.value)
        assert str(fault.value).startswith("The files of trial 0 cannot be fetched from the store ")
        assert self.files(self.here) == before
        assert list(self.here.study_dir("s").rglob("~*")) == []
        assert not (self.here.studies_dir.parent / "outside").exists()


@pytest.fixture
def machines(tmp_path):
    return Machines(tmp_path)


def tar_of(*members):
    """An archive with these names, or ``TarInfo``, each with 4 bytes."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for member in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = 4 if info.type == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"text"))
    return content.getvalue()


def special(kind, target=""):
    info = tarfile.TarInfo("adapters/adapters.safetensors")
    info.type, info.linkname = kind, target
    return info


def test_files_arrive_as_they_were_put(machines):
    machines.write({**FILES, "~123-state.safetensors": b"half"})
    (machines.there.trial_dir("s", 0) / "link").symlink_to("/etc/passwd")
    travel.put(machines.study, machines.there, 0)
    said = []
    assert travel.fetch(machines.study, machines.here, first(machines.study), said.append)
    assert machines.files(machines.here) == FILES
    size = machines.artifact["bytes"]
    store = machines.store
    assert said == [f"fetching the files of trial 0, {size / 1e6:.1f} MB, from {store}"]
    assert not travel.fetch(
        machines.study, machines.here, first(machines.study), said.append
    )  # it is here
    assert not travel.fetch(
        machines.study, machines.there, first(machines.study), said.append
    )  # it was made there


def test_an_archive_of_the_same_files_has_the_same_hash(machines):
    machines.write()
    travel.put(machines.study, machines.there, 0)
    first = machines.artifact
    for path in machines.there.trial_dir("s", 0).rglob("*"):
        os.utime(path, (1, 1))
    travel.put(machines.study, machines.there, 0)
    assert machines.artifact["sha256"] == first["sha256"]
    assert machines.artifact["id"] != first["id"]
    assert [path.name for path in machines.store.iterdir()] == [machines.artifact["id"]]


def test_without_bulk_small_files_travel(machines):
    machines.write()
    travel.put(machines.study, machines.there, 0, bulk=False)
    travel.fetch(machines.study, machines.here, first(machines.study))
    assert machines.files(machines.here) == {"metrics.jsonl": b"{}\n"}


def test_a_newer_archive_takes_the_place_of_an_older_folder(machines):
    machines.write()
    travel.put(machines.study, machines.there, 0)
    travel.fetch(machines.study, machines.here, first(machines.study))
    machines.write({"state.safetensors": b"further"})
    travel.put(machines.study, machines.there, 0)
    assert travel.fetch(machines.study, machines.here, first(machines.study))
    assert machines.files(machines.here) == {**FILES, "state.safetensors": b"further"}


def test_ended_trials_are_fetched_once(machines):
    machines.write()
    travel.put(machines.study, machines.there, 0)
    assert travel.fetch_ended(machines.study, machines.here) == 0  # it runs
    machines.study.tell(0, 0.5)
    assert travel.fetch_ended(machines.study, machines.here, {1}) == 0
    assert travel.fetch_ended(machines.study, machines.here) == 1
    assert travel.fetch_ended(machines.study, machines.here) == 0


def test_a_removed_archive_is_not_fetched(machines):
    machines.write()
    travel.put(machines.study, machines.there, 0)
    travel.remove(machines.study, machines.here, first(machines.study))
    assert list(machines.store.iterdir()) == []
    assert not travel.fetch(machines.study, machines.here, first(machines.study))
    travel.remove(machines.study, machines.here, first(machines.study))  # again


def test_confirming_runs_travel_to_their_own_folder(machines):
    study = optuna.create_study(study_name="s.confirm", direction="maximize")
    study.set_user_attr(ARTIFACTS, str(machines.store))
    study.ask()
    folder = machines.there.confirm_dir("s", 0)
    folder.mkdir(parents=True)
    (folder / "samples.jsonl").write_text("{}")
    travel.put(study, machines.there, 0)
    said = []
    assert travel.fetch(study, machines.here, first(study), said.append)
    assert (machines.here.confirm_dir("s", 0) / "samples.jsonl").read_text() == "{}"
    assert "the confirming run 0" in said[0]


def test_without_a_store_files_stay(machines):
    machines.study.set_user_attr(ARTIFACTS, None)
    machines.write()
    travel.put(machines.study, machines.there, 0)
    assert machines.artifact is None
    assert not travel.fetch(machines.study, machines.here, first(machines.study))


@pytest.mark.parametrize(
    "name",
    ["../outside", "adapters/../../../outside", "/tmp/outside", "..", ".", "archive.sha256"],
)
def test_an_archive_with_a_path_outwards_is_refused(machines, name):
    machines.place_archive(tar_of("metrics.jsonl", name))
    machines.refused("a path out of the trial's folder")


@pytest.mark.parametrize(
    "member",
    [
        special(tarfile.SYMTYPE, "/etc/passwd"),
        special(tarfile.LNKTYPE, "metrics.jsonl"),
        special(tarfile.FIFOTYPE),
        special(tarfile.CHRTYPE),
        special(tarfile.BLKTYPE),
        special(tarfile.DIRTYPE),
        special(tarfile.GNUTYPE_SPARSE),
    ],
    ids=lambda member: member.type.decode(),
)
def test_an_archive_of_other_than_regular_files_is_refused(machines, member):
    machines.place_archive(tar_of("metrics.jsonl", member))
    machines.refused("which is not a regular file")


def test_a_file_through_a_file_and_a_name_twice_are_refused(machines):
    machines.place_archive(tar_of("a", "a/b"))
    machines.refused("exists")
    machines.place_archive(tar_of("a", "a"))
    machines.refused("exists")


def test_an_archive_with_another_hash_is_refused(machines):
    machines.write()
    travel.put(machines.study, machines.there, 0)
    path = machines.store / machines.artifact["id"]
    content = bytearray(path.read_bytes())
    content[600] ^= 1
    path.write_bytes(content)
    machines.refused("has another hash")


def test_an_archive_larger_than_was_put_is_refused(machines):
    good = tar_of("metrics.jsonl")
    machines.place_archive(good, bytes=len(good) - 1)
    machines.refused("is larger than")


def test_a_truncated_archive_is_refused(machines):
    good = tar_of("metrics.jsonl")
    machines.place_archive(good, bytes=len(good) + 1)
    machines.refused(f"of {len(good) + 1} bytes {len(good)} came")
    machines.place_archive(good[:515])  # also where the hash is of the truncated one
    machines.refused("unexpected end of data")


def test_files_that_unpack_to_more_are_refused(machines):
    huge = tarfile.TarInfo("adapters/adapters.safetensors")
    huge.size = 10**12
    machines.place_archive(huge.tobuf() + bytes(1024))
    machines.refused("larger than its")


def test_an_archive_with_no_room_for_it_is_refused(machines):
    machines.place_archive(tar_of("metrics.jsonl"), bytes=10**18)
    machines.refused("GB free")


@pytest.mark.parametrize(
    "changes", [{"id": "../x.tar"}, {"id": 3}, {"sha256": "0"}, {"bytes": -1}, {"more": 1}]
)
def test_an_attribute_of_another_shape_is_refused(machines, changes):
    machines.place_archive(tar_of("metrics.jsonl"), **changes)
    machines.refused("is not one of hawsweep")
    travel.remove(machines.study, machines.here, first(machines.study))
    assert (machines.store / "x.tar").exists()


def test_a_store_that_refuses_loses_nothing(machines):
    machines.write()
    travel.put(machines.study, machines.there, 0)
    machines.store.rename(machines.store.with_name("elsewhere"))
    with pytest.raises(TravelError, match=r"mount it\. The files of trial 0 stay where they are\."):
        travel.put(machines.study, machines.there, 0)
    assert machines.files(machines.there) == FILES
    assert machines.artifact is None  # what it named is not of these files


def test_a_store_that_fails_for_a_while_is_asked_again(machines, monkeypatch):
    machines.write()
    faults = [ConnectionError("gone"), TimeoutError("slow")]
    write = travel.open_store("/", machines.there.studies_dir).__class__.write

    def failing(self, *args):
        if faults:
            raise faults.pop(0)
        write(self, *args)

    monkeypatch.setattr("hawsweep.study.artifact_clients.Folder.write", failing)
    monkeypatch.setattr(travel.time, "sleep", lambda _: None)
    travel.put(machines.study, machines.there, 0, waiting=lambda: True)
    assert faults == []
    assert travel.fetch(machines.study, machines.here, first(machines.study))


def test_archive_of_a_trial_that_ended_meanwhile_does_not_stay(machines, monkeypatch):
    machines.write()
    write = travel.open_store("/", machines.there.studies_dir).__class__.write

    def slow(self, *args):
        write(self, *args)
        machines.study.tell(0, state=optuna.trial.TrialState.FAIL)

    monkeypatch.setattr("hawsweep.study.artifact_clients.Folder.write", slow)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        travel.put(machines.study, machines.there, 0)
    assert list(machines.store.iterdir()) == []


def test_who_must_stop_waits_for_no_network(machines, monkeypatch):
    machines.write()

    def failing(*_):
        raise ConnectionError("gone")

    monkeypatch.setattr("hawsweep.study.artifact_clients.Folder.write", failing)
    with pytest.raises(TravelError, match=r"gone\. They stay where they are"):
        travel.put(machines.study, machines.there, 0, waiting=lambda: False)
