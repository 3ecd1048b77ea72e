"""AdaFV's self-adaptive mixture of saliency and text-to-image similarity (arXiv 2501.09532)."""

from adafv.pruners import Pruner
from adafv.pruners.mixture import mixture

PRUNER = Pruner(mixture, reads=frozenset({"text"}))
