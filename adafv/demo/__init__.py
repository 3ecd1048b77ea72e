"""The bundled demo checkpoint: a small LLaVA that answers questions about drawn scenes, and the recipe that made it.

Importing this package imports nothing heavy; the recipe's modules are only for making the checkpoint again.
"""

from __future__ import annotations

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"
SAMPLES = Path(__file__).parent / "samples"
"""Two of its images, for whoever has no source tree."""
