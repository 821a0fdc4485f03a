"""`blame` as a picture: PNG by matplotlib, or one HTML file that fetches nothing."""

from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from typing import Literal

from ...crypto.extras import extra
from .blame import Blame, BlamedMember

BAR, HEIGHT, ROW, LEFT = 420, 14, 40, 180  # of the drawing, in pixels
MEASURES: tuple[tuple[Literal["weight_share", "norm_share"], str, str], ...] = (
    ("weight_share", "share of weight", "#3b6ea5"),
    ("norm_share", "share of squared norm", "#d98c3f"),
)


def png(blame: Blame) -> bytes:
    """Return bars of each member's shares as a PNG; a share that is not known here has no bar."""
    with extra("plots"):  # a second that a table need not wait
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415

    members = blame["members"]
    figure = Figure(figsize=(8, 1.5 + 0.45 * max(1, len(members))))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, (key, label, colour) in enumerate(MEASURES):
        places = [line + 0.4 * number for line in range(len(members))]
        axes.barh(places, [member[key] or 0.0 for member in members], 0.38, label=label, color=colour)
    # A name is not read as a formula, whatever signs it has.
    axes.set_yticks([line + 0.2 for line in range(len(members))], list(map(_label, members)), parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(left=0.0)
    axes.set_title(_title(blame), fontsize=9, parse_math=False)
    axes.legend(loc="lower right")
    figure.tight_layout()
    out = BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()


def html(blame: Blame) -> str:
    """Return a page with the same bars as SVG and all figures as a table."""
    members = blame["members"]
    bars = "".join(_bars(member, line) for line, member in enumerate(members))
    keys = "".join(f'<tspan fill="{colour}">■</tspan> {escape(label)}&#160;&#160; ' for _, label, colour in MEASURES)
    size = f'width="{LEFT + BAR + 90}" height="{ROW * len(members) + 30}"'
    drawing = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="shares by member" {size}'
        f' font-family="sans-serif" font-size="12"><text x="0" y="14">{keys}</text>{bars}</svg>'
    )
    head = "".join(f"<th>{escape(name)}</th>" for name in COLUMNS)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in map(_shown, row(member))) + "</tr>"
        for member in members
    )
    title = escape(_title(blame))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        "<style>body{font-family:sans-serif;margin:2em}td,th{text-align:left;padding:.2em 1em .2em 0}</style>"
        f"<h1>{title}</h1>{drawing}<p>Weight: {escape(blame['weight_is'])}.</p>"
        f"<table><tr>{head}</tr>{rows}</table>"
        f"<p>Height {blame['height']}, block {escape(blame['block'])}.</p></html>\n"
    )


COLUMNS = (
    "member", "state", "rounds", "weight", "norm²", "ε by modality", "staleness", "withdrawn", "refused", "missing",
    "suspended",
)  # fmt: skip


def row(member: BlamedMember) -> Sequence[object]:
    """Return a member's line under COLUMNS; None: not known here."""
    stale = member["staleness"]
    return (
        member["name"],
        member["state"],
        member["rounds"],
        _percent(member["weight_share"]),
        _percent(member["norm_share"]),
        ", ".join(
            f"{c['modality']} {'open' if c['epsilon'] is None else format(c['epsilon'], 'g')}"
            for c in member["epsilon"]
        )
        or None,
        None
        if stale["mean"] is None
        else f"{stale['mean']:.2g}" + (f" ({_counts(stale['rounds'])})" if set(stale["rounds"]) - {"0"} else ""),
        member["withdrawn"] or None,
        _counts(member["refused"]) or None,
        _counts(member["missing"]) or None,
        member["suspended"] or None,
    )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} × {name}" for name, count in counts.items())


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f} %"


def _shown(cell: object) -> str:
    return "–" if cell is None else str(cell)


def _title(blame: Blame) -> str:
    return f"{blame['component']}: round {blame['round']}, generation {blame['generation']}, rule {blame['rule']}"


def _label(member: BlamedMember) -> str:
    return str(member["name"]) + ("" if member["state"] == "member" else f" ({member['state']})")


def _bars(member: BlamedMember, line: int) -> str:
    top = 30 + ROW * line
    drawing = f'<text x="0" y="{top + HEIGHT}">{escape(_label(member))}</text>'
    for number, (key, _, colour) in enumerate(MEASURES):
        share, at = member[key], top + (HEIGHT + 1) * number
        if share is not None:
            drawing += (
                f'<rect x="{LEFT}" y="{at}" width="{BAR * share:.1f}" height="{HEIGHT}" fill="{colour}"/>'
                f'<text x="{LEFT + 6 + BAR * share:.1f}" y="{at + 12}">{100 * share:.1f} %</text>'
            )
    return drawing
