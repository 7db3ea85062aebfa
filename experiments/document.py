"""A report as Markdown, and as one HTML page that needs no network."""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """With **bold** and [links](of this form)."""

    text: str


@dataclass(frozen=True)
class Listed:
    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """The first column stands left, the others right. Cells as Text."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """`file`: where Markdown finds the SVG."""

    title: str
    file: str
    svg: str


@dataclass(frozen=True)
class Choice:
    """Figures of which a page shows one at a time; Markdown the first, with links to the others."""

    figures: Sequence[Figure]


Block = Heading | Text | Listed | Table | Figure | Choice


def markdown(title: str, blocks: Sequence[Block]) -> str:
    parts = [f"# {title}"]
    for block in blocks:
        match block:
            case Heading():
                parts.append(f"{'#' * block.level} {block.text}")
            case Text():
                parts.append(block.text)
            case Listed():
                parts.append("\n".join(f"- {item}" for item in block.items))
            case Table():
                rules = ["---"] + ["---:"] * (len(block.head) - 1)
                rows = [block.head, rules, *block.rows]
                parts.append(
                    "\n".join(
                        f"| {' | '.join(cell.replace('|', '/') for cell in r)} |" for r in rows
                    )
                )
            case Figure():
                parts.append(f"![{block.title}]({block.file})")
            case Choice():
                first, *others = block.figures
                parts.append(f"![{first.title}]({first.file})")
                parts += [f"[{figure.title}]({figure.file})" for figure in others]
    return "\n\n".join(parts) + "\n"


def page(title: str, blocks: Sequence[Block]) -> str:
    body = [f"<h1>{html.escape(title)}</h1>", *(_block(block) for block in blocks)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f'<title>{html.escape(title)}</title><link rel="icon" href="data:,">'
        f"<style>{_STYLE}</style></head><body><main>\n"
        + "\n".join(body)
        + f'\n</main><div id="tip" hidden></div><script>{_SCRIPT}</script></body></html>\n'
    )


def _block(block: Block) -> str:
    match block:
        case Heading():
            return f"<h{block.level}>{_inline(block.text)}</h{block.level}>"
        case Text():
            return f"<p>{_inline(block.text)}</p>"
        case Listed():
            return f"<ul>{''.join(f'<li>{_inline(item)}</li>' for item in block.items)}</ul>"
        case Table():
            head = "".join(f"<th>{_inline(cell)}</th>" for cell in block.head)
            rows = "".join(
                f"<tr>{''.join(f'<td>{_inline(cell)}</td>' for cell in row)}</tr>"
                for row in block.rows
            )
            return (
                f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>'
                f"</table></div>"
            )
        case Figure():
            return _figure(block)
        case Choice():
            buttons = "".join(
                f'<button type="button"{" class=on" if number == 0 else ""}>'
                f"{html.escape(figure.title)}</button>"
                for number, figure in enumerate(block.figures)
            )
            figures = "".join(
                _figure(figure, " hidden" if number else "")
                for number, figure in enumerate(block.figures)
            )
            return f'<div class="choice"><nav>{buttons}</nav>{figures}</div>'


def _figure(figure: Figure, hidden: str = "") -> str:
    title = html.escape(figure.title)
    return f"<figure{hidden}>{figure.svg}<figcaption>{title}</figcaption></figure>"


def _inline(text: str) -> str:
    text = html.escape(text, quote=True)
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)
    return re.sub(r"\[([^\]]+)\]\(([^)\s]+)\)", r'<a href="\2">\1</a>', text)


_STYLE = """
body { font: 16px/1.5 sans-serif; color: #222; background: #fff; margin: 0 }
main { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1, h2, h3 { line-height: 1.2 }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 0.88rem; font-variant-numeric: tabular-nums }
th, td { padding: 0.3rem 0.7rem; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left }
figure { margin: 1rem 0 }
figcaption { font-size: 0.85rem; color: #555 }
svg { max-width: 100%; height: auto }
.choice nav { display: flex; gap: 0.4rem; flex-wrap: wrap }
button { font: inherit; font-size: 0.85rem; padding: 0.2rem 0.7rem; border: 1px solid #aaa;
  border-radius: 4px; background: #f4f4f4; cursor: pointer }
button.on { background: #1b6ca8; color: #fff }
#tip { position: fixed; pointer-events: none; background: #222; color: #fff; padding: 0.3rem 0.5rem;
  border-radius: 4px; font-size: 0.8rem; max-width: 22rem; white-space: pre-line }
#tip[hidden], figure[hidden] { display: none }
svg .dim { opacity: 0.15 }
"""

# Tips under the pointer, one series stressed while it is pointed at, one figure of a choice shown.
_SCRIPT = """
const tip = document.getElementById('tip');
for (const point of document.querySelectorAll('[data-tip]')) {
  point.querySelector('title')?.remove();
  point.addEventListener('mousemove', event => {
    tip.textContent = point.dataset.tip;
    tip.style.left = Math.min(event.clientX + 14, innerWidth - 200) + 'px';
    tip.style.top = (event.clientY + 14) + 'px';
    tip.hidden = false;
  });
  point.addEventListener('mouseleave', () => { tip.hidden = true; });
}
for (const series of document.querySelectorAll('.series')) {
  const all = series.parentNode.querySelectorAll('.series');
  series.addEventListener('mouseenter', () => {
    for (const other of all) other.classList.toggle('dim', other !== series);
  });
  series.addEventListener('mouseleave', () => {
    for (const other of all) other.classList.remove('dim');
  });
}
for (const choice of document.querySelectorAll('.choice')) {
  const buttons = [...choice.querySelectorAll('button')];
  const figures = [...choice.querySelectorAll('figure')];
  buttons.forEach((button, number) => button.addEventListener('click', () => {
    figures.forEach((figure, other) => { figure.hidden = other !== number; });
    buttons.forEach((other, place) => other.classList.toggle('on', place === number));
  }));
}
document.documentElement.dataset.ready = 'true';
"""
