"""Charts as SVG, in colours that can be read on light and on dark pages."""

import math

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 78, 24, 46, 58
COLOURS = ["#4477aa", "#cc6677", "#999933", "#44aa99"]
STYLE = """text { font: 12px sans-serif; fill: #59636e } .title { font-size: 14px; font-weight: 600 }
.grid { stroke: #8b949e; stroke-opacity: .3 } .guide { stroke: #8b949e; stroke-dasharray: 4 4; fill: none }
@media (prefers-color-scheme: dark) { text { fill: #9198a1 } }"""


def short(value):
    """1000 is 1k, 1000000 is 1M."""
    for bound, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= bound:
            return f"{value / bound:g}{unit}"
    return f"{value:g}"


def ticks(low, high):
    """Round numbers for an axis of logarithms: 1, 2, 5, 10 … if they are not too many, else powers of ten."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if math.log10(high / low) < 2.2 else (1,)
    return [value for decade in decades for step in steps if low <= (value := step * 10.0**decade) <= high]


def bounds(values, steps):
    """The round numbers around the values."""
    low, high = min(values), max(values)
    below = [step * 10.0**decade for decade in range(-6, 13) for step in steps]
    low = max(bound for bound in below if bound <= low)
    return low, max(min(bound for bound in below if bound >= high), low * 10)


def chart(title, x_label, y_label, series, x_ticks=None, guide=None):
    """`series` maps names to points `(x, (least, median, most))`. `guide`: a name of a series from whose last point a
    dashed line shows what would be in proportion."""
    points = [point for line in series.values() for point in line]
    xs = x_ticks or [x for x, _ in points]
    x_low, x_high = min(xs) / 1.15, max(xs) * 1.15
    y_low, y_high = bounds([value for _, spread in points for value in spread], (1, 2, 5))

    def across(x):
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(x / x_low) / math.log(x_high / x_low)

    def down(y):
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * math.log(y / y_low) / math.log(y_high / y_low)

    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">',
        f"<title>{title}</title><style>{STYLE}</style>",
        f'<text class="title" x="{LEFT}" y="20">{title}</text>',
        f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{x_label}</text>',
        f'<text x="16" y="{(TOP + bottom) / 2}" text-anchor="middle" transform="rotate(-90 16 {(TOP + bottom) / 2})">{y_label}</text>',
    ]
    for x in x_ticks or ticks(x_low, x_high):
        parts.append(f'<path class="grid" d="M{across(x):.1f} {TOP}V{bottom}"/>')
        parts.append(f'<text x="{across(x):.1f}" y="{bottom + 18}" text-anchor="middle">{short(x)}</text>')
    for y in ticks(y_low, y_high):
        parts.append(f'<path class="grid" d="M{LEFT} {down(y):.1f}H{right}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{down(y) + 4:.1f}" text-anchor="end">{short(y)}</text>')
    if guide:
        x, (_, y, _) = series[guide][-1]
        begin = max(x_low, x * y_low / y)
        parts.append(f'<path class="guide" d="M{across(begin):.1f} {down(y * begin / x):.1f}L{across(x):.1f} {down(y):.1f}"/>')
    legend = LEFT
    for place, (name, line) in enumerate(series.items()):
        colour = COLOURS[place]
        path = "L".join(f"{across(x):.1f} {down(y):.1f}" for x, (_, y, _) in line)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, (least, median, most) in line:
            parts.append(f'<path d="M{across(x):.1f} {down(least):.1f}V{down(most):.1f}" stroke="{colour}"/>')
            parts.append(f'<circle cx="{across(x):.1f}" cy="{down(median):.1f}" r="3.5" fill="{colour}"/>')
        parts.append(f'<circle cx="{legend + 4}" cy="33" r="3.5" fill="{colour}"/><text x="{legend + 12}" y="37">{name}</text>')
        legend += 32 + 6.6 * len(name)
    if guide:
        parts.append(f'<path class="guide" d="M{legend:.1f} 33h18"/><text x="{legend + 24:.1f}" y="37">in proportion</text>')
    return "\n".join(parts) + "\n</svg>\n"
