"""Reports with made-up numbers, in every form that a real one has."""

import numpy as np

from fathometer.drawing import Axis, Bars, HeatMap, Line, Note, Panel, Picture, Points, Rule
from fathometer.results import Row, Table
from fathometer.survey.report import build_report
from fathometer.survey.vocabulary import Fact, Section, Skipped, records

PAYLOADS = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"><img src=x onerror=alert(1)>",
    "'><svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<svg/onload=alert(1)>",
    "<iframe src=javascript:alert(1)>",
    "<iframe srcdoc='<script>parent.alert(1)</script>'>",
    "<body onload=alert(1)>",
    "<a href=javascript:alert(1)>click</a>",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "<object data=data:text/html,<script>alert(1)</script>>",
    "<embed src=data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==>",
    "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>",
    "<link rel=stylesheet href=data:text/css,*{color:red}>",
    "<style>*{display:none}</style>",
    "</style><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "</textarea><script>alert(1)</script>",
    "<!--<script>alert(1)//-->",
    "--><script>alert(1)</script>",
    "<![CDATA[<script>alert(1)</script>]]>",
    "]]><script>alert(1)</script>",
    "<math><mi//xlink:href='data:x,<script>alert(1)</script>'>",
    "<details open ontoggle=alert(1)>",
    "<input autofocus onfocus=alert(1)>",
    "<video><source onerror=alert(1)>",
    "<audio src onerror=alert(1)>",
    "<form action=javascript:alert(1)><button>go</button></form>",
    "<base href=//example.invalid/>",
    "{{7*7}}",
    "{% raw %}{{config}}",
    "${alert(1)}",
    "`${alert(1)}`",
    "\\u003cscript\\u003ealert(1)\\u003c/script\\u003e",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "%3Cscript%3Ealert(1)%3C/script%3E",
    "\" onmouseover=alert(1) x=\"",
    "' onfocus=alert(1) tabindex=0 '",
    "\x00<script>alert(1)</script>",
    "<scr\x00ipt>alert(1)</script>",
    "\u202e>tpircs/<)1(trela>tpircs<",
    "\ud800<script>alert(1)</script>",
    "\u2028alert(1)\u2029",
    "<template><script>alert(1)</script></template>",
    "<noscript><p title=\"</noscript><img src=x onerror=alert(1)>\">",
    "x" * 400,
    "<x style=animation-name:x onanimationend=alert(1)>",
    "url(javascript:alert(1))",
)  # fmt: skip


def pictures(label="measured"):
    g = np.random.default_rng(3)
    values = np.concatenate([g.gamma(2, 0.8, 900) - 0.4, [12, 15, 31.0]])
    heights, edges = np.histogram(values, 60, density=True)
    x = np.linspace(-1, 8, 200)
    a = np.linspace(-1, 1, 61)
    field = a[None] ** 2 + 0.3 * a[:, None] ** 2
    steps = np.logspace(-6, -3, 7)
    spectrum = Panel(
        marks=(
            Bars(edges=edges, heights=heights, label=label),
            Line(x=x, y=np.exp(-((x - 1) ** 2)) / 4, label="theory"),
            Rule(x=0.0, label="zero"),
        ),
        x=Axis(label="eigenvalue"),
        y=Axis(label="density", scale="log"),
    )
    ladder = Panel(
        title="Discrepancy",
        marks=(
            Points(x=steps, y=1e-3 / steps, error=1e-4 / steps, label=label, texts=(label,) * 7),
            Note(x=1e-4, y=20.0, text=label),
        ),
        x=Axis(label="step size", scale="log"),
        y=Axis(label="discrepancy", scale="log"),
    )
    landscape = Panel(
        title="Landscape",
        marks=(HeatMap(values=field, x_range=(-1, 1), y_range=(-1, 1), label=label, contours=(0.1, 0.5)),),
        equal=True,
        x=Axis(label="direction 1"),
        y=Axis(label="direction 2"),
    )
    return (
        Picture(title="Spectrum", caption="Bars are measured, the line is the law.", panels=(spectrum,)),
        Picture(title="Ladder", caption="Lower is better.", panels=(ladder, landscape)),
    )


def section(number, text):
    """One section with ``text`` in every free text of it."""
    values = [(3.5, "exact"), (1e-9, "bound"), (200.0, "estimate"), (float("nan"), "estimate")]
    rows = tuple(
        Row(measure=f"measure {i} {text}", value=v, kind=k, error=0.1 * v, invariant_to=(text, "rescaling"))
        for i, (v, k) in enumerate(values)
    )
    return Section(
        name=f"part-{number}",
        title=f"Part {number} {text}",
        question=f"What is it? {text}",
        verdict=f"It is this. {text}",
        facts=(
            Fact(label=f"energy {text}", value=0.0123, kind="exact", unit="nats"),
            Fact(label="trace", value=12.5, kind="estimate", error=0.25, meaning=f"half of it {text}"),
            Fact(label="index", value=0.01, kind="bound"),
        ),
        pictures=records(pictures(text)),
        tables=(Table(title=f"Table {number} {text}", rows=rows, notes=(text,)),),
        notes=(text, "A second note."),
    )


def realistic(name="digits-mlp", texts=("measured", "computed")):
    """A report with one section for each of ``texts``, which stand everywhere in it."""
    return build_report(
        [section(number, text) for number, text in enumerate(texts)],
        title=name,
        subtitle=f"A network {name}",
        skipped=[Skipped(what=f"one {text}", reason=text) for text in texts],
        manifest={"seed": 0, "versions": {"torch": "2", **{text: text for text in texts}}},
    )
