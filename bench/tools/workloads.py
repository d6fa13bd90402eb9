"""What is computed: the shapes of the comparison, each with an id that a person can read.

Shape letters as in the package: B sequences, the longest of T steps; N rows, the sum of the lengths; H units.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

import numba_pack as nbp
from bench.tools.environment import ROOT

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@dataclass(frozen=True)
class Workload:
    """A recurrent net and a batch for it."""

    cell: str
    B: int
    H: int
    #: how lengths are distributed: see `lengths_of`
    lengths: str = "lognormal"
    T: int = 50
    #: columns of the input; H if None
    inputs: int | None = None
    layers: int = 1
    bidirectional: bool = False
    dtype: str = "float32"

    def __str__(self):
        parts = [self.cell, f"B{self.B}"]
        parts += [f"I{self.input_size}"] * (self.input_size != self.H)
        parts += [f"H{self.H}"]
        parts += [self.lengths] * (self.B > 1)
        parts += [f"T{self.T}"] * (self.T != 50 and self.lengths != "real")
        parts += [f"{self.layers}layers"] * (self.layers > 1)
        parts += ["bi"] * self.bidirectional
        parts += ["float64"] * (self.dtype == "float64")
        return "-".join(parts)

    @property
    def input_size(self):
        return self.inputs or self.H

    @property
    def directions(self):
        return 2 if self.bidirectional else 1

    def _widths(self):
        """The columns that each scan takes as input."""
        return [self.input_size] * self.directions + [self.directions * self.H] * (self.layers - 1) * self.directions

    def operations(self, rows, training):
        """Multiplications and additions that N rows need.

        A backward pass takes twice what a forward pass does, less the product for the gradient of the input, which
        nobody asks for. The products with the first state are counted, though it is zero.
        """
        per_row = 2 * GATES[self.cell] * self.H
        forward = per_row * rows * sum(width + self.H for width in self._widths())
        return 3 * forward - per_row * rows * self.input_size * self.directions if training else forward

    def weight_bytes(self, steps):
        """Bytes of weights that a forward pass must read: those of the state once a time step, the others once."""
        gate_rows = GATES[self.cell] * self.H
        return np.dtype(self.dtype).itemsize * gate_rows * sum(width + self.H * steps for width in self._widths())


class Problem:
    """A workload with its numbers: weights, sequences, and the gradients that arrive at the outputs. See `problem`."""

    def __init__(self, workload):
        self.workload = workload
        rng = np.random.default_rng(1)
        if workload.lengths == "real":
            utterances = japanese_vowels()[: workload.B]
            self.lengths = np.array([len(utterance) for utterance in utterances])
        else:
            self.lengths = lengths_of(workload.lengths, workload.B, workload.T)
        #: (T_i, I) each, in the caller's order
        self.sequences = self._normal(rng, workload.input_size)
        if workload.lengths == "real":
            self.sequences = [utterance.astype(workload.dtype) for utterance in utterances]
        #: (T_i, D * H) each
        self.d_outputs = self._normal(rng, workload.directions * workload.H)

    def __str__(self):
        return str(self.workload)

    def _normal(self, rng, columns):
        return [rng.standard_normal((n, columns)).astype(self.workload.dtype) for n in self.lengths]

    @property
    def N(self):
        return int(self.lengths.sum())

    @property
    def T(self):
        return int(self.lengths.max())

    @property
    def ragged(self):
        return bool((self.lengths != self.T).any())

    def layer(self):
        """The net in numba_pack, always with the same weights."""
        w = self.workload
        options = {"num_layers": w.layers, "bidirectional": w.bidirectional, "dtype": w.dtype, "rng": 0}
        return getattr(nbp, w.cell)(w.input_size, w.H, **options)

    @cached_property
    def parameters(self):
        """The weights by name, as in a PyTorch state dict."""
        return {name: value.copy() for name, value in self.layer().state_dict().items()}

    def padded(self, sequences):
        """Sequences as (T, B, *), zero behind their ends."""
        return nbp.pad_sequence(sequences)

    def rows_of(self, padded):
        """The rows (N, *) of a padded result (T, B, *), sequence after sequence."""
        return np.concatenate([padded[:n, b] for b, n in enumerate(self.lengths)])


@lru_cache(maxsize=1)
def problem(workload):
    """The numbers of a workload; those of the last one are kept, since its contenders come one after another."""
    return Problem(workload)


def lengths_of(kind, B, T):
    """B lengths of which the longest is T.

    equal: all T. near-equal: uniform from 0.9 T. lognormal: median 0.4 T, sigma 0.7, cut at T, as of sentences.
    heavy: Pareto of exponent 1 from 10 steps on, cut at T, so that most are short and one is very long.
    A number, the fill: T u**(1 / fill - 1) with u uniform, so that N is about fill * B * T.
    """
    rng = np.random.default_rng(0)
    if kind == "equal":
        lengths = np.full(B, T)
    elif kind == "near-equal":
        lengths = rng.integers(int(0.9 * T), T + 1, B)
    elif kind == "lognormal":
        lengths = rng.lognormal(np.log(0.4 * T), 0.7, B)
    elif kind == "heavy":
        lengths = 10 * (1 + rng.pareto(1.0, B))
    else:
        lengths = rng.permutation(T * ((np.arange(B) + 0.5) / B) ** (1 / float(kind) - 1))
    lengths = np.clip(np.round(lengths).astype(int), 1, T)
    lengths[lengths.argmax()] = T
    return lengths


def japanese_vowels():
    """The training utterances of the bundled data, (T_i, 12) each."""
    with np.load(ROOT / "examples" / "japanese_vowels.npz") as data:
        return np.split(data["train_values"], np.cumsum(data["train_lengths"])[:-1])


def _grid(cell, batches, sizes):
    return [Workload(cell, B, H) for H in sizes for B in batches]


_REAL = {"lengths": "real", "inputs": 12}
_HEAVY = {"lengths": "heavy", "T": 1000}

FORWARD = [
    *[Workload("LSTM", 1, H, "equal", T=100) for H in (32, 64, 128, 256, 512)],
    *[Workload(cell, 1, 128, "equal", T=100) for cell in ("GRU", "RNN")],
    *_grid("LSTM", [32], [32]),
    *_grid("LSTM", [8, 32], [64]),
    *_grid("LSTM", [8, 32, 128], [128, 256, 512]),
    *_grid("GRU", [32], [64]),
    *_grid("GRU", [8, 32, 128], [128, 256, 512]),
    *_grid("RNN", [32], [64]),
    *_grid("RNN", [8, 32], [128]),
    *_grid("RNN", [128], [512]),
    Workload("LSTM", 32, 128, "equal"),
    Workload("LSTM", 32, 128, **_HEAVY),
    Workload("GRU", 32, 128, **_HEAVY),
    Workload("LSTM", 32, 100, **_REAL),
    Workload("LSTM", 32, 100, **_REAL, bidirectional=True),
    Workload("GRU", 32, 100, **_REAL, bidirectional=True),
    Workload("LSTM", 1, 64, "equal", T=4000),
    Workload("LSTM", 8, 64, "near-equal", T=1600),
    Workload("LSTM", 32, 128, layers=2),
    Workload("LSTM", 32, 128, bidirectional=True),
    Workload("LSTM", 1, 128, "equal", T=100, bidirectional=True),
    Workload("GRU", 32, 256, layers=2, bidirectional=True),
    *[Workload("LSTM", B, H, dtype="float64") for B, H in ((8, 128), (32, 128), (32, 256), (128, 512))],
    Workload("GRU", 32, 256, dtype="float64"),
]

TRAINING = [
    *[Workload("LSTM", 1, H, "equal", T=100) for H in (32, 64, 128, 256, 512)],
    *_grid("LSTM", [32], [32, 64]),
    *_grid("LSTM", [8, 32, 128], [128, 256]),
    *_grid("LSTM", [8, 32], [512]),
    *_grid("GRU", [8, 32], [128]),
    *_grid("GRU", [32], [256, 512]),
    *_grid("GRU", [128], [256]),
    *_grid("RNN", [8, 32], [128]),
    *_grid("RNN", [32], [256, 512]),
    Workload("LSTM", 32, 128, "equal"),
    Workload("LSTM", 32, 128, **_HEAVY),
    Workload("LSTM", 32, 100, **_REAL),
    Workload("LSTM", 32, 100, **_REAL, bidirectional=True),
    *[Workload("LSTM", 8, 64, "near-equal", T=T) for T in (50, 200, 800, 1600)],
    Workload("GRU", 8, 64, "near-equal", T=800),
    Workload("LSTM", 16, 128, "near-equal", T=800),
    Workload("LSTM", 1, 64, "equal", T=4000),
    Workload("LSTM", 32, 128, layers=2),
    Workload("LSTM", 32, 128, bidirectional=True),
    Workload("GRU", 32, 128, layers=2, bidirectional=True),
    *[Workload("LSTM", 32, H, dtype="float64") for H in (128, 256)],
]

#: of the above, what a quick run times
QUICK = {
    "LSTM-B1-H64-T100", "LSTM-B8-H128-lognormal", "LSTM-B32-H128-lognormal", "LSTM-B32-H256-lognormal",
    "GRU-B32-H128-lognormal", "LSTM-B32-I12-H100-real", "LSTM-B32-H128-lognormal-bi",
    "LSTM-B8-H64-near-equal-T800",
}  # fmt: skip

#: forward, with other work before each call
COLD = [
    *[Workload("LSTM", 1, H, "equal") for H in (64, 128)],
    *[Workload(cell, 1, 128, "equal") for cell in ("GRU", "RNN")],
    *[Workload("LSTM", B, 128) for B in (8, 32)],
]

#: packed against padded in one library, from full to nearly empty
FILL = [Workload("LSTM", 32, 128, str(fill), T=100) for fill in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)]

#: two threads against one
THREADS = [
    *[Workload("LSTM", 1, H, T=100) for H in (128, 256, 512)],
    Workload("LSTM", 8, 256),
    *[Workload("LSTM", 32, H) for H in (128, 256, 512)],
    *[Workload("GRU", 32, H) for H in (128, 256)],
]


@dataclass(frozen=True)
class Packing:
    """A packing function and what it is given."""

    function: str
    B: int
    columns: int
    T: int = 50

    def __str__(self):
        return f"{self.function}-B{self.B}-I{self.columns}"


PACKING = [
    Packing(function, B, columns)
    for B, columns in ((32, 64), (128, 512), (1024, 128))
    for function in ("pack_sequence", "pack_padded_sequence", "pad_packed_sequence", "unpack_sequence")
]


@dataclass(frozen=True)
class Step:
    """One step of one sequence, its state carried: what a stream of samples needs."""

    cell: str
    H: int

    def __str__(self):
        return f"{self.cell}-step-B1-H{self.H}"


STREAMING = [Step(cell, H) for cell in ("LSTM", "GRU", "RNN") for H in (32, 64, 128, 256)]


@dataclass(frozen=True)
class Symbols:
    """Sequences of V symbols, an embedding of E columns, and an LSTM over it."""

    V: int
    E: int
    training: bool

    def __str__(self):
        return f"LSTM-symbols-V{self.V}-E{self.E}-B32-H128" + "-training" * self.training


class SymbolsProblem(Problem):
    """The same for symbols. Sequences are (T_i,); the n-th symbol comes 1 / n as often as the first, as words do."""

    def __init__(self, symbols):
        super().__init__(Workload("LSTM", 32, 128, inputs=symbols.E))
        self.symbols = symbols
        rng = np.random.default_rng(2)
        share = 1 / np.arange(1, symbols.V + 1)
        names = rng.permutation(symbols.V)
        self.sequences = [names[rng.choice(symbols.V, n, p=share / share.sum())] for n in self.lengths]
        #: (V, E)
        self.table = rng.standard_normal((symbols.V, symbols.E), dtype=np.float32)

    def __str__(self):
        return str(self.symbols)


@lru_cache(maxsize=1)
def symbols_problem(symbols):
    """As `problem`."""
    return SymbolsProblem(symbols)


#: bytes or characters, and words
SYMBOLS = [Symbols(V, E, training) for training in (False, True) for V, E in ((256, 64), (32000, 128))]
