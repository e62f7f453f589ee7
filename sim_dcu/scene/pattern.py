"""The scene `test-pattern`: no photons, but numbers that tell the pixel's place and the image.

A pixel's value is 8 p + d:

* p is its column where column + row is even, else its row, each modulo `places(bits)`: two
  neighbours tell a pixel's place in the image;
* d is an octal digit of the image's number, from 1: the lowest one in the first block of
  `BLOCK_BYTES` bytes, the next one in the next block, and so on, over again after `DIGITS` blocks.

So the pool's image d has the digit d everywhere. Only the mask changes anything of it.
"""

# Of a number of images below 2^33.
DIGITS = 11


def places(bits: int) -> int:
    """Return how many places are told apart along an axis: below 2^bits - 1 when times 8."""
    return 31 if bits == 8 else 8191


def digit(number: int, block: int) -> int:
    """Return the octal digit of an image's number that block `block`, from 0, tells."""
    return number >> 3 * (block % DIGITS) & 7
