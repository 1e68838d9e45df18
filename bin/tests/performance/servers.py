"""Servers of both kinds as child processes, on ports of this machine and with data of their own."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

PATIENCE_S = 30.0


def free_port(taken=set()):
    """A port below those of outgoing connections, so that none of them takes it meanwhile."""
    for port in range(12_000 + os.getpid() % 10_000, 32_000):
        if port not in taken:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) != 0:
                    taken.add(port)
                    return port
    raise RuntimeError("no port is free")


def call(address, method, path, body=None, timeout=PATIENCE_S):
    """Sends one request on a connection of its own; gives the answer's JSON, None unless it is 200."""
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        content = answer.read()
        return json.loads(content or b"null") if answer.status == 200 else None
    finally:
        connection.close()


class Server:
    """One process. It can be killed and started again on its data."""

    def __init__(self, name, folder):
        self.name = name
        self.data = folder / name
        self.log = folder / f"{name}.log"
        self.address = f"127.0.0.1:{free_port()}"
        self.peer = f"127.0.0.1:{free_port()}"
        self.command = []
        self.process = None
        self.processor = None  # The only one that it may run on, if there is one.

    def start(self):
        pinned = [] if self.processor is None else ["taskset", "-c", str(self.processor)]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(pinned + self.command, stdout=log, stderr=log)

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()

    def memory(self):
        """Resident bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))

    def processor_seconds(self):
        """Time on processors of the threads that there are. Unlike time on the clock it does not depend on what else runs."""
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


class Cluster:
    """One or several servers of one kind on fresh data."""

    kind = ""

    def __init__(self, folder, size=1):
        self.folder = Path(folder) / self.kind
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.servers = [Server(f"{self.kind}{n}", self.folder) for n in range(1, size + 1)]
        self.prepare()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for server in self.servers:
            server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self):
        for server in self.servers:
            server.start()
        self.settle()
        return self

    def settle(self):
        """Waits until all servers take writes."""
        for server in self.servers:
            self.await_write(server)

    def await_write(self, server, pause_s=0.002):
        until = time.monotonic() + PATIENCE_S
        while not self.tries_to_write(server, PATIENCE_S):
            if server.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{server.name} takes no writes:\n{server.log.read_text()[-2000:]}")
            time.sleep(pause_s)

    def tries_to_write(self, server, timeout):
        try:
            return self.write(server, timeout) is not None
        except (OSError, http.client.HTTPException):
            return False

    def write_anywhere(self, servers):
        """Seconds until one of these servers took a write. Attempts begin every 20 ms at each: one may be lost."""
        done, begun, took = threading.Event(), time.monotonic(), []

        def attempt(server):
            if self.tries_to_write(server, 3.0):
                took.append(time.monotonic() - begun)
                done.set()

        while not done.wait(0.02):
            if time.monotonic() - begun > PATIENCE_S:
                raise RuntimeError("no server takes writes")
            for server in servers:
                threading.Thread(target=attempt, args=(server,), daemon=True).start()
        return min(took)

    def addresses(self):
        return ",".join(server.address for server in self.servers)


class Sider(Cluster):
    kind = "sider"
    program = "sds-server"

    def prepare(self):
        peers = [{"id": s.name, "raft_addr": s.peer, "http_addr": s.address} for s in self.servers]
        config = self.folder / "cluster.json"
        config.write_text(json.dumps({"peers": peers}))
        for server in self.servers:
            server.command = [
                self.program, "-http", server.address, "-raft-id", server.name, "-raft-bind", server.peer,
                "-raft-dir", str(server.data), "-log-level", "warn",
                f"-raft-bootstrap={'true' if server is self.servers[0] else 'false'}",
            ]  # fmt: skip
            if len(peers) > 1:
                server.command += ["-config", str(config)]

    def write(self, server, timeout):
        body = {"Name": "probe", "ID": "probe", "Address": "10.0.0.1", "Port": 1}
        return call(server.address, "PUT", "/v1/agent/service/register", body, timeout)

    def leader(self):
        peer = call(self.servers[0].address, "GET", "/v1/status/leader")
        return next(server for server in self.servers if server.peer == peer)

    @staticmethod
    def metrics(server):
        """What it counts, by name; those with labels are left out."""
        connection = http.client.HTTPConnection(server.address, timeout=PATIENCE_S)
        try:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        finally:
            connection.close()
        values = [line.split() for line in lines if line[:1] not in ("#", "") and "{" not in line]
        return {name: float(value) for name, value, *_ in values}


class Etcd(Cluster):
    kind = "etcd"
    program = "etcd"

    def prepare(self):
        cluster = ",".join(f"{server.name}=http://{server.peer}" for server in self.servers)
        for server in self.servers:
            server.command = [
                self.program, "--name", server.name, "--data-dir", str(server.data),
                "--listen-client-urls", f"http://{server.address}", "--advertise-client-urls", f"http://{server.address}",
                "--listen-peer-urls", f"http://{server.peer}", "--initial-advertise-peer-urls", f"http://{server.peer}",
                "--initial-cluster", cluster, "--quota-backend-bytes", str(8 << 30), "--log-level", "error",
            ]  # fmt: skip

    def write(self, server, timeout):
        return call(server.address, "POST", "/v3/kv/put", {"key": "cHJvYmU=", "value": "MQ=="}, timeout)

    def leader(self):
        for server in self.servers:
            status = call(server.address, "POST", "/v3/maintenance/status", {})
            if status["leader"] == status["header"]["member_id"]:
                return server
        raise RuntimeError("etcd has no leader")


class Watched:
    """What Sider's servers say of themselves while a load runs, and not after it: then nothing is renewed any more."""

    def __init__(self, servers):
        self.servers = servers
        self.most = 0  # Resident bytes of one of them.
        self.expired = 0  # Checks, at each of them.
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=watch) for watch in (self.watch_memory, self.watch_expiries)]

    def __enter__(self):
        self.before = self.count()
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def count(self):
        return sum(Sider.metrics(server)["sider_check_expired_total"] for server in self.servers)

    def watch_memory(self):
        while not self.ended.wait(0.1):
            self.most = max(self.most, *(server.memory() for server in self.servers))

    def watch_expiries(self):
        while not self.ended.wait(0.5):
            expired = self.count() - self.before
            if not self.ended.is_set():
                self.expired = expired
