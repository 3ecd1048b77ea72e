"""Questions in, answers with reports out: where tensors, models and records meet. Returns records, never prints."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Literal

from adafv.answering import Answering
from adafv.comparing import compared
from adafv.errors import InputError
from adafv.explaining import explain
from adafv.explanation import Explanation
from adafv.families.tower import layers_that_run
from adafv.generating import Generating, ends_of
from adafv.images import content_key, open_image
from adafv.knowing import together
from adafv.loading.checkpoint import load_checkpoint
from adafv.loading.source import locate
from adafv.probing import QUESTION, Probe, probe
from adafv.records import Answer, Question
from adafv.request import Request
from adafv.rows import Row, questions_of
from adafv.settings import BatchSettings, LoadSettings, RunSettings
from adafv.streaming.prefetching import Item
from adafv.streaming.runs import unpruned
from adafv.streaming.streams import AnswerStream, SweepStream
from adafv.tiling import skips


def load(model: str | LoadSettings = "demo", **settings: Any) -> Model:
    """Load a checkpoint.

    Args:
        model: checkpoint folder, hub id, `demo`, or complete `LoadSettings`.
        settings: the other fields of `LoadSettings`.

    Raises:
        CheckpointError, DeviceError, InputError: what cannot be used, with the fix.
    """
    if isinstance(model, LoadSettings):
        _refuse_both("LoadSettings", settings)
    chosen = model if isinstance(model, LoadSettings) else LoadSettings(model=model, **settings)
    loaded = Model(load_checkpoint(chosen)) if chosen.server is None else _served(chosen)
    return compiling(loaded) if chosen.compile else loaded


def compiling(model: Model) -> Model:
    """Have a model decode in compiled steps, where it can; its `notes` say why where it cannot."""
    model.pipeline.decoder = Generating(model.pipeline.model, compile=True)
    return model


def _served(settings: LoadSettings) -> Model:
    """Load what makes prompts, and connect it to the servers that have the language model."""
    from adafv.serving.connecting import connected, look_at

    servers = look_at(settings, locate(settings).place)  # before weights are read
    model = Model(load_checkpoint(settings))
    prompt = model.render(Question(0, None, "what is in this picture?"), RunSettings())
    ids = prompt.before + prompt.after
    ends = ends_of(model.pipeline.model)
    model.pipeline.decoder = connected(servers, settings, ids, model.pipeline.stages.embed(ids), ends)
    return model


class Model(Answering):
    """A loaded checkpoint that answers questions about images.

    How is said in one way everywhere: complete `RunSettings` as `run`, or fields of them as keywords
    (`keep=128, pruner="adafv"`), not both.
    """

    @property
    def is_demo(self) -> bool:
        """Whether this is the bundled demo checkpoint."""
        return self._checkpoint.is_demo

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about how this checkpoint is used, a sentence each."""
        template, plain = self._prompter.template, getattr(self.pipeline.decoder, "plain", "")
        documented = f"{template.reason}: the documented one {template.name} is used (--chat-template chooses another)"
        said = (documented if template.reason else "", f"decoding is not compiled: {plain}" if plain else "")
        return tuple(filter(None, said))

    @property
    def context(self) -> int | None:
        """Positions that prompt and answer may take together; `None` where the configuration says nothing."""
        return self.pipeline.context

    def describe(self, run: RunSettings | None = None) -> dict[str, object]:
        """Tell what the load settings came to, and with `run` how questions are then asked (`setup`)."""
        model = self._checkpoint.model
        setup = None if run is None else self.setup(run)
        asked: dict[str, object] = {} if run is None else {"setup": None if setup is None else asdict(setup)}
        asked |= {"server": str(self.pipeline.decoder)} if self.is_served else {}
        asked |= getattr(self.pipeline.decoder, "described", {})
        return asked | {
            "model": self.model_id,
            "family": self._checkpoint.family.model_type,
            "chat_template": self._prompter.template.name,
            "devices": ", ".join(map(str, self.pipeline.devices)),
            "dtype": str(model.dtype).removeprefix("torch."),
            "attention": model.config.text_config._attn_implementation,
            "vision_layers": layers_that_run(model.config),
        }

    def __repr__(self) -> str:
        said = self.describe()
        return f"<adafv.Model {said['model']}: {self._checkpoint.family.name}, {said['dtype']} on {said['devices']}>"

    def ask(self, image: Any, question: str, run: RunSettings | None = None, **settings: Any) -> Answer:
        """Answer one question.

        Args:
            image: a path, encoded bytes, or a `PIL.Image.Image`.
            question: what is asked.
            run, settings: how, as for the class.

        Raises:
            ImageError, InputError, BudgetError, DeviceError: what cannot be used, with the fix.
        """
        return next(self.answer(image, [question], run, **settings))

    def answer(
        self, image: Any, questions: Sequence[str], run: RunSettings | None = None, **settings: Any
    ) -> Iterator[Answer]:
        """Answer several questions about one image, encoded once, one after the other; their ids count from 0.

        Raises:
            ImageError, InputError, DeviceError: what cannot be used, with the fix; before the first answer.
        """
        run = _run_settings(run, settings)
        self.check(run)
        asked = [Question(number, image, text) for number, text in enumerate(questions)]
        asked = asked if run.select == "question" else together(asked)
        prompts = [self.render(question, run) for question in asked]
        pairs, key = list(zip(asked, prompts, strict=True)), content_key(image)
        requests = self.requests(image, pairs, run, key)
        if run.compare:
            requests = self.requests(image, pairs, run, key)  # measured warm, as the language model's runs will be
        skipping = run.compare and skips(self.pipeline, [run])
        whole = self.requests(image, pairs, unpruned(run), key) if skipping else requests
        for request, other in zip(requests, whole, strict=True):
            yield compared(self, request, other, run) if run.compare else self.run([request], run)[0]

    def explain(self, image: Any, question: str, run: RunSettings | None = None, **settings: Any) -> Explanation:
        """Answer as `ask` does, and tell what became of each visual token, and why."""
        run = _run_settings(run, settings)
        if run.compare:
            raise InputError("compare: an explanation is of one answer", "compare with `ask`")
        picture = open_image(image)
        asked = Question(0, image, question)
        (request,) = self.requests(picture, [(asked, self.render(asked, run))], run, content_key(image))
        ((answer, outcome),) = self.outcomes([request], run)
        return explain(self.pipeline, self._checkpoint.processor, picture, request, outcome.kept, answer, run)

    def probe(self, image: Any, question: str = QUESTION) -> Probe:
        """Measure how well a question's words point at an image's visual tokens; raises as `ask` does."""
        asked = Question(0, image, question)
        request = Request(asked, self.render(asked, RunSettings()), self.encode(image)[0])
        return probe(self.pipeline, self._checkpoint.processor.tokenizer, request)

    def batch(
        self,
        questions: Iterable[Question | Answer | Row],
        run: RunSettings | None = None,
        *,
        batch_size: int | Literal["auto"] = "auto",
        **settings: Any,
    ) -> AnswerStream:
        """Answer a stream of questions, in order; one that cannot be answered gets an error.

        Args:
            questions: read ahead of the answers, by a bounded number; answers among them are passed through. Rows of
                `datasets`, and other dicts with the keys of an input line, are questions, too (`adafv.rows`).
            run, settings: how, as for the class. With `select` other than `question`, all questions are read before the
                first is answered: it needs to know them.
            batch_size: prompts in one prefill, or `auto`.

        Raises:
            InputError: `compare`, which needs each question run alone.
        """
        run = _run_settings(run, settings)
        asked = questions_of(questions, lambda question, error: self.failed(question, run, error))
        items = asked if run.select == "question" else together(asked)
        return self.stream(items, run, BatchSettings(batch_size=batch_size))

    def stream(
        self,
        items: Iterable[Question | Answer],
        run: RunSettings,
        batch: BatchSettings | None = None,
        stop: threading.Event | None = None,
    ) -> AnswerStream:
        """Answer as `batch` does, with everything to choose; questions know what `Question.known` says, no more."""
        self.check(run)
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
        """Answer a stream of questions under several settings, each image encoded once for all settings.

        Each setting's answers carry the costs that they would have had alone.

        Args:
            items: questions, or `adafv.streaming.runs.Asked` with some of the settings; answers are passed through.
            runs: of `adafv.streaming.runs.grid`, for example; each question's answers come in this order.
            batch: how the stream is worked through.
            stop: ends it early, in good order.

        Raises:
            InputError: settings that differ in more than `runs.unpruned` evens out, or `compare`.
        """
        if len({unpruned(run) for run in runs}) != 1:
            what = "keep, pruner, positions, crop_budget, select and tiles alone"
            raise InputError(f"runs: the settings of a sweep differ in {what}", "sweep each on its own")
        for run in runs:
            self.check(run)
        if runs[0].compare:
            raise InputError("compare: a sweep compares already", "put the unpruned run among the settings")
        return SweepStream(self, items, runs, batch or BatchSettings(), stop)


def _run_settings(run: RunSettings | None, settings: dict[str, Any]) -> RunSettings:
    if run is None:
        return RunSettings(**settings)
    _refuse_both("run", settings)
    return run


def _refuse_both(name: str, settings: dict[str, Any]) -> None:
    if settings:
        what = f"{name} and {', '.join(settings)}: settings are given twice"
        raise InputError(what, "give complete settings, or single ones as keywords")
