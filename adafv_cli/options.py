"""The flags that commands share: one definition each, so that the same flag means the same everywhere.

A command names the groups it takes, and `takes_flags` turns each group into its flags:

    @takes_flags
    def ask(ctx: typer.Context, image: ..., load: LoadFlags, run: RunFlags, output: OutputFlags) -> None:
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import partial, wraps
from typing import Annotated, Any, cast, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from adafv import __version__, chat_templates, pruners
from adafv.checks import TILES
from adafv.errors import InputError
from adafv.settings import (
    ATTENTIONS,
    CROP_BUDGETS,
    DTYPES,
    POSITIONS,
    QUANTIZATIONS,
    LoadSettings,
    RunSettings,
)
from adafv.setup import PROTOCOLS
from adafv_cli import placement
from adafv_cli.console import DEBUG, NORMAL, QUIET, Streams
from adafv_cli.exits import UsageError


def _flag(panel: str, help: str, *names: str, words: tuple[str, ...] = (), **more: Any) -> Any:
    """Make an option in a panel of the help; `words` are what the shell completes."""
    if words:
        more["autocompletion"] = lambda incomplete: [word for word in words if word.startswith(incomplete)]
    return typer.Option(*names, rich_help_panel=panel, help=help, **more)


_DEVICE_HELP = "auto, cpu, cuda, cuda:1, balanced, sequential, or a JSON file of module: device."
_MEMORY_HELP = "Memory per device: 0=20GiB,cpu=64GiB, or a JSON object or file of the same."
_COMPILE_HELP = "Compile decoding: for GPUs and long runs; the first batches take minutes."
_TEMPLATE_HELP = f"Instead of the checkpoint's: a Jinja file, or {', '.join(chat_templates.NAMES)}."
_KEEP_HELP = "Visual tokens kept per image: a number (128), a share (25%), auto (auto:90%), or all."
_POSITIONS_HELP = "compact renumbers the kept tokens; original leaves them their places, as boxes need."
_CROPS_HELP = "joint chooses over all crops together, each within every crop its share."
_TILES_HELP = "Tiles encoded of a multi-crop image: all, a number, or auto, as the thumbnail tells."
_SYSTEM_HELP = f"System text, or one of {', '.join(chat_templates.SYSTEM_TEXTS)}; default: the template's."
_PROTOCOL_HELP = "published: --pad, --system, --crop-budget as published tables were made."
_PAD_HELP = "Pad images to a square; default: as the checkpoint's files say."
_VERBOSE_HELP = "-v: settings and a longer report; -vv: also library logs and tracebacks."

_load, _prune, _answer, _output = (partial(_flag, panel) for panel in ("Model", "Pruning", "Answer", "Output"))


@dataclass(frozen=True)
class LoadFlags:
    """Which checkpoint, and where its weights are held: `adafv.LoadSettings` as typed by a user."""

    model: Annotated[
        str, _load("Checkpoint folder, hub id, demo, or demo-next.", "-m", "--model", envvar="ADAFV_MODEL")
    ] = LoadSettings.model
    device_map: Annotated[str, _load(_DEVICE_HELP, envvar="ADAFV_DEVICE_MAP", words=placement.NAMES)] = "auto"
    max_memory: Annotated[str | None, _load(_MEMORY_HELP)] = None
    offload_folder: Annotated[str | None, _load("Where weights go that fit no device.")] = None
    dtype: Annotated[str, _load(f"{', '.join(DTYPES)}.", words=DTYPES)] = LoadSettings.dtype
    quantize: Annotated[str | None, _load("int8 or int4: language model only.", words=QUANTIZATIONS)] = None
    attention: Annotated[str, _load(f"{', '.join(ATTENTIONS)}.", words=ATTENTIONS)] = LoadSettings.attention
    compile: Annotated[bool, _load(_COMPILE_HELP, "--compile")] = False
    chat_template: Annotated[str | None, _load(_TEMPLATE_HELP, words=chat_templates.NAMES)] = None
    revision: Annotated[str | None, _load("Branch, tag or commit on the hub.")] = None
    offline: Annotated[bool, _load("Never touch the network.", "--offline")] = False
    base: Annotated[str | None, _load("Of an adapter: what it was trained on, instead of what it names.")] = None
    vision_tower: Annotated[str | None, _load("Of LLaVA's original format: folder or hub id of the tower.")] = None

    def settings(self, ctx: typer.Context) -> LoadSettings:
        """Make the library's settings.

        Raises:
            UsageError: a value that cannot be used.
        """
        values = {flag.name: getattr(self, flag.name) for flag in fields(self)}
        values["device_map"] = placement.device_map(self.device_map, _spelled("device_map", ctx))
        values["max_memory"] = placement.max_memory(self.max_memory)
        return cast(LoadSettings, _checked(LoadSettings, values, ctx))


@dataclass(frozen=True)
class RunFlags:
    """How a question is answered: `adafv.RunSettings` as typed by a user."""

    keep: Annotated[str, _prune(_KEEP_HELP, "-k", "--keep", envvar="ADAFV_KEEP")] = str(RunSettings.keep)
    pruner: Annotated[str, _prune(f"{', '.join(pruners.names())}.", words=pruners.names())] = RunSettings.pruner
    positions: Annotated[str, _prune(_POSITIONS_HELP, words=POSITIONS)] = RunSettings.positions
    crop_budget: Annotated[str, _prune(_CROPS_HELP, words=CROP_BUDGETS)] = RunSettings.crop_budget
    tiles: Annotated[str, _prune(_TILES_HELP, words=TILES)] = str(RunSettings.tiles)
    compare: Annotated[bool, _prune("Also run unpruned: speed-up, agreement.", "--compare")] = False
    max_new_tokens: Annotated[int, _answer("Length of an answer at most.")] = RunSettings.max_new_tokens
    temperature: Annotated[float, _answer("0 is greedy; above 0, sample.")] = RunSettings.temperature
    top_p: Annotated[float, _answer("Nucleus sampling, with --temperature.")] = RunSettings.top_p
    seed: Annotated[int, _answer("Of sampling, and of the random pruner.")] = RunSettings.seed
    system: Annotated[str | None, _answer(_SYSTEM_HELP, words=tuple(chat_templates.SYSTEM_TEXTS))] = None
    pad: Annotated[bool | None, _answer(_PAD_HELP, "--pad/--no-pad", show_default=False)] = None
    protocol: Annotated[str | None, _answer(_PROTOCOL_HELP, words=PROTOCOLS)] = None

    def settings(self, ctx: typer.Context) -> RunSettings:
        """Make the library's settings.

        Raises:
            UsageError: a value that cannot be used.
        """
        values = {flag.name: getattr(self, flag.name) for flag in fields(self)}
        return cast(RunSettings, _checked(RunSettings, values, ctx))


@dataclass(frozen=True)
class OneRunFlags(RunFlags):
    """The same where nothing is measured against the unpruned model: help is silent about what would be refused."""

    compare: Annotated[bool, _prune("Refused.", "--compare", hidden=True)] = False


@dataclass(frozen=True)
class OutputFlags:
    """What is printed."""

    as_json: Annotated[bool, _output("One JSON object per question on stdout.", "--json")] = False
    quiet: Annotated[bool, _output("Errors only on stderr.", "-q", "--quiet")] = False
    verbose: Annotated[int, _output(_VERBOSE_HELP, "-v", "--verbose", count=True, show_default=False)] = 0

    def apply(self, streams: Streams) -> None:
        """Set how much is said on stderr.

        Raises:
            UsageError: both quiet and verbose.
        """
        if self.quiet and self.verbose:
            raise UsageError("-q and -v contradict each other", "give one of the two")
        streams.verbosity = QUIET if self.quiet else min(NORMAL + self.verbose, DEBUG)


def same(group: type[Any], flag: str) -> Any:
    """Take the flag of another group, with its help and everything."""
    return get_type_hints(group, include_extras=True)[flag].__metadata__[0]


def takes_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take flag groups: each parameter that is one becomes that group's flags."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}

    @wraps(command)
    def with_flags(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{flag.name: values.pop(flag.name) for flag in fields(group)})
        command(**values)

    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            parameters += _parameters(groups[name])
        else:
            parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))
    # typer reads a command's parameters from these two.
    with_flags.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_flags.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_flags


def _parameters(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(flag.name, inspect.Parameter.KEYWORD_ONLY, default=flag.default, annotation=hints[flag.name])
        for flag in fields(group)
    ]


def _checked(settings: type[Any], values: dict[str, Any], ctx: typer.Context) -> Any:
    """Make settings; an error about a field speaks of the flag, or the variable, that the user wrote."""
    try:
        return settings(**values)
    except InputError as error:
        name, colon, rest = error.what.partition(":")
        what = f"{_spelled(name, ctx)}:{rest}" if colon and name in values else error.what
        raise UsageError(what, error.fix) from error


def _spelled(name: str, ctx: typer.Context) -> str:
    """Spell `keep` as the user wrote it: `--keep`, or `ADAFV_KEEP` where the value came from the environment."""
    source = ctx.get_parameter_source(name)
    if source is not None and source.name == "ENVIRONMENT":
        return f"ADAFV_{name.upper()}"
    return "--" + name.replace("_", "-")


class Command(TyperCommand):
    """A command whose help shows switches as such: typer calls them `<bool>`, as if they took a value."""

    def get_params(self, ctx: Any) -> Any:
        """Give typer's parameters, the switches among them without a value."""
        return _without_values(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands whose help does the same."""

    def get_params(self, ctx: Any) -> Any:
        """Give typer's parameters, the switches among them without a value."""
        return _without_values(super().get_params(ctx))


def _without_values(params: list[Any]) -> list[Any]:
    for param in params:
        if getattr(param, "is_flag", False) or getattr(param, "count", False):
            param.metavar = ""
    return params


def flowing(help: str) -> str:
    """Join the lines of each paragraph but of examples, which are indented: the terminal breaks them where it ends."""
    paragraphs = help.strip("\n").split("\n\n")
    return "\n\n".join(part if "\n  " in part else " ".join(part.split("\n")) for part in paragraphs)


def _print_version(wanted: bool) -> None:
    if wanted:
        from adafv_cli.rendering.run_report import versions

        found = ", ".join(f"{name} {version or 'missing'}" for name, version in versions().items())
        typer.echo(f"adafv {__version__} ({found})")
        raise typer.Exit


VersionFlag = Annotated[
    bool,
    typer.Option("-V", "--version", callback=_print_version, is_eager=True, help="Print versions and exit."),
]


def before_commands(version: VersionFlag = False) -> None:
    """Flags of `adafv` itself."""
