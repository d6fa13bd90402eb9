"""Fuzzing of the packing functions from random bytes, against the plain loops of ``naive_packing.py``.

Bytes become a call: a batch of sequences and what is asked for, or arguments that were damaged at random. A good call
must give what the loops give; a damaged one what it gives or a ValueError or TypeError that names an argument; and no
argument may be changed. ``test_fuzz.py`` runs some hundred calls in the suite. As a script::

    python tests/fuzz_packing.py --minutes 60 [--seed 1]

runs until the time is up. ``--replay`` runs the call again that it printed or, after a crash, left in a file. With
``--atheris`` (``pip install atheris``) the bytes come from libFuzzer, guided by what they reach of the Python code.
"""

import argparse
import itertools
import os
import sys
import tempfile
import time
from pathlib import Path

import naive_packing as naive
import numpy as np

import numba_pack as nbp

DTYPES = ("f4", "f8", "i8", "u1", "?", "c8", "f2", "i2", "c16")
TRAILING = ((), (1,), (3,), (12,), (2, 3), (0,), (17,))
#: values that damage an index array
WILD = (0, 1, -1, 2, 7, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, -(2**63), -(2**31))


class Draw:
    """Decisions from bytes; when they are used up, every decision is the first choice."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def byte(self):
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def below(self, n):
        return (self.byte() * 256 + self.byte()) % n

    def choice(self, options):
        return options[self.below(len(options))]

    def bool(self):
        return bool(self.byte() & 1)

    def lengths(self):
        most = self.choice((3, 9, 40, 200))
        return [self.below(most + 1) for _ in range(1 + self.below(self.choice((4, 12, 40))))]

    def array(self, shape, dtype):
        """Numbers that tell the rows apart."""
        values = np.arange(int(np.prod(shape))) * 37 + self.byte()
        return (values % 2 if dtype == "?" else values % 251).astype(dtype).reshape(shape)

    def layout(self, array):
        """The same array, however it lies in memory."""
        kind = self.choice(("plain", "fortran", "strided", "reversed", "read-only", "big-endian"))
        if kind == "fortran":
            return np.asfortranarray(array)
        if kind == "strided" and array.ndim:
            return np.repeat(array, 2, axis=-1)[..., ::2]
        if kind == "reversed" and array.ndim:
            return np.ascontiguousarray(array[::-1])[::-1]
        if kind == "big-endian":
            return array.astype(array.dtype.newbyteorder(">"))
        array = array.copy()
        array.flags.writeable = kind != "read-only"
        return array

    def damaged(self, array):
        """An index array with something wrong in it, or nothing."""
        array = np.array(array, np.int64)
        for _ in range(1 + self.below(3)):
            kind = self.choice(("value", "nothing", "shorter", "longer", "swap", "repeat", "dtype", "rank", "add"))
            n = len(array) if array.ndim == 1 else 0
            if kind == "value" and n:
                with np.errstate(all="ignore"):
                    array[self.below(n)] = np.array(self.choice(WILD)).astype(array.dtype)
            elif kind == "shorter" and n:
                array = array[: self.below(n + 1)]
            elif kind == "longer" and n:
                array = np.append(array, array[self.below(n)])
            elif kind == "swap" and n:
                i, j = self.below(n), self.below(n)
                array[[i, j]] = array[[j, i]]
            elif kind == "repeat" and n:
                array[self.below(n)] = array[self.below(n)]
            elif kind == "add" and n and array.dtype.kind != "b":
                with np.errstate(all="ignore"):
                    array[self.below(n)] += np.array(1).astype(array.dtype)
            elif kind == "dtype":
                array = array.astype(self.choice(("i4", "u8", "f8", "?", "O", "u1")))
            elif kind == "rank":
                array = np.asarray(self.choice((array[None], array.sum())))
        return array


def check_same(got, expected, what):
    if isinstance(expected, (list, tuple)):
        assert len(got) == len(expected), what
        for one, other in zip(got, expected, strict=True):
            check_same(one, other, what)
        return
    expected = np.asarray(expected)
    assert got.shape == expected.shape and (got == expected).all(), what
    assert got.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=") or expected.dtype == object, what


class Refused(Exception):
    """A call was refused as it should be; the sign that a damaged one did nothing else."""


def call(function, *arguments):
    """A call whose arguments must come out as they went in."""

    def arrays(value):
        if isinstance(value, (tuple, list)):
            return [array for part in value for array in arrays(part)]
        return [value] if isinstance(value, np.ndarray) else []

    before = [(array, array.tobytes(), array.shape) for array in arrays(arguments)]
    try:
        return function(*arguments)
    except (ValueError, TypeError) as error:
        assert "must" in str(error), f"an error that does not say what must be: {error}"
        raise Refused(str(error)) from error
    finally:
        for array, data, shape in before:
            assert array.tobytes() == data and array.shape == shape, f"{function.__name__} changed its argument"


def good_call(draw):
    """A batch through all functions and back; each as by loops."""
    lengths, dtype, trailing = draw.lengths(), draw.choice(DTYPES), draw.choice(TRAILING)
    plain = [draw.array((n, *trailing), dtype) for n in lengths]
    sequences = [draw.layout(sequence) for sequence in plain]
    batch_first, total = draw.bool(), draw.below(5)
    side, value = draw.choice(("right", "left")), draw.below(2)

    packed = call(nbp.pack_sequence, sequences)
    data, *indices = naive.pack(plain)
    check_same(packed, (data, *(np.array(index, np.int64) for index in indices)), "pack_sequence")
    check_same(call(nbp.unpack_sequence, packed), plain, "unpack_sequence")
    packed_anyhow = nbp.PackedSequence(*(draw.layout(field) for field in packed))
    steps = max(lengths) + total
    padded, counted = call(nbp.pad_packed_sequence, packed_anyhow, batch_first, value, steps)
    check_same(padded, naive.pad(plain, value, steps, batch_first), "pad_packed_sequence")
    check_same(counted, np.array(lengths), "lengths")
    check_same(
        call(nbp.pad_sequence, sequences, batch_first, value, side),
        naive.pad(plain, value, None, batch_first, side), "pad_sequence",
    )  # fmt: skip
    given = draw.layout(padded)
    counts = draw.layout(np.array(lengths))
    check_same(call(nbp.pack_padded_sequence, given, counts, batch_first), packed, "pack_padded_sequence")
    check_same(call(nbp.unpad_sequence, given, counts, batch_first), plain, "unpad_sequence")
    values, offsets = call(nbp.unpack_ragged, packed_anyhow)
    check_same(call(nbp.pack_ragged, draw.layout(values), draw.layout(offsets)), packed, "pack_ragged")
    check_same(packed.lengths, np.array(lengths), "PackedSequence.lengths")
    check_same(call(nbp.invert_permutation, packed.sorted_indices), packed.unsorted_indices, "invert_permutation")


def damaged_call(draw):
    """A call with an index array that may be wrong: refused, or right all the same."""
    lengths, dtype, trailing = draw.lengths(), draw.choice(DTYPES), draw.choice(TRAILING)
    plain = [draw.array((n, *trailing), dtype) for n in lengths]
    kind = draw.choice(("packed", "padded", "ragged", "permutation"))
    packed = nbp.pack_sequence(plain)
    if kind == "packed":
        fields = list(packed)
        for _ in range(1 + draw.below(2)):
            which = draw.below(4)
            fields[which] = draw.damaged(fields[which]) if which else fields[0][: draw.below(len(fields[0]) + 1)]
        packed = nbp.PackedSequence(*fields)
        function = draw.choice((nbp.unpack_sequence, nbp.unpack_ragged, nbp.pad_packed_sequence))
        result = call(function, packed)
        expected = naive.unpack(packed.data, packed.batch_sizes, packed.sorted_indices)
        if function is nbp.unpack_ragged:
            result = nbp.unpad_sequence(nbp.pad_sequence(np.split(result[0], result[1][1:-1])), np.diff(result[1]))
        elif function is nbp.pad_packed_sequence:
            result = nbp.unpad_sequence(*result)
        check_same(result, expected, function.__name__)
    elif kind == "padded":
        batch_first = draw.bool()
        padded, counts = naive.pad(plain, 0, None, batch_first), draw.damaged(lengths)
        function = draw.choice((nbp.unpad_sequence, nbp.pack_padded_sequence))
        result = call(function, padded, counts, batch_first)
        rows = padded if batch_first else padded.swapaxes(0, 1)
        expected = [row[:n] for row, n in zip(rows, counts.tolist(), strict=True)]
        check_same(nbp.unpack_sequence(result) if isinstance(result, nbp.PackedSequence) else result, expected, kind)
    elif kind == "ragged":
        values, offsets = nbp.unpack_ragged(packed)
        offsets = draw.damaged(offsets)
        result = nbp.unpack_sequence(call(nbp.pack_ragged, values, offsets))
        check_same(result, [values[a:b] for a, b in itertools.pairwise(offsets)], kind)
    else:
        permutation = draw.damaged(packed.sorted_indices)
        inverse = call(nbp.invert_permutation, permutation)
        check_same(permutation.astype(np.int64)[inverse], np.arange(len(permutation)), kind)


def fuzz(data):
    """One call from bytes. Returns whether it was refused."""
    draw = Draw(data)
    try:
        if draw.bool():
            damaged_call(draw)
        else:
            good_call(draw)
    except Refused:
        return True
    return False


def run(seconds, seed):
    """Random bytes until the time is up; the call under way lies in a file, to be found after a crash."""
    rng = np.random.default_rng(seed)
    last = Path(tempfile.gettempdir()) / f"fuzz_packing_{os.getpid()}.bytes"
    print(f"the bytes of the call under way are in {last}", flush=True)
    end, calls, refused = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:
        data = rng.bytes(int(rng.integers(1, 400)))
        last.write_bytes(data)
        try:
            refused += fuzz(data)
        except BaseException:
            print(f"after {calls} calls; run again by --replay {data.hex()}", flush=True)
            raise
        calls += 1
    last.unlink()
    print(f"{calls} calls, of which {refused} refused, in {seconds:.0f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--replay", help="the bytes of a call, in hexadecimal digits")
    parser.add_argument("--atheris", action="store_true", help="let libFuzzer choose the bytes")
    arguments = parser.parse_args()
    if arguments.replay:
        fuzz(bytes.fromhex(arguments.replay))
    elif arguments.atheris:
        import atheris

        atheris.instrument_all()
        atheris.Setup([sys.argv[0], f"-max_total_time={int(60 * arguments.minutes)}"], lambda data: fuzz(data) and None)
        atheris.Fuzz()
    else:
        run(60 * arguments.minutes, arguments.seed)


if __name__ == "__main__":
    main()
