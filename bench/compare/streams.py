"""Many streams, one step of each a tick: what a service has that answers live streams.

    python -m bench.compare.streams             a minute
    python -m bench.compare.streams --streams 64 --hidden-size 256

`Streams` takes all of them in one packed call. Beside it the same call of the layer alone, with states that nobody
takes out or puts back; and ONNX Runtime, which runs one stream after the other: by its plain call, which is given the
state that the one before returned; and with all memory bound, where one call puts a state and the next takes it. One
thread for all; they take turns, round after round.
"""

import argparse

from bench.tools.environment import prepare


def numba_pack(layer, x):
    """A tick of `Streams`, and one of the layer alone: functions that return the outputs."""
    import numpy as np

    import numba_pack as nbp

    streams = nbp.serving.Streams(layer, len(x))
    ids = [streams.open() for _ in range(len(x))]
    order = np.arange(len(x))
    packed = nbp.PackedSequence(x, np.array([len(x)]), order, order)
    zeros = np.zeros((1, len(x), layer.hidden_size), x.dtype)
    hx = (zeros, zeros) if layer.cell.states == 2 else zeros
    return {
        "numba_pack, Streams": lambda: streams.step(ids, x),
        "numba_pack, the packed call": lambda: layer(packed, hx)[0].data,
    }


def onnx_runtime(kind, layer, x):
    """Ticks of ONNX Runtime, stream after stream, by a plain call and with bound memory."""
    import numpy as np

    from bench.compare.contenders import onnx_session
    from bench.tools.environment import load
    from bench.tools.onnx_model import onnx_model
    from bench.tools.workloads import Workload

    wrap, H = load("onnxruntime").OrtValue.ortvalue_from_numpy, layer.hidden_size
    workload = Workload(kind, 1, H, T=1)
    states = "hc" if kind == "LSTM" else "h"
    model = onnx_model(workload, layer.state_dict(), 1, state=True)
    out = np.zeros((len(x), 1, 1, 1, H), x.dtype)
    memory = [[{s: wrap(np.zeros((1, 1, H), x.dtype)) for s in states} for _ in x] for _ in range(2)]
    inputs = [
        {"X": x[i][None, None]} | {f"{s}_0": value for s, value in before[i].items()}
        for before in memory
        for i in range(len(x))
    ]
    session, bindings = onnx_session(model, *inputs)
    for at, binding in enumerate(bindings):
        turn, i = divmod(at, len(x))
        binding.bind_ortvalue_output("Y", wrap(out[i]))
        for s, value in memory[1 - turn][i].items():
            binding.bind_ortvalue_output(f"{s}_n", value)
    turns = [bindings[: len(x)], bindings[len(x) :]]

    carried = [{f"{s}_0": np.zeros((1, 1, H), x.dtype) for s in states} for _ in x]

    def call():
        outputs = []
        for i, state in enumerate(carried):
            y, *after = session.run(None, {"X": x[i][None, None], **state})
            carried[i] = dict(zip(state, after, strict=True))
            outputs.append(y)
        return np.reshape(outputs, (len(x), H))

    def call_bound():
        for binding in turns[0]:
            session.run_with_iobinding(binding)
        turns.reverse()
        return out.reshape(len(x), H)

    return {"ONNX Runtime": call, "ONNX Runtime, bound memory": call_bound}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=256, help="how many (default: %(default)s)")
    parser.add_argument("--hidden-size", type=int, default=128, help="H, and as many inputs (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=15.0, help="for each kind of layer (default: %(default)s)")
    arguments = parser.parse_args()
    prepare()
    import numpy as np

    import numba_pack as nbp
    from bench.tools.environment import Unavailable, machine, versions
    from bench.tools.markdown import of_machine, of_versions, table
    from bench.tools.timing import interleave, summary

    count, H, rows = arguments.streams, arguments.hidden_size, []
    x = np.random.default_rng(0).standard_normal((count, H), np.float32)
    for kind in ("LSTM", "GRU", "RNN"):
        layer = getattr(nbp, kind)(H, H, rng=0)
        functions = numba_pack(layer, x)
        try:
            functions |= onnx_runtime(kind, layer, x)
        except Unavailable as error:
            print(error)
        first, *others = (function().copy() for function in functions.values())
        for other in others:  # the first step of each
            np.testing.assert_allclose(other, first, rtol=1e-4, atol=1e-5)
        median = summary(interleave(functions, arguments.seconds))["median"]
        ours = next(iter(median.values()))
        for name, time in median.items():
            rows.append([kind, name, f"{1e6 * time:.0f}", f"{1e6 * time / count:.2f}", f"{time / ours:.2f}"])
    print(f"{of_machine(machine())}\n\n{of_versions(versions())}\n")
    print(f"{count} streams, H={H}, float32, one thread: medians of interleaved rounds.\n")
    print(table(["", "", "a tick, µs", "a stream's step, µs", "over Streams"], rows))


if __name__ == "__main__":
    main()
