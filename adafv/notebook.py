"""Shows answers and explanations in notebooks, as HTML; everything that a question or a model said is escaped."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adafv.records import Answer

_PREFIXES = ("", "k", "M", "G", "T", "P")


def answer_html(answer: Answer) -> str:
    """Show an answer: what was asked and said, and what it cost beside the unpruned model."""
    if answer.error is not None:
        said = f"<b>{escape(answer.error.type)}</b>: {_text(answer.error.message)}<br><i>{_text(answer.error.fix)}</i>"
    else:
        said = f"<b>{_text(answer.text or '')}</b>"
    rows = "".join(
        f'<tr><td style="text-align: left">{name}</td><td style="text-align: left">{escape(value)}</td></tr>'
        for name, value in _costs(answer)
    )
    return f"<div><div>{_text(answer.prompt)}</div><div>{said}</div><table>{rows}</table></div>"


def explanation_html(answer: Answer, picture: bytes) -> str:
    """Show an explanation: its answer over its picture, which is a PNG."""
    source = f"data:image/png;base64,{b64encode(picture).decode()}"
    alternative = escape(f"what was kept of the image for: {answer.prompt}", quote=True)
    return f'{answer_html(answer)}<img style="max-width: 100%" alt="{alternative}" src="{source}">'


def _costs(answer: Answer) -> list[tuple[str, str]]:
    rows = []
    if answer.tokens is not None:
        rows.append(("visual tokens", f"{answer.tokens.kept} of {answer.tokens.visual}, {answer.pruner}"))
    if answer.flops is not None:
        rows.append(("FLOPs", _beside(answer.flops.total, answer.flops.unpruned_total, "")))
    if answer.memory_bytes is not None:
        memory = answer.memory_bytes
        rows.append(("key/value cache", _beside(memory.kv_cache, memory.unpruned_kv_cache, "B")))
    if answer.latency_s is not None:
        rows.append(("latency", f"{answer.latency_s.total:.3g} s"))
    return rows


def _beside(part: int, whole: int, unit: str) -> str:
    share = f" ({part / whole:.0%})" if whole else ""
    return f"{_amount(part, unit)} of {_amount(whole, unit)}{share}"


def _amount(value: float, unit: str) -> str:
    """Write a number with three digits and a prefix of the SI."""
    for prefix in _PREFIXES[:-1]:
        if value < 999.5:
            return f"{value:.3g} {prefix}{unit}".rstrip()
        value /= 1000
    return f"{value:.3g} {_PREFIXES[-1]}{unit}"


def _text(text: str) -> str:
    """Write text as it is, its line breaks too."""
    return f'<span style="white-space: pre-wrap">{escape(text)}</span>'
