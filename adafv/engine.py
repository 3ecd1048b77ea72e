"""Questions in, answers with reports out: where tensors, models and records meet. Returns records, never prints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from adafv.accounting import Accountant
from adafv.checkpoint import Checkpoint, load_checkpoint
from adafv.errors import InputError
from adafv.images import content_key, open_image
from adafv.llava import ImageEncoding
from adafv.pipeline import Outcome, Pipeline, Row
from adafv.prompt import Prompt, Prompter
from adafv.records import Answer, Comparison, Failure, Latency, Question
from adafv.settings import LoadSettings, RunSettings
from adafv.templates import VICUNA
from adafv.timing import Stopwatch


def load(model: str | LoadSettings = "demo", **settings: Any) -> Model:
    """Load a checkpoint.

    Args:
        model: checkpoint folder, hub id, `demo`, or complete `LoadSettings`.
        settings: the other fields of `LoadSettings`.

    Raises:
        CheckpointError, DeviceError, InputError: what cannot be used, with the fix.
    """
    chosen = model if isinstance(model, LoadSettings) else LoadSettings(model=model, **settings)
    return Model(load_checkpoint(chosen))


@dataclass(frozen=True)
class _Image:
    """An encoded image and the seconds it took."""

    encoding: ImageEncoding
    seconds: dict[str, float]


@dataclass(frozen=True)
class _Task:
    """A question with its prompt and image; `fresh` when the image was encoded for it."""

    question: Question
    prompt: Prompt
    image: _Image
    fresh: bool

    def row(self, seed: int) -> Row:
        """What the pipeline needs; the seed depends on the question's own id, not on its place in a batch."""
        key = json.dumps([seed, self.question.question_id])
        drawn = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
        return Row(self.prompt, self.image.encoding, drawn)


class Model:
    """A loaded checkpoint that answers questions about images."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        config = checkpoint.model.config
        self._checkpoint = checkpoint
        self._pipeline = Pipeline(checkpoint)
        self._prompter = Prompter(checkpoint.processor, config.image_token_id, VICUNA)
        self._accountant = Accountant.of(config, checkpoint.model.dtype.itemsize)

    @property
    def model_id(self) -> str:
        """The checkpoint's name, as the user gave it."""
        return self._checkpoint.name

    @property
    def is_demo(self) -> bool:
        """Whether this is the bundled demo checkpoint."""
        return self._checkpoint.is_demo

    def describe(self) -> dict[str, object]:
        """The load settings as they came out."""
        model = self._checkpoint.model
        return {
            "model": self.model_id,
            "family": self._checkpoint.family,
            "devices": ", ".join(map(str, self._pipeline.devices)),
            "dtype": str(model.dtype).removeprefix("torch."),
            "attention": model.config.text_config._attn_implementation,
            "vision_layers": model.config.vision_config.num_hidden_layers,
        }

    def ask(self, image: Any, question: str, **settings: Any) -> Answer:
        """Answer one question.

        Args:
            image: a path, encoded bytes, or a `PIL.Image.Image`.
            question: what is asked.
            settings: fields of `RunSettings`: `keep=128`, `pruner="adafv"`, ...

        Raises:
            ImageError, InputError, BudgetError, DeviceError: what cannot be used, with the fix.
        """
        return next(self.answer(image, [question], RunSettings(**settings)))

    def answer(self, image: Any, questions: Sequence[str], run: RunSettings) -> Iterator[Answer]:
        """Answer several questions about one image, encoded once, one question after the other.

        Their ids are their numbers, from 0.

        Raises:
            ImageError, InputError, DeviceError: what cannot be used, with the fix; before the first answer.
        """
        prompts = [self._prompter.prompt(question, run.system) for question in questions]
        encoded = self._encode(image)
        if run.compare:
            encoded = self._encode(image)  # measured warm, as the language model's runs will be
        for number, (question, prompt) in enumerate(zip(questions, prompts, strict=True)):
            task = _Task(Question(number, image, question), prompt, encoded, fresh=number == 0)
            yield self._compared(task, run) if run.compare else self._run([task], run)[0]

    def batch(self, questions: Iterable[Question], *, batch_size: int = 8, **settings: Any) -> Iterator[Answer]:
        """Answer a stream of questions in order, `batch_size` at a time; one that cannot be answered gets an error.

        Questions on the same image (equal content) share its encoding within a batch and with the batch before.

        Args:
            questions: read no further ahead than one batch.
            batch_size: prompts in one prefill.
            settings: fields of `RunSettings`.
        """
        if batch_size < 1:
            raise InputError(f"batch_size: {batch_size} is no batch", "use 1 or more")
        run = RunSettings(**settings)
        stream, images = iter(questions), dict[str, _Image]()
        while group := list(islice(stream, batch_size)):
            recent, images = images, {}
            tasks = [self._task(question, run, recent, images) for question in group]
            answered = iter(self._run([task for task in tasks if isinstance(task, _Task)], run))
            yield from (task if isinstance(task, Answer) else next(answered) for task in tasks)

    def _task(
        self, question: Question, run: RunSettings, recent: dict[str, _Image], images: dict[str, _Image]
    ) -> _Task | Answer:
        """Prompt and encoding of one question of a batch, or the answer that says why there are none."""
        try:
            prompt = self._prompter.prompt(question.text, run.system)
            key = content_key(question.image)
            known = images.get(key) or recent.get(key)
            images[key] = known or self._encode(question.image)
        except InputError as error:
            failure = Failure(type(error).__name__, error.what, error.fix)
            return replace(self._blank(question, run), error=failure)
        return _Task(question, prompt, images[key], fresh=known is None)

    def _encode(self, source: Any) -> _Image:
        watch = Stopwatch(self._pipeline.devices)
        with watch.span("preprocess"):
            image = open_image(source)
        return _Image(self._pipeline.encode(image, watch), watch.seconds)

    def _run(self, tasks: Sequence[_Task], run: RunSettings) -> list[Answer]:
        if not tasks:
            return []
        watch = Stopwatch(self._pipeline.devices)
        for task in tasks:
            for stage, seconds in task.image.seconds.items() if task.fresh else ():
                watch.add(stage, seconds)
        outcomes = self._pipeline.run([task.row(run.seed) for task in tasks], run, watch)
        latency = _latency(watch, max(len(outcome.decoded.ids) for outcome in outcomes))
        pairs = zip(tasks, outcomes, strict=True)
        return [self._report(task, outcome, run, latency) for task, outcome in pairs]

    def _compared(self, task: _Task, run: RunSettings) -> Answer:
        """Pruned, then unpruned, each after a run that only warms up: first calls are slower, whatever they do."""
        unpruned = replace(run, keep="all", pruner="none")
        for settings in (run, unpruned):
            self._run([task], replace(settings, max_new_tokens=1))
        (answer,), (whole,) = self._run([task], run), self._run([task], unpruned)
        if answer.latency_s is None or whole.latency_s is None:
            return answer
        comparison = Comparison(
            text=whole.text or "",
            agrees=whole.text == answer.text,
            ttft=whole.latency_s.ttft,
            total=whole.latency_s.total,
            speedup_ttft=whole.latency_s.ttft / answer.latency_s.ttft,
            speedup_total=whole.latency_s.total / answer.latency_s.total,
        )
        return replace(answer, compare=comparison)

    def _blank(self, question: Question, run: RunSettings) -> Answer:
        return Answer(
            question_id=question.question_id,
            prompt=question.text,
            text=None,
            model_id=self.model_id,
            metadata=question.metadata,
            pruner=run.pruner,
            keep=run.budget.text,
        )

    def _report(self, task: _Task, outcome: Outcome, run: RunSettings, latency: Latency) -> Answer:
        decoded, subject = outcome.decoded, (task.prompt, task.image.encoding, outcome)
        text = self._checkpoint.processor.tokenizer.decode(decoded.ids, skip_special_tokens=True).strip()
        return replace(
            self._blank(task.question, run),
            text=text,
            finish_reason="stop" if decoded.stopped else "length",
            tokens=self._accountant.tokens(*subject),
            latency_s=latency,
            flops=self._accountant.flops(*subject, run, fresh=task.fresh),
            memory_bytes=self._accountant.memory(*subject, self._pipeline.peak_bytes()),
        )


def _latency(watch: Stopwatch, generated: int) -> Latency:
    """Of a batch, whose longest answer has `generated` tokens."""
    ttft = watch["vision"] + watch["score"] + watch["prune"] + watch["prefill"]
    return Latency(
        preprocess=watch["preprocess"],
        vision=watch["vision"],
        score=watch["score"],
        prune=watch["prune"],
        prefill=watch["prefill"],
        ttft=ttft,
        decode=watch["decode"],
        tpot=watch["decode"] / (generated - 1) if generated > 1 else None,
        total=watch["preprocess"] + ttft + watch["decode"],
    )
