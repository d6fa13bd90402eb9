"""Conversations: utterances of the Japanese Vowels data set (see ../japanese_vowels.md) put together in turns."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

COLUMNS, SPEAKERS = 12, 9
MOST_TURNS = 6
MODEL = Path(__file__).with_name("tagger.safetensors")


class Conversations(NamedTuple):
    frames: list  # arrays (T_i, COLUMNS)
    speakers: list  # arrays (T_i,): who speaks in each frame, 0 to 8


def conversations(part, count, seed):
    """Some conversations of 1 to 6 turns, drawn at random from the part "train" or "test" of the data."""
    with np.load(Path(__file__).parent.with_name("japanese_vowels.npz")) as data:
        values, lengths, labels = (data[f"{part}_{name}"] for name in ("values", "lengths", "labels"))
    utterances, rng = np.split(values, np.cumsum(lengths)[:-1]), np.random.default_rng(seed)
    turns = [rng.integers(len(utterances), size=rng.integers(1, MOST_TURNS + 1)) for _ in range(count)]
    return Conversations(
        [np.concatenate([utterances[i] for i in chosen]) for chosen in turns],
        [np.repeat(labels[chosen], lengths[chosen]) for chosen in turns],
    )
