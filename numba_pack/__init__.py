"""numba_pack."""
