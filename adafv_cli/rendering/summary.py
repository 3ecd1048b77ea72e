"""The end of a batch on stderr: what was answered, what was not and why, and what it took."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from rich.text import Text

from adafv.errors import cut
from adafv_cli.rendering import units
from adafv_cli.rendering.rows import row
from adafv_cli.rendering.tally import Failed, Tally, quantile
from adafv_cli.terminal import one_line

SHOWN_IDS = 10  # of one reason
SHOWN_REASONS = 10


def summary(tally: Tally, counters: Mapping[str, int] | None = None) -> Text:
    """Sum up a run, but for the failed lines.

    Args:
        tally: of the run.
        counters: of the stream, by the names of `adafv.streaming.answerer.StreamStats`.
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
        _row(text, "compute", f"{spent}, {units.less(tally.flops, tally.unpruned_flops)}")
    if counters and (counters["images_encoded"] or counters["cache_hits"]):
        encoded = f"{counters['images_encoded']} encoded, {counters['cache_hits']} cache hits"
        _row(text, "images", encoded + stored(counters))
    if tally.cut:
        _row(text, "cut off", f"{tally.cut} answers; --max-new-tokens takes more, up to the model's context")
    text.rstrip()
    return text


def stored(counters: Mapping[str, int]) -> str:
    """Say what came from a folder of encodings and what went there; nothing where there is none."""
    read, written, encoded = (counters[name] for name in ("encodings_read", "encodings_bytes", "images_encoded"))
    text = f", {read} from disk" if read else ""
    if not written:
        return text
    size = units.amount(written // max(1, encoded), units.BINARY, "B")
    return f"{text}, {units.amount(written, units.BINARY, 'B')} kept on disk ({size} an image)"


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
