"""Serve a tagger that PyTorch has trained, where PyTorch need not be installed.

The file of parameters that train.py wrote is read by this library. Requests of 1 to 8 conversations, of any lengths,
are answered with the speaker of each frame, and the answers are compared with the truth.

    python examples/torch_tagger/serve.py
"""

import argparse
import sys
from time import perf_counter

import numpy as np
from conversations import MODEL, conversations
from safetensors.numpy import load_file

import numba_pack as nbp

MOST_CONVERSATIONS = 8  # in a request


class Tagger:
    """The model of train.py, for inference."""

    def __init__(self, path):
        self.lstm = nbp.load(path)["lstm"]
        parameters = load_file(path)
        self.weight, self.bias = parameters["linear.weight"], parameters["linear.bias"]

    def __call__(self, frames):
        """The speakers of conversations: for arrays (T_i, COLUMNS) arrays (T_i,)."""
        output, _ = self.lstm(nbp.pack_sequence(frames))
        return nbp.unpack_sequence(output.map(self._speakers))

    def _speakers(self, rows):
        return (rows @ self.weight.T + self.bias).argmax(axis=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=MODEL, help="the file of parameters (default: beside this file)")
    tagger = Tagger(parser.parse_args().model)
    nbp.warmup(tagger.lstm)
    test = conversations("test", 500, seed=1)
    tagger(test.frames[:1])  # the first call compiles, or loads, what packs

    answers, milliseconds = [], []
    for request in requests(test.frames):
        begin = perf_counter()
        answers += tagger(request)
        milliseconds.append(1e3 * (perf_counter() - begin))

    right = np.concatenate(answers) == np.concatenate(test.speakers)
    print(f"{tagger.lstm} answered {len(milliseconds)} requests, the median one in {np.median(milliseconds):.2f} ms")
    print(f"{right.mean():.2%} of {len(right)} test frames are tagged right")
    assert "torch" not in sys.modules
    print("PyTorch was not imported.")


def requests(frames):
    """The conversations, a few at a time."""
    rng, start = np.random.default_rng(2), 0
    while start < len(frames):
        end = start + rng.integers(1, MOST_CONVERSATIONS + 1)
        yield frames[start:end]
        start = end


if __name__ == "__main__":
    main()
