#!/usr/bin/env python3
"""Offers Sider three times the registrations that it can bear, and prints a table in Markdown.

    bin/tests/performance/overload.py            one server, and three driven at their leader: about 3 minutes
    bin/tests/performance/overload.py --quick    short

The servers run on one processor and the generator on the other, so that what is offered does not take from what is done.
First comes the peak: as many registrations as 256 connections get through, each of which waits for its answer. Then
registrations arrive at three times that rate whatever becomes of them. Beside both, 2,000 checks with a TTL of 5 s are
renewed each second, and 200 services queried. Latencies of what is accepted and refused count from when it is sent; the
generator gives up what it could not send within two seconds. The programs are found as `run.py` finds them. --raw FILE
keeps the figures.
"""

import argparse
import json
import tempfile
import time

from programs import build_generator, find_sider, generate, number
from servers import Sider, Watched

TTL_S = 5
CHECKS = 2_000
SERVICES = 1_000
CONNECTIONS = 8_000


def terms(cluster):
    return [cluster.metrics(server)["sider_raft_term"] for server in cluster.servers]


def offered(settings, cluster, address, rate, connections):
    """One run: registrations at this rate beside renewals and queries."""
    offers = [
        {"name": "registrations", "kind": "register", "rate": rate, "c": connections, "n": 50_000,
         "services": SERVICES, "prefix": "o", "ttl": "600s", "patience_s": 2},
        {"name": "renewals", "kind": "renew", "rate": CHECKS, "c": CHECKS, "n": CHECKS, "prefix": "r"},
        {"name": "queries", "kind": "query", "rate": 200, "c": 64, "services": 200, "prefix": "r"},
    ]  # fmt: skip
    with Watched(cluster.servers) as watched:
        figures = generate(
            settings.generator, "offers", address, processor=1, offers=json.dumps(offers), n=CHECKS, services=200, prefix="r",
            ttl=f"{TTL_S}s", warm="5s", d=f"{settings.seconds}s",
        )  # fmt: skip
    figures["most_mb"], figures["expired"] = watched.most / 1e6, watched.expired
    return figures


def measure(settings, size):
    with Sider(settings.folder, size) as cluster:
        for server in cluster.servers:
            server.processor = 0
        cluster.start()
        address = cluster.leader().address
        generate(settings.generator, "fill", address, n=50_000, services=SERVICES, prefix="o", ttl="600s")
        peak = offered(settings, cluster, address, 1e6, 256)
        before = terms(cluster)
        begun = time.monotonic()
        over = offered(settings, cluster, address, 3 * peak["registrations"]["rate"], CONNECTIONS)
        over["took_s"] = time.monotonic() - begun
        over["terms"] = [before, terms(cluster)]
        over["led"] = cluster.leader().address == address
        return peak, over


def table(size, peak, over):
    most = peak["registrations"]["rate"]
    print(f"\n{size} server{'s' if size > 1 else ''}\n")
    print("| | at the peak | at three times the peak |\n|---|---|---|")

    def line(what, value):
        print(f"| {what} | {value(peak)} | {value(over)} |")

    def latencies(of, kind):
        return " / ".join(number(of[f"{kind}{quantile}"]) for quantile in ("p50_ms", "p99_ms", "max_ms")) if f"{kind}p50_ms" in of else "–"

    line("registrations sent, 1/s", lambda run: number(run["registrations"]["sent_rate"]))
    line("accepted, 1/s", lambda run: number(run["registrations"]["rate"]))
    line("share of the peak; in the worst second", lambda run: f"{run['registrations']['rate'] / most:.0%}; {run['registrations']['least_second'] / most:.0%}")
    line("latency of what is accepted, p50 / p99 / most, ms", lambda run: latencies(run["registrations"], "sent_"))
    line("refused, 1/s", lambda run: number(run["registrations"]["refused_rate"]))
    line("latency of what is refused, p50 / p99 / most, ms", lambda run: latencies(run["registrations"], "refused_sent_"))
    line("answers by status", lambda run: ", ".join(f"{status}: {count:,}" for status, count in sorted(run["registrations"]["statuses"].items())))
    line(f"renewals done of {CHECKS:,}, 1/s", lambda run: number(run["renewals"]["rate"]))
    line("latency of renewals, from when they are due, ms", lambda run: latencies(run["renewals"], ""))
    line("latency of queries, from when they are due, ms", lambda run: latencies(run["queries"], ""))
    line("memory of a server at most, MB", lambda run: number(run["most_mb"]))
    print(f"\nTerms {over['terms'][0]} before and {over['terms'][1]} after. Expired: {over['expired']:.0f}, checks that were not "
          f"renewed for their TTL: {over['checks_beyond_ttl']}. Not sent within two seconds: "
          f"{over['registrations']['abandoned']:,}.")  # fmt: skip
    for name in ("registrations", "renewals", "queries"):
        if over[name]["problem"]:
            print(f"  a problem of {name}: {over[name]['problem']}")


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=[1, 3])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--raw", metavar="FILE")
    asked = parser.parse_args()
    find_sider()
    asked.generator = build_generator()
    asked.seconds = 4 if asked.quick else 20
    with tempfile.TemporaryDirectory(prefix="sider-overload-") as asked.folder:
        for size in asked.sizes:
            peak, over = measure(asked, size)
            table(size, peak, over)
            if asked.raw:
                with open(asked.raw, "a") as file:
                    file.write(json.dumps({"servers": size, "peak": peak, "over": over}) + "\n")


if __name__ == "__main__":
    main()
