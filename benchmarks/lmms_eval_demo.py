"""Does lmms-eval come to the same score as `adafv sweep`? On questions that the demo was not trained on.

    python -m benchmarks.lmms_eval_demo FOLDER --processes 1 2

needs lmms-eval (`pip install 'adafv[lmms-eval]'`) in the environment that runs this. It writes a task of its own into
FOLDER, runs `python -m lmms_eval --model adafv` over it (`torchrun` for several processes), runs `adafv sweep` over
the same questions, and prints the scores beside each other.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TASK = """\
dataset_path: json
dataset_kwargs:
  data_files:
    test: {questions}
task: adafv_demo
test_split: test
output_type: generate_until
doc_to_visual: !function utils.visual
doc_to_text: "{{{{text}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs:
  max_new_tokens: 16
  temperature: 0
  num_beams: 1
  do_sample: false
  until: ["\\n\\n"]
process_results: !function utils.marks
metric_list:
  - metric: exact
    aggregation: mean
    higher_is_better: true
metadata:
  - version: 0.0
"""
UTILS = """\
from pathlib import Path

from PIL import Image

from adafv.quality.metrics import accepted, mark

FOLDER = Path({folder!r})


def visual(doc):
    return [Image.open(FOLDER / doc["image"]).convert("RGB")]


def marks(doc, results):
    return {{"exact": mark(results[0], accepted({{"answer": doc["answer"]}})).exact}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--per-kind", type=int, default=10)
    parser.add_argument("--keep", default="16")
    parser.add_argument("--processes", type=int, nargs="+", default=[1])
    chosen = parser.parse_args()
    folder, questions = chosen.folder.resolve(), chosen.folder.resolve() / "hard" / "questions.jsonl"
    if not questions.exists():
        run("-m", "recipe.heldout", "--set", "hard", "--split", "report", "--per-kind", str(chosen.per_kind),
            "--out", str(questions.parent))  # fmt: skip
    tasks = folder / "tasks"
    tasks.mkdir(parents=True, exist_ok=True)
    (tasks / "adafv_demo.yaml").write_text(TASK.format(questions=questions))
    (tasks / "utils.py").write_text(UTILS.format(folder=str(questions.parent)))
    settings = f"pretrained=demo,keep={chosen.keep},device_map=cpu"
    for count in chosen.processes:
        out = folder / f"lmms-{count}"
        launcher = ["-m"] if count == 1 else ["-m", "torch.distributed.run", f"--nproc_per_node={count}", "-m"]
        run(*launcher, "lmms_eval", "--model", "adafv", "--model_args", settings, "--tasks", "adafv_demo",
            "--include_path", str(tasks), "--batch_size", "8", "--device", "cpu", "--output_path", str(out),
            "--log_samples")  # fmt: skip
        found = max(out.rglob("*_results.json"), key=lambda path: path.stat().st_mtime)
        results: dict[str, Any] = json.loads(found.read_text())
        print(f"lmms-eval, {count} process(es): {results['results']['adafv_demo']}")
    swept = run("-m", "adafv", "sweep", str(questions), "--keep", chosen.keep, "--metric", "exact", "-q",
                "--max-new-tokens", "16")  # fmt: skip
    for line in swept.splitlines():
        point = json.loads(line)
        print(f"adafv sweep, {point['pruner']} at {point['keep']}: {point['accuracy']}")


def run(*arguments: str) -> str:
    print("+ python", *arguments, file=sys.stderr)
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    main()
