"""Losses with their gradients, over packed or padded data, for scripts with no framework around them.

========================== =======================================================================================
`softmax_cross_entropy`    one class of several, for each row
`binary_cross_entropy`     yes or no, for each column of each row
`mse`, `huber`             numbers, for each column of each row
`ctc`                      a shorter sequence of labels, for each sequence
========================== =======================================================================================

Each takes what a linear layer gives, so that there is neither a softmax nor a sigmoid before it, and returns the loss
and its gradient in the form of the first argument: a PackedSequence of rows (N, C); a padded array (T, B, C), or
(B, T, C) with ``batch_first``; or an array (N, C) of rows that belong to no sequence. Labels, targets and weights have
that form, too. All is computed in float64, in one pass over the rows, and rounded once; no argument is changed. What
belongs to a row does not depend on the others.

A row that is not to count, such as padding, has the label ``ignore_index`` or the weight 0. How the losses of all rows
become one number is told by ``reduction``:

=================== ===============================================================================================
``"mean"``          the sum of all losses divided by that of all weights, where weights are 1 if none are given; over
                    the columns, too, where each has a loss of its own
``"sum"``           the sum
``"none"``          an array, in the form of the input, of the loss of each row; the gradient is that of their sum
``"batchmean"``     the sum divided by the number of sequences
``"sequence_mean"`` the mean of each sequence, and the mean of these: a short sequence counts as much as a long one
=================== ===============================================================================================

The mean of nothing is NaN, as where all labels are ignored; its gradient is zero. These are PyTorch's means, but that
its ``binary_cross_entropy_with_logits`` divides by the number of all entries, whatever they weigh.

A class whose logit is -infinity cannot be: its gradient is zero, or the loss infinite where it is right. A row of
logits with NaN or infinity in it, or of nothing but -infinity, has the loss and the gradient NaN, as in PyTorch.
"""

from typing import TYPE_CHECKING, NoReturn

from .._habits import no_attribute
from .classes import binary_cross_entropy, softmax_cross_entropy
from .ctc import ctc
from .numbers import huber, mse

__all__ = ["binary_cross_entropy", "ctc", "huber", "mse", "softmax_cross_entropy"]


def __dir__() -> list[str]:
    return [name for name in globals() if name.startswith("__")] + __all__


if not TYPE_CHECKING:  # for checkers there is nothing but what there is

    def __getattr__(name: str) -> NoReturn:
        raise no_attribute(__name__, name)
