"""Turns a question into token ids, through the checkpoint's own chat template; spans are found from the ids."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jinja2

from adafv.chat_templates import ChatTemplate
from adafv.errors import CheckpointError, InputError, cut, shown
from adafv.sandbox import bounded, check_template

_QUESTION, _SYSTEM = "What is it?", "Be brief."  # what templates are tried with
_TURN_ENDS = {"<|im_end|>", "<|eot_id|>", "<|end|>", "<|end_of_turn|>", "<end_of_turn>"}
_UNRENDERED = (jinja2.TemplateError, TypeError)  # the latter where a template adds text to a list of content parts
_VIDEO, _ONE_IMAGE = "<video>", "questions are about one image each: save a frame of the video as PNG or JPEG"
_OTHER = "choose another template with --chat-template, or fetch the checkpoint again"
# What benchmarks append to every question, on the form of the answer.
INSTRUCTIONS = (
    "Answer the question using a single word or phrase.",
    "Answer with the option's letter from the given choices directly.",
    "Please answer yes or no.",
    "When the provided information is insufficient, respond with 'Unanswerable'.",
)


@dataclass(frozen=True)
class Prompt:
    """One prompt, cut at its image placeholder.

    Args:
        text: as rendered, with one placeholder.
        before: token ids before the placeholder, with the tokenizer's leading special tokens.
        after: token ids behind it up to the end of the prompt: question, instruction, template's tail. These are
            the text tokens that similarity looks at.
        question_span: the first token of `after` that is the question's own, and the one behind the last: without the
            template, and without an instruction on the form of the answer that benchmarks append.
    """

    text: str
    before: list[int]
    after: list[int]
    question_span: tuple[int, int]

    @property
    def text_tokens(self) -> int:
        """Tokens that are not visual."""
        return len(self.before) + len(self.after)


class Prompter:
    """Renders and tokenizes prompts for one checkpoint.

    Args:
        processor: the checkpoint's processor: tokenizer and chat template.
        image_token_id: id of the image placeholder, from the model's config.
        documented: the chat template of the checkpoint's family, for one without a template that can be used.
        chosen: the user's, instead of either.

    Raises:
        CheckpointError: no placeholder among the tokens, or a template that cannot be used.
        InputError: a chosen template that cannot be used.
    """

    def __init__(
        self, processor: Any, image_token_id: int, documented: ChatTemplate, chosen: ChatTemplate | None = None
    ) -> None:
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._image_token_id = image_token_id
        self._image_token: str = self._tokenizer.convert_ids_to_tokens(image_token_id)
        if self._image_token is None:
            raise CheckpointError(
                f"the tokenizer has no token for the image placeholder's id {image_token_id}",
                "the tokenizer's files do not belong to this checkpoint: fetch them again",
            )
        self.template = chosen or self._choose(documented)
        try:
            self.example = self._example()
        except CheckpointError as error:
            if chosen is None:
                raise
            raise InputError(f"chat_template: {chosen.name}: {error.what}", "give another template") from error

    @cached_property
    def turn_end(self) -> int | None:
        """The token that ends a turn of the prompt, and so an answer; `None` where turns end in plain text."""
        tail = self.example.after[self.example.question_span[1] :]
        return next((token for token in tail if self._tokenizer.convert_ids_to_tokens(token) in _TURN_ENDS), None)

    def prompt(self, question: str, system: str | None = None) -> Prompt:
        """Render and tokenize.

        Args:
            question: what is asked; an image placeholder at its start or end (as LLaVA's own files have it) is
                dropped.
            system: system text, or `None` for what the template does without.

        Raises:
            InputError: an empty question, a placeholder in either text, or a text that the template cannot take.
        """
        question = self._clean(question)
        text = self._rendered(question, system)
        # Templates that write the leading special token themselves would otherwise get it twice.
        special = not (self._tokenizer.bos_token and text.startswith(self._tokenizer.bos_token))
        tokens = self._tokenizer(text, add_special_tokens=special, return_offsets_mapping=self._tokenizer.is_fast)
        ids: list[int] = tokens["input_ids"]
        if ids.count(self._image_token_id) != 1:
            raise InputError(
                f"the chat template made {ids.count(self._image_token_id)} image placeholders for one image",
                _OTHER,
            )
        place = ids.index(self._image_token_id)
        offsets = tokens["offset_mapping"][place + 1 :] if self._tokenizer.is_fast else []
        begin = text.find(question, text.find(self._image_token) + len(self._image_token))
        if begin < 0:
            raise InputError(
                "the chat template puts the question in front of the image, whose tokens are chosen by what follows",
                _OTHER,
            )
        span = _tokens_of(offsets, begin, begin + len(_without_instruction(question)))
        return Prompt(text, ids[:place], ids[place + 1 :], span or (0, len(ids) - place - 1))

    def _clean(self, question: str) -> str:
        cleaned = question.strip().removeprefix(self._image_token).removesuffix(self._image_token).strip()
        if not cleaned:
            raise InputError(f"the question {shown(question)} is empty", "ask something")
        self._check_placeholder("question", cleaned)
        return cleaned

    def _check_placeholder(self, name: str, text: str) -> None:
        if self._image_token in text:
            raise InputError(
                f"the {name} {shown(text)} contains the image placeholder {self._image_token}",
                "leave it out: the image is put in front of the question",
            )
        if _VIDEO in text and _VIDEO in self._tokenizer.get_added_vocab():
            raise InputError(f"the {name} {shown(text)} contains the video placeholder {_VIDEO}", _ONE_IMAGE)

    def _rendered(self, question: str, system: str | None) -> str:
        system = (system or "").strip()
        self._check_placeholder("system text", system)
        refusal = "leave out the system text (--system), or choose a template that takes one (--chat-template)"
        try:
            text = self._render(self.template.text, question, system)
        except Exception as error:  # a template is a program, and fails as it likes
            said = str(error) or type(error).__name__
            fix = refusal if system else "ask in other words, or choose another template (--chat-template)"
            raise InputError(f"the chat template refuses this conversation: {cut(said)}", fix) from error
        if system not in text:
            raise InputError("the chat template takes no system text", refusal)
        if question not in text:
            fix = "ask in other words, or choose another template (--chat-template)"
            raise InputError(f"the chat template loses or changes the question {cut(question)!r}", fix)
        return text

    def _render(self, template: str, question: str, system: str = "") -> str:
        """Render one turn, in content parts: published templates lose the text of a message that is a plain string."""
        content = [{"type": "image"}, {"type": "text", "text": question}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if system:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        text: str = self._processor.apply_chat_template(
            messages, chat_template=template, add_generation_prompt=True, tokenize=False
        )
        return text

    def _choose(self, documented: ChatTemplate) -> ChatTemplate:
        """Take the checkpoint's own template, unless it has none or one that its family never saw."""
        own = getattr(self._processor, "chat_template", None) or getattr(self._tokenizer, "chat_template", None)
        text: str | None = own.get("default") if isinstance(own, dict) else own
        if not text:
            return replace(documented, reason="the checkpoint has no chat template")
        fault = self._fault(text, documented.text)
        return replace(documented, reason=fault) if fault else ChatTemplate("checkpoint", text)

    def _fault(self, template: str, documented: str) -> str:
        """Tell what is wrong with a template that can be rendered all the same; empty when nothing is.

        Raises:
            CheckpointError: it is no Jinja, or could go on for ever.
        """
        try:
            text = self._tried(template)
        except _UNRENDERED:
            text = ""
        if self._image_token not in text or _QUESTION not in text:
            return "the checkpoint's chat template knows no images"
        if "[INST]" in text and "<|im_start|>" in documented:  # the first revision of LLaVA-NeXT-34B
            return "the checkpoint's chat template has another family's turns"
        try:
            text = self._tried(template, _SYSTEM)
        except _UNRENDERED:  # it takes no system text, which is said when there is one
            return ""
        # The first revision of LLaVA-1.5-13B.
        return "the checkpoint's chat template repeats the system text" if text.count(_SYSTEM) > 1 else ""

    def _tried(self, template: str, system: str = "") -> str:
        """Render a template for the first time.

        Raises:
            CheckpointError: it is no Jinja, could go on for ever, or fails as no template should.
        """
        try:
            check_template(template)
            with bounded():
                return self._render(template, _QUESTION, system)
        except jinja2.TemplateSyntaxError as error:
            raise CheckpointError(f"the chat template is broken: {cut(str(error))}", _OTHER) from error
        except _UNRENDERED:
            raise
        except Exception as error:
            said = cut(f"{type(error).__name__}: {error}")
            raise CheckpointError(f"the chat template is broken: {said}", _OTHER) from error

    def _example(self) -> Prompt:
        """Try the template with a question that nothing is special about.

        Raises:
            CheckpointError: it cannot be used.
        """
        try:
            self._tried(self.template.text)
            return self.prompt(_QUESTION)
        except InputError as error:
            raise CheckpointError(error.what, _OTHER) from error
        except _UNRENDERED as error:
            raise CheckpointError(f"the chat template is broken: {cut(str(error))}", _OTHER) from error


def _without_instruction(question: str) -> str:
    """Take the question alone, however many instructions follow; all of it where it is nothing but one."""
    left = question
    while found := next((one for one in INSTRUCTIONS if left.lower().endswith(one.lower())), None):
        left = left[: -len(found)].rstrip()
    return left or question


def _tokens_of(offsets: list[tuple[int, int]], begin: int, end: int) -> tuple[int, int] | None:
    """Find the tokens that hold a character of text[begin:end]: first, and behind the last; `None` if there is none."""
    found = [number for number, (first, last) in enumerate(offsets) if first < end and last > begin]
    return (found[0], found[-1] + 1) if found else None
