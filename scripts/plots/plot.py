"""Line plots as SVG, without a plotting library: log-log, or linear from 0; the options of the scripts that plot."""
import argparse
import math
import pathlib
from dataclasses import dataclass

COLOURS = ("#1f5fa8", "#c4522d", "#3b8a4f", "#7a4fa3")
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 400, 280, 56, 44, 34, 14


def labelled_inputs(doc: str, what: str) -> tuple[list[tuple[str, pathlib.Path]], str]:
    """The inputs of a command line `[LABEL=]PATH... --out PREFIX`, labelled, and the prefix of the outputs."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="+", metavar=f"[LABEL=]{what}")
    parser.add_argument("--out", required=True, metavar="PREFIX", help="PREFIX.csv and PREFIX.svg are written")
    options = parser.parse_args()
    pairs = [(label, pathlib.Path(path)) for label, _, path in (i.rpartition("=") for i in options.inputs)]
    return [(label or (path.stem if path.is_file() else path.name), path) for label, path in pairs], options.out


def write(prefix: str, table: list[str], drawing: str) -> None:
    for suffix, text in ((".csv", "\n".join(table) + "\n"), (".svg", drawing)):
        pathlib.Path(prefix + suffix).write_text(text)
        print(prefix + suffix)


@dataclass
class Line:
    label: str
    points: list[tuple[float, float]]


@dataclass
class Panel:
    title: str
    x_label: str
    y_label: str
    lines: list[Line]
    linear: bool = False


def _number(v: float) -> str:
    return f"{v:g}" if v < 10000 else f"{v / 1000:g}k"


def _log_ticks(low: float, high: float) -> list[float]:
    steps = [m * 10.0**e for e in range(-4, 7) for m in (1, 2, 5)]
    return [t for t in steps if low <= t <= high]


def _linear_ticks(high: float) -> list[float]:
    step = 10.0 ** math.floor(math.log10(high / 3)) if high > 0 else 1.0
    step *= next(m for m in (1, 2, 5, 10) if high / (step * m) <= 6)
    return [i * step for i in range(int(high / step) + 1)]


def _axis(linear: bool, low: float, high: float, begin: float, length: float):
    """The function from a value to its position on an axis of this length from `begin`."""
    if linear:
        return lambda v: begin + length * (v - low) / ((high - low) or 1)
    return lambda v: begin + length * math.log(v / low) / math.log(high / low)


def _panel(p: Panel) -> list[str]:
    xs = sorted({x for line in p.lines for x, _ in line.points})
    ys = [y for line in p.lines for _, y in line.points]
    low, high = (0, max(ys) * 1.1 or 1) if p.linear else (min(ys) / 1.25, max(ys) * 1.25)
    at_x = _axis(p.linear, 0 if p.linear else xs[0], xs[-1], LEFT, WIDTH - LEFT - RIGHT)
    at_y = _axis(p.linear, low, high, HEIGHT - BOTTOM, BOTTOM + TOP - HEIGHT)
    x_ticks, y_ticks = (_linear_ticks(xs[-1]), _linear_ticks(high)) if p.linear else (xs, _log_ticks(low, high))

    out = [f'<text x="{LEFT}" y="18" font-weight="bold">{p.title}</text>',
           f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{p.x_label}</text>',
           f'<text x="12" y="{HEIGHT / 2}" transform="rotate(-90 12 {HEIGHT / 2})" '
           f'text-anchor="middle">{p.y_label}</text>']
    for x in x_ticks:
        out.append(f'<line x1="{at_x(x):.1f}" x2="{at_x(x):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#eee"/>')
        out.append(f'<text x="{at_x(x):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{_number(x)}</text>')
    for y in y_ticks:
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at_y(y):.1f}" y2="{at_y(y):.1f}" stroke="#eee"/>')
        out.append(f'<text x="{LEFT - 5}" y="{at_y(y) + 4:.1f}" text-anchor="end">{_number(y)}</text>')
    for i, line in enumerate(p.lines):
        colour = COLOURS[i % len(COLOURS)]
        places = [(at_x(x), at_y(y)) for x, y in sorted(line.points)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if not p.linear:
            out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        if len(p.lines) > 1:
            # The upper left is free in log-log plots of costs, the lower left in plots of shares and entropies.
            y = HEIGHT - BOTTOM - 8 - 15 * (len(p.lines) - 1 - i) if p.linear else TOP + 14 + 15 * i
            out.append(f'<text x="{LEFT + 8}" y="{y}" fill="{colour}">{line.label}</text>')
    return out


def svg(panels: list[Panel], columns: int = 2) -> str:
    rows = -(-len(panels) // columns)
    width, height = WIDTH * columns, HEIGHT * rows
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
           f'height="{height}" font-family="sans-serif" font-size="11">',
           f'<rect width="{width}" height="{height}" fill="white"/>']
    for i, panel in enumerate(panels):
        out.append(f'<g transform="translate({i % columns * WIDTH} {i // columns * HEIGHT})">')
        out += _panel(panel)
        out.append("</g>")
    return "\n".join(out + ["</svg>"]) + "\n"
