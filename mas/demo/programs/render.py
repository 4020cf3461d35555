"""Render a report as Markdown and as a web page.

Run in a workspace it takes the blocks of the report from temp/blocks.json, writes
report.md and report.html to output/, the pictures beside them, and prints their names.
"""

import json
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

Block = tuple[str, Any]
"""What it is (heading, paragraph, points, table, picture), and what it says."""

_PAGE = """\
<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; display: block; overflow-x: auto }}
th, td {{ border-bottom: 1px solid #ddd; padding: .3rem .8rem; text-align: left }}
h1 + p {{ border-left: 4px solid #e69f00; padding-left: 1rem }}
img {{ max-width: 100%; margin-right: 1rem }}
</style>
{body}
</html>
"""


def markdown(blocks: Iterable[Block]) -> str:
    """The report as Markdown."""
    parts: list[str] = []
    for kind, content in blocks:
        match kind:
            case "heading":
                parts.append(f"{'##' if parts else '#'} {_md(content)}")
            case "paragraph":
                parts.append(_md(content))
            case "points":
                parts.append("\n".join(f"- {_md(item)}" for item in content))
            case "table":
                header, *rows = content
                lines = [_md_row(header), "| --- " * len(header) + "|"]
                parts.append("\n".join([*lines, *map(_md_row, rows)]))
            case "picture":
                parts.append(f"![{content}]({content})")
    return "\n\n".join(parts) + "\n"


def _md_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_md, cells))} |"


def _md(words: str) -> str:
    # Of what a file holds, nothing may turn into a link, a tag or a new cell.
    return re.sub(r"([\\`*<>\[\]|#&])", r"\\\1", _line(words))


def html(blocks: Iterable[Block]) -> str:
    """The report as a web page."""
    parts: list[str] = []
    title = ""
    for kind, content in blocks:
        match kind:
            case "heading":
                level = "h2" if parts else "h1"
                title = title or _html(content)
                parts.append(f"<{level}>{_html(content)}</{level}>")
            case "paragraph":
                parts.append(f"<p>{_html(content)}</p>")
            case "points":
                items = "".join(f"<li>{_html(item)}</li>" for item in content)
                parts.append(f"<ul>{items}</ul>")
            case "table":
                header, *rows = content
                lines = [_html_row(header, "th")]
                lines += [_html_row(row, "td") for row in rows]
                parts.append("\n".join(["<table>", *lines, "</table>"]))
            case "picture":
                parts.append(f'<img src="{content}" alt="{content}">')
    return _PAGE.format(title=title, body="\n".join(parts))


def _html_row(cells: Sequence[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{_html(cell)}</{tag}>' for cell in cells)}</tr>"


def _html(words: str) -> str:
    return escape(_line(words))


def _line(words: str) -> str:
    flat = " ".join(words.split())
    return "".join(char if char.isprintable() else "\ufffd" for char in flat)


def main() -> None:
    blocks: list[Block] = json.loads(Path("temp/blocks.json").read_bytes())
    output = Path("output")
    output.joinpath("report.md").write_text(markdown(blocks), encoding="utf-8")
    output.joinpath("report.html").write_text(html(blocks), encoding="utf-8")
    pictures = [content for kind, content in blocks if kind == "picture"]
    for name in pictures:
        shutil.copy(Path("context/files/chart", name), output)
    files = ["report.md", "report.html", *pictures]
    sys.stdout.buffer.write(json.dumps({"files": files}).encode())


if __name__ == "__main__":
    main()
