"""numba_pack."""

from .compiled import gru, gru_backward, gru_forward, lstm, lstm_backward, lstm_forward, rnn, rnn_backward, rnn_forward
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
