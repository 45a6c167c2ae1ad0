"""Which hosts ``--hosts`` names, and how ssh is called for one."""

import json

import pytest

from hawsweep.errors import StudyError
from hawsweep.running.hosts import Host, read_hosts, ssh_command


def test_names_with_commas_between_them():
    assert read_hosts("studio-2, user@studio-3,studio-2,10.0.0.4") == (
        Host("studio-2", "studio-2"),
        Host("user@studio-3", "studio-3"),
        Host("10.0.0.4", "10.0.0.4"),
    )


def test_two_users_of_one_machine_keep_their_names():
    assert [each.name for each in read_hosts("a@studio,b@studio")] == ["a@studio", "b@studio"]


@pytest.mark.parametrize("is_in", [lambda hosts: hosts, lambda hosts: {"hosts": hosts, "envs": []}])
def test_a_file_of_mlx_launch(tmp_path, is_in):
    hosts = [
        {"ssh": "studio-2", "ips": ["10.0.0.2"], "rdma": [None, "rdma_en2"]},
        {"ssh": "me@studio-3", "ips": []},
    ]
    (tmp_path / "hosts.json").write_text(json.dumps(is_in(hosts)))
    found = read_hosts(str(tmp_path / "hosts.json"))
    assert [each.target for each in found] == ["studio-2", "me@studio-3"]


@pytest.mark.parametrize(
    "content", ["[]", "{}", '["studio-2"]', '[{"host": "a"}]', '{"hosts": 3}', '[{"ssh": null}]']
)
def test_a_file_of_another_shape_is_refused(tmp_path, content):
    (tmp_path / "hosts.json").write_text(content)
    with pytest.raises(StudyError, match=r"hosts.json is no file of hosts\. As for mlx\.launch"):
        read_hosts(str(tmp_path / "hosts.json"))


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(StudyError, match=r"hosts.json cannot be read.*: No such file"):
        read_hosts(str(tmp_path / "hosts.json"))
    (tmp_path / "hosts.json").write_text("studio-2")
    with pytest.raises(StudyError, match=r"hosts.json cannot be read.*: Expecting value"):
        read_hosts(str(tmp_path / "hosts.json"))


@pytest.mark.parametrize("text", ["-oProxyCommand=touch /tmp/x", "a,,b", "a b", "a;b", "$(a)", ""])
def test_what_is_no_host_is_refused(text):
    with pytest.raises(StudyError, match=r"^--hosts has .*, must be names as ssh knows them"):
        read_hosts(text)


def test_ssh_reaches_loopback_alone_and_takes_nothing_along():
    command = ssh_command(Host("user@studio-2", "studio-2"), {20001: 5001}, ["worker", "it's"])
    assert command[0] == "ssh"
    assert "-R127.0.0.1:20001:127.0.0.1:5001" in command
    assert {"-T", "-a", "-x", "-oBatchMode=yes", "-oExitOnForwardFailure=yes"} <= set(command)
    assert command[command.index("--") + 1] == "user@studio-2"
    assert command[-1].startswith("exec sh -c ")
    assert command[-1].endswith("""worker 'it'"'"'s'""")
