"""The engine of the backend that was chosen, a module; its verbs: factors_for, prepare, infer, record, replay_back.

That of the CPU also has few and infer_few, for calls on few rows.
"""

from typing import TYPE_CHECKING

from .._backend import backend

if TYPE_CHECKING or backend == "cpu":
    from ..cpu import engine
else:
    from ..cuda import engine

__all__ = ["engine"]
