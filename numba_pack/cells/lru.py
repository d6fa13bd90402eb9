"""The linear recurrent unit: a complex number a unit, which turns and decays."""

from .cell import cell
from .functions import exp, maximum, sqrt

__all__ = ["LRU"]


@cell(of_input="x y", state="h s", unit_weights="t nu")
def LRU(x, y, h, s, t, nu=-4.6):
    """Linear recurrent unit: a linear memory whose units turn and decay, each at its own pace.

    ::

        r  = exp(-exp(nu)),  gamma = sqrt(1 - r^2)
        cos = (1 - t^2) / (1 + t^2),  sin = 2 t / (1 + t^2)
        h' = r (cos h - sin s) + gamma (W_x x + b_x)
        s' = r (sin h + cos s) + gamma (W_y x + b_y)

    So h + i s is the complex state of the paper, and its factor a step has the modulus r and an angle theta, for which
    ``t = tan(theta / 2)`` is trained; in the paper, it is log(theta). There is no matrix of the state. The output h is
    the real part alone, and what the paper reads out of the state, Re(C (h + i s)) + D x, is left to the next layer:
    where it needs the imaginary part of a unit, another unit with the same factor, its x and y those of the first times
    -i, has that part as its h.

    The default of nu makes r 0.99; the t begin as all weights do, so with angles below 2 / sqrt(H). The paper draws r
    from a ring, and the angles below a largest one. With t = 0 the units are exponential moving averages.

    References
    ----------
    A. Orvieto, S. L. Smith, A. Gu, A. Fernando, C. Gulcehre, R. Pascanu, S. De, "Resurrecting recurrent neural networks
    for long sequences", ICML (2023).

    Examples
    --------
    >>> import numpy as np
    >>> from numba_pack.cells import LRU
    >>> layer = LRU(3, 2, rng=0)
    >>> layer(np.ones((5, 3), np.float32))[0].shape
    (5, 2)
    """
    r = exp(-exp(nu))
    # Where r rounds to 1 the root has no slope, and 1e-7 is what rounding leaves of the difference in float32.
    gamma = sqrt(maximum(1.0 - r * r, 1e-7))
    scale = r / (1.0 + t * t)
    cos, sin = scale * (1.0 - t * t), scale * (2.0 * t)
    return cos * h - sin * s + gamma * x, sin * h + cos * s + gamma * y
