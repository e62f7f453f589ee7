"""Puts one LZ4 block together from blocks that were compressed on their own.

A block is a row of sequences, each of literals and a match with what came shortly before, and ends
in literals alone (LZ4 block format description). Matches do not reach beyond their own block, so
that blocks join where the last literals of one and the first of the next become one run.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass

# A length of 15 or more goes on in further bytes, up to one that is not 255.
_LONG = 15
_OFFSET_BYTES = 2


@dataclass(frozen=True, slots=True)
class Piece:
    """A block, cut for joining.

    Attributes
    ----------
    first : bytes
        The literals before the first match; every literal where there is no match.
    match : int
        The match length in the first sequence's token.
    middle : bytes
        From the first match to the last sequence; empty where there is no match.
    last : bytes
        The literals after the last match; empty where there is no match.
    """

    first: bytes
    match: int
    middle: bytes
    last: bytes


def plain_piece(plain: bytes) -> Piece:
    """Return the piece of a block that is stored as it is."""
    return Piece(plain, 0, b"", b"")


def piece(block: bytes) -> Piece:
    """Return a compressed block as a piece."""
    size = len(block)
    start, end = _literals(block, 0)
    first, first_end, last_token = block[start:end], end, 0
    while end < size:
        position = end + _OFFSET_BYTES
        if block[last_token] & _LONG == _LONG:
            while block[position] == 255:
                position += 1
            position += 1
        last_token = position
        start, end = _literals(block, position)
    if first_end == size:
        return plain_piece(first)
    return Piece(first, block[0] & _LONG, block[first_end:last_token], block[start:])


def joined(pieces: Iterable[Piece]) -> bytes:
    """Return one block that decompresses to what the pieces do, one after the other."""
    parts, run = [], b""
    for one in pieces:
        run += one.first
        if one.middle:
            parts += (_head(len(run), one.match), run, one.middle)
            run = one.last
    return b"".join([*parts, _head(len(run), 0), run])


def _literals(block: bytes, position: int) -> tuple[int, int]:
    """Return where the literals of the sequence at `position` begin and end."""
    length = block[position] >> 4
    position += 1
    if length == _LONG:
        while block[position] == 255:
            length += 255
            position += 1
        length += block[position]
        position += 1
    return position, position + length


@functools.lru_cache(maxsize=4096)
def _head(literals: int, match: int) -> bytes:
    """Return a sequence's token, and the rest of the literals' length."""
    if literals < _LONG:
        return bytes([literals << 4 | match])
    whole, rest = divmod(literals - _LONG, 255)
    return bytes([_LONG << 4 | match]) + b"\xff" * whole + bytes([rest])
