"""Measure the demo's accuracy against the budget: `python -m adafv.demo.curves --out FOLDER`.

Every figure comes from the library's engine on held-out scenes. Writes curves.json and curves.md.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

import adafv
from adafv.demo.evaluation import Share, pictures, probes, right_answers, shares_by
from adafv.demo.questions import KINDS

log = logging.getLogger(__name__)

PRUNERS = ("adafv", "saliency", "similarity", "uniform", "random")
BUDGETS = {"50 %": "128", "25 %": "64", "12.5 %": "32", "6 %": "16"}
SIZES = ("small", "large", "absent")
Results = dict[str, dict[str, dict[str, Share]]]  # "pruner budget" -> "kind" or "size" -> group -> share


def measure(checkpoint: str, per_kind: int) -> Results:
    """Dense accuracy, then every pruner at every budget."""
    model = adafv.load(checkpoint, dtype="float32")
    asked = probes(per_kind)
    shown = pictures(asked)
    settings = {"dense": ("all", "none")}
    settings |= {f"{name} {label}": (keep, name) for label, keep in BUDGETS.items() for name in PRUNERS}
    results: Results = {}
    for title, (keep, pruner) in settings.items():
        right = right_answers(model, asked, shown, keep, pruner)
        results[title] = {"kind": shares_by(right, asked, "kind"), "size": shares_by(right, asked, "size")}
        log.info("%s: %s", title, results[title]["kind"]["all"])
    return results


def as_markdown(results: Results) -> str:
    """Three tables: accuracy by budget, the same for small and large things, and by kind of question."""
    overall = _table(
        ["pruner", *BUDGETS],
        [[name, *(str(results[f"{name} {label}"]["kind"]["all"]) for label in BUDGETS)] for name in PRUNERS],
    )
    sizes = _table(
        ["", *SIZES], [[title, *(_cell(groups["size"], size) for size in SIZES)] for title, groups in results.items()]
    )
    kinds = _table(
        ["", *KINDS], [[title, *(_cell(groups["kind"], kind) for kind in KINDS)] for title, groups in results.items()]
    )
    dense = results["dense"]["kind"]["all"]
    return f"Dense: {dense} ({dense.count} questions)\n\n{overall}\n\n{sizes}\n\n{kinds}\n"


def _cell(groups: dict[str, Share], name: str) -> str:
    return f"{groups[name].percent:.1f} ± {groups[name].error:.1f}" if name in groups else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m adafv.demo.curves", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for curves.json and curves.md")
    parser.add_argument("--model", default="demo", help="checkpoint folder (default: the bundled one)")
    parser.add_argument("--per-kind", type=int, default=240, help="questions of each kind")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1)
    results = measure(options.model, options.per_kind)
    options.out.mkdir(parents=True, exist_ok=True)
    plain = {
        title: {field: {k: asdict(v) for k, v in groups.items()} for field, groups in fields.items()}
        for title, fields in results.items()
    }
    (options.out / "curves.json").write_text(json.dumps(plain, indent=1))
    (options.out / "curves.md").write_text(as_markdown(results))


if __name__ == "__main__":
    main()
