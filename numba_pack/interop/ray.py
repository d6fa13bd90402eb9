"""Ray: inference over its datasets, layers served by several processes, and training on several machines.

`infer` adds a column of outputs to a dataset of ragged sequences. `application` makes a Ray Serve application of a
layer, and `Service` asks it: for whole sequences, and for streams, which live on when the process that kept their state
dies. `DataParallel` computes sums of gradients, the same bits for any number of workers.

What a worker computes has the bits that this process would compute, where both have processors of one kind.
"""

try:
    from ray import data, serve  # noqa: F401
except ImportError as error:
    raise ImportError("numba_pack.interop.ray needs Ray: pip install 'ray[data,serve]'") from error
from ._ray_infer import infer
from ._ray_serve import Service, Stream, StreamLost, application
from ._ray_train import DataParallel

__all__ = ["DataParallel", "Service", "Stream", "StreamLost", "application", "infer"]


def __dir__() -> list[str]:
    return [name for name in globals() if name.startswith("__")] + __all__


for _public in (DataParallel, Service, Stream, StreamLost, application, infer):
    _public.__module__ = __name__  # the name that people know them by
