"""From a question to token ids, through the checkpoint's own chat template; spans are found from the ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jinja2

from adafv.errors import CheckpointError, InputError


@dataclass(frozen=True)
class Prompt:
    """One prompt, cut at its image placeholder.

    Args:
        text: as rendered, with one placeholder.
        before: token ids before the placeholder, with the tokenizer's leading special tokens.
        after: token ids behind it up to the end of the prompt: question, instruction, template's tail. These are
            the text tokens that similarity looks at.
    """

    text: str
    before: list[int]
    after: list[int]

    @property
    def text_tokens(self) -> int:
        """Tokens that are not visual."""
        return len(self.before) + len(self.after)


class Prompter:
    """Renders and tokenizes prompts for one checkpoint.

    Args:
        processor: the checkpoint's processor: tokenizer and chat template.
        image_token_id: id of the image placeholder, from the model's config.
        fallback: a chat template for checkpoints that come without one.
    """

    def __init__(self, processor: Any, image_token_id: int, fallback: str) -> None:
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._image_token_id = image_token_id
        self._image_token: str = self._tokenizer.convert_ids_to_tokens(image_token_id)
        self._template = getattr(processor, "chat_template", None) or self._tokenizer.chat_template or fallback
        if self._image_token is None:
            raise CheckpointError(
                f"the tokenizer has no token for the image placeholder's id {image_token_id}",
                "the tokenizer's files do not belong to this checkpoint: fetch them again",
            )

    def prompt(self, question: str, system: str | None = None) -> Prompt:
        """Render and tokenize.

        Args:
            question: what is asked; an image placeholder at its start or end (as LLaVA's own files have it) is
                dropped.
            system: system text, or `None` for what the template does without.

        Raises:
            InputError: an empty question, a placeholder inside it, or a template that takes no system text.
        """
        question = self._clean(question)
        text = self._render(question, system)
        # Templates that write the leading special token themselves would otherwise get it twice.
        special = not (self._tokenizer.bos_token and text.startswith(self._tokenizer.bos_token))
        ids: list[int] = self._tokenizer(text, add_special_tokens=special)["input_ids"]
        if ids.count(self._image_token_id) != 1:
            raise CheckpointError(
                f"the chat template made {ids.count(self._image_token_id)} image placeholders for one image",
                "the checkpoint's chat template and tokenizer do not belong together: fetch them again",
            )
        place = ids.index(self._image_token_id)
        return Prompt(text, ids[:place], ids[place + 1 :])

    def _clean(self, question: str) -> str:
        cleaned = question.strip().removeprefix(self._image_token).removesuffix(self._image_token).strip()
        if not cleaned:
            raise InputError(f"the question {question!r} is empty", "ask something")
        if self._image_token in cleaned:
            raise InputError(
                f"the question {question!r} contains the image placeholder {self._image_token}",
                "leave it out: the image is put in front of the question",
            )
        return cleaned

    def _render(self, question: str, system: str | None) -> str:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if system:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        try:
            text: str = self._processor.apply_chat_template(
                messages, chat_template=self._template, add_generation_prompt=True, tokenize=False
            )
        except jinja2.TemplateError as error:
            raise InputError(
                f"the checkpoint's chat template refuses this conversation: {error}",
                "leave out the system text (--system), or use a checkpoint whose template takes one",
            ) from error
        if question not in text:
            raise CheckpointError(
                f"the chat template lost the question {question!r}",
                "the checkpoint's chat template takes no content parts: fetch a newer one",
            )
        return text
