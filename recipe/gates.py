"""Measure what the released checkpoint has to pass: `python -m recipe.gates --out gates.json`.

1 knows, 4 survives use, and the engine's half of 5: through the library's engine. 2 own information, 3 saliency, 6
a number needs several patches, and the stock half of 5: through stock transformers. All on both worlds; 6 on the hard
one alone, whose signs have numbers. What is right without the order of the visual tokens is no gate.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import adafv
from adafv.demo import CHECKPOINT
from adafv.engine import Model
from recipe.evaluation import probes
from recipe.measures import agrees, knows, needs_several, own_information, saliency_bias, survives_use, without_order
from recipe.questions import NUMBER
from recipe.stock import Stock
from recipe.worlds import HARD, PLAIN, REPORT, TUNE, Series, held_out

log = logging.getLogger(__name__)


def gates_of(series: Series, per_kind: int, stock: Stock, model: Model) -> dict[str, Callable[[], Any]]:
    """The measurements of one world, by name."""
    asked = probes(per_kind, series)
    gates: dict[str, Callable[[], Any]] = {
        "1 knows": lambda: knows(model, asked),
        "2 own information": lambda: own_information(stock, asked),
        "3 saliency": lambda: saliency_bias(stock, asked),
        "4 survives use": lambda: survives_use(model, asked),
        "5 stock agrees": lambda: agrees(stock, model, asked[:: max(1, len(asked) // 400)]),
        "without order": lambda: without_order(stock, asked[:: max(1, len(asked) // 400)]),
    }
    if NUMBER in series.kinds:
        gates["6 needs several patches"] = lambda: needs_several(stock, asked)
    return gates


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m recipe.gates", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--model", type=Path, default=CHECKPOINT, help="checkpoint folder (default: the bundled one)")
    parser.add_argument("--set", choices=(PLAIN, HARD), nargs="+", default=[PLAIN, HARD], help="worlds (default: both)")
    parser.add_argument("--split", choices=(REPORT, TUNE), default=REPORT, help="which scenes (default: report)")
    parser.add_argument("--per-kind", type=int, default=240, help="questions of each kind")
    options = parser.parse_args()
    if options.per_kind < 1:
        parser.error("--per-kind counts from 1")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1)
    stock, model = Stock.load(options.model), adafv.load(str(options.model), dtype="float32")
    report: dict[str, dict[str, Any]] = {}
    for world in options.set:
        report[world] = {}
        series = held_out(world, options.split)
        for name, gate in gates_of(series, options.per_kind, stock, model).items():
            report[world][name] = gate()
            log.info("%s, %s: %s", world, name, report[world][name])
            options.out.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
