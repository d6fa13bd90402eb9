"""Train a tagger with PyTorch: it tells, frame by frame, who of nine speakers speaks in a conversation.

The parameters go into a file, which serve.py needs, and nothing else of PyTorch.

    python examples/torch_tagger/train.py
    python examples/torch_tagger/train.py --epochs 60 --hidden-size 64 --output other.safetensors
"""

import argparse

import torch
from conversations import COLUMNS, MODEL, SPEAKERS, conversations
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pack_sequence

BATCH = 32


class Tagger(torch.nn.Module):
    """A bidirectional LSTM, and a linear layer on its output in each frame."""

    def __init__(self, hidden_size):
        super().__init__()
        self.lstm = torch.nn.LSTM(COLUMNS, hidden_size, bidirectional=True)
        self.linear = torch.nn.Linear(2 * hidden_size, SPEAKERS)

    def forward(self, packed):
        """The scores of all speakers in all frames, (N, SPEAKERS), in packed order."""
        output, _ = self.lstm(packed)
        return self.linear(output.data)


def main():
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    model = Tagger(arguments.hidden_size)
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    train, test = conversations("train", 1000, seed=0), conversations("test", 500, seed=1)
    for epoch in range(arguments.epochs):
        for chosen in torch.randperm(len(train.frames)).split(BATCH):
            frames, speakers = batch(train, chosen)
            loss = cross_entropy(model(frames), speakers)
            adam.zero_grad()
            loss.backward()
            adam.step()
        print(
            f"epoch {epoch + 1}: loss {loss.item():.3f} in the last batch, {accuracy(model, test):.2%} of test frames"
        )
    save_file(model.state_dict(), arguments.output)
    print(f"The parameters are in {arguments.output}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden-size", type=int, default=32, help="units in each direction (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of parameters and batches (default: %(default)s)")
    parser.add_argument("--output", default=MODEL, help="where the parameters go (default: beside this file)")
    return parser.parse_args()


def batch(data, chosen):
    """Frames and speakers of the chosen conversations, both packed alike."""
    frames, speakers = (
        pack_sequence([torch.from_numpy(part[i]) for i in chosen], enforce_sorted=False)
        for part in (data.frames, data.speakers)
    )
    return frames, speakers.data


@torch.no_grad()
def accuracy(model, data):
    frames, speakers = batch(data, range(len(data.frames)))
    return (model(frames).argmax(dim=1) == speakers).float().mean().item()


if __name__ == "__main__":
    main()
