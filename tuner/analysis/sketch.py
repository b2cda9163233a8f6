"""A trial's requests as one small picture: who waited for the first token, who for the rest, who for a free place."""

from html import escape
from typing import Any

import pandas as pd

from tuner import words

_WIDTH, _LEFT, _ROW, _GAP = 720, 190, 9, 26
_MOST = 40
"""Requests of a stage that are drawn: a fast server has hundreds of them, each much like the next."""
_WAITING, _DECODING, _FAILED, _INK = "#dd8a06", "#2f8bd8", "#d8505f", "#5b626c"


def requests_svg(requests: pd.DataFrame) -> str:
    """Every request as a bar, stage by stage, each stage on its own scale.

    Args:
        requests: As ``tuner.analysis.requests`` gives them, of one trial.
    """
    shapes: list[str] = []
    top = 34.0
    for stage, sent in requests.groupby("stage", sort=False):
        rows = sent.head(_MOST)
        ends = rows["sent_ms"] + rows["e2e_ms"].fillna(0)
        longest = float(ends.max()) or 1.0
        label = f"{stage} ({words.duration(longest / 1000)})"
        label += f", {len(rows)} of {len(sent)}" if len(rows) < len(sent) else ""
        shapes.append(f'<text x="4" y="{top + 8:.0f}">{escape(label)}</text>')
        for row in rows.itertuples():
            shapes += _bar(row, top, (_WIDTH - _LEFT - 8) / longest)
            top += _ROW
        top += _GAP - _ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top:.0f}" width="{_WIDTH}" height="{top:.0f}" '
        f'font-family="system-ui, sans-serif" font-size="10" fill="{_INK}">'
        '<rect width="100%" height="100%" fill="#ffffff"/>'
        f'<text x="4" y="16" font-size="12"><tspan fill="{_WAITING}">■</tspan> until the first token '
        f'<tspan fill="{_DECODING}">■</tspan> until the last <tspan fill="{_FAILED}">■</tspan> failed</text>'
        f"{''.join(shapes)}</svg>"
    )


def _bar(row: Any, top: float, scale: float) -> list[str]:
    left = _LEFT + row.sent_ms * scale
    if isinstance(row.failure, str):
        return [_rect(left, top, 6.0, _FAILED)]
    first = row.ttft_ms * scale
    return [_rect(left, top, first, _WAITING), _rect(left + first, top, (row.e2e_ms - row.ttft_ms) * scale, _DECODING)]


def _rect(left: float, top: float, width: float, color: str) -> str:
    size = f'width="{max(width, 0.5):.1f}" height="{_ROW - 2}"'
    return f'<rect x="{left:.1f}" y="{top:.1f}" {size} fill="{color}"/>'
