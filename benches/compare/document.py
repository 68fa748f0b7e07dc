"""Writes what was measured into docs/: the figures, their tables, and a plot."""

import json

import plot
import report

BEGIN = "<!-- Written by scripts/compare-dpdk --document. -->"
END = "<!-- End of what compare-dpdk writes. -->"


def write(docs, results):
    """Parts that were not measured this time stay as they were."""
    figures = docs / "performance.json"
    known = json.loads(figures.read_text()) if figures.exists() else {}
    for part in ("engine", "aead", "workers", "veth"):
        if part in results:
            known[part] = {**results[part], "machine": results["machine"]}
    figures.write_text(json.dumps(known, indent=1) + "\n")
    (docs / "performance.svg").write_text(plot.svg(known))
    page = docs / "performance.md"
    text = page.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(before + BEGIN + "\n\n" + tables(known) + "\n" + END + after)


def tables(known):
    lines = []
    if "engine" in known:
        lines += ["### The whole path", "", *source(known["engine"]), "",
                  "| direction | octets | SAs | ipsec-secgw (best) | of which I/O | "
                  "culvert (best) | ratio (of bests) | at most |",
                  "|---|--:|--:|--:|--:|--:|--:|--:|"]
        for row in report.engine_rows(known["engine"]):
            direction, size, sas, theirs, low, io, ours, our_low, ratio, low_ratio, bar = row
            holds = max(ratio, low_ratio) <= bar
            lines.append(f"| {direction} | {size} | {sas} | {theirs:.0f} ({low:.0f}) | {io:.0f} | "
                         f"{ours:.0f} ({our_low:.0f}) | {mark(ratio, holds)} ({low_ratio:.2f}) | "
                         f"{bar:.2f} |")
        lines.append("")
    if "aead" in known:
        lines += ["### Sealing alone", "", *source(known["aead"]), "",
                  "| octets | ipsec-mb (best) | culvert (best) | times as fast | at least |",
                  "|--:|--:|--:|--:|--:|"]
        for size, theirs, low, ours, our_low, faster, bar in report.aead_rows(known["aead"]):
            lines.append(f"| {size} | {theirs:.0f} ({low:.0f}) | {ours:.0f} ({our_low:.0f}) | "
                         f"{mark(faster, faster >= bar)} | {bar:.1f} |")
        lines.append("")
    if "workers" in known:
        lines += ["### One worker and two", "", *source(known["workers"]), "",
                  "Million packets a second, each worker with an SA of its own:", "",
                  "| direction | octets | one | two | ratio | at least |",
                  "|---|--:|--:|--:|--:|--:|"]
        for direction, size, one, two, ratio in report.workers_rows(known["workers"]):
            lines.append(f"| {direction} | {size} | {one / 1e6:.2f} | {two / 1e6:.2f} | "
                         f"{mark(ratio, ratio >= report.WORKERS_BAR)} | {report.WORKERS_BAR} |")
        lines.append("")
    if "veth" in known:
        text, _ = report.veth_table(known["veth"])
        lines += ["### Over veth, beside net_af_xdp", "", *source(known["veth"]), "",
                  "```text", *text, "```", ""]
    return "\n".join(lines)


def mark(figure, holds):
    """A figure that misses its bar stands out."""
    return f"{figure:.2f}" if holds else f"**{figure:.2f}**"


def source(part):
    """Machine and date, wrapped."""
    lines, line = [], ""
    for word in (report.heading(part["machine"]) + ".").split():
        if len(line) + len(word) >= 99:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    return [*lines, line]
