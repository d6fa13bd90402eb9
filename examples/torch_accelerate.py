"""A PyTorch model trains faster by one line: its recurrent layers run on numba_pack, and all else is PyTorch as before.

The task is that of japanese_vowels.py. Two copies of one model train on the same batches with PyTorch's own optimiser;
the LSTM of one of them is accelerated. Epoch by epoch they take turns, and end at the same accuracy, to rounding.

    python examples/torch_accelerate.py
    python examples/torch_accelerate.py --hidden-size 64 --epochs 30 --threads 2
"""

import argparse
import copy
from time import perf_counter

import numpy as np
import torch
from japanese_vowels import COLUMNS, SPEAKERS, load, shuffled
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pack_sequence

import numba_pack as nbp


class Classifier(torch.nn.Module):
    """A bidirectional LSTM, and a linear layer on the last states of both directions."""

    def __init__(self, hidden_size):
        super().__init__()
        self.lstm = torch.nn.LSTM(COLUMNS, hidden_size, bidirectional=True)
        self.linear = torch.nn.Linear(2 * hidden_size, SPEAKERS)

    def forward(self, sequences):
        packed = pack_sequence([torch.from_numpy(each) for each in sequences], enforce_sorted=False)
        _, (h_n, _) = self.lstm(packed)
        return self.linear(torch.cat([*h_n], dim=1))


def main():
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    nbp.set_num_threads(arguments.threads)
    train, test = load("train"), load("test")
    before = Classifier(arguments.hidden_size)
    after = copy.deepcopy(before)
    print(nbp.interop.torch.accelerate(after))  # the line
    print("The first steps compile what is not cached yet.\n")
    step(copy.deepcopy(after), None, *train.select(np.arange(2)))

    models = {"PyTorch": before, "accelerated": after}
    optimisers = {name: torch.optim.Adam(model.parameters(), lr=3e-3) for name, model in models.items()}
    seconds = {name: [] for name in models}
    rng = np.random.default_rng(arguments.seed)
    for _ in range(arguments.epochs):
        batches = shuffled(train, rng)
        for name, model in models.items():
            begin = perf_counter()
            for chosen in batches:
                step(model, optimisers[name], *train.select(chosen))
            seconds[name].append(perf_counter() - begin)
    for name, model in models.items():
        print(f"{name:12} {1e3 * np.median(seconds[name]):8.1f} ms an epoch, {accuracy(model, test):.1%} of test right")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden-size", type=int, default=100, help="units in each direction (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="of both (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of parameters and batches (default: %(default)s)")
    return parser.parse_args()


def step(model, adam, sequences, labels):
    """Train on a batch; without an optimiser, only compute the gradient."""
    loss = cross_entropy(model(sequences), torch.from_numpy(labels))
    model.zero_grad()
    loss.backward()
    if adam:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()


@torch.no_grad()
def accuracy(model, data):
    return (model(data.sequences).argmax(dim=1).numpy() == data.labels).mean()


if __name__ == "__main__":
    main()
