"""Forwarders over AF_XDP and veth: ipsec-secgw with net_af_xdp, and `culvert bench veth`.

    generator                 gateway                     sink
    gen0 ------- veth ------- lan0   wan0 ------- veth ------- sink0
    core 1                    core 0

Topology and generator are those of `bench veth`, which says how it measures: frames that wan0
sends, for the time that the forwarder is at it. So for ipsec-secgw they are counted for its CPU
time, in short windows, of which a tenth is faster than the one that counts.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import time

import dpdk
import packets
import processes

SIZES = [64, 1420]
WINDOWS, WINDOW = 40, 0.05  # seconds
FORWARDER_CORE, GENERATOR_CORE = 0, 1
# What -u demands, though nothing arrives there.
INBOUND = ("sp ipv4 in esp protect 5 pri 1 dst 192.168.0.0/16 sport 0:65535 dport 0:65535\n"
           "sa in 5 aead_algo aes-128-gcm aead_key " + ":".join(["07"] * 20) +
           " mode ipv4-tunnel src 172.17.0.0 dst 172.16.0.1\n")


def run(*command):
    subprocess.run(command, check=True)


@contextlib.contextmanager
def topology():
    """Namespaces and links; yields the names of generator and gateway."""
    names = [f"compare{os.getpid()}-{role}" for role in ("gen", "gw", "sink")]
    generator, gateway, sink = names
    try:
        for name in names:
            run("ip", "netns", "add", name)
            for scope in ("default", "all"):
                run("ip", "netns", "exec", name, "sysctl", "-qw",
                    f"net.ipv6.conf.{scope}.disable_ipv6=1")
        queues = ["numtxqueues", "1", "numrxqueues", "1"]
        run("ip", "-n", generator, "link", "add", "gen0", *queues, "type", "veth",
            "peer", "name", "lan0", "netns", gateway, *queues)
        run("ip", "-n", gateway, "link", "add", "wan0", *queues, "type", "veth",
            "peer", "name", "sink0", "netns", sink, *queues)
        ends = [(generator, "gen0"), (gateway, "lan0"), (gateway, "wan0"), (sink, "sink0")]
        for name, interface in ends:
            subprocess.run(["ip", "netns", "exec", name, "ethtool", "-K", interface, "rx", "off",
                            "tx", "off", "tso", "off", "gso", "off", "gro", "off"], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            run("ip", "-n", name, "link", "set", interface, "up")
        # Frames that XDP redirects reach a veth whose end polls, and GRO makes it poll.
        run("ip", "netns", "exec", gateway, "ethtool", "-K", "lan0", "gro", "on")
        yield generator, gateway
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


def sent(pid):
    """Frames that wan0 has sent, in the namespace of a process."""
    for line in pathlib.Path(f"/proc/{pid}/net/dev").read_text().splitlines():
        if line.strip().startswith("wan0:"):
            return int(line.split(":")[1].split()[9])
    raise SystemExit("no wan0 in the namespace of ipsec-secgw")


def secgw_rate(args, peer, size):
    """Frames that ipsec-secgw forwards, sealed, in a second of CPU time."""
    config = args.work / "veth.cfg"
    # Ports are numbered in the order of --vdev: lan0 is 0, and wan0, where sealed packets go, 1.
    config.write_text(packets.configuration("outbound", 1).replace(
        "172.17.0.0/16 port 0", "172.17.0.0/16 port 1") + INBOUND)
    vdevs = [f"net_af_xdp{n},iface={name},busy_budget=0" for n, name in enumerate(("lan0", "wan0"))]
    with topology() as (generator, gateway):
        command = ["ip", "netns", "exec", gateway, "sh", "-c",
                   'mount -t bpf bpf /sys/fs/bpf 2>/dev/null; exec "$@"', "sh", str(peer.program),
                   *peer.environment([*vdevs, "crypto_aesni_gcm0"], f"0@{FORWARDER_CORE}"),
                   "--", "-l", "-p", "0x3", "-P", "-u", "0x2", "--config", "(0,0,0),(1,0,0)",
                   "-f", str(config), "--rxoffload", "0x0", "--txoffload", "0x0"]
        generate = ["ip", "netns", "exec", generator, str(args.culvert), "bench", "generate",
                    "gen0", "--size", str(size), "--core", str(GENERATOR_CORE)]
        with peer.running(command, "entering main loop") as forwarder, \
                processes.daemon(generate, args.work / "generate.log", "") as source:
            time.sleep(1)
            rates = windows(forwarder.pid)
            said = pathlib.Path(args.work / "generate.log").read_text()
            assert source.poll() is None, f"the generator ended: {said}"
    rates.sort()
    assert rates[0] > 0, "ipsec-secgw forwarded nothing"
    return rates[len(rates) * 9 // 10]


def windows(pid):
    """Frames a second of CPU time, in each window."""
    clock, rates = processes.cpu_clock(pid), []
    before = time.clock_gettime(clock), sent(pid)
    for _ in range(WINDOWS):
        time.sleep(WINDOW)
        after = time.clock_gettime(clock), sent(pid)
        rates.append((after[1] - before[1]) / (after[0] - before[0]))
        before = after
    return rates


def culvert_rates(args, size):
    """Frames a second of the plain forwarder and of culvert, in the same sense."""
    text = processes.output([str(args.culvert), "bench", "veth", "--size", str(size), "--json",
                             "--core", str(FORWARDER_CORE),
                             "--generator-core", str(GENERATOR_CORE)], None)
    measured = json.loads(text)
    return measured["plain_median_pps"], measured["culvert_median_pps"]


def measure(args, secgw):
    """Every run of every size: [{size, plain: [..], culvert: [..], secgw: [..]}]."""
    if os.geteuid() != 0:
        raise SystemExit("the part over veth needs root")
    cells = [{"size": size, "plain": [], "culvert": [], "secgw": []} for size in SIZES]
    with processes.huge_pages(dpdk.HUGE_MEGABYTES) as huge:
        peer = dpdk.Dpdk(secgw, args.work, FORWARDER_CORE, huge)
        for _ in range(args.runs):
            for cell in cells:
                cell["secgw"].append(secgw_rate(args, peer, cell["size"]))
                plain, culvert = culvert_rates(args, cell["size"])
                cell["plain"].append(plain)
                cell["culvert"].append(culvert)
    return {"cells": cells}
