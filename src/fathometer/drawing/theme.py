"""The colors, dashes and shapes of pictures, for light and dark pages.

Every color is a CSS custom property with the light value as fallback, so a page
changes the theme by setting properties and a picture alone still looks right. The
eight series colors have a contrast of at least 3 to 1 on their page (WCAG 1.4.11)
and never speak alone: lines also differ in dash, points in shape.
"""

LIGHT = {
    "ink": "#1a2027",
    "muted": "#525d69",
    "grid": "#e6eaee",
    "axis": "#7b8794",
    "paper": "#ffffff",
    "0": "#0a67a8",
    "1": "#c14a09",
    "2": "#0b7a5c",
    "3": "#96478a",
    "4": "#8a6a00",
    "5": "#5b4fc4",
    "6": "#b3243f",
    "7": "#5d6873",
}
DARK = {
    "ink": "#e8ecf0",
    "muted": "#a3afbb",
    "grid": "#2a323b",
    "axis": "#74808d",
    "paper": "#14191f",
    "0": "#5aaef2",
    "1": "#f29a5c",
    "2": "#4cc9a0",
    "3": "#dd92d0",
    "4": "#dcbf54",
    "5": "#a79cf5",
    "6": "#f5849a",
    "7": "#a9b4bf",
}
COLORS = 8
DASHES = ("", "7 3", "2 2.5", "9 3 2 3", "4 2", "12 4 3 4", "1.5 4", "14 3")
"""Dash of the first, second, ... line of a panel."""

SEQUENTIAL = (
    "#440154",
    "#482878",
    "#3e4989",
    "#31688e",
    "#26828e",
    "#1f9e89",
    "#35b779",
    "#6ece58",
    "#b5de2b",
    "#fde725",
)
DIVERGING = ("#14498c", "#3b7fbd", "#93bede", "#f3f1ee", "#eda98a", "#cc5a3d", "#8c1c1d")
CATEGORIES = (
    "#4e8fc7",
    "#e2894a",
    "#54a883",
    "#c079b3",
    "#c9a93b",
    "#8a80d6",
    "#d66a7c",
    "#8e99a4",
    "#7fbfd9",
    "#b5774e",
    "#9cc45f",
    "#e3a6c4",
)


def variables(theme: dict[str, str]) -> str:
    """The theme as CSS declarations of ``--fm-...`` properties."""
    return "".join(f"--fm-{name}:{color};" for name, color in theme.items())


def _var(name: str) -> str:
    return f"var(--fm-{name},{LIGHT[name]})"


def style() -> str:
    """The rules that every picture needs, for a page's style sheet or for the picture itself."""
    series = "".join(
        f".fm-s{i}{{stroke:{_var(str(i))}}}.fm-f{i}{{fill:{_var(str(i))}}}" for i in range(COLORS)
    )
    return (
        ".fm-picture{font:12px/1.3 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,"
        "sans-serif;max-width:100%;height:auto}"
        f".fm-picture text{{fill:{_var('ink')};stroke:none}}"
        f".fm-picture .fm-muted{{fill:{_var('muted')}}}"
        ".fm-picture .fm-name{font-weight:600;font-size:13px}"
        ".fm-picture .fm-small{font-size:11px}"
        f".fm-grid{{stroke:{_var('grid')};fill:none}}"
        f".fm-axis{{stroke:{_var('axis')};fill:none}}"
        f".fm-paper{{fill:{_var('paper')};stroke:none}}"
        f".fm-inks{{stroke:{_var('ink')};fill:none}}"
        f".fm-picture .fm-halo{{paint-order:stroke;stroke:{_var('paper')};stroke-width:3.5px;"
        "stroke-linejoin:round}"
        ".fm-line{fill:none;stroke-width:1.9;stroke-linejoin:round}"
        ".fm-line:not([stroke-dasharray]){stroke-linecap:round}"
        ".fm-dots{fill:none;stroke-linecap:round;stroke-width:3.2}"
        f".fm-ring{{fill:{_var('paper')};stroke-width:1.6}}"
        ".fm-cross{fill:none;stroke-width:1.9}"
        ".fm-error{fill:none;stroke-width:1.2}"
        ".fm-bar{fill-opacity:.78;stroke-width:.6}"
        ".fm-band{fill-opacity:.2;stroke:none}"
        f".fm-rule{{stroke:{_var('muted')};stroke-width:1.2;fill:none}}"
        ".fm-field{image-rendering:pixelated}"
        ".fm-cells{shape-rendering:crispEdges}.fm-plot{fill:none;pointer-events:all}" + series
    )


def style_alone() -> str:
    """`style`, and the theme of a picture outside a report: the system's or the notebook's."""
    dark = variables(DARK)
    return (
        f".fm-alone{{{variables(LIGHT)}}}"
        f"@media (prefers-color-scheme:dark){{.fm-alone{{{dark}}}}}"
        f"[data-jp-theme-light=true] .fm-alone,.vscode-light .fm-alone{{{variables(LIGHT)}}}"
        f"[data-jp-theme-light=false] .fm-alone,.vscode-dark .fm-alone{{{dark}}}" + style()
    )


def rgb(color: str) -> tuple[int, int, int]:
    """Red, green and blue of ``#rrggbb``, 0 to 255."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def luminance(color: str) -> float:
    """Relative luminance of ``#rrggbb`` from 0 (black) to 1 (white), as WCAG 2 defines it."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in rgb(color))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def on_color(color: str) -> str:
    """Black or white, whichever reads better on ``color``."""
    return "#ffffff" if luminance(color) < 0.18 else "#000000"
