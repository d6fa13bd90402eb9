"""Ragged sequences packed and unpacked: the checks, the moving of rows, and the forms of other libraries."""
