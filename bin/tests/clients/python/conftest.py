"""What py-consul's tests ask for: a server for each test, by name of a fixture."""

import collections
import os
import socket
import subprocess
import tempfile
import time

import pytest
import requests

Instance = collections.namedtuple("Instance", ["container", "port", "version"])


def free_port(wanted=0):
    """The wanted port if it is free, else any."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return free_port()
        return probe.getsockname()[1]


@pytest.fixture
def consul_instance():
    # Some of the tests register checks of what is at port 8500 of the server's own host: the server.
    port, raft = free_port(8500), free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = os.path.join(folder, "server.json")
        with open(config, "w", encoding="utf-8") as file:
            file.write('{"enable_script_checks": true, "server": true, "data_dir": "%s/data", "bootstrap": true,' % folder)
            file.write(' "node_name": "judge", "ports": {"http": %d, "server": %d, "serf_lan": -1}}' % (port, raft))
        with open(os.path.join(folder, "log"), "w", encoding="utf-8") as log:
            server = subprocess.Popen([os.environ["SDS_SERVER"], "-config", config], stderr=log)
        try:
            deadline = time.time() + 15
            while True:
                try:
                    if requests.get(f"http://127.0.0.1:{port}/v1/status/leader", timeout=2).json():
                        break
                except requests.RequestException:
                    pass
                assert time.time() < deadline, "the server did not start"
                time.sleep(0.05)
            version = requests.get(f"http://127.0.0.1:{port}/v1/agent/self", timeout=5).json()["Config"]["Version"]
            yield Instance(None, port, version)
        finally:
            server.kill()
            server.wait()


@pytest.fixture
def acl_consul_instance():
    pytest.skip("there are no access control lists")


@pytest.fixture
def consul_port(consul_instance):
    return consul_instance.port, consul_instance.version
