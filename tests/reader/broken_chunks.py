"""Broken chunks through every codec, in a process of its own: a crash is then seen as one.

    python broken_chunks.py COUNT SEED

Prints, as JSON, how many were refused, how many were decoded, what went wrong, and how many bytes
the process grew beyond what whole images took.
"""

import io
import json
import random
import resource
import struct
import sys

import h5py
import hdf5plugin
import numpy as np

from ophyd_eiger import codecs
from ophyd_eiger.chunks import BITSHUFFLE_FILTER, LZ4_FILTER, check_chunk, check_pieces
from ophyd_eiger.errors import ChunkError

SHAPE = (640, 515)
PIECE = 2**16
SIZES = [0, 1, 7, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**63, 2**64 - 1]
BYTES = [0, 1, 0x0F, 0x7F, 0x80, 0xF0, 0xFF]


def chunk_of(image, compression):
    with h5py.File(io.BytesIO(), "w") as file:
        made = file.create_dataset("d", data=image[None], chunks=(1, *image.shape), **compression)
        return made.id.read_direct_chunk((0, 0, 0))[1]


def whole_chunks():
    """Return (filter, image, chunk) of either compression, each pixel type, sparse and dense."""
    made = []
    generator = np.random.default_rng(1)
    for dtype in ("<u1", "<u2", "<u4"):
        most = np.iinfo(dtype).max
        sparse = generator.poisson(0.1, SHAPE).astype(dtype)
        dense = generator.integers(0, most, SHAPE, dtype, endpoint=True)
        for image in (sparse, dense):
            for code, compression in (
                (BITSHUFFLE_FILTER, hdf5plugin.Bitshuffle()),
                (BITSHUFFLE_FILTER, hdf5plugin.Bitshuffle(nelems=64)),
                (LZ4_FILTER, hdf5plugin.LZ4(nbytes=8192)),
                (LZ4_FILTER, hdf5plugin.LZ4()),
            ):
                made.append((code, image, chunk_of(image, compression)))
    return made


def broken(raw, chance):
    """Return a chunk with something wrong: its header, a length, its bytes, or its end."""
    changed = bytearray(raw)
    kind = chance.randrange(6)
    if kind == 0:
        changed[:8] = struct.pack(">Q", chance.choice(SIZES))
    elif kind == 1:
        changed[8:12] = struct.pack(">I", chance.choice(SIZES) % 2**32)
    elif kind == 2:  # the length of one of the first blocks
        place = 12
        for _ in range(chance.randrange(5)):
            (length,) = struct.unpack_from(">I", changed, place)
            if place + length + 8 > len(changed):
                break
            place += 4 + length
        (length,) = struct.unpack_from(">I", changed, place)
        wrong = chance.choice([length - 1, length + 1, *SIZES]) % 2**32
        changed[place : place + 4] = struct.pack(">I", wrong)
    elif kind == 3:
        del changed[chance.randrange(len(changed)) :]
    elif kind == 4:
        changed += bytes(chance.randrange(1, 9))
    for _ in range(chance.randrange(9) if kind < 5 else 9):
        if changed:
            changed[chance.randrange(len(changed))] = chance.choice([*BYTES, chance.randrange(256)])
    return bytes(changed)


def decoded(codec, raw, code, image, rows):
    """Return the rows of an image that a codec makes of a chunk; of none, all in pieces."""
    if rows is None:
        return in_pieces(codec, raw, code, image)
    found = check_chunk(raw, [code], image.shape, image.dtype, rows)
    out = np.zeros(found.size, np.uint8)
    codec.decode(raw, found, image.itemsize, out)
    row = image.shape[1] * image.itemsize
    begin = rows.start * row - found.first
    return out[begin : begin + len(rows) * row].view(image.dtype).reshape(len(rows), -1)


def in_pieces(codec, raw, code, image):
    out = np.zeros(image.nbytes, np.uint8)
    for piece in check_pieces(raw, [code], image.shape, image.dtype, PIECE):
        codec.decode(raw, piece, image.itemsize, out[piece.first : piece.first + piece.size])
    return out.view(image.dtype).reshape(image.shape)


def main(count, seed):
    chance = random.Random(seed)
    whole = whole_chunks()
    used = [codecs.codec(name) for name in codecs.available()]
    result = {"refused": 0, "decoded": 0, "wrong": []}
    for codec in used:
        for code, image, raw in whole:
            for rows in (range(640), range(100, 113), range(639, 640), range(1), None):
                expected = image if rows is None else image[rows]
                if not np.array_equal(decoded(codec, raw, code, image, rows), expected):
                    result["wrong"].append(f"{codec.name} {code} {image.dtype} {rows}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(count):
        code, image, raw = chance.choice(whole)
        start = chance.randrange(640)
        rows = chance.choice([range(640), range(start, chance.randrange(start, 640) + 1), None])
        changed = broken(raw, chance)
        for codec in used:
            try:
                found = decoded(codec, changed, code, image, rows)
            except ChunkError:
                result["refused"] += 1
                continue
            result["decoded"] += 1
            expected = image if rows is None else image[rows]
            if changed == raw and not np.array_equal(found, expected):
                result["wrong"].append(f"{codec.name}: an unchanged chunk")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({**result, "grown": grown * 1024, "codecs": [c.name for c in used]}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
