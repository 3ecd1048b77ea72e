"""adafv as a model of lmms-eval (0.7): every evaluation that it knows, for questions about one image each.

    python -m lmms_eval --model adafv --model_args pretrained=llava-hf/llava-1.5-7b-hf,keep=128,protocol=published \
        --tasks pope,gqa --batch_size 8

`model_args` are `pretrained` and the fields of `LoadSettings` and `RunSettings`. Under `torchrun` (`accelerate launch`
on GPUs) each process has the whole model and a part of the documents, as other models of lmms-eval.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from itertools import groupby
from typing import Any

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from PIL.Image import Image

from adafv.engine import load
from adafv.errors import InputError, cut, shown
from adafv.records import Answer, Question
from adafv.settings import BatchSettings, LoadSettings, RunSettings

_LOAD = {field.name for field in fields(LoadSettings)} - {"model", "device_map"}
_RUN = {field.name for field in fields(RunSettings) if field.init} - {"compare", "select"}  # needs other questions
_MAPPED = {"until", "max_new_tokens", "temperature", "top_p", "do_sample", "num_beams"}
_WITHOUT_EFFECT = {"image_aspect_ratio", "use_cache"}  # of tasks written for LLaVA's own code
_LONGEST = 1024  # as other models of lmms-eval, where a task does not say
_ONE_IMAGE = "adafv answers questions about one image each: choose another task (scienceqa_img for scienceqa, say)"

_log = logging.getLogger(__name__)


class AdaFV(lmms):  # type: ignore[misc]
    """A LLaVA whose visual tokens are pruned.

    Args:
        pretrained: checkpoint folder, hub id, or `demo`.
        batch_size: questions answered together, or `auto`.
        device: `cuda`, `cuda:1`, `cpu`; `None` and `cuda` leave it to `device_map`.
        device_map: as in `LoadSettings`; several processes on GPUs take one each.
        settings: other fields of `LoadSettings` and `RunSettings`.

    Raises:
        InputError: an argument that is not known, or cannot be used.
        CheckpointError, DeviceError: as `adafv.load`.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str = "demo",
        batch_size: int | str = "auto",
        device: str | None = None,
        device_map: str = "auto",
        max_batch_size: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        unknown = set(settings) - _LOAD - _RUN
        if unknown:
            known = ", ".join(sorted(_LOAD | _RUN))
            raise InputError(f"model_args: {shown(min(unknown))} is unknown", f"there are pretrained, {known}")
        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        where = device if device not in (None, "cuda") else device_map
        if self._world_size > 1:
            where = f"cuda:{self.accelerator.local_process_index}" if torch.cuda.is_available() else "cpu"
        told = {name: value for name, value in settings.items() if name in _LOAD}
        self._run = RunSettings(**{name: _typed(name, value) for name, value in settings.items() if name in _RUN})
        self._model = load(LoadSettings(model=str(pretrained), device_map=where, **told))
        self._model.check(self._run)
        self._batch = BatchSettings(batch_size="auto" if batch_size == "auto" else int(batch_size))

    @property
    def device(self) -> torch.device:
        """Where counts are gathered between processes."""
        return torch.device(self.accelerator.device)

    def generate_until(self, requests: Sequence[Any]) -> list[GenerationResult]:
        """Answer requests, in their order.

        Raises:
            InputError: a document without an image, with several or with a video; generation that is not known here.
        """
        order = sorted(range(len(requests)), key=lambda number: repr(requests[number].args[1]))
        results: list[GenerationResult | None] = [None] * len(requests)
        start, generated, kept, failed = time.perf_counter(), 0, 0, 0
        for _, group in groupby(order, key=lambda number: repr(requests[number].args[1])):
            numbers = list(group)
            wanted = requests[numbers[0]].args[1]
            run, until = self._generation(wanted)
            asked = self._questions(requests, numbers)
            for number, answer in zip(numbers, self._model.stream(asked, run, self._batch), strict=True):
                results[number] = _result(answer, until)
                failed += answer.error is not None
                if answer.tokens is not None:
                    generated, kept = generated + answer.tokens.generated, kept + answer.tokens.kept
        seconds = time.perf_counter() - start
        answered = len(requests) - failed
        more = {"rank": self.rank, "visual_tokens_kept": kept / max(1, answered), "failed": failed}
        log_metrics(seconds, generated, generated / seconds if seconds else 0.0, more)
        return [result for result in results if result is not None]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refuse: a pruned prompt is made for generating.

        Raises:
            InputError: always.
        """
        raise InputError("tasks that compare likelihoods are not answered", "choose one that generates")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refuse: each question is one turn.

        Raises:
            InputError: always.
        """
        raise InputError("tasks of several rounds are not answered", "choose one whose questions are one turn each")

    def _questions(self, requests: Sequence[Any], numbers: Sequence[int]) -> Iterator[Question]:
        """Make questions of requests, their images read as they are asked for."""
        for number in numbers:
            text, _, visuals_of, doc, task, split = requests[number].args
            visuals = visuals_of(self.task_dict[task][split][doc]) or []
            if len(visuals) != 1 or not isinstance(visuals[0], Image):
                what = f"{len(visuals)} images" if all(isinstance(one, Image) for one in visuals) else "a video"
                raise InputError(f"task {task}, document {doc}: it comes with {what}", _ONE_IMAGE)
            yield Question(number, visuals[0], text)

    def _generation(self, wanted: dict[str, Any]) -> tuple[RunSettings, list[str]]:
        """Map a task's generation settings; `until` cuts the answer's text."""
        unknown = set(wanted) - _MAPPED - _WITHOUT_EFFECT
        if unknown:
            raise InputError(f"generation_kwargs: {shown(min(unknown))} is not known", "leave it out with --gen_kwargs")
        if (wanted.get("num_beams") or 1) != 1:
            raise InputError(f"num_beams: {wanted['num_beams']}: adafv generates without beams", "use num_beams=1")
        sampled = wanted.get("do_sample", True)
        run = replace(
            self._run,
            max_new_tokens=int(wanted.get("max_new_tokens") or _LONGEST),
            temperature=float(wanted.get("temperature") or 0.0) if sampled else 0.0,
            top_p=float(wanted.get("top_p") or 1.0),
        )
        until = wanted.get("until") or []
        return run, [until] if isinstance(until, str) else list(until)


def _result(answer: Answer, until: Sequence[str]) -> GenerationResult:
    if answer.error is not None:
        _log.warning("document left without an answer: %s: %s", answer.error.type, cut(answer.error.message))
    text = answer.text or ""
    for stop in until:
        text = text.split(stop)[0] if stop else text
    tokens = answer.tokens
    counts = None if tokens is None else TokenCounts(input_tokens=tokens.fed, output_tokens=tokens.generated)
    return GenerationResult(text=text, token_counts=counts)


def _typed(name: str, value: Any) -> Any:
    """Undo what lmms-eval makes of a text: `keep=128` comes as a number, which it is, `system=1` as one, too."""
    return str(value) if name in ("system", "pruner") else value
