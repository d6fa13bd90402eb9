"""A linear memory: the part of a Legendre memory unit that remembers."""

from .cell import cell

__all__ = ["LinearMemory"]


@cell(sums="m", state="h")
def LinearMemory(m, h):
    """Linear recurrent net, in which a Legendre memory fits.

    ::

        h' = W x + U h + b

    The memory of a Legendre memory unit is ``m' = A m + B u`` for each number u that it remembers: ``weight_hh`` has a
    block A on its diagonal for each of them, and ``weight_ih`` B times what computes u. The paper does not train A and
    B. Its hidden state, which reads m and is read by u, would take products of two states of different sizes, more than
    a cell has; without it (Chilkuri and Eliasmith) what reads m is the next layer.

    References
    ----------
    A. R. Voelker, I. Kajić, C. Eliasmith, "Legendre memory units: continuous-time representation in recurrent neural
    networks", NeurIPS (2019); N. Chilkuri, C. Eliasmith, "Parallelizing Legendre memory unit training", ICML (2021).

    Examples
    --------
    Two numbers, each remembered by three: A and B are those of a window of ``theta`` steps, by Euler's step.

    >>> import numpy as np
    >>> from numba_pack.cells import LinearMemory
    >>> theta, (i, j) = 10.0, np.indices((3, 3))
    >>> A = np.eye(3) + (2 * i + 1) / theta * np.where(i < j, -1.0, (-1.0) ** (i - j + 1))
    >>> B = (2 * i[:, :1] + 1) / theta * (-1.0) ** i[:, :1]
    >>> layer = LinearMemory(2, 6, bias=False, dtype=np.float64)
    >>> layer.load_state_dict({"weight_ih_l0": np.kron(np.eye(2), B), "weight_hh_l0": np.kron(np.eye(2), A)})
    >>> output, memory = layer(np.ones((50, 2)))
    >>> bool(np.abs(memory.reshape(2, 3) - [1.0, 0.0, 0.0]).max() < 1e-2)  # a constant is its own first coefficient
    True
    """
    return m
