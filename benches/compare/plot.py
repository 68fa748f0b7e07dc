"""The plot of docs/performance.md, as SVG: cycles a packet, two bars a cell."""

import report

WIDTH, ROW, LEFT, RIGHT = 900, 44, 250, 90
COLOURS = {"theirs": "#b0b7c3", "ours": "#2a6fb0", "io": "#8c95a4"}


def svg(known):
    """A panel for each part there is, one under the other."""
    panels, height = [], 10
    for title, names, rows in parts(known):
        panel, used = draw(title, names, rows, height)
        panels.append(panel)
        height += used
    body = "\n".join(panels)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'font-family="sans-serif" font-size="13">\n'
            f'<rect width="{WIDTH}" height="{height}" fill="white"/>\n{body}\n</svg>\n')


def parts(known):
    if "engine" in known:
        rows = [(f"{row[0]}, {row[1]} octets, {row[2]} SA{'s' if row[2] > 1 else ''}",
                 row[3], row[5], row[6]) for row in report.engine_rows(known["engine"])]
        yield "Whole path: TSC cycles a packet", ("ipsec-secgw", "its I/O", "culvert"), rows
    if "aead" in known:
        rows = [(f"{row[0]} octets", row[1], 0, row[3]) for row in report.aead_rows(known["aead"])]
        yield "Sealing alone: TSC cycles a packet", ("ipsec-mb", None, "culvert"), rows


def draw(title, names, rows, top):
    """One panel and its height. A row: label, their cycles, of which I/O, our cycles."""
    scale = (WIDTH - LEFT - RIGHT) / max(max(theirs, ours) for _, theirs, _, ours in rows)
    theirs_name, io_name, ours_name = names
    lines = [text(10, top + 20, title, weight="bold")]
    x = LEFT
    for name, colour in ((theirs_name, "theirs"), (io_name, "io"), (ours_name, "ours")):
        if name:
            lines += [bar(x, top + 32, 12, colour), text(x + 17, top + 43, name)]
            x += 120
    y = top + 60
    for label, theirs, io, ours in rows:
        lines.append(text(LEFT - 8, y + 22, label, anchor="end"))
        lines.append(bar(LEFT, y, theirs * scale, "theirs", 16))
        lines.append(bar(LEFT, y, io * scale, "io", 16))
        lines.append(bar(LEFT, y + 17, ours * scale, "ours", 16))
        lines.append(text(LEFT + theirs * scale + 5, y + 13, f"{theirs:.0f}"))
        lines.append(text(LEFT + ours * scale + 5, y + 30, f"{ours:.0f}  ({ours / theirs:.2f})"))
        y += ROW
    return "\n".join(lines), y - top + 10


def bar(x, y, width, colour, height=12):
    return f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" fill="{COLOURS[colour]}"/>'


def text(x, y, content, anchor="start", weight="normal"):
    return (f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" font-weight="{weight}">'
            f"{content}</text>")
