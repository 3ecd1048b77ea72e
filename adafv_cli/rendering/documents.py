"""`sweep --report` as a document to cite: Markdown, LaTeX or a page of HTML, made of what the JSON report holds."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adafv_cli.rendering.units import BINARY, amount, percent

KINDS = ("md", "tex", "html")
MARK = "adafv sweep report"  # by which an earlier one is known, and may be replaced
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}table{border-collapse:"
    "collapse}td,th{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child,"
    ".facts td{text-align:left}img{max-width:100%}code{background:#f4f4f4;padding:.1rem .3rem;overflow-wrap:anywhere}"
    ".best{font-weight:bold}"
)
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {letter: f"\\{letter}" for letter in "&%$#_{}"}


@dataclass(frozen=True)
class Document:
    """What is written, in whatever form.

    Args:
        title, says: heading, and the sentences under it.
        heads, rows, best: the table, and which of its rows is recommended.
        facts: settings, versions, hardware, by name.
        command: that made it.
    """

    title: str
    says: tuple[str, ...]
    heads: list[str]
    rows: list[list[str]]
    best: int | None
    facts: dict[str, str]
    command: str


def document(kind: str, content: Mapping[str, Any], says: Sequence[str], figure: bytes, plot: str | None) -> bytes:
    """Write a report.

    Args:
        kind: of `KINDS`.
        content: of the JSON report.
        says: sentences about the whole.
        figure: the curve as SVG, which a page of HTML holds itself.
        plot: the file that the curve was drawn into, which the others refer to.
    """
    made = _gathered(content, says)
    write = {"md": _markdown, "tex": _latex, "html": _html}[kind]
    return write(made, figure, plot).encode()


def _gathered(content: Mapping[str, Any], says: Sequence[str]) -> Document:
    whole = next((point["flops"] for point in content["points"] if point["pruner"] == "none"), None)
    points: list[Mapping[str, Any]] = [point | {"unpruned_flops": whole} for point in content["points"]]
    columns = {head: [cell(point) for point in points] for head, cell in _COLUMNS.items()}
    for name in dict.fromkeys(name for point in points for name in point.get("scores") or {}):
        columns[name] = [_score(name, (point.get("scores") or {}).get(name)) for point in points]
    there = {head: cells for head, cells in columns.items() if any(cells)}
    metric = next((point["accuracy"]["metric"] for point in points if point["accuracy"]), None)
    known = {"model": content["model"], "settings": content["settings"]}
    facts = {
        f"{group}: {name}": _said(value)
        for group, one in known.items()
        for name, value in one.items()
        if value not in (None, "", [], {})  # a seed of 0 is one
    }
    facts |= {f"version of {name}": str(value) for name, value in content["versions"].items()}
    facts |= {name: str(value) for name, value in content["machine"].items() if name != "host"}
    outcome = content["outcome"]
    return Document(
        title=f"adafv sweep of {content['settings'].get('input', 'questions')}",
        says=(
            *(() if outcome == "finished" else (f"Partial: {outcome}.",)),
            *says,
            f"Quality is {metric or 'agreement with the unpruned model'}, in percent; intervals are 95 % over images. "
            f"adafv {content['adafv']}, {content['started']} to {content['ended']}.",
        ),
        heads=list(there),
        rows=[list(cells) for cells in zip(*there.values(), strict=True)],
        best=next((number for number, point in enumerate(points) if point["recommended"]), None),
        facts=facts,
        command=shlex.join(["adafv", *content["command"]]),
    )


def _setting(point: Mapping[str, Any]) -> str:
    name = "unpruned" if point["pruner"] == "none" else f"{point['pruner']} {point['keep']}"
    others = [str(point[key]) for key in ("positions", "select") if point.get(key)]
    return f"{name} ({', '.join(others)})" if others else name


def _between(found: Mapping[str, Any] | None, *, signed: bool = False) -> str:
    """Write `96.8 (95.9 to 97.6)`."""
    if found is None:
        return ""
    value, low, high = (f"{100 * found[name]:{'+' if signed else ''}.1f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _score(name: str, found: Mapping[str, float] | None) -> str:
    if found is None:
        return ""
    scale = 100 if name == "accuracy+" else 1
    value, low, high = (f"{scale * found[key]:.1f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _other(point: Mapping[str, Any]) -> str:
    found = point.get("against")
    return f"{_between(found, signed=True)} to {found['pruner']} {found['keep']}" if found else ""


def _kept(point: Mapping[str, Any]) -> str:
    return f"{point['tokens']['kept']:.4g}" if point["tokens"] else ""


def _flops(point: Mapping[str, Any]) -> str:
    """Write a share of the sweep's own unpruned, whose prompts may share a prefill."""
    flops, whole = point["flops"], point["unpruned_flops"]
    return percent(flops["total"], whole["total"]) if flops and whole else ""


def _difference(point: Mapping[str, Any]) -> str:
    return "" if point["pruner"] == "none" else _between(point["difference"], signed=True)


_COLUMNS: dict[str, Any] = {
    "setting": _setting,
    "quality": lambda point: _between(point["accuracy"] or point["agreement"]),
    "to unpruned": _difference,
    "to another": _other,
    "from floor %": lambda point: "" if point.get("headroom") is None else f"{100 * point['headroom']:.1f}",
    "F1": lambda point: _between(point["yes_no"]["f1"]) if point["yes_no"] else "",
    "agrees": lambda point: _between(point["agreement"]) if point["accuracy"] and point["pruner"] != "none" else "",
    "questions": lambda point: str(point["questions"]),
    "failed": lambda point: str(point["failed"] or ""),
    "tokens": _kept,
    "FLOPs": _flops,
    "TTFT ms": lambda point: f"{1000 * point['latency_s']['ttft']:.1f}" if point["latency_s"] else "",
    "questions/s": lambda point: f"{point['questions_per_s']:.3g}" if point["questions_per_s"] else "",
    "KV cache": lambda point: amount(point["memory_bytes"]["kv_cache"], BINARY, "B") if point["memory_bytes"] else "",
}


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _markdown(made: Document, _figure: bytes, plot: str | None) -> str:
    def cell(text: str) -> str:
        return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")

    rows = [
        [f"**{cell(text)}**" if number == made.best and text else cell(text) for text in row]
        for number, row in enumerate(made.rows)
    ]
    table = [made.heads, ["---", *["---:"] * (len(made.heads) - 1)], *rows]
    lines = [f"<!-- {MARK} -->", f"# {cell(made.title)}", "", *(f"{one}\n" for one in made.says)]
    lines += [f"| {' | '.join(row)} |" for row in table]
    lines += ["", f"![quality against cost]({plot})"] if plot else []
    fence = "`" * (1 + max(map(len, re.findall("`+", made.command)), default=2))
    lines += ["", f"{fence}sh", made.command, fence, "", "| | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {cell(name)} | {cell(text)} |" for name, text in made.facts.items()), ""])


def _latex(made: Document, _figure: bytes, plot: str | None) -> str:
    def text(plain: str) -> str:
        return "".join(_LATEX.get(letter, letter) for letter in plain)

    rows = [
        " & ".join(rf"\textbf{{{text(one)}}}" if number == made.best and one else text(one) for one in row)
        for number, row in enumerate(made.rows)
    ]
    lines = [f"% {MARK}", r"\begin{table}", r"\centering\footnotesize"]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(made.heads) - 1)}}}", r"\hline"]
    lines += [" & ".join(map(text, made.heads)) + r" \\", r"\hline", *(f"{row} \\\\" for row in rows), r"\hline"]
    caption = " ".join([f"{made.title}.", *made.says])
    lines += [r"\end{tabular}", rf"\caption{{{text(caption)}}}", r"\end{table}"]
    if plot:
        lines += [r"\begin{figure}", r"\centering", rf"\includegraphics[width=\linewidth]{{{plot}}}", r"\end{figure}"]
    facts = [f"{name}: {value}" for name, value in made.facts.items()]
    return "\n".join([*lines, *(f"% {' '.join(line.split())}" for line in (made.command, *facts)), ""])


def _html(made: Document, figure: bytes, _plot: str | None) -> str:
    heads = "".join(f"<th>{html.escape(head)}</th>" for head in made.heads)
    rows = "".join(
        f"<tr{' class=best' if number == made.best else ''}>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        + "</tr>\n"
        for number, row in enumerate(made.rows)
    )
    facts = "".join(f"<tr><td>{html.escape(name)}<td>{html.escape(text)}</tr>\n" for name, text in made.facts.items())
    image = base64.b64encode(figure).decode()
    drawn = f'<p><img alt="quality against cost" src="data:image/svg+xml;base64,{image}">' if figure else ""
    says = "".join(f"<p>{html.escape(one)}\n" for one in made.says)
    title = html.escape(made.title)
    return (
        f"<!doctype html>\n<!-- {MARK} -->\n<html lang=en><meta charset=utf-8><title>{title}</title>"
        f"<style>{_STYLE}</style>\n<h1>{title}</h1>\n{says}<table><thead><tr>{heads}</tr></thead>\n<tbody>{rows}</tbody>"
        f"</table>\n{drawn}\n<p><code>{html.escape(made.command)}</code>\n<table class=facts>{facts}</table>\n</html>\n"
    )
