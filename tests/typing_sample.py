"""What type checkers are to make of the calls of layers: see ``test_typing.py``. Nothing here is run.

A line that ends in ``type: ignore`` is one in which they are to find a mistake.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import assert_type

    import numba_pack as nbp
    from numba_pack.cells import Cell, cell, tanh

    Array = np.ndarray
    Pair = tuple[np.ndarray, np.ndarray]

    rows = np.ones((4, 3), np.float32)
    packed = nbp.pack_sequence([rows, rows[:2]])
    text = nbp.symbols(np.zeros((4, 2), np.int64))
    rnn, lstm, gru = nbp.RNN(3, 5), nbp.LSTM(3, 5), nbp.GRU(3, 5)

    # -- an output has the form of the input, a state that of the cell

    assert_type(packed, nbp.PackedSequence)
    assert_type(rnn(packed), tuple[nbp.PackedSequence, Array])
    assert_type(gru(rows), tuple[Array, Array])
    assert_type(gru(text), tuple[Array, Array])
    assert_type(lstm(packed), tuple[nbp.PackedSequence, Pair])
    assert_type(lstm(rows), tuple[Array, Pair])

    output, (h_n, c_n) = lstm(packed)
    assert_type(output.data, Array)
    assert_type(c_n, Array)
    lstm(rows, (h_n, c_n))
    gru(rows, h_n)
    gru(rows, h_n, rows[:, 0] > 0)
    assert_type(lstm(packed, resets=packed)[0], nbp.PackedSequence)

    lstm(rows, h_n)  # type: ignore
    gru(rows, resets=[True])  # type: ignore
    gru(rows, (h_n, c_n))  # type: ignore
    gru([[1.0]])  # type: ignore

    # -- training

    output, state, tape = lstm.forward(packed)
    assert_type(output, nbp.PackedSequence)
    assert_type(state, Pair)
    assert_type(tape, nbp.Tape[nbp.PackedSequence, Pair])
    gradients = lstm.backward(tape, output, (None, c_n))
    assert_type(gradients, nbp.Gradients[nbp.PackedSequence, Pair])
    assert_type(gradients.input.data, Array)
    assert_type(gradients.hx[1], Array)
    assert_type(gradients.parameters, Array)

    model = nbp.Model(gru=gru, linear=nbp.Linear(5, 2), last_state=True)
    logits, of_model = model.forward(packed)
    assert_type(model.backward(of_model, logits).parameters, Array)
    assert_type(model.backward(of_model, logits).hx, None)

    of_rows = gru.forward(rows)[2]
    assert_type(gru.backward(of_rows).input, Array)
    assert_type(gru.backward(of_rows).hx, Array)
    assert_type(gru.backward(gru.forward(text)[2]).input, None)
    lstm.backward(of_rows)  # type: ignore

    # -- precision

    assert_type(lstm.with_precision("medium"), nbp.LSTM)
    assert_type(gru.quantize("int8"), nbp.GRU)
    assert_type(nbp.LSTMCell(3, 5, matmul_precision="high").quantize("int8")(rows), Pair)
    assert_type(lstm.matmul_precision, str)
    assert_type(lstm.nbytes, int)
    nbp.set_float32_matmul_precision(nbp.get_float32_matmul_precision())
    nbp.GRU(3, 5, matmul_precision=16)  # type: ignore

    # -- the kit

    linear, embedding = nbp.Linear(3, 5), nbp.Embedding(9, 3)
    assert_type(linear(packed), nbp.PackedSequence)
    assert_type(linear(rows), Array)
    assert_type(embedding(packed), nbp.PackedSequence)
    logits, multiplied = linear.forward(packed)
    loss, d_logits = nbp.losses.softmax_cross_entropy(logits, packed)
    assert_type(d_logits, nbp.PackedSequence)
    assert_type(linear.backward(multiplied, d_logits).input.data, Array)
    model = nbp.Model(linear=linear, embedding=embedding)
    assert_type(model.parameters, Array)
    assert_type(model.gradient(linear=None, embedding=None), Array)
    linear([1.0])  # type: ignore
    nbp.losses.mse([1.0], rows)  # type: ignore

    context, shares = nbp.attend(packed, packed, packed)
    assert_type(context, nbp.PackedSequence)
    assert_type(nbp.attend(rows, packed, packed), tuple[Array, Array])
    gradients_of_rows = nbp.attend_backward(rows, packed, packed, rows, rows)
    assert_type(gradients_of_rows, tuple[Array, nbp.PackedSequence, nbp.PackedSequence])
    assert_type(nbp.packed_softmax(packed), nbp.PackedSequence)
    assert_type(nbp.packed_softmax_backward(shares, packed), nbp.PackedSequence)
    assert_type(nbp.sum_by_sequence(packed), Array)
    assert_type(nbp.repeat_by_sequence(rows, packed), nbp.PackedSequence)

    # -- one step

    assert_type(nbp.GRUCell(3, 5)(rows), Array)
    assert_type(nbp.GRUCell(3, 5)(2), Array)
    assert_type(nbp.fold_embedding(nbp.GRUCell(3, 5), rows), nbp.GRUCell)
    assert_type(nbp.LSTMCell(3, 5)(rows), Pair)
    assert_type(nbp.LSTMCell(3, 5).forward(rows), tuple[Pair, nbp.Tape[Array, Pair]])

    # -- a class of one's own, and a cell

    class Encoder(nbp.LSTM):
        """Which is typed as its base is."""

    assert_type(Encoder(3, 5)(packed), tuple[nbp.PackedSequence, Pair])
    assert_type(nbp.fold_embedding(Encoder(3, 5), rows), Encoder)

    @cell(sums="a", state="h")
    def Elman(a: Any, h: Any) -> Any:
        """A formula."""
        return tanh(a)

    assert_type(Elman, Cell)
    assert_type(Elman(3, 5)(packed), tuple[nbp.PackedSequence, Any])
    assert_type(Elman(3, 5).parameters, Array)
