"""Log-log line plots as SVG, without a plotting library."""
import math
from dataclasses import dataclass

COLOURS = ("#1f5fa8", "#c4522d", "#3b8a4f", "#7a4fa3")
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 400, 280, 56, 44, 34, 14


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


def _number(v: float) -> str:
    return f"{v:g}" if v < 10000 else f"{v / 1000:g}k"


def _y_ticks(low: float, high: float) -> list[float]:
    steps = [m * 10.0**e for e in range(-4, 7) for m in (1, 2, 5)]
    return [t for t in steps if low <= t <= high]


def _panel(p: Panel) -> list[str]:
    xs = sorted({x for line in p.lines for x, _ in line.points})
    ys = [y for line in p.lines for _, y in line.points]
    low, high = min(ys) / 1.25, max(ys) * 1.25

    def at_x(v: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(v / xs[0]) / math.log(xs[-1] / xs[0])

    def at_y(v: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * math.log(v / low) / math.log(high / low)

    out = [f'<text x="{LEFT}" y="18" font-weight="bold">{p.title}</text>',
           f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{p.x_label}</text>',
           f'<text x="12" y="{HEIGHT / 2}" transform="rotate(-90 12 {HEIGHT / 2})" '
           f'text-anchor="middle">{p.y_label}</text>']
    for x in xs:
        out.append(f'<line x1="{at_x(x):.1f}" x2="{at_x(x):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#eee"/>')
        out.append(f'<text x="{at_x(x):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{_number(x)}</text>')
    for y in _y_ticks(low, high):
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at_y(y):.1f}" y2="{at_y(y):.1f}" stroke="#eee"/>')
        out.append(f'<text x="{LEFT - 5}" y="{at_y(y) + 4:.1f}" text-anchor="end">{_number(y)}</text>')
    for i, line in enumerate(p.lines):
        colour = COLOURS[i % len(COLOURS)]
        places = [(at_x(x), at_y(y)) for x, y in sorted(line.points)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        if len(p.lines) > 1:
            out.append(f'<text x="{LEFT + 8}" y="{TOP + 14 + 15 * i}" fill="{colour}">{line.label}</text>')
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
