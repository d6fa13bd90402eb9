"""Options that are fixed once a layer is made: its weights and its kernels were made for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from .._habits import check_new, instead_of

__all__ = ["Fixed"]


class Fixed:
    """A class whose options can be neither changed nor deleted; other attributes, such as a subclass's, can."""

    _fixed: ClassVar[frozenset[str]] = frozenset()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._fixed and name in self.__dict__:
            raise AttributeError(f"{name} is fixed when the {type(self).__name__} is made")
        if not hasattr(type(self), name) and name not in self.__dict__:
            check_new(self, name)
        super().__setattr__(name, value)

    if not TYPE_CHECKING:  # for checkers there is nothing but what there is

        def __getattr__(self, name: str) -> Any:
            if hasattr(type(self), name):  # a property that says itself why it is not there
                return object.__getattribute__(self, name)
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{instead_of(name)}")

    def __delattr__(self, name: str) -> None:
        if name in self._fixed:
            raise AttributeError(f"{name} is fixed when the {type(self).__name__} is made")
        super().__delattr__(name)
