"""Whole nets in training: a `Model` of this library, and the same net in PyTorch, accelerated and as it is.

    python -m bench.compare.nets
    python -m bench.compare.nets --threads 2 --seconds 10 --only tags

The nets and the lengths are those of three tasks: the next chord of chorales, the language of a name, the part of
speech of each word of a sentence. What is timed is twenty batches: forward, loss, backward, and Adam, which is
PyTorch's fused one there. All begin with the same parameters; before anything is timed, their losses are compared.
Data are made, of these shapes: how long a step takes does not depend on what they mean.

What is printed is a Markdown table; times are medians of interleaved rounds.
"""

import argparse
import copy

from bench.tools.environment import load, prepare

BATCHES = 20


def tasks():
    """By name: the net, its batches, its loss, and that of PyTorch."""
    import numpy as np

    import numba_pack as nbp

    torch, rng = load("torch"), np.random.default_rng(0)

    def batches(lengths, of_input, of_label, rows):
        inputs, labels = [of_input(n) for n in lengths], [of_label(n) for n in lengths]
        return list(nbp.data.Batches(inputs, labels, rows=rows, seed=0))[:BATCHES]

    def chords(n):
        return (rng.random((n, 88)) < 0.04).astype(np.float32)

    lengths = {
        "chords": rng.normal(59, 20, 300).clip(20, 150).astype(int),
        "names": rng.normal(7, 2, 2000).clip(2, 15).astype(int),
        "tags": rng.lognormal(2.4, 0.7, 1000).clip(1, 75).astype(int),
    }
    chorales = nbp.Model(lstm=nbp.LSTM(88, 150, rng=0), linear=nbp.Linear(150, 88, rng=0))
    names = nbp.Model(gru=nbp.GRU(256, 128, rng=0), linear=nbp.Linear(128, 18, rng=0), last_state=True)
    tagger = nbp.Model(
        embedding=nbp.Embedding(4300, 64, rng=0),
        lstm=nbp.LSTM(64, 64, bidirectional=True, rng=0),
        linear=nbp.Linear(128, 17, rng=0),
    )
    of_class, of_yes = nbp.losses.softmax_cross_entropy, nbp.losses.binary_cross_entropy
    theirs_of_class, theirs_of_yes = torch.nn.CrossEntropyLoss(), torch.nn.BCEWithLogitsLoss()

    def numbers(below):
        return lambda n: rng.integers(0, below, n)

    of_one = lambda n: rng.integers(18)  # noqa: E731
    return {
        "chords": (chorales, batches(lengths["chords"], chords, chords, 600), of_yes, theirs_of_yes),
        "names": (names, batches(lengths["names"], numbers(128), of_one, 500), of_class, theirs_of_class),
        "tags": (tagger, batches(lengths["tags"], numbers(4300), numbers(17), 500), of_class, theirs_of_class),
    }


def net_of(model):
    """The same net in PyTorch, on the data of packed batches: one part after another."""
    torch = load("torch")

    class Net(torch.nn.Module):
        def forward(self, packed):
            for part in self.children():
                if isinstance(part, torch.nn.RNNBase):
                    if not packed.data.is_floating_point():  # symbols, which are one-hot rows to PyTorch
                        rows = torch.nn.functional.one_hot(packed.data, part.input_size).float()
                        packed = packed._replace(data=rows)
                    packed, h_n = part(packed)
                    packed = h_n[-1] if model.last_state else packed
                else:
                    is_packed = not isinstance(packed, torch.Tensor)
                    packed = packed._replace(data=part(packed.data)) if is_packed else part(packed)
            return packed if isinstance(packed, torch.Tensor) else packed.data

    net = Net()
    for name, part in model.parts.items():
        kind = type(part).__name__
        if kind == "Embedding":
            made = torch.nn.Embedding(part.num_embeddings, part.embedding_dim)
        elif kind == "Linear":
            made = torch.nn.Linear(part.in_features, part.out_features)
        else:
            made = getattr(torch.nn, kind)(part.input_size, part.hidden_size, bidirectional=part.bidirectional)
        net.add_module(name, made)
    net.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in model.state_dict().items()})
    return net


def training_of(model, batches, loss_of):
    """A function that trains on all batches here, and returns their losses."""
    import numba_pack as nbp

    adam = nbp.optim.Adam()

    def run():
        losses = []
        for x, y in batches:
            logits, tape = model.forward(x)
            loss, d_logits = loss_of(logits, y)
            model.parameters = adam.step(model.parameters, model.backward(tape, d_logits).parameters)
            losses.append(loss)
        return losses

    return run


def training_in_pytorch(net, batches, loss_of):
    """The same in PyTorch."""
    torch = load("torch")
    adam = torch.optim.Adam(net.parameters(), fused=True)

    def run():
        losses = []
        for x, y in batches:
            loss = loss_of(net(x), y)
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(loss.item())
        return losses

    return run


def measure(task, seconds):
    """Median seconds of all batches, by who trains."""
    import numpy as np

    import numba_pack as nbp
    from bench.tools.timing import interleave, summary

    torch, (model, batches, loss_of, theirs) = load("torch"), task
    to_torch, net = nbp.interop.torch.packed_to_torch, net_of(model)
    fast = copy.deepcopy(net)
    assert not nbp.interop.torch.accelerate(fast).left
    for_torch = [
        (to_torch(x), torch.from_numpy(y) if isinstance(y, np.ndarray) else to_torch(y).data) for x, y in batches
    ]
    runs = {
        "numba_pack": training_of(model, batches, loss_of),
        "accelerated": training_in_pytorch(fast, for_torch, theirs),
        "PyTorch": training_in_pytorch(net, for_torch, theirs),
    }
    losses = {name: run() for name, run in runs.items()}
    for name in runs:
        np.testing.assert_allclose(losses[name], losses["numba_pack"], rtol=1e-3, err_msg=name)
    return summary(interleave(runs, seconds))["median"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="of both libraries")
    parser.add_argument("--seconds", type=float, default=6.0, help="for each row")
    parser.add_argument("--only", metavar="PATTERN", default="", help="only tasks whose names contain this")
    arguments = parser.parse_args()

    prepare(arguments.threads)
    from bench.tools.markdown import table

    found = []
    for name, task in tasks().items():
        if arguments.only in name:
            median = measure(task, arguments.seconds)
            ours, *others = (median[who] for who in ("numba_pack", "accelerated", "PyTorch"))
            kinds = ", ".join(map(repr, task[0].parts.values()))
            told = f"{1e3 * ours / len(task[1]):.2f}"
            found.append((f"{name}: {kinds}", told, *(f"{other / ours:.2f}" for other in others)))
    print(table(("a batch in training", "numba_pack, ms", "accelerated", "PyTorch packed"), found))


if __name__ == "__main__":
    main()
