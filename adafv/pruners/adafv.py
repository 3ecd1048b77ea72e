"""AdaFV's self-adaptive mixture of saliency and text-to-image similarity (arXiv 2501.09532)."""

from adafv.mixture import mixture as select

__all__ = ["select"]
