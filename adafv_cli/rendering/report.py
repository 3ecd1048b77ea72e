"""The report on stderr: an `Answer`'s records as a few lines of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields

from rich.text import Text

from adafv.budget import Budget
from adafv.errors import cut
from adafv.records import Answer, Comparison
from adafv.settings import RunSettings
from adafv.setup import Setup
from adafv.spent import Flops, Latency, TokenCounts
from adafv_cli.rendering.rows import row
from adafv_cli.rendering.units import BINARY, DECIMAL, amount, duration, part_of, percent
from adafv_cli.terminal import one_line

STAGES = ("preprocess", "vision", "score", "prune", "prefill", "decode")
SERVED = ("preprocess", "vision", "score", "prune", "server")
FLOPS_NOTE = ("2 per multiply-accumulate; text, vision, projector, scoring,", "LM head and decode included")

_BAR = 20
_DONE, _REST = "cyan", "bright_black"


def single(answer: Answer, *, bars: bool = False, details: bool = False) -> Text:
    """Report on one answer.

    Args:
        answer: one that was answered.
        bars: draw shares as bars; needs colour and Unicode.
        details: also the FLOPs of each stage, the tokens of text and answer, and peak memory.
    """
    text = Text()
    if answer.tokens is not None:
        _tokens(text, answer, answer.tokens, bars)
    if answer.setup is not None:
        _setup(text, answer.setup)
    if answer.memory_bytes is not None:
        memory = answer.memory_bytes
        share = part_of(memory.kv_cache, memory.unpruned_kv_cache, BINARY, "B")
        _row(text, "KV cache", f"{share} unpruned", memory.kv_cache, memory.unpruned_kv_cache, bars)
    if answer.flops is not None:
        flops = answer.flops
        share = part_of(flops.total, flops.unpruned_total, DECIMAL, "FLOPs")
        _row(text, "compute", f"{share} unpruned", flops.total, flops.unpruned_total, bars)
        for line in FLOPS_NOTE:
            _line(text, "", line, style="dim")
    if answer.latency_s is not None:
        _latency(text, answer.latency_s, answer.flops if details else None)
    if details:
        _details(text, answer)
    if answer.compare is not None and answer.latency_s is not None:
        _comparison(text, answer.compare, answer.latency_s)
    text.rstrip()
    return text


def several(answers: Sequence[Answer]) -> Text:
    """Report on questions that share an image, a row each."""
    compared = any(answer.compare for answer in answers)
    header = ["", "saliency", "similarity", "both", "TTFT", "TPOT", "total", "FLOPs"]
    header += ["speed-up", "agrees"] if compared else ["KV cache"]
    rows = [_cells(number, answer, compared) for number, answer in enumerate(answers, start=1)]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    text = Text()
    tokens = next((answer.tokens for answer in answers if answer.tokens), None)
    if tokens is not None:
        _line(text, "visual tokens", f"{_kept(tokens)}; the image is encoded once, with question 1")
    looked = [one.tokens.tiles for one in answers if one.tokens is not None]
    if tokens is not None and any(tiles is not None and tiles < tokens.crops - 1 for tiles in looked):
        _line(text, "", f"of {tokens.crops - 1} tiles each looked at: {', '.join(map(str, looked))}")
    setup = next((answer.setup for answer in answers if answer.setup), None)
    if setup is not None:
        _setup(text, setup)
    for cells in (header, *rows):
        line = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        text.append(line.rstrip() + "\n", "dim" if cells is header else "")
    text.append(f"times in ms; FLOPs{'' if compared else ' and KV cache'} in % of unpruned\n", "dim")
    text.append(f"FLOPs: {FLOPS_NOTE[0]}\n       {FLOPS_NOTE[1]}", "dim")
    return text


def cut_off(answers: Sequence[Answer], max_new_tokens: int) -> list[str]:
    """Say which answers did not come to their end, and why: too few tokens were asked for, or the context is full."""
    lengths = [answer.tokens.generated for answer in answers if answer.tokens and answer.finish_reason == "length"]
    short = lengths.count(max_new_tokens)
    reasons = {"; --max-new-tokens takes more": short, ": the model's context is full": len(lengths) - short}
    many = "the answer is" if len(answers) == 1 else "{} of {} answers are"
    return [f"{many.format(count, len(answers))} cut off{why}" for why, count in reasons.items() if count]


def settings(resolved: Mapping[str, object], run: RunSettings) -> Text:
    """Show what the run was made of: the model's resolved values, then the run's settings."""
    text = Text()
    chosen = {flag.name: getattr(run, flag.name) for flag in fields(run) if flag.name != "budget"}
    for name, value in {**resolved, **{name: chosen[name] for name in chosen if name not in resolved}}.items():
        shown = _yes(value) if isinstance(value, bool) else "none" if value is None else str(value)
        _line(text, name.replace("_", " "), shown, style="dim")
    text.rstrip()
    return text


def _tokens(text: Text, answer: Answer, tokens: TokenCounts, bars: bool) -> None:
    _row(text, "visual tokens", _kept(tokens, share=False), tokens.kept, tokens.visual, bars)
    if tokens.from_saliency is not None:
        split = f"{tokens.from_saliency} by saliency, {tokens.from_similarity} by similarity"
        _line(text, "", f"{split}, {tokens.from_both} of them by both")
    elif answer.pruner is not None and tokens.kept < tokens.visual:
        merged = f"; {tokens.merged} others are merged into them" if tokens.merged else ""
        _line(text, "", f"chosen by {answer.pruner}{merged}")
    if tokens.tiles is not None and tokens.tiles < tokens.crops - 1:
        _line(text, "", f"{tokens.tiles} of {tokens.crops - 1} tiles encoded; the thumbnail tells which")
    if answer.keep is not None and tokens.kept < tokens.visual and Budget.parse(answer.keep).held is not None:
        _line(text, "", f"as many as this image and question need ({answer.keep})")


def _setup(text: Text, setup: Setup) -> None:
    said = [f"protocol {setup.protocol}"] if setup.protocol else []
    said += ["image padded to a square"] if setup.pad else []
    said += [f"system text {cut(repr(setup.system), 40)}"] if setup.system else []
    said += ["a budget for each crop"] if setup.crop_budget == "each" else []
    said += [f"tiles {setup.tiles}"] if setup.tiles != "all" else []
    _line(text, "asked with", "; ".join(said))


def _latency(text: Text, latency: Latency, flops: Flops | None) -> None:
    seconds = asdict(latency)
    unit, scale = ("s", 1.0) if latency.total >= 10 else ("ms", 1000.0)
    stages = STAGES if latency.server is None else SERVED
    widths = [max(len(stage), 7) for stage in stages]
    _line(text, "latency", "  ".join(map(str.rjust, stages, widths)), style="dim")
    times = "  ".join(map(str.rjust, (f"{seconds[stage] * scale:.1f}" for stage in stages), widths))
    _line(text, f"{unit:>13}", times)
    if flops is not None:
        counts = asdict(flops) | {"vision": flops.vision + flops.projector}
        counts["server"] = flops.prefill + flops.decode
        spent = [amount(counts[stage], DECIMAL) if counts.get(stage) else "-" for stage in stages]
        _line(text, f"{'FLOPs':>13}", "  ".join(map(str.rjust, spent, widths)))
    first = "" if latency.ttft is None else f"TTFT {duration(latency.ttft)}   "
    each = "" if latency.tpot is None else f"TPOT {duration(latency.tpot)}   "
    _line(text, "", f"{first}{each}total {duration(latency.total)}", style="bold")


def _details(text: Text, answer: Answer) -> None:
    if answer.tokens is not None:
        tokens = answer.tokens
        crops = f"{tokens.crops} crop{'s' if tokens.crops != 1 else ''}"
        ended = f" ({answer.finish_reason})" if answer.finish_reason else ""
        _line(text, "other tokens", f"{tokens.text} text, {tokens.generated} generated{ended}; {crops}")
    if answer.memory_bytes is not None and answer.memory_bytes.peak is not None:
        peak = amount(answer.memory_bytes.peak, BINARY, "B")
        _line(text, "peak memory", f"{peak} on the device")


def _comparison(text: Text, compare: Comparison, latency: Latency) -> None:
    verdict = ("agrees", "green") if compare.agrees else ("differs", "yellow")
    text.append(row("unpruned", "").append(*verdict).append(f": {one_line(compare.text)}\n"))
    for name, pruned, dense, speedup in (
        ("TTFT ", latency.ttft or 0.0, compare.ttft_s, compare.speedup_ttft),
        ("total", latency.total, compare.total_s, compare.speedup_total),
    ):
        _line(text, "", f"{name}  {duration(pruned)} against {duration(dense)}, speed-up {speedup:.2f}x")


def _cells(number: int, answer: Answer, compared: bool) -> list[str]:
    tokens, latency, flops, memory = answer.tokens, answer.latency_s, answer.flops, answer.memory_bytes
    if tokens is None or latency is None or flops is None or memory is None:
        return [str(number), "failed", *[""] * (8 if compared else 7)]
    split = (tokens.from_saliency, tokens.from_similarity, tokens.from_both)
    times = (latency.ttft, latency.tpot, latency.total)
    row = [str(number), *("-" if part is None else str(part) for part in split)]
    row += ["-" if time is None else f"{time * 1000:.1f}" for time in times]
    row.append(percent(flops.total, flops.unpruned_total))
    if not compared:
        return [*row, percent(memory.kv_cache, memory.unpruned_kv_cache)]
    compare = answer.compare
    if compare is None:
        return [*row, "-", "-"]
    return [*row, f"{compare.speedup_total:.2f}x", _yes(compare.agrees)]


def _line(text: Text, label: str, content: str, style: str = "") -> None:
    text.append(row(label, content, style)).append("\n")


def _row(text: Text, label: str, content: str, part: int, whole: int, bars: bool) -> None:
    """Write `label  content  share  bar`."""
    text.append(row(label, content))
    if not bars:
        text.append(f" ({percent(part, whole)})\n")
        return
    done = round(_BAR * min(part / whole, 1)) if whole else _BAR
    text.append(f"{percent(part, whole):>{max(38 - len(content), 6)}} ")
    text.append("━" * done, _DONE).append("━" * (_BAR - done), _REST).append("\n")


def _kept(tokens: TokenCounts, share: bool = True) -> str:
    crops = f" in {tokens.crops} crops" if tokens.crops > 1 else ""
    part = f" ({percent(tokens.kept, tokens.visual)})" if share else ""
    return f"{tokens.kept} of {tokens.visual}{crops} kept{part}"


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"
