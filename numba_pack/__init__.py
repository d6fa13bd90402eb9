"""numba_pack."""

from .cpu.threads import get_num_threads, set_num_threads, threads
from .layers import GRU, LSTM, RNN, Gradients, Tape
from .ragged import pack_ragged, unpack_ragged
from .sequences import (
    PackedSequence,
    check_packed,
    invert_permutation,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    pad_sequence,
    unpack_sequence,
    unpad_sequence,
)
