"""What attention and the steps of a decoder cost, beside PyTorch's on padded batches under a mask.

    python -m bench.alone.decoding              some two minutes
    python -m bench.alone.decoding --tiny       to try this script

Prints a Markdown table in milliseconds, float32, one thread: the least of interleaved rounds, and the median in
brackets. Queries and keys are of lengths that are even from one to the longest. A greedy step looks the last symbol up,
takes a step of a GRU, attends and makes logits; ours takes the symbol itself.
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

#: sequences, columns, the longest queries and the longest keys
SHAPES = ((32, 128, 12, 40), (32, 128, 40, 160), (64, 512, 30, 40), (1, 128, 12, 40))
#: of the decoder
SYMBOLS, EMBEDDED = 64, 64
COLUMNS = ("numba_pack", "PyTorch, products", "PyTorch, fused")


class Given:
    """What is attended with and to, packed and padded."""

    def __init__(self, shape, torch):
        B, E, longest, keys = shape
        rng = np.random.default_rng(0)
        self.lengths = [np.linspace(1, most, B).round().astype(int) for most in (longest, keys)]
        rng.shuffle(self.lengths[0])
        lists = [[rng.standard_normal((n, E), np.float32) / E**0.5 for n in lengths] for lengths in self.lengths]
        lists[0] = [8 * rows for rows in lists[0]]
        self.queries, self.keys = map(nbp.pack_sequence, lists)
        self.state = np.stack([rows[0] for rows in lists[0]])
        if torch:
            self.padded = [torch.tensor(nbp.pad_sequence(each, batch_first=True)) for each in lists]
            length = torch.tensor(self.lengths[1])[:, None, None]
            self.allowed = torch.arange(self.padded[1].shape[1])[None, None] < length


def forms(torch):
    """Attention in PyTorch: queries (B, S, E), keys (B, T, E), and which of them count."""

    def products(q, k, allowed):
        scores = torch.bmm(q, k.transpose(1, 2)).masked_fill(~allowed, -torch.inf)
        return torch.bmm(scores.softmax(2), k)

    def fused(q, k, allowed):
        return torch.nn.functional.scaled_dot_product_attention(q, k, k, attn_mask=allowed, scale=1.0)

    return {"PyTorch, products": products, "PyTorch, fused": fused}


def all_steps(given, torch):
    """Contexts of all steps at once."""
    found = {"numba_pack": lambda: nbp.attend(given.queries, given.keys, given.keys)[0]}
    for name, form in forms(torch).items() if torch else ():
        found[name] = lambda form=form: form(*given.padded, given.allowed)
    return found, lambda got: _rows(given, got)


def with_gradient(given, torch):
    """Contexts of all steps at once, and gradients of their sum."""
    d = np.ones_like(given.queries.data)

    def ours():
        _, weights = nbp.attend(given.queries, given.keys, given.keys)
        d_queries, d_keys, d_values = nbp.attend_backward(given.queries, given.keys, given.keys, weights, d)
        return d_queries, d_keys.data + d_values.data

    found = {"numba_pack": ours}
    for name, form in forms(torch).items() if torch else ():

        def theirs(form=form):
            q, k = (padded.detach().requires_grad_() for padded in given.padded)
            context = form(q, k, given.allowed)
            context.backward(torch.ones_like(context))
            return q.grad, k.grad

        found[name] = theirs
    return found, lambda got: _rows(given, got[0])


def one_step(given, torch):
    """Contexts of one step."""
    found = {"numba_pack": lambda: nbp.attend(given.state, given.keys, given.keys)[0]}
    for name, form in forms(torch).items() if torch else ():
        state = torch.tensor(given.state)[:, None]
        found[name] = lambda form=form, state=state: form(state, given.padded[1], given.allowed)[:, 0]
    return found, lambda got: np.asarray(got)


def greedy_step(given, torch):
    """A step of a greedy decoder."""
    E = given.state.shape[1]
    table, cell, linear = (
        nbp.Embedding(SYMBOLS, EMBEDDED, rng=0),
        nbp.GRUCell(EMBEDDED, E, rng=0),
        nbp.Linear(2 * E, SYMBOLS, rng=0),
    )
    folded, symbols = nbp.fold_embedding(cell, table.weight), np.arange(len(given.state)) % SYMBOLS

    def ours():
        state = folded(symbols, given.state)
        context, _ = nbp.attend(state, given.keys, given.keys)
        return linear(np.hstack([state, context])).argmax(axis=1)

    found = {"numba_pack": ours}
    if torch:
        their_table, their_cell, their_linear = (
            torch.nn.Embedding(SYMBOLS, EMBEDDED), torch.nn.GRUCell(EMBEDDED, E), torch.nn.Linear(2 * E, SYMBOLS)
        )  # fmt: skip
        for mine, theirs in ((table, their_table), (cell, their_cell), (linear, their_linear)):
            theirs.load_state_dict({name: torch.tensor(value) for name, value in mine.state_dict().items()})
        last, before = torch.tensor(symbols), torch.tensor(given.state)
    for name, form in forms(torch).items() if torch else ():

        def theirs(form=form):
            state = their_cell(their_table(last), before)
            context = form(state[:, None], given.padded[1], given.allowed)[:, 0]
            return their_linear(torch.cat([state, context], 1)).argmax(1)

        found[name] = theirs
    return found, lambda got: np.asarray(got)


WORKS = {
    "all steps": all_steps,
    "all steps and gradients": with_gradient,
    "one step": one_step,
    "greedy step": greedy_step,
}


def _rows(given, got):
    """Rows of queries in packed order; those behind the end of a sequence are PyTorch's alone."""
    if isinstance(got, nbp.PackedSequence):
        return got.data
    return nbp.pack_padded_sequence(got.numpy(), given.lengths[0], batch_first=True, enforce_sorted=False).data


def check(functions, rows):
    """Call all once, and see that they find the same."""
    answers = {name: rows(function()) for name, function in functions.items()}
    for answer in answers.values():
        np.testing.assert_allclose(answer, answers["numba_pack"], rtol=1e-3, atol=1e-4)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="for each row (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="one small shape, and a tenth of a second a row")
    arguments = parser.parse_args()
    try:
        torch = load("torch")
    except Unavailable as reason:
        print(reason)
        torch = None
    shapes, seconds = (((4, 16, 5, 9),), 0.1) if arguments.tiny else (SHAPES, arguments.seconds)
    rows = []
    with tqdm(total=len(shapes) * len(WORKS)) as progress:
        for shape in shapes:
            given = Given(shape, torch)
            for name, work in WORKS.items():
                functions, answer = work(given, torch)
                check(functions, answer)
                rows.append((name, *shape, *timed(functions, seconds, torch if "gradients" not in name else None)))
                progress.update()
    print(table(["ms", "B", "E", "queries", "keys", *COLUMNS], rows))


def timed(functions, seconds, torch):
    """A row's times; of inference without the tape of gradients."""
    if torch:
        with torch.inference_mode():
            return timed(functions, seconds, None)
    found = summary(interleave(functions, seconds))
    shown = {name: f"{1e3 * found['min'][name]:.3g} ({1e3 * found['median'][name]:.3g})" for name in functions}
    return tuple(shown.get(column, "") for column in COLUMNS)


if __name__ == "__main__":
    main()
