"""A rollout whose sequences begin anew here and there, as episodes do: a forward and a backward pass.

    python -m bench.compare.resets             two minutes; writes bench/results/resets.md
    python -m bench.compare.resets --seconds 2 --sizes 64 --output build/bench/resets.md

Shape (T, B), and before 3 % of the steps the state is zero. numba_pack is given the mask. PyTorch has no such argument,
and is run in each way that libraries for reinforcement learning run it:

- *step by step*: ``nn.LSTM`` a step at a time, whose state is multiplied by the mask before each (CleanRL's PPO,
  sb3-contrib's RecurrentPPO). To go on in one call between two steps at which anything begins anew saves nothing: at
  this rate nearly every step of 128 sequences is such a one.
- *cell by cell*: the same with ``nn.LSTMCell``.
- *pieces padded*: cut at the resets, padded to the longest and run in one call (RLlib, TorchRL).
- *pieces packed*: the same as a packed batch.

What the last two need to know of the pieces is found before the clock starts; to move the rows to the pieces and back
is within. All give the same output and the same gradients, that of the input among them, which is checked first. One
thread for all; contenders take turns, round after round, in one process.
"""

import argparse
from pathlib import Path

from bench.tools.environment import ROOT, prepare


def numba_pack(layer, x, resets, d_output):
    """A pass of the layer; returns output and gradients."""

    def run():
        output, _, tape = layer.forward(x, resets=resets)
        gradients = layer.backward(tape, d_output)
        return output, gradients.input, layer.views(gradients.parameters)["weight_hh_l0"]

    return {"numba_pack": run}


def without_resets(layer, x, d_output):
    """The same sequences without any reset."""

    def run():
        output, _, tape = layer.forward(x)
        gradients = layer.backward(tape, d_output)
        return output, gradients.input, layer.views(gradients.parameters)["weight_hh_l0"]

    return {"numba_pack, the same rows without resets": run}


def pytorch(layer, x, resets, d_output):
    """The ways of PyTorch."""
    from bench.tools.environment import load

    torch = load("torch")
    import numpy as np

    (T, B, I), H = x.shape, layer.hidden_size  # noqa: E741
    state_dict = {name: torch.from_numpy(value.copy()) for name, value in layer.state_dict().items()}
    lstm, cell = torch.nn.LSTM(I, H), torch.nn.LSTMCell(I, H)
    lstm.load_state_dict(state_dict)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in state_dict.items()})
    keep = torch.from_numpy(~resets[:, :, None]).to(torch.float32)
    given, d_given = torch.from_numpy(x).requires_grad_(), torch.from_numpy(d_output)

    # (sequence, first step, length) of each piece, longest first, and where its rows lie in the batch
    cuts = [[0, *(t for t in np.flatnonzero(resets[:, b]) if t), T] for b in range(B)]
    pieces = [(b, t, after - t) for b in range(B) for t, after in zip(cuts[b], cuts[b][1:], strict=False)]
    pieces.sort(key=lambda piece: -piece[2])
    lengths = np.array([length for _, _, length in pieces])
    sizes = [int((lengths > t).sum()) for t in range(lengths[0])]
    rows = torch.tensor([(pieces[r][1] + t) * B + pieces[r][0] for t, size in enumerate(sizes) for r in range(size)])
    places = torch.argsort(rows)
    cells = torch.tensor([t * len(pieces) + r for t, size in enumerate(sizes) for r in range(size)])
    batch_sizes = torch.tensor(sizes)

    def pass_of(module, weight, forward):
        def run():
            for parameter in (given, *module.parameters()):
                parameter.grad = None
            output = forward()
            output.backward(d_given)
            return output.detach().numpy(), given.grad.numpy(), getattr(module, weight).grad.numpy()

        return run

    def step_by_step():
        outputs, state = [], (torch.zeros(1, B, H), torch.zeros(1, B, H))
        for t in range(T):
            output, state = lstm(given[t : t + 1], (keep[t] * state[0], keep[t] * state[1]))
            outputs.append(output)
        return torch.cat(outputs)

    def cell_by_cell():
        outputs, h, c = [], torch.zeros(B, H), torch.zeros(B, H)
        for t in range(T):
            h, c = cell(given[t], (keep[t] * h, keep[t] * c))
            outputs.append(h)
        return torch.stack(outputs)

    def pieces_padded():
        padded = torch.zeros(len(sizes) * len(pieces), I).index_copy(0, cells, given.reshape(T * B, I)[rows])
        output, _ = lstm(padded.reshape(len(sizes), len(pieces), I))
        return output.reshape(-1, H)[cells[places]].reshape(T, B, H)

    def pieces_packed():
        packed = torch.nn.utils.rnn.PackedSequence(given.reshape(T * B, I)[rows], batch_sizes)
        return lstm(packed)[0].data[places].reshape(T, B, H)

    return {
        "PyTorch, step by step": pass_of(lstm, "weight_hh_l0", step_by_step),
        "PyTorch, cell by cell": pass_of(cell, "weight_hh", cell_by_cell),
        "PyTorch, pieces padded": pass_of(lstm, "weight_hh_l0", pieces_padded),
        "PyTorch, pieces packed": pass_of(lstm, "weight_hh_l0", pieces_packed),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(128, 128, 256), help="T, B and H (default: %(default)s)")
    parser.add_argument("--sizes", type=int, nargs="*", default=(64, 256), help="of the input (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=0.03, help="of steps that are reset (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each size (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "results" / "resets.md", help="the table")
    arguments = parser.parse_args()
    prepare()
    import numpy as np

    import numba_pack as nbp
    from bench.tools.environment import Unavailable, machine, versions
    from bench.tools.markdown import of_machine, of_versions, table
    from bench.tools.timing import interleave, summary

    (T, B, H), rng, rows = arguments.shape, np.random.default_rng(0), []
    resets = rng.random((T, B)) < arguments.rate
    for size in arguments.sizes:
        layer = nbp.LSTM(size, H, rng=0)
        x, d_output = rng.standard_normal((T, B, size), np.float32), rng.standard_normal((T, B, H), np.float32)
        functions = numba_pack(layer, x, resets, d_output)
        try:
            functions |= pytorch(layer, x, resets, d_output)
        except Unavailable as error:
            print(error)
        first, *others = ([value.copy() for value in function()] for function in functions.values())
        for other in others:
            for got, expected in zip(other, first, strict=True):
                np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
        functions |= without_resets(layer, x, d_output)
        list(functions.values())[-1]()
        median = summary(interleave(functions, arguments.seconds))["median"]
        ours = next(iter(median.values()))
        for name, time in median.items():
            rows.append([size, name, f"{1e3 * time:.1f}", f"{1e6 * time / (T * B):.2f}", f"{time / ours:.2f}"])
    pieces = B + int(resets[1:].sum())
    lines = [
        "# Sequences that begin anew in their midst\n",
        f"`python -m bench.compare.resets`, on {of_machine(machine())} {of_versions(versions())}\n",
        f"LSTM of {H} units, forward and backward, T={T}, B={B}, {arguments.rate:.0%} of the steps reset: {pieces} "
        "pieces; float32, one thread, medians of interleaved rounds.\n",
        table(["inputs", "", "a pass, ms", "a row, µs", "over numba_pack"], rows, left=(1,)),
    ]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
