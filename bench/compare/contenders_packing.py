"""The contenders for packing: this library, PyTorch, and a copy of as many bytes as the function writes."""

import numpy as np

import numba_pack as nbp
from bench.compare.contenders import Contender
from bench.tools.environment import load
from bench.tools.workloads import lengths_of


def _batch(workload):
    """Lengths (B,), and that many sequences (T_i, I) of float32."""
    rng = np.random.default_rng(1)
    lengths = lengths_of("lognormal", workload.B, workload.T)
    return lengths, [rng.standard_normal((n, workload.columns), dtype=np.float32) for n in lengths]


class NumbaPack(Contender):
    name = "numba_pack"

    def __init__(self, workload):
        lengths, sequences = _batch(workload)
        packed = nbp.pack_sequence(sequences)
        function = getattr(nbp, workload.function)
        arguments = {
            "pack_sequence": (sequences,),
            "pack_padded_sequence": (nbp.pad_sequence(sequences), lengths),
            "pad_packed_sequence": (packed,),
            "unpack_sequence": (packed,),
        }[workload.function]
        self.run = lambda: function(*arguments)

    def answer(self):
        return _by_name(self.run(), np.asarray)


class Torch(Contender):
    name = "PyTorch packed"

    def __init__(self, workload):
        torch = load("torch")
        lengths, sequences = _batch(workload)
        tensors = [torch.from_numpy(sequence) for sequence in sequences]
        functions = torch.nn.utils.rnn
        packed = functions.pack_sequence(tensors, enforce_sorted=False)
        function = getattr(functions, workload.function)
        arguments, options = {
            "pack_sequence": ((tensors,), {"enforce_sorted": False}),
            "pack_padded_sequence": (
                (functions.pad_sequence(tensors), torch.from_numpy(lengths)),
                {"enforce_sorted": False},
            ),
            "pad_packed_sequence": ((packed,), {}),
            "unpack_sequence": ((packed,), {}),
        }[workload.function]
        self.run = lambda: function(*arguments, **options)

    def answer(self):
        return _by_name(self.run(), lambda tensor: tensor.numpy())


class Copy(Contender):
    """memcpy into memory that is there already: what the function would cost if it had nothing to think about."""

    name = "memcpy"

    def __init__(self, workload):
        lengths, _ = _batch(workload)
        rows = workload.B * lengths.max() if workload.function == "pad_packed_sequence" else lengths.sum()
        source = np.ones((rows, workload.columns), np.float32)
        target = np.zeros_like(source)
        self.nbytes = source.nbytes
        self.run = lambda: np.copyto(target, source)

    def answer(self):
        return {}


def _by_name(result, as_array):
    """The arrays of a result. The order of sequences of one length is the library's own affair."""
    if hasattr(result, "batch_sizes"):
        in_order = nbp.unpack_sequence(nbp.PackedSequence(*[as_array(field) for field in result]))
        return {"batch_sizes": as_array(result.batch_sizes), "rows": np.concatenate(in_order)}
    if isinstance(result, tuple):
        return {"padded": as_array(result[0]), "lengths": as_array(result[1])}
    return {"rows": np.concatenate([as_array(sequence) for sequence in result])}


PACKERS = (NumbaPack, Torch, Copy)
