"""The end of a batch on stderr: what was answered, what was not and why, and what it took."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.text import Text

from adafv.errors import cut
from adafv_cli.rendering import units
from adafv_cli.rendering.rows import row
from adafv_cli.rendering.tally import Failed, Tally, quantile
from adafv_cli.terminal import one_line

SHOWN_IDS = 10  # of one reason
SHOWN_REASONS = 10


def summary(tally: Tally, *, images_encoded: int = 0, cache_hits: int = 0) -> Text:
    """Sum up a run, but for the failed lines.

    Args:
        tally: of the run.
        images_encoded: images that went through the vision tower.
        cache_hits: questions whose image had been encoded before.
    """
    text = Text()
    counts = f"{tally.answered} answered" + (f", {len(tally.failed)} failed" if tally.failed else "")
    rate = f"{units.digits(tally.per_second)} questions/s"
    _row(text, "questions", f"{counts} in {units.duration(tally.seconds)}, {rate}")
    if tally.answered:
        times = sorted(tally.total_s)
        median, slow = (units.duration(quantile(times, share)) for share in (0.5, 0.95))
        _row(text, "latency", f"p50 {median}, p95 {slow} (a question waits for its batch)")
    if tally.visual:
        kept = f"{tally.kept} of {tally.visual} kept, {tally.saved:.0%} saved"
        _row(text, "visual tokens", kept)
    if tally.unpruned_flops:
        spent = units.part_of(tally.flops, tally.unpruned_flops, units.DECIMAL, "FLOPs unpruned")
        saved = 1 - tally.flops / tally.unpruned_flops
        _row(text, "compute", f"{spent}, {saved:.0%} saved")
    if images_encoded or cache_hits:
        _row(text, "images", f"{images_encoded} encoded, {cache_hits} cache hits")
    if tally.cut:
        _row(text, "cut off", f"{tally.cut} answers; --max-new-tokens takes more, up to the model's context")
    text.rstrip()
    return text


def failures(tally: Tally) -> Text:
    """List the failed lines, grouped by reason, with their ids."""
    groups = list(tally.reasons().values())
    text = Text()
    for group in groups[:SHOWN_REASONS]:
        first = group[0]
        text.append(f"  {len(group)} x " if len(group) > 1 else "  ").append(first.type, "bold red")
        text.append(f": {one_line(cut(first.message))}" + (", and so on" if _differ(group) else "") + "\n")
        text.append(f"    {_ids(group)}" + (f"; {one_line(cut(first.fix))}" if first.fix else "") + "\n", "dim")
    if len(groups) > SHOWN_REASONS:
        text.append(f"  and {len(groups) - SHOWN_REASONS} more reasons\n", "dim")
    text.rstrip()
    return text


def _differ(group: Sequence[Failed]) -> bool:
    return any(failed.message != group[0].message for failed in group)


def _ids(group: Sequence[Failed]) -> str:
    ids = (json.dumps(failed.question_id, ensure_ascii=False) for failed in group[:SHOWN_IDS])
    shown = ", ".join(one_line(cut(name, 40)) for name in ids)
    more = f" and {len(group) - SHOWN_IDS} more" if len(group) > SHOWN_IDS else ""
    return f"id{'s' if len(group) > 1 else ''} {shown}{more}"


def _row(text: Text, label: str, content: str) -> None:
    text.append(row(label, content)).append("\n")
