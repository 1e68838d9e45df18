#!/usr/bin/env python3
"""Offers one server of Sider the loads that it is meant for, all at once for a minute, and prints a table in Markdown.

    bin/tests/performance/together.py            a minute and a half
    bin/tests/performance/together.py --quick    a tenth of everything, for ten seconds

1,000 services of 10 instances, each with a TTL check that is renewed each second; 10,000 parked long polls, ten for each
service; 1,000 registrations and 1,000 deregistrations per second. One in ten of these, or as --woken says, is of a service
that is polled: it wakes ten polls, which come back at once.

All of it arrives at its own rate, and a latency counts from the moment at which a request was due. The programs are found
as `run.py` finds them. --raw FILE keeps the figures. Leave the machine alone meanwhile.
"""

import argparse
import json
import tempfile
import time

from programs import build_generator, find_sider, generate, number
from servers import Sider, Watched

TTL_S = 3
PATIENCE_S = 5  # What could not be sent for so long is not sent, and counts as not done.


def offers(scale, woken):
    services = 1_000 // scale
    loads = [
        {"name": "renewals", "kind": "renew", "rate": 10_000 // scale, "c": 128, "n": 10_000 // scale, "prefix": "t",
         "patience_s": PATIENCE_S},
        {"name": "polls", "kind": "poll", "c": 10_000 // scale, "services": services, "prefix": "t"},
    ]  # fmt: skip
    for prefix, of, share in (("o", "of other services", 1 - woken), ("t", "of polled services", woken)):
        churn = {"rate": 1_000 * share / scale, "c": 64, "services": services, "prefix": prefix, "first": 1_000_000, "ttl": "600s",
                 "patience_s": PATIENCE_S}  # fmt: skip
        if share > 0:
            loads.append({"name": f"registrations {of}", "kind": "register", "delay_s": 4, **churn})
            loads.append({"name": f"deregistrations {of}", "kind": "deregister", "delay_s": 6, **churn})
    return loads


def measure(settings, generator, folder):
    scale, seconds = (10, 10) if settings.quick else (1, 60)
    with Sider(folder) as cluster:
        server = cluster.start().servers[0]
        time.sleep(1)
        idle = server.memory()
        load = {"offers": json.dumps(offers(scale, settings.woken)), "pid": server.process.pid, "n": 10_000 // scale, "services": 1_000 // scale, "prefix": "t"}
        with Watched(cluster.servers) as watched:
            figures = generate(
                generator, "offers", cluster.addresses(), ttl=f"{TTL_S}s", warm="10s", d=f"{seconds}s", **load
            )
        figures["idle_mb"], figures["most_mb"], figures["expired"] = idle / 1e6, watched.most / 1e6, watched.expired
        return figures


def table(figures):
    print("| load | offered, 1/s | done, 1/s | p50, ms | p99, ms | most, ms | not done |")
    print("|---|---|---|---|---|---|---|")
    for name, of in figures.items():
        if not isinstance(of, dict) or name == "polls":
            continue
        failed = of["abandoned"] + sum(count for status, count in of["statuses"].items() if status != "200")
        latencies = " | ".join(number(of[quantile]) for quantile in ("p50_ms", "p99_ms", "max_ms"))
        print(f"| {name} | {number(of['offered_rate'])} | {number(of['rate'])} | {latencies} | {failed} |")
    polls = figures["polls"]
    if polls["wakes"] > 0:
        latencies = " | ".join(number(polls[quantile]) for quantile in ("p50_ms", "p99_ms", "max_ms"))
        print(f"| polls woken, from when the write was due | | {number(polls['wakes'] / figures['seconds'])} | {latencies} | |")
    late = figures["renewals"]["late_p99_ms"]
    beyond = figures["checks_beyond_ttl"]
    print(f"\nMemory: {figures['idle_mb']:.0f} MB idle, {figures['parked_mb']:.0f} MB when all is registered and parked, "
          f"{figures['most_mb']:.0f} MB at most. Expired: {figures['expired']:.0f}, checks that were not renewed for their "
          f"TTL of {TTL_S} s: {beyond}; the longest time without a renewal was {figures['longest_gap_ms']:.0f} ms. "
          f"The generator sent 99 % of the renewals within {number(late)} ms of when they were due.")  # fmt: skip
    for name, of in figures.items():
        if isinstance(of, dict) and of["problem"]:
            print(f"  a problem of {name}: {of['problem']}")


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--woken", metavar="SHARE", type=float, default=0.1)
    parser.add_argument("--raw", metavar="FILE")
    asked = parser.parse_args()
    find_sider()
    generator = build_generator()
    with tempfile.TemporaryDirectory(prefix="sider-together-") as folder:
        figures = measure(asked, generator, folder)
        figures["seconds"] = 10 if asked.quick else 60
        table(figures)
        if asked.raw:
            with open(asked.raw, "a") as file:
                file.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
