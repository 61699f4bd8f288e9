"""What all pages share: the frame with its style, tables of settings, and pictures."""

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from persona.atomic import beside

Captioned = tuple[str, Image.Image]
"""A picture and what it shows."""

LARGEST = 384  # pixels a side: photos of a camera would make the page tens of megabytes

_STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --paper: #fff; --soft: #6b6b70; --line: #d9d9de; --accent: #0b62c4;
        --a: #0b62c4; --b: #b3261e; --c: #2e7d32; --d: #8e24aa; --e: #a15c00; --f: #00798c }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececf0; --paper: #161618; --soft: #a3a3aa; --line: #3a3a40; --accent: #74b0ff;
          --a: #74b0ff; --b: #ff8a80; --c: #81c784; --d: #d69ae5; --e: #ffb74d; --f: #4dd0e1 }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.5rem; max-width: 68rem; font: 1rem/1.5 system-ui, sans-serif;
       color: var(--ink); background: var(--paper); overflow-wrap: anywhere }
h1 { margin: 0 0 1rem; line-height: 1.2 }
h2 { margin: 2.5rem 0 .75rem; border-bottom: 1px solid var(--line) }
h3 { margin: 1.25rem 0 .5rem; font-size: 1rem }
nav a { margin-right: 1rem }
a { color: var(--accent) }
:is(a, button, select, summary, [tabindex]):focus-visible { outline: 3px solid var(--accent); outline-offset: 2px }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: .75rem;
            margin: 0; padding: 0; list-style: none }
figure { margin: 0; break-inside: avoid }
img { display: block; width: 100%; height: auto; border-radius: 4px }
figcaption, .soft, text { font-size: .8rem; color: var(--soft); fill: var(--soft) }
svg { display: block; width: 100%; height: auto }
svg .axis { stroke: var(--line) }
svg text { font-size: 14px }
table { border-collapse: collapse }
caption { text-align: left }
th, td { padding: .2rem 1.25rem .2rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
td { font-variant-numeric: tabular-nums }
@media print { nav, details:not([open]) { display: none } body { max-width: none; padding: 0 } }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'{may}">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1><nav aria-label="Sections">{links}</nav></header>
<main>
{sections}
</main>{script}
</body>
</html>
"""


def write_page(path: Path, title: str, sections: Mapping[str, str], *, style: str = "", script: str = "") -> None:
    """Write a page; what stood at ``path`` stays until it is complete.

    Args:
        path: the HTML file.
        title: heading of the page, as plain text.
        sections: heading to HTML, in their order; those that are empty are left out.
        style: more of it.
        script: the only one that the page may run.

    Raises:
        OSError: the file cannot be written.
    """
    filled = {heading: (_anchor(heading), body) for heading, body in sections.items() if body}
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = _PAGE.format(
        title=escape(title),
        may=f"; script-src 'sha256-{digest}'" if script else "",
        style=_STYLE + style,
        links="".join(f'<a href="#{anchor}">{heading}</a>' for heading, (anchor, _) in filled.items()),
        sections="\n".join(
            f'<section id="{anchor}" aria-labelledby="{anchor}-heading">'
            f'<h2 id="{anchor}-heading">{heading}</h2>{body}</section>'
            for heading, (anchor, body) in filled.items()
        ),
        script=f"\n<script>{script}</script>" if script else "",
    )
    with beside(path) as part:
        part.write_text(page, encoding="utf-8", errors="replace")


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def table(caption: str, values: Mapping[str, object]) -> str:
    """Return names and values as a table, without those that are ``None``; nothing where there are none."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(_shown(value))}</td></tr>'
        for name, value in values.items()
        if value is not None
    )
    return f'<table><caption class="soft">{escape(caption)}</caption>{rows}</table>' if rows else ""


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(part)}" for name, part in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def pictures(captioned: Sequence[Captioned]) -> str:
    """Return pictures side by side, each above what it shows; nothing where there are none."""
    figures = (f"<li>{figure(image, escape(caption), caption)}</li>" for caption, image in captioned)
    return f'<ul class="pictures">{"".join(figures)}</ul>' if captioned else ""


def figure(image: Image.Image, caption: str, text: str, largest: int = LARGEST) -> str:
    """Return a picture with its caption.

    Args:
        image: of any mode and size; large ones are shown smaller.
        caption: HTML that stands below.
        text: what it shows, for those who do not see it.
        largest: pixels of its longer side.
    """
    return (
        f'<figure><img src="{_data_uri(image, largest)}" width="{image.width}" height="{image.height}" '
        f'alt="{escape(text)}" loading="lazy"><figcaption>{caption}</figcaption></figure>'
    )


def _data_uri(image: Image.Image, largest: int) -> str:
    small = image.convert("RGBA" if image.has_transparency_data else "RGB")
    small.thumbnail((largest, largest))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=88)  # WebP of PIL writes no metadata unless told to: no place, no camera
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
