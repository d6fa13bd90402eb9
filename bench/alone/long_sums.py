"""What long sequences and many rows cost: time where gradients vanish, and digits where sums are long.

    python -m bench.alone.long_sums    a minute or two

Prints two Markdown tables; PyTorch is compared with where it is installed.
"""

from bench.tools.environment import prepare

if __name__ == "__main__":
    prepare()

import numpy as np
from tqdm import tqdm

import numba_pack as nbp
from bench.tools.markdown import table
from bench.tools.timing import interleave

try:
    import torch
except ImportError:
    torch = None


def main():
    if torch is not None:
        torch.set_num_threads(1)
    shown = [("training step, B=32, I=64, H=128, float32", "loss on all steps", "loss on the last step", "ratio")]
    for kind in (nbp.LSTM, nbp.GRU, nbp.RNN):
        shown += [vanishing(kind, T) for T in tqdm((100, 200, 400), kind.__name__)]
    print(table(shown[0], shown[1:]))
    shown = [("float32, relative error", "numba_pack", "PyTorch")]
    shown += [gradients(N) for N in tqdm((10_000, 100_000, 1_000_000), "rows")]
    shown += [products(columns) for columns in tqdm((1_000, 20_000, 100_000), "columns")]
    print("\n" + table(shown[0], shown[1:]))


def vanishing(kind, T):
    """A row: over T steps the gradient of the last becomes a denormal number, with which a CPU computes slowly."""
    layer = kind(64, 128, rng=0)
    x = np.random.default_rng(0).standard_normal((T, 32, 64)).astype(np.float32)
    last = np.ones((1, 32, 128), np.float32)

    def of_all():
        output, _, tape = layer.forward(x)
        layer.backward(tape, np.ones_like(output))

    def of_last():
        _, _, tape = layer.forward(x)
        layer.backward(tape, None, (last, None) if kind is nbp.LSTM else last)

    of_all(), of_last()
    times = {name: np.median(each) for name, each in interleave({"all": of_all, "last": of_last}, 2.0).items()}
    milliseconds = [f"{1e3 * times[name]:.1f} ms" for name in ("all", "last")]
    return f"{kind.__name__}, T={T}", *milliseconds, f"{times['last'] / times['all']:.2f}"


def gradients(N):
    """A row: the gradient of the parameters, a sum over N equal rows."""
    layer, exact = nbp.GRU(2, 4, rng=0), nbp.GRU(2, 4, dtype=np.float64)
    exact.load_state_dict(layer.state_dict())
    x = np.ones((10, N // 10, 2))

    def of(layer, x):
        output, _, tape = layer.forward(x)
        return layer.backward(tape, np.ones_like(output)).parameters

    expected, x = of(exact, x), x.astype(np.float32)
    results = [of(layer, x)]
    if torch is not None:
        module = nbp.interop.torch.to_torch(layer)
        module(torch.from_numpy(x))[0].sum().backward()
        results.append(np.concatenate([parameter.grad.numpy().ravel() for parameter in module.parameters()]))
    errors = [np.abs(result - expected).max() / np.abs(expected).max() for result in results]
    return f"gradient over {N:,} equal rows", *formatted(errors)


def products(columns):
    """A row: the product with an input of so many columns, all positive."""
    rng = np.random.default_rng(0)
    layer = nbp.RNN(columns, 32, nonlinearity="relu", rng=0)
    layer.parameters = np.abs(layer.parameters)
    x = np.abs(rng.standard_normal((1, 4, columns))).astype(np.float32)
    weights = {name: value.astype(np.float64) for name, value in layer.state_dict().items()}
    expected = x @ weights["weight_ih_l0"].T + weights["bias_ih_l0"] + weights["bias_hh_l0"]
    results = [layer(x)[0]]
    if torch is not None:
        results.append(nbp.interop.torch.to_torch(layer)(torch.from_numpy(x))[0].detach().numpy())
    return f"product with {columns:,} columns", *formatted([np.abs(result / expected - 1).max() for result in results])


def formatted(errors):
    return [f"{error:.1e}" for error in errors] + ["not installed"] * (2 - len(errors))


if __name__ == "__main__":
    main()
