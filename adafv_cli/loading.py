"""Loading a model for a command, and what the user should know about the demo."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from adafv.demo import BUNDLED
from adafv.errors import InputError, cut
from adafv.settings import LoadSettings, RunSettings
from adafv.versions import check_versions
from adafv_cli.console import VERBOSE, Streams
from adafv_cli.exits import UsageError
from adafv_cli.files import is_there
from adafv_cli.rendering import report

if TYPE_CHECKING:
    from adafv.engine import Model
    from adafv.spreading.cluster import Cluster
    from adafv.spreading.settings import ClusterSettings

DEMO_NOTE = "the demo only knows drawn scenes; photos need -m llava-hf/llava-1.5-7b-hf"
_QUIET_RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
SCENE_KEY = "adafv-scene"  # text chunk that marks the PNG files of the demo's scene renderer


def load_model(settings: LoadSettings, run: RunSettings, streams: Streams) -> Model:
    """Load a model, saying so while it lasts, and then what the user should know about it.

    Raises:
        CheckpointError, DeviceError: as `adafv.load`.
        UsageError: a chat template, base, vision tower or padding that cannot be used.
    """
    check_versions()
    hub = settings.model not in BUNDLED and not is_there(Path(settings.model))
    with streams.busy(f"loading {cut(settings.model)}" + (" (-v shows downloads)" if hub else "")):
        from adafv.engine import load

        with setting_errors():
            model = load(settings)
    try:
        model.check(run)
    except InputError as error:
        raise UsageError(f"--{error.what}", error.fix) from error
    _tell((*model.notes, *model.notes_on(run)), model.context, run, streams)
    return model


@contextmanager
def loaded(settings: LoadSettings, run: RunSettings, streams: Streams) -> Iterator[Model]:
    """Load a model as `load_model` does, for as long as it is used."""
    yield load_model(settings, run, streams)


@contextmanager
def clustered(
    cluster: ClusterSettings, settings: LoadSettings, run: RunSettings, expected: int | None, streams: Streams
) -> Iterator[Cluster]:
    """Load a model in every actor of a cluster, saying so while it lasts, and end them in the end.

    Raises:
        CheckpointError, DeviceError: as `adafv.load`; or there is no cluster.
        UsageError: as `load_model`; or Ray is not installed.
    """
    check_versions()
    for name, value in _QUIET_RAY.items():
        os.environ.setdefault(name, value)
    with streams.busy(f"loading {cut(settings.model)} in the actors of a cluster"):
        from adafv.spreading.cluster import Cluster

        try:
            found = Cluster(cluster, settings, run, str(Path.cwd()), expected, streams.note)
        except InputError as error:
            name, colon, rest = error.what.partition(":")
            raise UsageError(f"--{name.replace('_', '-')}{colon}{rest}", error.fix) from error
    with found, redirect_stdout(streams.stderr):  # Ray's own messages
        _tell(found.notes, found.context, run, streams)
        yield found


def _tell(notes: Sequence[str], context: int | None, run: RunSettings, streams: Streams) -> None:
    for note in notes:
        streams.note(note)
    if context is not None and run.max_new_tokens > context:
        what = f"--max-new-tokens {run.max_new_tokens} is more than the model's context of {context} positions"
        streams.note(f"{what}: an answer ends where that does")


def tell_news(model: Model | Cluster, told: Sequence[str], streams: Streams) -> None:
    """Say what has become known of a model since what was `told` when it was loaded."""
    for note in model.notes:
        if note not in told:
            streams.note(note)


@contextmanager
def setting_errors() -> Iterator[None]:
    """Speak of the flag where a chosen template, base or vision tower cannot be used; other errors stay as they are."""
    try:
        yield
    except InputError as error:
        name, colon, rest = error.what.partition(":")
        if not colon or name not in ("chat_template", "base", "vision_tower"):
            raise
        raise UsageError(f"--{name.replace('_', '-')}:{rest}", error.fix) from error


def load_for_image(source: str | bytes, settings: LoadSettings, run: RunSettings, streams: Streams) -> Model:
    """Load a model that will be asked about one image, which is checked first; say what the user should know.

    Raises:
        ImageError: it cannot be opened.
        CheckpointError, DeviceError, InputError: as `adafv.load`.
    """
    from adafv.images import check_image

    check_image(source)
    model = load_model(settings, run, streams)
    if model.is_demo and not is_scene(source):
        streams.note(DEMO_NOTE)
    if streams.verbosity >= VERBOSE:
        streams.say(report.settings(model.describe(run), run))
    return model


def is_scene(source: str | bytes) -> bool:
    """Tell whether an image that can be opened is one that the demo's renderer drew."""
    from adafv.image_files import opened
    from adafv.images import MAX_PIXELS

    with opened(source, MAX_PIXELS) as image:
        return SCENE_KEY in image.info
