"""Pages as data: titled sections of blocks, which `render` turns into one HTML file and `markdown` into Markdown.

Blocks hold plain text. The templates in `templates/` hold all markup and escape every value that they print.
"""

import base64
import dataclasses
import functools
import io
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from PIL import Image

from closure_jax.pages import drawing
from closure_jax.pages.tables import Table, markdown_text, value_text


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """Sentences; `missing` marks those that say why something is left out."""

    text: str
    missing: bool = False


@dataclasses.dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str


@dataclasses.dataclass(frozen=True)
class Code:
    """Text shown as it is, in a font of fixed width."""

    text: str


@dataclasses.dataclass(frozen=True)
class Picture:
    """An embedded PNG or GIF: its name with underscores, its bytes, and how to read it."""

    name: str
    image: bytes
    caption: str

    @property
    def alternative(self) -> str:
        """What a reader without pictures is told."""
        return self.name.replace("_", " ")

    @functools.cached_property
    def _opened(self) -> Image.Image:
        return Image.open(io.BytesIO(self.image))

    @property
    def width(self) -> int:
        """Width on the page in pixels; a PNG of `drawing.DPI` keeps its size in inches."""
        scale = 100 / drawing.DPI if self._opened.format == "PNG" else 1
        return round(self._opened.width * scale)

    @property
    def source(self) -> str:
        """The picture as a data URL."""
        return f"data:image/{str(self._opened.format).lower()};base64,{base64.b64encode(self.image).decode('ascii')}"


@dataclasses.dataclass(frozen=True)
class Details:
    """Blocks that are folded away under a line of summary."""

    summary: str
    blocks: Sequence["Block"]


Block = Paragraph | Heading | Code | Picture | Details | Table


@dataclasses.dataclass(frozen=True)
class Section:
    """A titled part of the page, to which a link at the top leads."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """Name of the place in the page."""
        return self.title.lower().replace(" ", "-")


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("closure_jax.pages", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters["shown"] = value_text
    return environment


def render(title: Any, facts: Mapping[str, Any], sections: Sequence[Section]) -> str:
    """The whole page as HTML that needs nothing from outside.

    Args:
      title: heading of the page; None is shown as a dash.
      facts: short values for the line under the title, by name.
      sections: the page's parts, in order.
    """
    return _environment().get_template("page.html").render(title=title, facts=facts, sections=sections)


def markdown(sections: Sequence[Section], pictures: str) -> str:
    """The sections in Markdown, with pictures as relative links `pictures`/NAME.png; folded blocks are left out."""
    parts: list[str] = []
    for section in sections:
        parts.append(f"## {section.title}")
        for block in section.blocks:
            parts += _markdown_block(block, pictures)
    return "\n\n".join(parts) + "\n"


def _markdown_block(block: Block, pictures: str) -> list[str]:
    """The paragraphs of Markdown that show a block."""
    match block:
        case Paragraph():
            return [markdown_text(block.text)]
        case Heading():
            return [f"### {markdown_text(block.text)}"]
        case Picture():
            caption = markdown_text(block.caption)
            return [f"![{block.alternative}]({pictures}/{block.name}.png)", f"*{caption}*"]
        case Table():
            intro = [markdown_text(block.intro)] if block.intro else []
            return [*intro, block.markdown().rstrip()]
        case _:
            return []
