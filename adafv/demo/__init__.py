"""The bundled checkpoints: small LLaVAs that answer questions about drawn scenes. Their recipes are not installed."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent
CHECKPOINT = _HERE / "checkpoint"
BUNDLED = {"demo": CHECKPOINT, "demo-next": _HERE / "checkpoint-next"}
"""Folder of each by the name that `-m` knows it by: a LLaVA-1.5 and a LLaVA-NeXT."""
SAMPLES = _HERE / "samples"
"""Two of its images, for whoever has no source tree."""
