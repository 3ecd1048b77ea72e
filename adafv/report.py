"""What an answer reports: tokens, latency, FLOPs and memory, made of what the stages did."""

from __future__ import annotations

from dataclasses import replace

from adafv.costs.accounting import Accountant
from adafv.pipeline import Outcome
from adafv.records import Answer
from adafv.request import Request
from adafv.settings import RunSettings
from adafv.spent import Latency, TokenCounts


def reported(
    answer: Answer,
    request: Request,
    outcome: Outcome,
    run: RunSettings,
    *,
    text: str,
    latency: Latency,
    accountant: Accountant,
    peak_bytes: int | None,
) -> Answer:
    """Fill in an answer; asks the device only where each crop has a budget, and then once an image.

    Args:
        answer: with question and settings.
        request, outcome, run: what was answered, what became of it, and under which settings.
        text: what was generated.
        latency: of the batch that it was in.
        accountant: of the checkpoint.
        peak_bytes: memory that the device took at most, where that is tracked.
    """
    tokens, packed = token_counts(request, outcome), request.image.whole_packed
    (crops, all_crops), shared = _crops(request), outcome.decoded.shared
    score = _selection_flops(request, tokens, run, accountant) if outcome.kept.pruned and not outcome.kept.shared else 0
    score += accountant.look(len(request.prompt.after)) if request.looked_s is not None else 0
    return replace(
        answer,
        text=text,
        image=request.question.about(request.image_key),
        finish_reason="stop" if outcome.decoded.stopped else "length",
        tokens=tokens,
        latency_s=latency,
        flops=accountant.flops(
            tokens,
            packed=packed,
            score=score,
            crops=crops,
            unpruned_crops=all_crops,
            shared=shared,
            shared_unpruned=len(request.prompt.before) + packed if shared else 0,
        ),
        memory_bytes=accountant.memory(tokens, packed=packed, peak=peak_bytes),
    )


def token_counts(request: Request, outcome: Outcome) -> TokenCounts:
    """Count visual tokens by the signal that chose them, text and generated tokens."""
    kept, image = outcome.kept, request.image
    return TokenCounts(
        visual=image.whole_visual,
        kept=kept.tokens.shape[0] if kept.pruned else image.visual,
        from_saliency=kept.counts.from_saliency,
        from_similarity=kept.counts.from_similarity,
        from_both=kept.counts.from_both,
        text=request.prompt.text_tokens,
        generated=len(outcome.decoded.ids),
        crops=image.whole_crops,
        tiles=image.crops - 1,
        newlines=0 if kept.pruned else image.newlines,
        merged=kept.counts.merged,
    )


def _crops(request: Request) -> tuple[int, int]:
    """Count the crops whose encoding is charged to a request, and those that would be unpruned."""
    cost, whole = request.cost, request.image.whole_crops
    if cost is None:
        return 0, 0
    return (whole, whole) if cost.crops is None else (len(cost.crops), whole if 0 in cost.crops else 0)


def _selection_flops(request: Request, tokens: TokenCounts, run: RunSettings, accountant: Accountant) -> int:
    """Count what choosing took, for all questions that chose together."""
    text, crops = sum(len(prompt.after) for prompt in request.asked), request.image.crop_sizes if run.each_crop else ()
    question = sum(end - first for first, end in zip(request.spans[::2], request.spans[1::2], strict=True))
    return accountant.selection(
        run, keep=tokens.kept, visual=request.image.visual, text=text, question=question, crops=crops
    )
