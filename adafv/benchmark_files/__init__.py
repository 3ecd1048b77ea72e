"""Reads benchmarks as their owners and LLaVA's evaluation have them: one file each, and the official rule by name."""

from __future__ import annotations

from adafv.benchmark_files.base import Benchmark
from adafv.benchmark_files.gqa import GQA
from adafv.benchmark_files.mmbench import MMBENCH
from adafv.benchmark_files.mme import MME
from adafv.benchmark_files.pope import POPE
from adafv.benchmark_files.scienceqa import SCIENCEQA
from adafv.benchmark_files.textvqa import TEXTVQA, TEXTVQA_OCR
from adafv.benchmark_files.vizwiz import VIZWIZ
from adafv.benchmark_files.vqav2 import VQAV2

BENCHMARKS: dict[str, Benchmark] = {
    one.name: one for one in (POPE, TEXTVQA, TEXTVQA_OCR, GQA, MME, SCIENCEQA, MMBENCH, VQAV2, VIZWIZ)
}
