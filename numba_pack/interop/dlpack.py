"""DLPack: arrays of any library that exchanges them, to and fro, without a copy."""

from __future__ import annotations

from ..packing.dlpack import as_numpy, form

__all__ = ["as_numpy", "form"]
