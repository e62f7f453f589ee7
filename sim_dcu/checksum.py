"""The checksum that HDF5 keeps of its own structures: Bob Jenkins' lookup3 (public domain).

HDF5 does not offer it to programs, and no library on the package index has it for Python.
"""

_MASK = 0xFFFFFFFF
_START = 0xDEADBEEF
# The bits each step of the two mixtures rotates by.
_MIX = (4, 6, 8, 16, 19, 4)
_FINAL = (14, 11, 25, 16, 4, 14, 24)


def lookup3(data: bytes) -> int:
    """Return the checksum of `data`, 32 bits, with start value 0."""
    a = b = c = (_START + len(data)) & _MASK
    if not data:
        return c
    # The last 1 to 12 bytes, filled up with zeros, are mixed in another way than those before.
    padded = data + bytes(-len(data) % 12)
    words = [int.from_bytes(padded[i : i + 4], "little") for i in range(0, len(padded), 4)]
    for i in range(0, len(words) - 3, 3):
        a, b, c = _mixed(a + words[i], b + words[i + 1], c + words[i + 2])
    return _finished(a + words[-3], b + words[-2], c + words[-1])


def _rotated(word: int, bits: int) -> int:
    word &= _MASK
    return (word << bits | word >> (32 - bits)) & _MASK


def _mixed(a: int, b: int, c: int) -> tuple[int, int, int]:
    for bits in _MIX:
        # The three words take turns in the same step.
        a = (a - c) ^ _rotated(c, bits)
        c += b
        a, b, c = b & _MASK, c & _MASK, a & _MASK
    return a, b, c


def _finished(a: int, b: int, c: int) -> int:
    for bits in _FINAL:
        c = ((c ^ b) - _rotated(b, bits)) & _MASK
        a, b, c = b, c, a
    return b
