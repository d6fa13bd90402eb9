"""Options that are fixed once a layer is made: its weights and its kernels were made for them."""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = ["Fixed"]


class Fixed:
    """A class whose options can be neither changed nor deleted; other attributes, such as a subclass's, can."""

    _fixed: ClassVar[frozenset[str]] = frozenset()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._fixed and name in self.__dict__:
            raise AttributeError(f"{name} is fixed when the {type(self).__name__} is made")
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in self._fixed:
            raise AttributeError(f"{name} is fixed when the {type(self).__name__} is made")
        super().__delattr__(name)
