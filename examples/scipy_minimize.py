"""Train a recurrent net with SciPy's L-BFGS-B: all parameters are one flat vector, and so is their gradient.

The task is that of japanese_vowels.py, and so is the model, in float64 and smaller. There is no loop over batches here:
``scipy.optimize.minimize`` sees a function of one vector, which is the loss over the whole training set with a penalty
on the squares of the parameters, and its gradient.

    python examples/scipy_minimize.py
    python examples/scipy_minimize.py --cell lstm --hidden-size 32 --iterations 200
"""

import argparse
import os

# L-BFGS-B calls BLAS for thousands of short vectors, where two threads cost far more than they save; see before NumPy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from japanese_vowels import CELLS, COLUMNS, SPEAKERS, Classifier, accuracy, load
from scipy.optimize import minimize
from tqdm import tqdm

PENALTY = 1e-4


def main():
    arguments = parse_arguments()
    rng = np.random.default_rng(arguments.seed)
    train, test = in_float64(load("train")), in_float64(load("test"))
    layer = CELLS[arguments.cell](COLUMNS, arguments.hidden_size, bidirectional=True, dtype=np.float64, rng=rng)
    model = Classifier(layer, SPEAKERS, rng)
    print(f"{layer}, {model.parameters.size} parameters with the head")

    result = fit(model, train, arguments.iterations)
    print(f"{result.nit} iterations, {result.nfev} evaluations, loss with penalty {result.fun:.4f}: {result.message}")
    print(f"Training accuracy: {accuracy(model, train):.1%}")
    print(f"Test accuracy: {accuracy(model, test):.1%}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cell", choices=CELLS, default="gru", help="default: %(default)s")
    parser.add_argument("--hidden-size", type=int, default=24, help="units in each direction (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=100, help="at most (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first parameters (default: %(default)s)")
    return parser.parse_args()


def in_float64(data):
    """Float64 throughout: L-BFGS-B takes differences of gradients and losses, and hands out float64 vectors."""
    return data._replace(sequences=[sequence.astype(np.float64) for sequence in data.sequences])


def fit(model, data, iterations):
    """Minimise the loss over the whole data set; leave the result in the model."""

    def loss_and_gradient(vector):
        model.parameters = vector
        loss, gradient = model.loss_and_gradient(data.sequences, data.labels)
        return loss + 0.5 * PENALTY * vector @ vector, gradient + PENALTY * vector

    with tqdm(total=iterations, unit="iteration") as progress:

        def report(intermediate_result):
            progress.set_postfix(loss=f"{intermediate_result.fun:.4f}")
            progress.update()

        options = {"maxiter": iterations}
        result = minimize(
            loss_and_gradient, model.parameters, jac=True, method="L-BFGS-B", callback=report, options=options
        )
    model.parameters = result.x
    return result


if __name__ == "__main__":
    main()
