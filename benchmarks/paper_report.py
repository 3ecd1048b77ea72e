"""The whole of the papers' tables as `paper.md` and `paper.json`, with what they were made from."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.paper_tables import FILES, PUBLISHED, Table, published


def write(tables: Sequence[Table], chosen: argparse.Namespace, off: Sequence[str]) -> tuple[Path, Path]:
    """Write `paper.md` and `paper.json`; returns their paths."""
    models: dict[str, dict[str, dict[str, float]]] = {}
    for table in tables:
        for setting, value in table.scores().items():
            models.setdefault(table.model, {}).setdefault(setting, {})[table.benchmark] = value
    hashes = {str(path): one for table in tables for path in table.files for one in digests(path)}
    weights = {model: dict(weight_digests(model)) for model in models}
    lines = ["# The papers' tables, by adafv", ""]
    if chosen.limit is not None:
        lines += [f"**The first {chosen.limit} questions of each benchmark only**: no figure to compare.", ""]
    lines += [f"- {line}" for line in off] or ["Unpruned models: none differs from a published figure that is known."]
    whole: dict[str, Any] = {"units": PUBLISHED["units"], "limit": chosen.limit, "differs": list(off), "models": {}}
    for model, settings in models.items():
        names = [name for name in FILES if name in settings.get("unpruned", {})]
        rows = {setting: relative(values, settings["unpruned"], names) for setting, values in settings.items()}
        known = {setting: {name: found.get(name) for name in names} for setting, found in published(model).items()}
        lines += ["", f"## {model}", "", *_table(names, settings, rows, known)]
        whole["models"][model] = {"scores": settings, "relative": rows, "published": known}
    lines += ["", f"Units: {PUBLISHED['units']}. Relative: mean over the benchmarks of figure over unpruned figure."]
    lines += ["", "Published figures:", *(f"- {name}: {source}" for name, source in PUBLISHED["sources"].items())]
    lines += ["", "SHA-256 of what was read:", *(f"- `{name}`: {digest}" for name, digest in hashes.items())]
    lines += [f"- {model}, `{name}`: {digest}" for model, found in weights.items() for name, digest in found.items()]
    whole |= {"sources": PUBLISHED["sources"], "files": hashes, "weights": weights}
    made = chosen.out / "paper.md", chosen.out / "paper.json"
    made[0].write_text("\n".join([*lines, ""]))
    made[1].write_text(json.dumps(whole, indent=2) + "\n")
    return made


def _table(
    names: Sequence[str],
    settings: Mapping[str, Mapping[str, float]],
    rows: Mapping[str, float | None],
    known: Mapping[str, Mapping[str, float | None]],
) -> Iterator[str]:
    """Lay out one model's figures: what was published in italics, then ours, with the means of what is left."""
    yield "| " + " | ".join(["setting", *names, "relative %"]) + " |"
    yield "|" + "---|" * (len(names) + 2)
    for setting, found in known.items():
        if any(value is not None for value in found.values()):
            yield f"| *{setting}, published* | {_cells(names, found, '')} | |"
    for setting, values in settings.items():
        mean = rows[setting]
        yield f"| {setting} | {_cells(names, values, '.1f')} | {'' if mean is None else f'{mean:.1f}'} |"


def _cells(names: Sequence[str], values: Mapping[str, float | None], form: str) -> str:
    found = [values.get(name) for name in names]
    return " | ".join("" if value is None else format(value, form) for value in found)


def relative(values: dict[str, float], whole: dict[str, float], names: Sequence[str]) -> float | None:
    """Mean of what is left of the unpruned figures, in percent; `None` where one is missing."""
    shares = [values[name] / whole[name] for name in names if name in values and whole[name]]
    return 100 * sum(shares) / len(shares) if shares and all(name in values for name in names) else None


def digests(path: Path) -> Iterator[str]:
    """Hash a file, or the text files of a folder together."""
    files = [path] if path.is_file() else sorted(one for end in ("*.json", "*.txt") for one in path.rglob(end))
    whole = hashlib.sha256()
    for one in files:
        whole.update(one.read_bytes())
    yield whole.hexdigest()


def weight_digests(model: str) -> Iterator[tuple[str, str]]:
    """Hash the weights, where they lie in a folder, or in the hub's cache."""
    from adafv import demo

    folder = Path(demo.__file__).parent / "checkpoint" if model == "demo" else Path(model)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(model, local_files_only=True))
        except Exception:  # no cache, no hash: which is to be seen in the report
            return
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            yield path.name, hashlib.file_digest(file, "sha256").hexdigest()
