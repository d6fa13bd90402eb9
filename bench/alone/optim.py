"""What a step of an optimiser costs, and clipping, beside PyTorch's.

    python -m bench.alone.optim                 some two minutes
    python -m bench.alone.optim --tiny          to try this script

Prints a Markdown table in milliseconds, float32, one thread: the least of interleaved rounds, and the median in
brackets. PyTorch works in place; here a step does where it is given ``out``, and else makes a new vector.
"""

import argparse

from bench.tools.environment import Unavailable, load, prepare

if __name__ == "__main__":
    prepare()

import numpy as np
from tqdm import tqdm

import numba_pack as nbp
from bench.tools.markdown import table
from bench.tools.timing import interleave, summary

LENGTHS = (10_000, 650_000, 10_000_000)
#: by the name of its row: ours, the name of theirs, the settings of both
OPTIMISERS = {
    "Adam": (nbp.optim.Adam, "Adam", {"lr": 1e-3}),
    "AdamW": (nbp.optim.AdamW, "AdamW", {"lr": 1e-3}),
    "SGD, momentum 0.9": (nbp.optim.SGD, "SGD", {"lr": 1e-6, "momentum": 0.9}),
    "RMSprop": (nbp.optim.RMSprop, "RMSprop", {"lr": 1e-5}),
}
HERE = ("in place", "new vector")
THEIRS = ("foreach", "fused")


def steps(n, ours, theirs, settings, torch):
    """What is timed of an optimiser over n parameters, by its column."""
    vector, gradient = np.random.default_rng(0).standard_normal((2, n)).astype(np.float32)
    in_place, other = ours(**settings), ours(**settings)
    mine = vector.copy()
    found = {
        "in place": lambda: in_place.step(mine, gradient, out=mine),
        "new vector": lambda: other.step(vector, gradient),
    }
    for form in THEIRS if torch else ():
        parameter = torch.tensor(vector, requires_grad=True)
        parameter.grad = torch.tensor(gradient)
        try:
            found[form] = getattr(torch.optim, theirs)([parameter], **settings, **{form: True}).step
        except TypeError:  # it has no such form
            continue
    return found


def clips(n, within, torch):
    """What is timed of clipping to twice the norm, or else to a little less than the norm that there is."""
    gradient = np.random.default_rng(0).standard_normal(n).astype(np.float32)
    mine, norm = gradient.copy(), float(np.linalg.norm(gradient))
    factor = 2.0 if within else 0.99999

    def in_place():
        nonlocal norm
        _, before = nbp.optim.clip_grad_norm(mine, factor * norm, out=mine)
        norm = before if within else factor * norm

    limit = factor * norm
    found = {"in place": in_place, "new vector": lambda: nbp.optim.clip_grad_norm(gradient, limit)}
    if torch:  # it scales in any case
        parameter = torch.zeros(n)
        parameter.grad = torch.tensor(gradient)
        found["foreach"] = lambda: torch.nn.utils.clip_grad_norm_([parameter], limit, foreach=True)
    return found


def row(name, n, functions, seconds):
    for function in functions.values():
        function()
    found = summary(interleave(functions, seconds))
    shown = {name: f"{1e3 * found['min'][name]:.3g} ({1e3 * found['median'][name]:.3g})" for name in functions}
    return name, f"{n:,}", *(shown.get(column, "") for column in (*HERE, *THEIRS))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="for each row (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="short vectors, and a tenth of a second a row")
    arguments = parser.parse_args()
    try:
        torch = load("torch")
    except Unavailable as reason:
        print(reason)
        torch = None
    lengths, seconds = ((100, 1_000), 0.1) if arguments.tiny else (LENGTHS, arguments.seconds)
    rows = []
    with tqdm(total=len(lengths) * (len(OPTIMISERS) + 2)) as progress:
        for n in lengths:
            works = {name: steps(n, *each, torch) for name, each in OPTIMISERS.items()}
            works |= {"clipping, above the limit": clips(n, False, torch), "clipping, within": clips(n, True, torch)}
            for name, functions in works.items():
                progress.set_description(f"{name}, {n:,}")
                rows.append(row(name, n, functions, seconds))
                progress.update()
    print(table(["ms", "parameters", *HERE, *(f"PyTorch {form}" for form in THEIRS)], rows))


if __name__ == "__main__":
    main()
