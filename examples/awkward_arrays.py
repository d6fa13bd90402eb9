"""Awkward in, Awkward out: ragged arrays go through a bidirectional LSTM and come back as ragged arrays.

Utterances of the Japanese Vowels data set (see japanese_vowels.md) are selected and cut with Awkward Array, packed as
they are, and scored frame by frame by the tagger of the folder torch_tagger. The scores come back in the same form, so
that Awkward goes on with them: here it tells the speaker of each utterance from the mean of its frames.

    python examples/awkward_arrays.py
"""

from pathlib import Path

import awkward as ak
import numpy as np
from safetensors.numpy import load_file

import numba_pack as nbp

HERE = Path(__file__).parent


def main():
    utterances, speakers = load()
    utterances = utterances[:, 1:-1]  # without the first and the last frame
    print(f"in:  {utterances.type}, {ak.num(utterances).to_list()[:5]} ... frames")

    scores = score(utterances)
    print(f"out: {scores.type}, {ak.num(scores).to_list()[:5]} ... frames")
    assert ak.all(ak.num(scores) == ak.num(utterances))

    by_utterance = ak.mean(scores, axis=1)  # (B, 9)
    by_frame = ak.argmax(scores, axis=2)  # B * var
    print(f"speaker told from an utterance: {ak.mean(ak.argmax(by_utterance, axis=1) == speakers):.1%} right")
    print(f"speaker told from a frame:      {ak.mean(by_frame == speakers):.1%} right")


def load():
    """The test utterances, ``370 * var * 12 * float32``, and the speaker of each."""
    with np.load(HERE / "japanese_vowels.npz") as data:
        return ak.unflatten(data["test_values"], data["test_lengths"]), data["test_labels"]


def score(utterances):
    """The scores of nine speakers in each frame, ``B * var * 9 * float32``."""
    path = HERE / "torch_tagger" / "tagger.safetensors"
    lstm, parameters = nbp.load(path)["lstm"], load_file(path)
    output, _ = lstm(nbp.pack_ragged(utterances))
    scores = output.map(lambda rows: rows @ parameters["linear.weight"].T + parameters["linear.bias"])
    return nbp.unpack_ragged(scores, like=utterances)


if __name__ == "__main__":
    main()
