"""The functions that formulas are written with.

Each takes numbers of the formula and constants; and arrays, to try a formula in plain Python (``plain.py``). The
primitives are computed on vectors by ``activations.py``, and their derivatives stand in ``derive.py``; the other
functions are made of primitives.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._arguments import kind_of
from .graph import Condition, Number, apply, as_number

__all__ = [
    "abs", "clip", "elu", "exp", "fma", "gelu", "hard_sigmoid", "hard_tanh", "leaky_relu", "log", "maximum", "minimum",
    "product", "reciprocal", "relu", "round", "selu", "sigmoid", "sign", "silu", "softplus", "softsign", "sqrt", "tanh",
    "where",
]  # fmt: skip


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return apply("sigmoid", x)


def tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    return apply("tanh", x)


def relu(x: Any) -> Any:
    """max(x, 0); its slope at 0 is 0."""
    return apply("relu", x)


def leaky_relu(x: Any, alpha: Any = 0.01) -> Any:
    """x, or alpha x where x < 0. Maas, Hannun and Ng, ICML workshop on deep learning for audio (2013)."""
    return where(x < 0, alpha * x, x)


def elu(x: Any, alpha: Any = 1.0) -> Any:
    """x, or alpha (exp(x) - 1) where x < 0. Clevert, Unterthiner and Hochreiter, ICLR (2016)."""
    return where(x < 0, alpha * apply("expm1", minimum(x, 0.0)), x)


def selu(x: Any) -> Any:
    """The scaled elu of Klambauer, Unterthiner, Mayr and Hochreiter, NeurIPS (2017)."""
    return 1.0507009873554804934193349852946 * elu(x, 1.6732632423543772848170429916717)


def gelu(x: Any) -> Any:
    """x times the standard normal distribution function of x. Hendrycks and Gimpel, arXiv 1606.08415 (2016)."""
    return 0.5 * x * (1.0 + apply("erf", x * math.sqrt(0.5)))


def silu(x: Any) -> Any:
    """x sigmoid(x). Elfwing, Uchibe and Doya, Neural Networks 107 (2018)."""
    return x * sigmoid(x)


def softplus(x: Any) -> Any:
    """log(1 + exp(x))."""
    return apply("softplus", x)


def softsign(x: Any) -> Any:
    """x / (1 + abs(x))."""
    return apply("softsign", x)


def hard_sigmoid(x: Any, alpha: Any = 1 / 6, beta: Any = 0.5) -> Any:
    """alpha x + beta between 0 and 1; the defaults are PyTorch's, those of ONNX are 0.2 and 0.5."""
    return clip(alpha * x + beta, 0.0, 1.0)


def hard_tanh(x: Any, low: Any = -1.0, high: Any = 1.0) -> Any:
    """x between -1 and 1."""
    return clip(x, low, high)


def exp(x: Any) -> Any:
    """The exponential."""
    return apply("exp", x)


def log(x: Any) -> Any:
    """The natural logarithm: -inf at 0, NaN below."""
    return apply("log", x)


def sqrt(x: Any) -> Any:
    """The square root: NaN below 0."""
    return apply("sqrt", x)


def reciprocal(x: Any) -> Any:
    """1 / x."""
    return 1.0 / x


def abs(x: Any) -> Any:
    """The magnitude; its slope at 0 is 0."""
    return apply("absolute", x)


def sign(x: Any) -> Any:
    """-1, 0 or 1; its slope is 0."""
    return apply("sign", x)


def round(x: Any) -> Any:
    """The nearest whole number, of two the even one. Its slope is taken for 1 ("straight-through").

    Bengio, Léonard and Courville, arXiv 1308.3432 (2013).
    """
    return apply("nearest", x)


def maximum(x: Any, y: Any) -> Any:
    """The larger of both, or NaN if either is; where they are equal the gradient goes to x."""
    return apply("larger", x, y)


def minimum(x: Any, y: Any) -> Any:
    """The smaller of both, or NaN if either is; where they are equal the gradient goes to x."""
    return apply("smaller", x, y)


def clip(x: Any, low: Any, high: Any) -> Any:
    """x between low and high; its slope is 1 at the bounds."""
    return minimum(maximum(x, low), high)


def fma(x: Any, y: Any, z: Any) -> Any:
    """x y + z, rounded once where the machine can. Products in sums become this by themselves."""
    return apply("fma", x, y, z)


def where(condition: Any, x: Any, y: Any) -> Any:
    """x where the condition, a comparison of numbers, holds; y elsewhere, and where a NaN is compared.

    The gradient of what is not taken is 0 times its slope. That slope has to be finite: where x may be 0,
    ``sqrt(maximum(x, 1e-7))`` has one, and ``sqrt(x)`` has none.
    """
    if isinstance(condition, (bool, np.bool_)) or getattr(condition, "dtype", None) == np.bool_:
        return np.where(condition, x, y)
    if not isinstance(condition, Condition):
        raise TypeError(f"condition must be a comparison of numbers, as x < y; got {kind_of(condition)}")
    inner = condition
    while inner.op in ("not", "and"):
        inner = inner.parts[0]
    graph = inner.parts[0].graph
    return condition.choose(graph, as_number(graph, x), as_number(graph, y))


def product(x: Any) -> Any:
    """W x + b, where x is a number of every unit, and W and b are the last rows of ``weight_hh`` and ``bias_hh``.

    It may be taken once in a formula. A GRU whose reset gate comes before the product has ``product(r * h)``.
    """
    if not isinstance(x, Number):
        raise TypeError(f"x must be a number of the formula; got {kind_of(x)}")
    return x.graph.product_of(x)
