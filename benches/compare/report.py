"""Figures against bars: the tables that scripts/compare-dpdk prints."""

import statistics


def median(runs):
    return statistics.median(run["median"] for run in runs)


def best(runs):
    return min(run["best"] for run in runs)


def engine_bar(size, sas):
    """Most that culvert may take, as a part of ipsec-secgw's cycles; between sizes, a line."""
    short, long = (0.45, 0.60) if sas < 10000 else (0.60, 0.40)
    share = min(max((size - 64) / (1420 - 64), 0), 1)
    return round(short + (long - short) * share, 3)


def aead_bar(size):
    """Least by which culvert must be faster than ipsec-mb."""
    return 2.0 if size <= 256 else 1.3


def engine_rows(engine):
    """(direction, octets, SAs, secgw, best, I/O, culvert, best, ratio, that of bests, bar)."""
    io = {(cell["size"], cell["sas"]): median(cell["io"]) for cell in engine["cells"] if cell["io"]}
    for cell in engine["cells"]:
        shape = (cell["size"], cell["sas"])
        theirs, low = median(cell["secgw"]), best(cell["secgw"])
        ours, our_low = median(cell["culvert"]), best(cell["culvert"])
        yield (cell["direction"], *shape, theirs, low, io[shape], ours, our_low, ours / theirs,
               our_low / low, engine_bar(*shape))


def aead_rows(aead):
    """(octets, ipsec-mb, best, culvert, best, speed-up, bar)."""
    for cell in aead["cells"]:
        theirs, ours = median(cell["ipsec_mb"]), median(cell["culvert"])
        yield (cell["size"], theirs, best(cell["ipsec_mb"]), ours, best(cell["culvert"]),
               theirs / ours, aead_bar(cell["size"]))


def verdict(holds):
    return "" if holds else "  MISSED"


WORKERS_BAR = 1.9


def workers_rows(workers):
    """(direction, octets, packets a second of one worker, of two, ratio)."""
    for cell in workers["cells"]:
        ratio = statistics.median(two / one for one, two in zip(cell["one"], cell["two"]))
        yield (cell["direction"], cell["size"], statistics.median(cell["one"]),
               statistics.median(cell["two"]), ratio)


def report(results):
    """The tables as text, and how many bars were missed."""
    lines, missed = [heading(results["machine"])], 0
    if "engine" in results:
        lines += ["", "Whole path, AES-128-GCM, tunnel, IPv4 in IPv4: TSC cycles a packet, median "
                  "(best). I/O is testpmd's", "over the same port, part of ipsec-secgw's. "
                  "Anti-replay: culvert's on, ipsec-secgw's off.",
                  "direction  octets    SAs   ipsec-secgw  its I/O     culvert     ratio "
                  "(of bests)   bar"]
        for row in engine_rows(results["engine"]):
            direction, size, sas, theirs, low, io, ours, our_low, ratio, low_ratio, bar = row
            holds = max(ratio, low_ratio) <= bar
            missed += not holds
            lines.append(f"{direction:<9} {size:>7} {sas:>6} {theirs:>7.0f} ({low:>4.0f}) {io:>8.0f} "
                         f"{ours:>7.0f} ({our_low:>4.0f}) {ratio:>7.2f}     ({low_ratio:.2f}) "
                         f"{bar:>6.2f}{verdict(holds)}")
    if "aead" in results:
        lines += ["", "Sealing alone, one SA, 64 buffers in turn: TSC cycles a packet, median "
                  "(best)", "octets      ipsec-mb         culvert   faster    bar"]
        for size, theirs, low, ours, our_low, faster, bar in aead_rows(results["aead"]):
            missed += faster < bar
            lines.append(f"{size:>6} {theirs:>7.0f} ({low:>4.0f}) {ours:>8.0f} ({our_low:>4.0f}) "
                         f"{faster:>8.2f} {bar:>6.1f}{verdict(faster >= bar)}")
    if "workers" in results:
        lines += ["", "One worker and two with an SA each, million packets a second: medians",
                  "direction  octets     one     two   ratio    bar"]
        for direction, size, one, two, ratio in workers_rows(results["workers"]):
            missed += ratio < WORKERS_BAR
            lines.append(f"{direction:<9} {size:>7} {one / 1e6:>7.2f} {two / 1e6:>7.2f} "
                         f"{ratio:>7.2f} {WORKERS_BAR:>6.1f}{verdict(ratio >= WORKERS_BAR)}")
    if "veth" in results:
        text, failed = veth_table(results["veth"])
        lines += ["", *text]
        missed += failed
    lines += ["", f"{missed} missed" if missed else "all bars hold"]
    return "\n".join(lines), missed


def veth_table(veth):
    lines, missed = ["Over AF_XDP and veth, sealing, thousand packets a second of the core: "
                     "medians of runs in turn",
                     "octets  forwarder  ipsec-secgw  culvert  of secgw    bar"], 0
    for cell in veth["cells"]:
        middle = {name: statistics.median(cell[name]) for name in ("plain", "secgw", "culvert")}
        ratio = middle["culvert"] / middle["secgw"]
        missed += ratio < 1
        lines.append(f"{cell['size']:>6} {middle['plain'] / 1e3:>10.0f} "
                     f"{middle['secgw'] / 1e3:>12.0f} {middle['culvert'] / 1e3:>8.0f} "
                     f"{ratio:>8.2f} {1:>6.2f}{verdict(ratio >= 1)}")
    return lines, missed


def heading(machine):
    return (f"{machine['date']}, {machine['cpu']}, TSC {machine['tsc_ghz']:.2f} GHz, Linux "
            f"{machine['kernel']}, DPDK {machine['dpdk']}, ipsec-mb {machine['ipsec_mb']}, "
            f"{machine['runs']} runs of {machine['seconds']:g} s, commit {machine['commit']}")
