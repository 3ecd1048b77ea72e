"""The bundled demo checkpoint: a small LLaVA that answers questions about drawn scenes. The recipe is not installed."""

from __future__ import annotations

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"
SAMPLES = Path(__file__).parent / "samples"
"""Two of its images, for whoever has no source tree."""
