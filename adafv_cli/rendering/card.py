"""What `adafv info` found, as lines of at most 80 columns for stdout."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rich.text import Text

from adafv.budget import Budget, bounds
from adafv.errors import cut
from adafv_cli.rendering import units
from adafv_cli.rendering.rows import row
from adafv_cli.terminal import one_line

if TYPE_CHECKING:
    from adafv.costs.description import Description
    from adafv.costs.plan import AnswerPlan, PromptPlan
    from adafv.families.base import ImagePlan
    from adafv.loading.reading import PromptDescription
    from adafv.probing import Probe

_COUNT: units.System = (1000, ("", "K", "M", "B"))  # of parameters, where the G is called B

_MOST_SHAPES = 8  # of mosaics, that are listed
_EXAMPLE_WIDTH = 64  # columns beside the labels
_PARTS = ("thumbnail", "mosaic")
_NOTES = (
    "vision: with projector; FLOPs: all stages with scoring, text and LM head, 2 per",
    "multiply-accumulate; speed-up: ratio of FLOPs, a bound at equal FLOP/s",
)


@dataclass(frozen=True)
class Card:
    """A checkpoint, what becomes of an image of some size, and what an answer costs at several budgets.

    `tiles`: what one costs at `keep` with so many of the image's tiles encoded, at most, where some may be skipped.
    """

    model: str
    family: str
    description: Description
    prompts: PromptDescription | None
    width: int
    height: int
    image: ImagePlan
    prompt: PromptPlan
    keep: Budget
    costs: dict[str, AnswerPlan]
    tiles: Mapping[int, AnswerPlan] = field(default_factory=dict)
    probes: Mapping[str, Probe] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Make one object; its names are those of the configuration and of an answer's records."""
        image = {"width": self.width, "height": self.height} | asdict(self.image)
        costs = [
            {"keep": keep, **asdict(plan), "speedup_bound": round(plan.speedup_bound, 4)}
            for keep, plan in self.costs.items()
        ]
        prompts = None if self.prompts is None else asdict(self.prompts)
        found = {"model": self.model, **asdict(self.description), "prompts": prompts, "image": image, "costs": costs}
        tiles = [{"tiles": count, **asdict(plan)} for count, plan in self.tiles.items()]
        found |= {"tiles": tiles} if tiles else {}
        probes = [{"image": image, **probe.to_json()} for image, probe in self.probes.items()]
        return found | {"probes": probes} if probes else found


def text(found: Card) -> Text:
    """Everything about a checkpoint: what it is, what becomes of the image, what an answer costs."""
    lines = Text()
    what = found.description
    lines.append(one_line(found.model), "bold")
    lines.append(one_line(f"  {found.family}, {what.dtype or 'no dtype stated'}") + "\n")
    _language_model(lines, what)
    _vision_tower(lines, what)
    _parameters(lines, what)
    if found.prompts is not None:
        _prompts(lines, found.prompts)
    _image(lines, found)
    _costs(lines, found)
    if found.tiles:
        _tiles(lines, found)
    if found.probes:
        _probes(lines, found.probes)
    return lines


def _language_model(lines: Text, what: Description) -> None:
    text = what.text_config
    sizes = f"hidden {text.hidden_size}, ffn {text.intermediate_size}, vocab {text.vocab_size}"
    heads = f"{text.num_attention_heads} heads of {text.head_dim}"
    if text.num_key_value_heads != text.num_attention_heads:
        heads += f" ({text.num_key_value_heads} key/value)"
    rope = "none" if text.rope_theta is None else f"{text.rope_theta:.0f}"
    context = text.max_position_embeddings or "not stated"
    _row(lines, "language model", f"{text.model_type}, {text.num_hidden_layers} layers, {sizes}")
    _row(lines, "", f"{heads}, rope theta {rope}, context {context}")


def _vision_tower(lines: Text, what: Description) -> None:
    tower = what.vision_config
    kind, side = tower.model_type.removesuffix("_vision_model"), tower.image_size // tower.patch_size
    layers = f"{tower.num_hidden_layers} layers of which {tower.layers_run} run"
    _row(lines, "vision tower", f"{kind}, {layers}, hidden {tower.hidden_size}, ffn {tower.intermediate_size}")
    _row(lines, "", f"a crop: {tower.image_size} px, {side} x {side} patches of {tower.patch_size} px")
    if what.image_grid_pinpoints:
        tiles = [(height // tower.image_size, width // tower.image_size) for height, width in what.image_grid_pinpoints]
        crops = [1 + rows * columns for rows, columns in tiles]
        shapes = ", ".join(f"{columns}x{rows}" for rows, columns in tiles)
        if len(tiles) > _MOST_SHAPES:
            columns, rows = max(columns for _, columns in tiles), max(rows for rows, _ in tiles)
            shapes = f"one of {len(tiles)} mosaics of up to {columns}x{rows}"
        _row(lines, "", f"{min(crops)} to {max(crops)} crops: a thumbnail and {shapes} tiles")


def _parameters(lines: Text, what: Description) -> None:
    count, size = what.parameters, what.weights_bytes
    total = f"{count.total / 1e9:.2f} B" if count.total >= 1e9 else _amount(count.total, _COUNT)
    parts = {"tower": count.vision_tower, "projector": count.multi_modal_projector}
    parts |= {"LM": count.language_model, "head": count.lm_head}
    shares = ", ".join(f"{name} {_amount(part, _COUNT)}" for name, part in parts.items())
    _row(lines, "parameters", f"{total}: {shares}")
    held = {"float32": size.float32, "16 bit": size.bfloat16, "int8": size.int8, "int4": size.int4}
    _row(lines, "weights", ", ".join(f"{name} {_amount(part, units.BINARY, 'B')}" for name, part in held.items()))
    _row(lines, "", "int8, int4: tower, projector, embeddings, norms, head at 16 bit", "dim")
    _row(lines, "KV cache", f"{_amount(what.kv_cache_bytes_per_token, units.BINARY, 'B')} per token at 16 bit")


def _prompts(lines: Text, what: PromptDescription) -> None:
    _row(lines, "chat template", "the checkpoint's own" if what.chat_template == "checkpoint" else what.chat_template)
    if what.reason:
        _row(lines, "", f"since {what.reason}")
    for part in textwrap.wrap(repr(what.example)[1:-1], _EXAMPLE_WIDTH, drop_whitespace=False):
        _row(lines, "", part, "dim")
    added = f" ({what.added_stop} ends the prompt's turns)" if what.added_stop else ""
    _row(lines, "answers end at", f"{', '.join(what.stops) or 'no token'}{added}")


def _image(lines: Text, found: Card) -> None:
    image = found.image
    crops = "1 crop" if image.crops == 1 else f"{image.crops} crops"
    _row(lines, "image", f"{found.width} x {found.height}: {crops}, {image.visual} visual tokens")
    shapes = [f"{name} {columns} x {rows}" for name, (rows, columns) in zip(_PARTS, image.grids, strict=False)]
    if image.crops > 1:
        _row(lines, "", f"{', '.join(shapes)}; {image.newlines} newlines if none is pruned")


def _probes(lines: Text, probes: Mapping[str, Probe]) -> None:
    """Say how well words point at visual tokens, which is what pruning by text has to go by."""
    lines.append("\n\nwords and visual tokens", "bold").append(": cosines of the best of a list of common things\n")
    for image, probe in probes.items():
        found = probe.alignment
        lines.append(f"{one_line(cut(image))}\n")
        cosines = f"peak {found.peak:.3f}, spread {found.spread:.3f}, by chance {found.chance:.3f}"
        _row(lines, "", f"{probe.word}: {cosines}, signal {found.signal:.1f}")
    signals = [probe.alignment.signal for probe in probes.values()]
    _row(lines, "signal", f"{sum(signals) / len(signals):.1f} times chance, mean; README shows what that is worth")
    lines.rstrip()


def _costs(lines: Text, found: Card) -> None:
    prompt, plans = found.prompt, list(found.costs.values())
    flops, flops_prefix = units.scale(max(plan.flops.total for plan in plans), units.DECIMAL)
    cache, cache_prefix = units.scale(max(plan.memory_bytes.kv_cache for plan in plans), units.BINARY)
    lines.append("\none answer", "bold").append(
        f" of {prompt.generated} tokens to {prompt.text} text tokens, {prompt.after} of them behind the image\n"
    )
    header = ("keep", "visual", "vision", "prefill", "decode", f"{flops_prefix}FLOPs", "of all", "speed-up")
    rows: list[tuple[str, ...]] = [(*header, f"KV {cache_prefix}B")]
    rows += [_cells(keep, plan, flops, cache) for keep, plan in found.costs.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    chosen = found.keep.tokens(found.image.visual)
    for cells, plan in zip(rows, [None, *plans], strict=True):
        line = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        style = "dim" if plan is None else "bold" if plan.tokens.kept == chosen else ""
        lines.append(f"{line}\n", style)
    for note in (*_NOTES, *_auto(found)):
        lines.append(f"{note}\n", "dim")
    lines.rstrip()


def _tiles(lines: Text, found: Card) -> None:
    plans = found.tiles
    flops, prefix = units.scale(max(plan.flops.total for plan in plans.values()), units.DECIMAL)
    lines.append("\n\nfewer tiles", "bold").append(
        f" (--tiles) at {found.keep.text}, at most: the thumbnail tells which\n"
    )
    rows: list[tuple[str, ...]] = [("tiles", "visual", "vision", f"{prefix}FLOPs", "of all")]
    for count, plan in plans.items():
        spent = plan.flops
        both = (f"{part / flops:.2f}" for part in (spent.vision + spent.projector, spent.total))
        rows.append((str(count), str(plan.tokens.kept), *both, units.percent(spent.total, spent.unpruned_total)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, cells in enumerate(rows):
        line = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        lines.append(f"{line}\n", "" if number else "dim")
    lines.rstrip()


def _auto(found: Card) -> list[str]:
    """Say what a budget means that only an image and a question decide."""
    if found.keep.held is None:
        return []
    least, most = bounds(found.image.visual)
    return [
        f"{found.keep.text}: between {least} and {most} visual tokens, as image and question need; the most is shown"
    ]


def _cells(keep: str, plan: AnswerPlan, flops: int, cache: int) -> tuple[str, ...]:
    """Write one line of the table, in units of `flops` and of `cache` bytes."""
    spent = plan.flops
    stages = (spent.vision + spent.projector, spent.prefill, spent.decode, spent.total)
    return (
        keep,
        str(plan.tokens.kept),
        *(f"{count / flops:.2f}" for count in stages),
        units.percent(spent.total, spent.unpruned_total),
        f"{plan.speedup_bound:.2f}x",
        f"{plan.memory_bytes.kv_cache / cache:.1f}",
    )


def _row(lines: Text, label: str, content: str, style: str = "") -> None:
    lines.append(row(label, content, style)).append("\n")


def _amount(count: int, system: units.System, unit: str = "") -> str:
    divisor, prefix = units.scale(count, system)
    return f"{units.digits(count / divisor)} {prefix}{unit}"
