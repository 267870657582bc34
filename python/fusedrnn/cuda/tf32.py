"""Whether float32 products may round their inputs to TF32 (10 bits of mantissa): off by default, as in torch."""

from __future__ import annotations

_allowed = False


def set_tf32(allowed: bool) -> None:
    """Allow or forbid TF32 in the products of later float32 calls on a GPU. Sums stay float32.

    Parameters
    ----------
    allowed : bool
        Whether the inputs of products may be rounded to 10 bits of mantissa; for all threads.
    """
    global _allowed
    _allowed = bool(allowed)


def get_tf32() -> bool:
    """Say whether TF32 is allowed."""
    return _allowed
