"""Used from Python, the library is silent, and says what it has when it is asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers.utils.logging import set_tqdm_hook

import adafv
from adafv import CheckpointError
from tests import tiny

ROOT = Path(__file__).parent.parent
SCRIPT = """
import adafv, sys
assert not any(name in sys.modules for name in ("torch", "transformers", "numpy", "PIL")), "torch at import"
assert {"load", "wrap", "pruned", "select", "Model", "Answer"} <= set(dir(adafv)), dir(adafv)
assert not any(name in sys.modules for name in ("torch", "transformers")), "torch at dir"
model = adafv.load(sys.argv[1], dtype="float32")
image = sys.argv[2]
list(model.batch([adafv.Question(1, image, "what?")], max_new_tokens=1))
model.explain(image, "what?", max_new_tokens=1)
"""


def test_nothing_is_printed_and_nothing_heavy_imported_early(llava_folder: Path) -> None:
    image = ROOT / "sample_images" / "bay.png"
    command = [sys.executable, "-W", "default", "-c", SCRIPT, str(llava_folder), str(image)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_callers_hook_on_bars_is_left_as_it_was(llava_folder: Path, tmp_path: Path) -> None:
    heard = []

    def theirs(factory: Any, args: Any, kwargs: Any) -> Any:
        heard.append((kwargs.get("desc"), kwargs.get("disable")))
        return factory(*args, **kwargs)

    before = set_tqdm_hook(theirs)
    try:
        adafv.load(str(llava_folder))
        assert heard == [("Loading weights", True)]
        weights = tiny.save_llava(tmp_path) / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1000] + bytes([255] * 1000))
        with pytest.raises(CheckpointError, match="not finite"):
            adafv.load(str(tmp_path))
        assert set_tqdm_hook(theirs) is theirs
    finally:
        set_tqdm_hook(before)
