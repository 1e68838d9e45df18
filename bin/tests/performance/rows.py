"""What is measured: each row gives pairs of figures, etcd's and Sider's, taken in turn."""

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import Callable

from programs import generate
from servers import Etcd, Sider, free_port

KINDS = (Sider, Etcd)


@dataclass
class Settings:
    """How much is measured."""

    generator: str
    folder: str
    runs: int = 3
    seconds: float = 5.0
    watchers: int = 5_000
    written: int = 200_000
    kills: int = 20


@dataclass
class Row:
    """One line of the table. `goal` is a factor over etcd, or the figure itself if `absolute`."""

    name: str
    unit: str
    goal: float
    absolute: bool = False
    more_is_better: bool = True


def load(settings, cluster, kind, address=None, **flags):
    """One run of the generator."""
    proto = "etcd" if cluster.kind == "etcd" else "http"
    address = address or cluster.servers[0].address
    return generate(settings.generator, kind, address, **{"proto": proto, "d": f"{settings.seconds}s", **flags})


def in_turn(settings, clusters, measure, runs=None):
    """A B A B …: gives [[Sider's, etcd's], …]."""
    return [[measure(cluster, run) for cluster in clusters] for run in range(runs or settings.runs)]


def rates(settings, row, kind, size, leader=False, **flags):
    """A row of one kind of load."""
    with Sider(settings.folder, size) as sider, Etcd(settings.folder, size) as etcd:
        clusters = [sider.start(), etcd.start()]

        def measure(cluster, run):
            address = cluster.leader().address if leader else cluster.addresses()
            return load(settings, cluster, kind, address, prefix=f"r{run}", **flags)["rate"]

        yield row, in_turn(settings, clusters, measure)


def registrations(settings, size, factor):
    for connections in (1, 16, 64, 256):
        name = f"registrations, {size} server{'s' if size > 1 else ''}, {connections} connections"
        yield from rates(settings, Row(name, "1/s", factor), "register", size, leader=True, c=connections)


def leases(settings):
    row = Row("lease (or TTL check) and key together, 64 connections", "1/s", 3)
    yield from rates(settings, row, "lease", 1, c=64)


def queries(settings):
    for number, factor in ((10, 2), (100, 4)):
        row = Row(f"query of {number}, linearizable, 64 connections, 1 server", "1/s", factor)
        yield from rates(settings, row, "query", 1, c=64, n=number)


def queries_of_three(settings):
    for word, factor, stale in (("linearizable", 3, False), ("stale", 2, True)):
        row = Row(f"query of 10, {word}, 64 connections, 3 servers", "1/s", factor)
        yield from rates(settings, row, "query", 3, c=64, n=10, stale=str(stale).lower())


def renewals(settings):
    yield from rates(settings, Row("renewals, 64 connections (etcd: a stream each)", "1/s", 1), "renew", 1, c=64, n=1000)
    row = Row("renewals, batches of 100", "1/s", 3)
    with Sider(settings.folder) as sider, Etcd(settings.folder) as etcd:
        clusters = [sider.start(), etcd.start()]

        def measure(cluster, run):
            batch = 100 if cluster is sider else 1
            return load(settings, cluster, "renew", c=64, n=1000, prefix=f"r{run}", batch=batch)["rate"]

        yield row, in_turn(settings, clusters, measure)


def watchers(settings):
    memory = Row("memory per parked watch, one connection each", "bytes", 8 * 1024, absolute=True, more_is_better=False)
    again = Row("the same after three wakes", "bytes", 8 * 1024, absolute=True, more_is_better=False)
    wake = Row(f"last of {settings.watchers} watchers woken (etcd: shared streams)", "ms", 34, absolute=True, more_is_better=False)
    pairs = []
    for _ in range(settings.runs):
        figures = []
        for kind in KINDS:
            with kind(settings.folder) as cluster:
                cluster.start()
                n, pid = settings.watchers, cluster.servers[0].process.pid
                alone = load(settings, cluster, "watch", c=n, n=n, pid=pid, rounds=3)
                shared = load(settings, cluster, "watch", c=16, n=n, rounds=3) if kind is Etcd else alone
                last = sorted(shared["last_ms"])[1]
                figures.append((alone["bytes_per_watch"], alone["bytes_per_watch_again"], last))
        pairs.append(figures)
    for place, row in enumerate((memory, again, wake)):
        yield row, [[figure[place] for figure in figures] for figures in pairs]


def starts(settings):
    first = Row("first write after a fresh start", "ms", 60, absolute=True, more_is_better=False)
    idle = Row("memory, idle server", "MB", 15, absolute=True, more_is_better=False)
    pairs, memory = [], []
    for _ in range(settings.runs):
        took, resident = [], []
        for kind in KINDS:
            with kind(settings.folder) as cluster:
                server, begun = cluster.servers[0], time.monotonic()
                server.start()
                cluster.await_write(server)
                took.append(1000 * (time.monotonic() - begun))
                time.sleep(3)
                resident.append(server.memory() / 1e6)
        pairs.append(took)
        memory.append(resident)
    yield first, pairs
    yield idle, memory


def recovery(settings):
    n = settings.written
    restart = Row(f"first write after kill -9 with {n} writes", "ms", 500, absolute=True, more_is_better=False)
    memory = Row(f"memory with {n} instances", "MB", 250, absolute=True, more_is_better=False)
    with Sider(settings.folder) as sider, Etcd(settings.folder) as etcd:
        clusters = [sider.start(), etcd.start()]
        for cluster in clusters:
            load(settings, cluster, "register", c=256, count=n, services=1000)
        resident = [cluster.servers[0].memory() / 1e6 for cluster in clusters]

        def measure(cluster, _):
            server = cluster.servers[0]
            server.kill()
            begun = time.monotonic()
            server.start()
            cluster.await_write(server)
            return 1000 * (time.monotonic() - begun)

        yield restart, in_turn(settings, clusters, measure)
        yield memory, [resident]


def failover(settings):
    median = Row("leader killed → next write, 3 servers", "ms", 500, absolute=True, more_is_better=False)
    with Sider(settings.folder, 3) as sider, Etcd(settings.folder, 3) as etcd:
        clusters = [sider.start(), etcd.start()]

        def measure(cluster, _):
            leader = cluster.leader()
            leader.kill()
            took = cluster.write_anywhere([server for server in cluster.servers if server is not leader])
            leader.start()
            cluster.settle()
            time.sleep(1)
            return 1000 * took

        yield median, in_turn(settings, clusters, measure, settings.kills)


def drive(settings, url):
    """Requests per second of a generator that costs less than ours; of a program for GET alone."""
    command = ["wrk", "-t1", "-c64", f"-d{settings.seconds:.0f}s", url]
    answers = [subprocess.run(command, capture_output=True, text=True).stdout for _ in range(settings.runs)]
    rates = [float(line.split()[1]) for answer in answers for line in answer.splitlines() if line.startswith("Requests/sec")]
    return sorted(rates)[len(rates) // 2]


def floor(settings):
    """What the disk and the loopback can do. Without etcd: printed, and no row of the table."""
    path = os.path.join(settings.folder, "floor")
    for _ in range(settings.runs):
        with open(path, "wb", buffering=0) as file:
            count, begun = 0, time.monotonic()
            while time.monotonic() - begun < settings.seconds / 2:
                file.write(b"x" * 512)
                os.fdatasync(file.fileno())
                count += 1
            print(f"fdatasync of 512 appended bytes: {count / (time.monotonic() - begun):.0f} 1/s", flush=True)
    os.remove(path)
    bare = os.path.join(os.path.dirname(Sider.program), "examples", "bare")
    if not shutil.which("wrk") or not os.path.exists(bare):
        print(f"the loopback's floor needs wrk and {bare} (cargo build --release -p sider --example bare)")
        return
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen([bare, address])
    try:
        time.sleep(0.5)
        most = {number: drive(settings, f"http://{address}/{number}") for number in (10, 100)}
    finally:
        process.kill()
        process.wait()
    with Sider(settings.folder) as sider:
        sider.start()
        for number in (10, 100):
            load(settings, sider, "query", n=number, prefix=f"f{number}", c=1, d="10ms")
            rate = drive(settings, f"http://{sider.addresses()}/v1/health/service/prepared-f{number}?passing=1")
            share = f"{rate:.0f} of {most[number]:.0f} 1/s of a bare server: {rate / most[number]:.0%}"
            print(f"linearizable query of {number}, driven by wrk: {share}", flush=True)
    yield from ()


ROWS: dict[str, Callable] = {
    "register1": lambda settings: registrations(settings, 1, 1.2),
    "register3": lambda settings: registrations(settings, 3, 1.5),
    "lease": leases,
    "query": queries,
    "query3": queries_of_three,
    "renew": renewals,
    "watch": watchers,
    "start": starts,
    "recovery": recovery,
    "failover": failover,
    "floor": floor,
}
