"""Questions in, answers with reports out: where tensors, models and records meet. Returns records, never prints."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

from adafv.costs.accounting import Accountant
from adafv.errors import AdaFVError, InputError
from adafv.explanation import Explanation, explain
from adafv.families.llava import ImageEncoding
from adafv.families.templates import fallback_template
from adafv.images import open_image
from adafv.loading.checkpoint import Checkpoint, load_checkpoint
from adafv.pipeline import Outcome, Pipeline, Row
from adafv.prompt import Prompt, Prompter
from adafv.records import Answer, Comparison, Failure, Latency, Question, QuestionId
from adafv.settings import BatchSettings, LoadSettings, RunSettings
from adafv.streaming.encoder_cache import EncodingCost
from adafv.streaming.prefetching import Item
from adafv.streaming.runs import unpruned
from adafv.streaming.scheduling import Task
from adafv.streaming.streams import AnswerStream, SweepStream
from adafv.timing import Stopwatch, latency_of


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


class Model:
    """A loaded checkpoint that answers questions about images."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        config = checkpoint.model.config
        self._checkpoint = checkpoint
        self.pipeline = Pipeline(checkpoint)
        self._prompter = Prompter(checkpoint.processor, config.image_token_id, fallback_template(config))
        layers = config.vision_config.num_hidden_layers  # cut to those that run
        self._accountant = Accountant.of(config, layers, checkpoint.model.dtype.itemsize)

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
            "devices": ", ".join(map(str, self.pipeline.devices)),
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
        asked = [Question(number, image, text) for number, text in enumerate(questions)]
        prompts = [self.render(question, run) for question in asked]
        encoding, cost = self._encode(image)
        if run.compare:
            encoding, cost = self._encode(image)  # measured warm, as the language model's runs will be
        for question, prompt in zip(asked, prompts, strict=True):
            task = Task(question, prompt, encoding, cost if question is asked[0] else None)
            yield self._compared(task, run) if run.compare else self.run([task], run)[0]

    def explain(self, image: Any, question: str, run: RunSettings | None = None, **settings: Any) -> Explanation:
        """As `ask`, but tell what became of each visual token, and why; complete `RunSettings` are taken, too."""
        run, picture = run or RunSettings(**settings), open_image(image)
        if run.compare:
            raise InputError("compare: an explanation is of one answer", "compare with `ask`")
        asked, (encoding, cost) = Question(0, image, question), self._encode(picture)
        prompt = self.render(asked, run)
        ((answer, outcome),) = self._outcomes([Task(asked, prompt, encoding, cost)], run)
        processor, row = self._checkpoint.processor, Row(prompt, encoding, run.seed)
        return explain(self.pipeline, processor, picture, row, outcome.kept, answer)

    def batch(
        self, questions: Iterable[Question], *, batch_size: int | Literal["auto"] = "auto", **settings: Any
    ) -> AnswerStream:
        """Answer a stream of questions, in order; one that cannot be answered gets an error.

        Args:
            questions: read ahead of the answers, by a bounded number.
            batch_size: prompts in one prefill, or `auto`.
            settings: fields of `RunSettings`.
        """
        return self.stream(questions, RunSettings(**settings), BatchSettings(batch_size=batch_size))

    def stream(
        self,
        items: Iterable[Question | Answer],
        run: RunSettings,
        batch: BatchSettings | None = None,
        stop: threading.Event | None = None,
    ) -> AnswerStream:
        """As `batch`, with everything to choose; answers among the items are passed through in their place.

        Raises:
            InputError: `compare`, which needs each question run alone.
        """
        if run.compare:
            raise InputError("compare: a batch's latency says nothing of one question's", "compare with `ask`")
        return AnswerStream(self, items, run, batch or BatchSettings(), stop)

    def sweep(
        self,
        items: Iterable[Item],
        runs: Sequence[RunSettings],
        batch: BatchSettings | None = None,
        stop: threading.Event | None = None,
    ) -> SweepStream:
        """Answer a stream of questions under several settings, each image encoded once for all of them.

        Each setting's answers carry the costs that they would have had alone.

        Args:
            items: questions, or `adafv.streaming.runs.Asked` with some of the settings; answers are passed through.
            runs: of `adafv.streaming.runs.grid`, for example; each question's answers come in this order.
            batch: how the stream is worked through.
            stop: ends it early, in good order.

        Raises:
            InputError: settings that differ in more than `keep` and `pruner`, or `compare`.
        """
        if len({unpruned(run) for run in runs}) != 1:
            raise InputError("runs: the settings of a sweep differ in keep and pruner alone", "sweep each on its own")
        if runs[0].compare:
            raise InputError("compare: a sweep compares already", "put the unpruned run among the settings")
        return SweepStream(self, items, runs, batch or BatchSettings(), stop)

    def render(self, question: Question, run: RunSettings) -> Prompt:
        """The prompt of a question.

        Raises:
            InputError: an empty question, or one that the template cannot take.
        """
        return self._prompter.prompt(question.text, run.system)

    def failed(self, question: Question, run: RunSettings, error: AdaFVError) -> Answer:
        """The answer of a question that cannot be answered."""
        return replace(self._blank(question, run), error=Failure(type(error).__name__, error.what, error.fix))

    def run(self, tasks: Sequence[Task], run: RunSettings) -> list[Answer]:
        """Answer a batch of questions whose images are encoded.

        Raises:
            InputError, OutOfMemoryError: of the whole batch; nothing is answered.
        """
        return [answer for answer, _ in self._outcomes(tasks, run)]

    def _outcomes(self, tasks: Sequence[Task], run: RunSettings) -> list[tuple[Answer, Outcome]]:
        watch = Stopwatch(self.pipeline.devices)
        watch.add("vision", sum(task.cost.vision_s for task in tasks if task.cost is not None))
        rows = [Row(task.prompt, task.encoding, _seed(run.seed, task.question.question_id)) for task in tasks]
        outcomes = self.pipeline.run(rows, run, watch)
        steps = max(len(outcome.decoded.ids) for outcome in outcomes)
        reports = []
        for task, outcome in zip(tasks, outcomes, strict=True):
            latency = latency_of(watch, steps, task.cost.preprocess_s if task.cost is not None else 0.0)
            reports.append((self._report(task, outcome, run, latency), outcome))
        return reports

    def _encode(self, source: Any) -> tuple[ImageEncoding, EncodingCost]:
        watch = Stopwatch(self.pipeline.devices)
        with watch.span("preprocess"):
            pixels = self.pipeline.preprocess(open_image(source))
        (encoding,) = self.pipeline.encode([pixels], watch)
        return encoding, EncodingCost(watch["preprocess"], watch["vision"])

    def _compared(self, task: Task, run: RunSettings) -> Answer:
        """Pruned, then unpruned, each after a run that only warms up: first calls are slower, whatever they do."""
        other = unpruned(run)
        for settings in (run, other):
            self.run([task], replace(settings, max_new_tokens=1))
        (answer,), (whole,) = self.run([task], run), self.run([task], other)
        if answer.latency_s is None or whole.latency_s is None:
            return answer
        return replace(answer, compare=Comparison.of(answer.text, answer.latency_s, whole.text, whole.latency_s))

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

    def _report(self, task: Task, outcome: Outcome, run: RunSettings, latency: Latency) -> Answer:
        decoded, subject = outcome.decoded, (task.prompt, task.encoding, outcome)
        text = self._checkpoint.processor.tokenizer.decode(decoded.ids, skip_special_tokens=True).strip()
        return replace(
            self._blank(task.question, run),
            text=text,
            finish_reason="stop" if decoded.stopped else "length",
            tokens=self._accountant.tokens(*subject),
            latency_s=latency,
            flops=self._accountant.flops(*subject, run, fresh=task.cost is not None),
            memory_bytes=self._accountant.memory(*subject, self.pipeline.peak_bytes()),
        )


def _seed(seed: int, question_id: QuestionId) -> int:
    """For whatever is drawn: it depends on the question's own id, not on its place in a batch."""
    digest = hashlib.sha256(json.dumps([seed, question_id]).encode()).digest()
    return int.from_bytes(digest[:7], "big")
