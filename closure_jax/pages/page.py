"""What the pages are made of: style, text of values, tables, embedded pictures, and the page around them."""

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from closure_jax.pages import drawing

_CSS = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; color: #222;
  background: #fff; max-width: 1100px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 27px; margin: 0 0 2px; } h2 { font-size: 20px; margin: 40px 0 10px; border-bottom: 1px solid #ddd; }
h3 { font-size: 16px; margin: 26px 0 6px; } p { max-width: 75ch; }
.run { color: #555; margin: 0 0 14px; max-width: none; } .run b { color: #222; font-weight: 600; }
nav a { margin-right: 16px; color: #1565a7; text-decoration: none; }
table { border-collapse: collapse; margin: 8px 0 16px; font-size: 14px; }
th, td { text-align: left; padding: 3px 18px 3px 0; border-bottom: 1px solid #e8e8e8; vertical-align: top; }
thead th { border-bottom: 1.5px solid #888; font-weight: 600; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; } td.number { white-space: nowrap; }
.wide { overflow-x: auto; } .wide table { font-size: 13px; } .wide th, .wide td { padding-right: 12px; }
.wide td.name { white-space: nowrap; }
td.note { color: #555; } .missing { color: #777; font-style: italic; }
figure { margin: 14px 0 26px; } figure img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
figcaption { font-size: 13.5px; color: #444; max-width: 95ch; margin-top: 6px; }
pre { font-size: 12.5px; line-height: 1.4; background: #f6f6f6; padding: 12px; white-space: pre-wrap;
  overflow-wrap: anywhere; }
@media print { body { padding: 0; max-width: none; font-size: 11pt; } nav { display: none; }
  h2, h3 { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""


def text(value: Any) -> str:
    """A value as escaped text: three digits for a number, a dash for one that is missing."""
    if value is None:
        return "–"
    if not isinstance(value, float):
        return html.escape(str(value))
    if not math.isfinite(value):
        return "not finite"
    if 1e3 <= abs(value) < 1e6:
        return f"{value:.0f}"
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    return f"{mantissa} · 10<sup>{int(exponent)}</sup>" if exponent else mantissa


def duration(seconds: float | None) -> str | None:
    """Seconds as text of seconds, minutes or hours."""
    if seconds is None or not math.isfinite(seconds):
        return None
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], notes: int = 0) -> str:
    """A table: the first column names, the last `notes` columns are sentences, those between are numbers."""
    kinds = ["name", *["number"] * (len(head) - 1 - notes), *["note"] * notes]

    def row(cells: Sequence[Any], tag: str) -> str:
        filled = zip(kinds, cells, strict=True)
        return "<tr>" + "".join(f"<{tag} class={kind}>{text(cell)}</{tag}>" for kind, cell in filled) + "</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    return f"<table><thead>{row(head, 'th')}</thead><tbody>{body}</tbody></table>"


def figure(image: bytes, name: str, caption: str) -> str:
    """A PNG or GIF embedded in the page, with its caption (plain text); a PNG of `drawing.DPI` keeps its size in inches."""
    picture = Image.open(io.BytesIO(image))
    width = round(picture.width * 100 / drawing.DPI) if picture.format == "PNG" else picture.width
    source = f"data:image/{picture.format.lower()};base64,{base64.b64encode(image).decode('ascii')}"
    shown = f'<img width={width} alt="{html.escape(name)}" src="{source}">'
    return f"<figure>{shown}<figcaption>{html.escape(' '.join(caption.split()))}</figcaption></figure>"


def document(title: str, facts: Mapping[str, Any], sections: Mapping[str, str]) -> str:
    """The whole page: title (markup), facts in a line, links to the sections, sections (markup by title)."""
    line = " · ".join(f"{key} <b>{text(value)}</b>" for key, value in facts.items())
    anchors = {name: name.lower().replace(" ", "-") for name in sections}
    links = "".join(f'<a href="#{anchor}">{name}</a>' for name, anchor in anchors.items())
    body = "".join(f'<h2 id="{anchors[name]}">{name}</h2>{content}' for name, content in sections.items())
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title} – closure_jax</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_CSS}</style></head><body>'
        f"<header><h1>{title}</h1><p class=run>{line}</p><nav>{links}</nav></header><main>{body}</main></body></html>\n"
    )
