"""What a user may choose: frozen, checked when made, with the names of the command line's flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

from adafv import chat_templates, pruners
from adafv.budget import Budget, bounds
from adafv.checks import check_choice, check_number, check_select, check_text, tiles_text
from adafv.errors import InputError, shown
from adafv.setup import PROTOCOLS, PUBLISHED_BY_CROP

DEMO = "demo"
POSITIONS = ("compact", "original")
CROP_BUDGETS = ("joint", "each")
DTYPES = ("auto", "float32", "bfloat16", "float16")
QUANTIZATIONS = ("int8", "int4")
ATTENTIONS = ("sdpa", "flash_attention_2", "eager")

DeviceMap = str | Mapping[str, int | str]
Positions = Literal["compact", "original"]
Select = Literal["question", "image", "split"]
SELECTS: tuple[Select, ...] = ("question", "image", "split")


@dataclass(frozen=True)
class LoadSettings:
    """Which checkpoint, and where and how its weights are held.

    Args:
        model: checkpoint folder, hub id, or `demo` for the bundled one.
        device_map: `auto`, `cpu`, `cuda`, `cuda:1`, `balanced`, `sequential`, or a module-to-device mapping.
        max_memory: as in accelerate: device (`0`, `"cpu"`) to size (`"20GiB"`).
        offload_folder: as in accelerate.
        dtype: `auto` takes the checkpoint's own; of float16 on a CPU, float32 where it is small (below half a billion
            parameters) or where bfloat16 is slower there and float32 fits, else bfloat16.
        quantize: `int8` or `int4` (language model only; vision tower and projector stay as they are).
        attention: attention kernel of both towers.
        compile: compile the steps of decoding where that can be done, and on CUDA replay them as graphs.
        chat_template: what questions are put in, instead of the checkpoint's own: a name of
            `adafv.chat_templates.NAMES`, or a Jinja file.
        revision: hub revision.
        offline: never touch the network.
        base: what an adapter is merged into; `None` is what it says that it was trained on.
        vision_tower: folder or hub id of the tower of a checkpoint in LLaVA's original format that does not hold it
            itself; `None` is the one that it names.
        server: addresses of servers that run the language model, with commas between them; only what stands before it
            is loaded here then.
        server_insecure: send prompts to other machines over plain http, too.
        server_requests: prompts that the servers have at once, at most.
        server_timeout: seconds that a server may be silent about a prompt.
    """

    model: str = DEMO
    device_map: DeviceMap = "auto"
    max_memory: Mapping[int | str, int | str] | None = None
    offload_folder: str | None = None
    dtype: str = "auto"
    quantize: str | None = None
    attention: str = "sdpa"
    compile: bool = False
    chat_template: str | None = None
    revision: str | None = None
    offline: bool = False
    base: str | None = None
    vision_tower: str | None = None
    server: str | None = None
    server_insecure: bool = False
    server_requests: int = 64
    server_timeout: float = 600.0

    def __post_init__(self) -> None:
        check_choice("dtype", self.dtype, DTYPES)
        check_choice("attention", self.attention, ATTENTIONS)
        if self.quantize is not None:
            check_choice("quantize", self.quantize, QUANTIZATIONS)
        if self.chat_template is not None:
            chat_templates.chosen(self.chat_template)
        if self.server_requests < 1:
            raise InputError(f"server_requests: {self.server_requests} asks nothing", "use 1 or more")
        if not self.server_timeout > 0:
            raise InputError(f"server_timeout: {self.server_timeout} s is no time to answer in", "use 600, for example")
        self._check_server()

    def _check_server(self) -> None:
        """Refuse what would be about the weights that a server has."""
        for name, chosen, fix in (
            ("quantize", self.quantize is not None, "start it with its own --quantization"),
            ("attention", self.attention != LoadSettings.attention, "start it with its own --attention-backend"),
            ("compile", self.compile, "leave it out: servers compile by themselves"),
        ):
            if self.server is not None and chosen:
                raise InputError(f"{name}: {getattr(self, name)} is of the language model, which the server has", fix)


@dataclass(frozen=True)
class RunSettings:
    """How a question is answered.

    Args:
        keep: the budget, `128`, `"25%"`, `"auto"`, `"auto:90%"` or `"all"`.
        pruner: a name of `adafv.pruners.names()`.
        positions: `compact` renumbers the kept tokens (as published); `original` keeps the positions of the
            unpruned prompt.
        crop_budget: `joint` chooses among the tokens of all crops together; `each` gives every crop of an image its
            share of the budget, and chooses within it alone (`adafv.pruners.crops.shares` says how it is dealt out).
        select: `question` chooses for each question (as published), the others once for all questions that are known
            of an image (`Question.known`), so that prompts begin alike: `image` keeps the same tokens for all, `split`
            what saliency chose, and behind it what matches each question's own words best (`choosing.divided`).
        tiles: which tiles of an image that is a thumbnail and tiles are encoded at all: `all`, a number of those that
            the thumbnail says matter most to the question, or as many as it says (`auto`); `adafv.tiles` has the rule.
            A share in `keep` stays one of all tokens that the image would have. No effect where there are no tiles.
        max_new_tokens: tokens generated at most.
        temperature: 0 is greedy.
        top_p: nucleus sampling, used with `temperature` above 0.
        seed: of sampling and of the `random` pruner.
        system: system text, or a name of `adafv.chat_templates.SYSTEM_TEXTS`; `None` leaves it to the checkpoint's
            template.
        pad: pad images to a square, as LLaVA's own `image_aspect_ratio=pad`, rather than let the image processor cut
            their sides off; `None` leaves it to the checkpoint's preprocessor.
        protocol: `published` sets what is left open here as the published tables were made: `pad` where an image is one
            crop, the system text where the checkpoint is a Vicuna; and a budget for each crop where the pruner was
            published so, whatever `crop_budget` says.
        compare: also run unpruned.

    Raises:
        BudgetError, InputError: a value that cannot be used.
    """

    keep: Budget | str | int = "25%"
    pruner: str = "adafv"
    positions: Positions = "compact"
    crop_budget: Literal["joint", "each"] = "joint"
    select: Select = "question"
    tiles: str | int = "all"
    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    system: str | None = None
    pad: bool | None = None
    protocol: str | None = None
    compare: bool = False
    budget: Budget = field(init=False, repr=False)

    def __post_init__(self) -> None:
        blind = self.pruner == pruners.FLOOR
        object.__setattr__(self, "budget", Budget("0", count=0) if blind else Budget.parse(self.keep))
        object.__setattr__(self, "keep", self.budget.text)  # 64 and "64", 25% and 25.0% are one setting
        check_text("pruner", self.pruner)
        pruners.check(self.pruner)
        for name, choices in (("positions", POSITIONS), ("crop_budget", CROP_BUDGETS), ("select", SELECTS)):
            check_choice(name, getattr(self, name), choices)
        object.__setattr__(self, "tiles", tiles_text(self.tiles))
        check_select(self.select, self.pruner, pruners.TWO_LISTS, each_crop=self.each_crop, tiles=str(self.tiles))
        if self.system is not None:
            check_text("system", self.system)
            object.__setattr__(self, "system", chat_templates.system_text(self.system))  # the name is the text
        if self.protocol is not None:
            check_choice("protocol", self.protocol, PROTOCOLS)
        if self.pad is not None and not isinstance(self.pad, bool):
            raise InputError(f"pad: {shown(self.pad)} is neither true nor false", "give one of the two, or None")
        for name, kind in (("max_new_tokens", int), ("seed", int), ("temperature", float), ("top_p", float)):
            check_number(name, getattr(self, name), whole=kind is int)
            object.__setattr__(self, name, kind(getattr(self, name)))  # numpy's are no JSON
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens: {self.max_new_tokens} generates nothing", "use 1 or more")
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"temperature: {self.temperature} is negative or not finite", "use 0 for greedy")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p: {self.top_p} is not in (0, 1]", "use 1 to switch it off")

    @property
    def each_crop(self) -> bool:
        """Whether every crop of an image has a budget of its own."""
        return self.crop_budget == "each" or (self.protocol is not None and self.pruner in PUBLISHED_BY_CROP)

    @property
    def by_image(self) -> bool:
        """Whether all questions about an image get the same tokens of it, whatever they ask."""
        return self.pruner == "none" or (self.budget.held is None and pruners.get(self.pruner).by_image)

    @property
    def begins_alike(self) -> bool:
        """Whether the prompts of questions about an image begin alike, behind the text in front of it."""
        return self.select != "question" or self.by_image

    def keeping(self, keep: Budget | str | int | None) -> RunSettings:
        """Change the budget to a question's own, where it has one; a run that keeps all, or nothing, stays as it is."""
        return self if keep is None or self.pruner in ("none", pruners.FLOOR) else _keeping(self, keep)

    @property
    def named(self) -> dict[str, Any]:
        """Name these settings as an answer does; of a whole image, and where they are the default, not all of them."""
        positions = None if self.pruner == "none" or self.positions == "compact" else self.positions
        select = None if self.pruner == "none" or self.select == "question" else self.select
        return {"pruner": self.pruner, "keep": self.budget.text, "positions": positions, "select": select}

    def pruned_to(self, visual: int, *, whole: int | None = None, least: bool = False) -> int | None:
        """Count the visual tokens kept of an image with `visual` candidates; `None` where nothing is pruned.

        Args:
            visual: N.
            whole: candidates that it would have with all of its tiles, which a share is one of; N where it has all.
            least: what is kept at least rather than at most, where the budget is `auto`.
        """
        keep = self.budget.tokens(visual if whole is None or self.budget.held is not None else whole)
        if self.pruner == "none" or keep >= visual:
            return None
        return bounds(visual)[0] if least and self.budget.held is not None else keep


@lru_cache(4096)
def _keeping(run: RunSettings, keep: Budget | str | int) -> RunSettings:
    return replace(run, keep=keep)


@dataclass(frozen=True)
class BatchSettings:
    """How a stream of questions is worked through; none of this changes an answer.

    Args:
        batch_size: prompts in one prefill, or `auto`: grows while memory has room and questions are answered faster.
            Out of memory halves it.
        cache_bytes: encoded images that are held for further questions about them.
        workers: threads that read and preprocess images ahead.
        ahead: questions read ahead of the answers, in batches; bounds the reordering by length, too.
        encodings: folder that keeps encoded images between runs, `None` for none.
        encodings_bytes: that such a folder holds at most.
    """

    batch_size: int | Literal["auto"] = "auto"
    cache_bytes: int = 2**30
    workers: int = 2
    ahead: int = 4
    encodings: str | None = None
    encodings_bytes: int = 2**34

    def __post_init__(self) -> None:
        if self.batch_size != "auto" and (not isinstance(self.batch_size, int) or self.batch_size < 1):
            raise InputError(f"batch_size: {self.batch_size!r} is no batch", "use 1 or more, or auto")
        for name in ("cache_bytes", "encodings_bytes", "workers", "ahead"):
            least = 0 if name.endswith("_bytes") else 1
            if getattr(self, name) < least:
                raise InputError(f"{name}: {getattr(self, name)} is too small", f"use {least} or more")
