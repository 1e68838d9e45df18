#!/usr/bin/env python3
"""Measures how Sider's costs grow with what it holds, draws them, and prints tables in Markdown.

    bin/tests/performance/growth.py                    everything: about 20 minutes, and 4 GB of memory
    bin/tests/performance/growth.py --quick            smaller ranges: about 3 minutes
    bin/tests/performance/growth.py state wakes        these parts alone: state, wakes, expiry, servers
    bin/tests/performance/growth.py --draw FILE...     nothing is measured: charts and tables of what files hold

Charts go to docs/performance, or to the folder that --charts names; --raw FILE keeps the figures of several calls. The
programs are found as `run.py` finds them. Leave the machine alone meanwhile.
"""

import argparse
import http.client
import json
import resource
import tempfile
import time
from pathlib import Path

from plot import chart, short
from programs import TREE, build_generator, find_sider, generate, number, spread
from servers import Sider

SERVICES = 1_000
FILES_KEPT = 500  # Open files of a server that are no connections of watchers.


class Settings:
    def __init__(self, generator, folder, quick):
        self.generator, self.folder = generator, folder
        self.runs = 1 if quick else 3
        self.seconds = 1 if quick else 3
        self.instances = [1_000, 10_000] if quick else [1_000, 10_000, 100_000, 1_000_000]
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.watchers = [1, 10, 100, 1_000] + ([] if quick else [5_000, 10_000, 20_000, 50_000])
        cut = [count for count in self.watchers if count > files - FILES_KEPT]
        if cut:
            print(f"this machine lets a process open {files:,} files: no {cut} watchers, but {files - FILES_KEPT:,}", flush=True)
            self.watchers = [count for count in self.watchers if count not in cut] + [files - FILES_KEPT]
        self.checks = self.instances
        self.servers = [1, 3] if quick else [1, 3, 5]

    def generate(self, kind, cluster, address=None, **flags):
        return generate(self.generator, kind, address or cluster.addresses(), **flags)


def snapshot(server):
    """Seconds and bytes of a snapshot file."""
    connection = http.client.HTTPConnection(server.address, timeout=300)
    begun, size = time.monotonic(), 0
    connection.request("GET", "/v1/snapshot?stale")
    answer = connection.getresponse()
    while piece := answer.read(1 << 20):
        size += len(piece)
    connection.close()
    return time.monotonic() - begun, size


def written(server):
    """Bytes that it gave to the disk so far."""
    lines = Path(f"/proc/{server.process.pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


def gather(figures, name, value):
    figures.setdefault(name, []).append(value)


def state(settings):
    """Against instances: registrations, memory, what an idle server does, a snapshot, a restart."""
    with Sider(settings.folder) as cluster:
        cluster.start()
        server, filled = cluster.servers[0], 0
        for size in settings.instances:
            settings.generate("fill", cluster, **{"from": filled}, n=size, services=SERVICES, prefix="f")
            filled = size
            time.sleep(3)
            figures = {"memory, MB": [server.memory() / 1e6]}
            before = server.processor_seconds()
            time.sleep(5)
            figures["processor time of an idle server in 1 s, ms"] = [1000 * (server.processor_seconds() - before) / 5]
            ring = {"c": 64, "services": SERVICES, "prefix": "f", "ring": size}
            for _ in range(settings.runs):
                before = server.processor_seconds()
                done = settings.generate("register", cluster, d=f"{settings.seconds}s", **ring)
                took = server.processor_seconds() - before
                gather(figures, "registrations, 1/s", done["rate"])
                gather(figures, "processor time of a registration, µs", 1e6 * took / done["requests"])
            before, changed = written(server), 20_000
            settings.generate("register", cluster, count=changed, **ring)
            time.sleep(2)
            gather(figures, "written for a change, bytes", (written(server) - before) / changed)
            for _ in range(settings.runs):
                before = server.processor_seconds()
                seconds, size_of_file = snapshot(server)
                gather(figures, "snapshot file, s", seconds)
                gather(figures, "snapshot file, processor time, s", server.processor_seconds() - before)
            gather(figures, "snapshot file, MB", size_of_file / 1e6)
            for _ in range(settings.runs):
                server.kill()
                begun = time.monotonic()
                server.start()
                cluster.await_write(server)
                gather(figures, "restart after kill -9, s", time.monotonic() - begun)
                gather(figures, "restart after kill -9, processor time, s", server.processor_seconds())
            time.sleep(3)
            figures["memory after the restart, MB"] = [server.memory() / 1e6]
            yield size, figures


def wakes(settings):
    """Against watchers of one service: how long until all know of a write, and memory."""
    for watchers in settings.watchers:
        with Sider(settings.folder) as cluster:
            server = cluster.start().servers[0]
            time.sleep(1)
            idle = server.memory()
            flags = {"c": watchers, "n": watchers, "rounds": 3 * settings.runs, "pid": server.process.pid}
            figures = settings.generate("watch", cluster, **flags)
            yield watchers, {
                "first woken, ms": figures["first_ms"],
                "last woken, ms": figures["last_ms"],
                "processor time of a wake-up, µs": figures["processor_us"],
                "memory, MB": [(idle + watchers * figures["bytes_per_watch"]) / 1e6],
                "the same after wakes, MB": [(idle + watchers * figures["bytes_per_watch_again"]) / 1e6],
            }


def expiry(settings):
    """Against checks that all expire at the same time: how much later than its TTL the last one is critical."""
    for checks in settings.checks:
        ttl = max(5, checks // 12_500)  # Longer than it takes to register and to renew them.
        figures = {}
        for _ in range(settings.runs if checks <= 100_000 else 1):
            with Sider(settings.folder) as cluster:
                cluster.start()
                flags = {"n": checks, "services": SERVICES, "prefix": "e", "ttl": f"{ttl}s"}
                settings.generate("fill", cluster, **flags)
                took = settings.generate("expire", cluster, pid=cluster.servers[0].process.pid, **flags)
                gather(figures, "last check critical after its TTL, ms", took["late_ms"])
                gather(figures, "processor time of an expiry, µs", took["processor_us"])
                gather(figures, "renewals in batches of 10,000, 1/s", took["renewed_rate"])
                expired = cluster.metrics(cluster.servers[0])["sider_check_expired_total"]
                if expired != checks:
                    print(f"  {expired:.0f} of {checks} checks are counted as expired", flush=True)
        yield checks, figures


def servers(settings):
    """Against servers: registrations and renewals at the leader, queries at all."""
    for size in settings.servers:
        with Sider(settings.folder, size) as cluster:
            cluster.start()
            leader = cluster.leader().address
            loads = {
                "registrations, 1/s": ("register", leader, {"c": 256}),
                "renewals, 1/s": ("renew", leader, {"c": 64, "n": 1000}),
                "queries, linearizable, 1/s": ("query", None, {"c": 64, "n": 10}),
                "queries, stale, 1/s": ("query", None, {"c": 64, "n": 10, "stale": "true"}),
            }
            figures = {}
            for place, (name, (kind, address, flags)) in enumerate(loads.items()):
                runs = range(settings.runs)
                flags["d"] = f"{settings.seconds}s"
                for run in runs:
                    before = sum(server.processor_seconds() for server in cluster.servers)
                    done = settings.generate(kind, cluster, address, prefix=f"s{place}{run}", **flags)
                    took = sum(server.processor_seconds() for server in cluster.servers) - before
                    gather(figures, name, done["rate"])
                    gather(figures, f"{name.removesuffix(', 1/s')}: processor time at all servers, µs", 1e6 * took / done["requests"])
            yield size, figures


PARTS = {"state": state, "wakes": wakes, "expiry": expiry, "servers": servers}
AGAINST = {"state": "instances", "wakes": "watchers", "expiry": "checks", "servers": "servers"}
# A file's name, its part, its title, its unit, its figures, the one at whose end a guide ends.
CHARTS = [
    ("registrations", "state", "Registrations against instances", "registrations per second", ["registrations, 1/s"], None),
    ("wakes", "wakes", "Wake-ups against watchers", "ms after the write", ["first woken, ms", "last woken, ms"], "last woken, ms"),
    ("expiry", "expiry", "Expiry against checks that expire at once", "ms after the TTL",
     ["last check critical after its TTL, ms"], "last check critical after its TTL, ms"),
    ("restart", "state", "Snapshot and restart against instances", "seconds",
     ["snapshot file, s", "restart after kill -9, s"], "restart after kill -9, s"),
    ("memory-instances", "state", "Memory against instances", "MB", ["memory, MB", "memory after the restart, MB"], "memory, MB"),
    ("memory-watchers", "wakes", "Memory against watchers", "MB", ["memory, MB", "the same after wakes, MB"], "memory, MB"),
    ("servers", "servers", "Throughput against servers", "per second",
     ["registrations, 1/s", "renewals, 1/s", "queries, linearizable, 1/s", "queries, stale, 1/s"], None),
]  # fmt: skip


def cell(values):
    """The least, the median and the most, unless all are the same."""
    shown = [number(value) for value in spread(values)]
    return " / ".join(shown) if len(set(shown)) > 1 else shown[0]


def draw(records, folder):
    """Charts, and tables on standard output. The newest figures of each size count."""
    newest = {}
    for record in records:
        newest.setdefault(record["part"], {})[record["size"]] = record["figures"]
    folder.mkdir(parents=True, exist_ok=True)
    if len(newest) == len(PARTS):
        steps = {
            "a registration": ("state", "processor time of a registration, µs"),
            "a wake-up": ("wakes", "processor time of a wake-up, µs"),
            "an expiry": ("expiry", "processor time of an expiry, µs"),
        }
        series = {
            step: [(size, spread(newest[part][size][name])) for size in sorted(newest[part])] for step, (part, name) in steps.items()
        }
        drawn = chart("Processor time at the server", "instances, watchers or checks that there are", "µs each", series)
        (folder / "processor.svg").write_text(drawn)
    for file, part, title, unit, names, guide in CHARTS:
        if part not in newest:
            continue
        sizes = sorted(newest[part])
        series = {name.rsplit(", ", 1)[0]: [(size, spread(newest[part][size][name])) for size in sizes] for name in names}
        guide = guide and guide.rsplit(", ", 1)[0]
        ticks = sizes if part == "servers" else None
        (folder / f"{file}.svg").write_text(chart(title, AGAINST[part], unit, series, ticks, guide))
    for part, figures in newest.items():
        sizes = sorted(figures)
        print(f"\n| against {AGAINST[part]} | {' | '.join(short(size) for size in sizes)} |")
        print("|---" * (len(sizes) + 1) + "|")
        for name in figures[sizes[0]]:
            cells = [cell(figures[size][name]) for size in sizes]
            print(f"| {name} | {' | '.join(cells)} |")


def arguments():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--raw", metavar="FILE")
    parser.add_argument("--charts", metavar="FOLDER", type=Path, default=TREE / "docs/performance")
    parser.add_argument("--draw", metavar="FILE", nargs="+")
    asked = parser.parse_args()
    unknown = set(asked.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown parts: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return asked


def main():
    asked = arguments()
    records = [json.loads(line) for file in asked.draw or [] for line in Path(file).read_text().splitlines()]
    if not asked.draw:
        find_sider()
        generator = build_generator()
        with tempfile.TemporaryDirectory(prefix="sider-growth-") as folder:
            settings = Settings(generator, folder, asked.quick)
            for part in asked.parts or PARTS:
                for size, figures in PARTS[part](settings):
                    records.append({"part": part, "size": size, "figures": figures})
                    shown = ", ".join(f"{name}: {number(spread(values)[1])}" for name, values in figures.items())
                    print(f"{part} {size}: {shown}", flush=True)
                    if asked.raw:
                        with open(asked.raw, "a") as file:
                            file.write(json.dumps(records[-1]) + "\n")
    draw(records, asked.charts)


if __name__ == "__main__":
    main()
