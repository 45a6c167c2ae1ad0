import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from hawsweep.errors import SpecError
from hawsweep.machine import backend, memory
from hawsweep.machine.memory import Machine, find_budget, this_machine
from hawsweep.spec.read import read_sweep
from hawsweep.units import parse_share, parse_size

GB = 10**9
PLAIN = Machine(25 * GB, 20 * GB)
CONTAINER = Machine(256 * GB, 5 * GB, limit_bytes=8 * GB)
MAC = Machine(128 * GB, 100 * GB, gpu_bytes=90 * GB)
BUSY_MAC = Machine(128 * GB, 60 * GB, gpu_bytes=90 * GB)
HUGE = "9223372036854771712"  # v1's way to say that there is no limit


@pytest.fixture
def sweep(tmp_path):
    def write(given):
        path = tmp_path / "try.yaml"
        path.write_text(
            "model: some/model\ndata: phrasebook\nsearch: {iters: {low: 1, high: 2}}\n"
            f"memory: {given}\n"
        )
        return path

    return write


@pytest.fixture
def on(monkeypatch):
    """Make this a machine of 64 GB, 60 of them available."""

    def pretend(system):
        monkeypatch.setattr(memory.platform, "system", lambda: system)
        ram = SimpleNamespace(total=64 * GB, available=60 * GB)
        monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: ram)

    return pretend


@pytest.fixture
def linux(on, tmp_path):
    """``this_machine`` on Linux, with these lines in /proc/self/cgroup and these files below
    /sys/fs/cgroup.
    """
    on("Linux")

    def look(cgroup, files, cpuinfo=""):
        contents = {"proc/self/cgroup": cgroup, "proc/cpuinfo": cpuinfo}
        contents |= {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
        for name, text in contents.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        return this_machine(tmp_path / "proc", tmp_path / "sys")

    return look


def v2(folder, limit, current=0, inactive_file=0):
    return {
        f"{folder}memory.max": limit,
        f"{folder}memory.current": current,
        f"{folder}memory.stat": f"anon 1\nactive_file 7\ninactive_file {inactive_file}",
    }


def v1(folder, limit, usage=0, inactive_file=0):
    return {
        f"memory/{folder}memory.limit_in_bytes": limit,
        f"memory/{folder}memory.usage_in_bytes": usage,
        f"memory/{folder}memory.stat": f"inactive_file 7\ntotal_inactive_file {inactive_file}",
    }


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GB", 24 * 10**9),
        ("24GiB", 24 * 2**30),
        ("500MB", 500 * 10**6),
        ("512MiB", 512 * 2**20),
        ("1.5GB", 1_500_000_000),
        ("0.7GB", 700_000_000),
        ("4.1GB", 4_100_000_000),  # as a float it would lose a byte
    ],
)
def test_size_is_in_bytes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["24", 24, 24e9, "GB", "24G", "24 GB", "24gb", "75%", "", None])
def test_size_of_unknown_form_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="must be a size such as 24GB"):
        parse_size(text)


@pytest.mark.parametrize("text", ["0GB", "-1GB", "0.0000000001GB"])
def test_size_that_is_not_above_zero_is_refused(text):
    with pytest.raises(ValueError, match="must be above 0"):
        parse_size(text)


@pytest.mark.parametrize(("text", "share"), [("75%", 0.75), ("12.5%", 0.125), ("100%", 1.0)])
def test_share_is_of_one(text, share):
    assert parse_share(text) == share


@pytest.mark.parametrize(
    ("machine", "asked", "reserve", "n_bytes", "how"),
    [
        (PLAIN, "auto", None, 18 * GB, "20.0 GB available of 25.0 GB, less a reserve of 10 %"),
        (PLAIN, "auto", "25%", 15 * GB, "20.0 GB available of 25.0 GB, less a reserve of 25 %"),
        (PLAIN, "auto", "2GB", 18 * GB, "20.0 GB available of 25.0 GB, less a reserve of 2.0 GB"),
        (PLAIN, "auto", "21GB", 0, "20.0 GB available of 25.0 GB, less a reserve of 21.0 GB"),
        (PLAIN, "80%", None, 20 * GB, "80 % of 25.0 GB"),
        (PLAIN, "90%", None, 22.5 * GB, "90 % of 25.0 GB, though only 20.0 GB are available"),
        (PLAIN, "80%", "5GB", 15 * GB, "80 % of 25.0 GB, less a reserve of 5.0 GB"),
        (PLAIN, "20GB", None, 20 * GB, "20.0 GB asked"),
        (PLAIN, "24GB", None, 24 * GB, "24.0 GB asked, though only 20.0 GB are available"),
        (PLAIN, "24GB", "4GB", 20 * GB, "24.0 GB asked, less a reserve of 4.0 GB"),
        (PLAIN, "10GB", "20%", 8 * GB, "10.0 GB asked, less a reserve of 20 %"),
        (
            CONTAINER,
            "auto",
            None,
            4.5 * GB,
            "5.0 GB available of 8.0 GB that the cgroup allows, less a reserve of 10 %",
        ),
        (CONTAINER, "50%", None, 4 * GB, "50 % of 8.0 GB that the cgroup allows"),
        (CONTAINER, "6GB", None, 6 * GB, "6.0 GB asked, though only 5.0 GB are available"),
        (
            MAC,
            "auto",
            None,
            81 * GB,
            "the GPU may take 90.0 GB, 100.0 GB are free, less a reserve of 10 %",
        ),
        (
            BUSY_MAC,
            "auto",
            "6GB",
            54 * GB,
            "the GPU may take 90.0 GB, 60.0 GB are free, less a reserve of 6.0 GB",
        ),
        (MAC, "50%", None, 64 * GB, "50 % of 128.0 GB"),
        (MAC, "70.3125%", None, 90 * GB, "70.3125 % of 128.0 GB"),
        (MAC, "75%", None, 90 * GB, "75 % of 128.0 GB, but the GPU may take only 90.0 GB"),
        (MAC, "90GB", None, 90 * GB, "90.0 GB asked"),
        (MAC, "95GB", None, 95 * GB, "95.0 GB asked, though the GPU may take only 90.0 GB"),
        (BUSY_MAC, "95GB", None, 95 * GB, "95.0 GB asked, though only 60.0 GB are available"),
        (
            BUSY_MAC,
            "75%",
            None,
            90 * GB,
            "75 % of 128.0 GB, but the GPU may take only 90.0 GB, though only 60.0 GB are "
            "available",
        ),
    ],
)
def test_budget_says_how_it_came_about(machine, asked, reserve, n_bytes, how):
    budget = find_budget(asked, reserve, machine=machine)
    assert (budget.total_bytes, budget.how) == (n_bytes, how)


@pytest.mark.parametrize(
    ("cgroup", "files", "limit", "available"),
    [
        ("0::/", {}, None, 60 * GB),
        ("0::/", v2("", "max"), None, 60 * GB),
        ("0::/", v2("", 8 * GB, 3 * GB), 8 * GB, 5 * GB),
        ("0::/", v2("", 8 * GB, 3 * GB, GB), 8 * GB, 6 * GB),
        ("0::/", v2("", 2 * GB, 3 * GB), 2 * GB, 0),
        ("0::/", v2("", 62 * GB), 62 * GB, 60 * GB),
        ("0::/", v2("", 65 * GB, 64 * GB), None, 60 * GB),
        (
            "0::/pods/a/main",
            v2("pods/a/main/", "max", GB) | v2("pods/a/", 9 * GB, 2 * GB) | v2("pods/", 30 * GB),
            9 * GB,
            7 * GB,
        ),
        (  # the lowest limit is not where least is free
            "0::/pods/a",
            v2("pods/a/", 9 * GB, GB) | v2("pods/", 30 * GB, 28 * GB),
            9 * GB,
            2 * GB,
        ),
        ("0::/pods/a", v2("pods/b/", GB), None, 60 * GB),
        ("0::/docker/of-the-host", v2("", 8 * GB, GB), 8 * GB, 7 * GB),
        ("0::/../elsewhere", v2("", 8 * GB, GB), 8 * GB, 7 * GB),
        ("0::/a:b", v2("a:b/", 8 * GB), 8 * GB, 8 * GB),
        ("5:cpu:/a\n4:memory:/a\n0::/", v1("a/", 8 * GB, 3 * GB, GB), 8 * GB, 6 * GB),
        ("4:cpu,memory:/a/b", v1("a/b/", HUGE) | v1("a/", 9 * GB, GB), 9 * GB, 8 * GB),
        ("4:memory:/a", v1("a/", HUGE, GB) | v1("", HUGE, GB), None, 60 * GB),
        ("4:memory:/docker/of-the-host", v1("", 8 * GB, GB), 8 * GB, 7 * GB),
    ],
)
def test_limits_of_cgroups_are_found(linux, cgroup, files, limit, available):
    machine = linux(cgroup, files)
    assert (machine.limit_bytes, machine.available_bytes) == (limit, available)
    assert (machine.total_bytes, machine.gpu_bytes) == (64 * GB, None)


def test_machine_without_proc_has_what_psutil_says(on, tmp_path):
    on("Linux")
    machine = this_machine(tmp_path, tmp_path)
    assert (machine.limit_bytes, machine.available_bytes) == (None, 60 * GB)


def test_processor_has_its_name_from_cpuinfo(linux):
    cpuinfo = "processor\t: 0\nmodel name\t: Fast: 3000\n\nprocessor\t: 1\nmodel name\t: Slow"
    assert linux("0::/", {}, cpuinfo).device == "Fast: 3000"


def test_mac_has_its_gpu_from_mlx_and_no_cgroups(on, monkeypatch, tmp_path):
    on("Darwin")
    monkeypatch.setattr(backend, "gpu_bytes", lambda: 48 * GB)
    monkeypatch.setattr(backend, "device_name", lambda: "Apple M9")
    machine = this_machine(tmp_path, tmp_path)
    assert machine == Machine(64 * GB, 60 * GB, gpu_bytes=48 * GB, device="Apple M9")


def test_cuda_has_the_free_memory_of_its_gpu_and_its_name(on, monkeypatch, tmp_path):
    on("Linux")
    monkeypatch.setattr(backend, "device_here", lambda: "cuda")
    info = {"free_memory": 20 * GB, "total_memory": 24 * GB, "device_name": "NVIDIA H200"}
    monkeypatch.setattr(backend, "_core", lambda: SimpleNamespace(device_info=lambda: info))
    machine = this_machine(tmp_path, tmp_path)
    assert machine == Machine(64 * GB, 60 * GB, gpu_bytes=20 * GB, device="NVIDIA H200")


@pytest.mark.parametrize("info", [{}, {"free_memory": 0}])
def test_gpu_that_is_full_or_does_not_tell_gets_no_budget_from_main_memory(
    on, monkeypatch, tmp_path, info
):
    on("Linux")
    monkeypatch.setattr(backend, "device_here", lambda: "cuda")
    monkeypatch.setattr(backend, "_core", lambda: SimpleNamespace(device_info=lambda: info))
    budget = find_budget(machine=this_machine(tmp_path, tmp_path))
    assert budget.total_bytes == 0
    assert budget.how.startswith("the GPU may take 0.0 GB, 60.0 GB are free")


@pytest.mark.parametrize(("total", "gpu"), [(36 * GB, 24 * GB), (64 * GB, 48 * GB)])
def test_mac_that_does_not_tell_its_working_set_is_taken_for_one_of_its_size(
    on, monkeypatch, tmp_path, total, gpu
):
    on("Darwin")
    ram = SimpleNamespace(total=total, available=total)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: ram)
    monkeypatch.setattr(backend, "_core", lambda: SimpleNamespace(device_info=dict))
    machine = this_machine(tmp_path, tmp_path)
    assert machine.gpu_bytes == gpu
    assert find_budget(machine=machine).total_bytes == 0.9 * gpu


def test_available_bytes_stay_under_the_limit_of_a_cgroup(linux, monkeypatch):
    container = linux("0::/", v2("", 8 * GB, 3 * GB))
    monkeypatch.setattr(memory, "this_machine", lambda: container)
    assert memory.available_bytes() == 4.5 * GB


@pytest.mark.skipif(sys.platform != "linux", reason="a Mac asks MLX about its GPU")
def test_looking_at_the_machine_does_not_import_mlx():
    code = """
import json, sys
from hawsweep.machine.memory import find_budget, this_machine
machine = this_machine()
names = [name for name in sys.modules if name.split(".")[0] == "mlx"]
print(json.dumps([find_budget(machine=machine).total_bytes, machine.total_bytes, names]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    budget, total, imported = json.loads(done.stdout)
    assert imported == []
    assert 0 < budget < total


@pytest.mark.parametrize(
    ("given", "budget", "reserve"),
    [
        ("{budget: auto}", "auto", None),
        ("{budget: 24GB}", "24GB", None),
        ("{budget: 1.5GiB, reserve: 512MiB}", "1.5GiB", "512MiB"),
        ("{budget: 75%, reserve: 2GB}", "75%", "2GB"),
        ("{budget: 2GB, reserve: 10%}", "2GB", "10%"),
        ("{reserve: 99%}", "auto", "99%"),
    ],
)
def test_budget_of_a_sweep_reads_back_as_it_was_given(sweep, tmp_path, given, budget, reserve):
    spec = read_sweep(sweep(given))
    assert (spec.memory.budget, spec.memory.reserve) == (budget, reserve)
    again = tmp_path / "again.yaml"
    again.write_text(spec.dump_yaml())
    assert read_sweep(again).memory == spec.memory
    assert type(spec).model_validate_json(spec.model_dump_json()).memory == spec.memory


BUDGET_FORM = "must be auto, a size such as 24GB or a share such as 75%."
RESERVE_FORM = "must be a size such as 2GB or a share such as 10%."


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ("{budget: 24000000000}", f"memory.budget is 24000000000, {BUDGET_FORM}"),
        ("{budget: '24'}", f"memory.budget is '24', {BUDGET_FORM}"),
        ("{budget: 2.4e10}", f"memory.budget is 24000000000.0, {BUDGET_FORM}"),
        ("{budget: .nan}", f"memory.budget is nan, {BUDGET_FORM}"),
        ("{budget: nan%}", f"memory.budget is 'nan%', {BUDGET_FORM}"),
        ("{budget: lots}", f"memory.budget is 'lots', {BUDGET_FORM}"),
        ("{budget: true}", f"memory.budget is True, {BUDGET_FORM}"),
        ("{budget: }", f"memory.budget is None, {BUDGET_FORM}"),
        ("{budget: [2GB]}", f"memory.budget is ['2GB'], {BUDGET_FORM}"),
        ("{budget: 0GB}", "memory.budget is '0GB', must be above 0."),
        ("{budget: -1GB}", "memory.budget is '-1GB', must be above 0."),
        ("{budget: 0%}", "memory.budget is '0%', must be above 0% and not above 100%."),
        ("{budget: -5%}", "memory.budget is '-5%', must be above 0% and not above 100%."),
        ("{budget: 101%}", "memory.budget is '101%', must be above 0% and not above 100%."),
        ("{reserve: auto}", f"memory.reserve is 'auto', {RESERVE_FORM}"),
        ("{reserve: 2}", f"memory.reserve is 2, {RESERVE_FORM}"),
        ("{reserve: 0MB}", "memory.reserve is '0MB', must be above 0."),
        ("{reserve: 100%}", "memory.reserve is '100%', must be below 100%, which leaves nothing."),
        (
            "{budget: 2GB, reserve: 2000MB}",
            "memory: reserve is 2000MB, must be below budget, which is 2GB.",
        ),
    ],
)
def test_budget_that_cannot_be_is_refused_with_what_may_be(sweep, given, fault):
    path = sweep(given)
    with pytest.raises(SpecError) as caught:
        read_sweep(path)
    assert str(caught.value) == f"{path}: {fault}"
