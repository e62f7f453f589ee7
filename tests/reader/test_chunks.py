"""The walk over a chunk's bytes: takes every whole one, and lets none through that would crash."""

import io
import struct

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ophyd_eiger.chunks import BITSHUFFLE_FILTER, LZ4_FILTER, are_whole, check_chunk
from ophyd_eiger.errors import ChunkError

SHAPE = (41, 67)
HEADER_BYTES = 12


def raw_chunk(image: np.ndarray, compression) -> bytes:
    """Return the chunk that HDF5 itself makes of an image."""
    options = {} if compression is None else dict(compression)
    with h5py.File(io.BytesIO(), "w") as file:
        dataset = file.create_dataset(
            "data", data=image[np.newaxis], chunks=(1, *image.shape), **options
        )
        return dataset.id.read_direct_chunk((0, 0, 0))[1]


def decode(raw: bytes, code: int, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """Return the image that HDF5 itself makes of a chunk."""
    compression = hdf5plugin.LZ4() if code == LZ4_FILTER else hdf5plugin.Bitshuffle()
    with h5py.File(io.BytesIO(), "w") as file:
        dataset = file.create_dataset(
            "data", (1, *shape), dtype, chunks=(1, *shape), **dict(compression)
        )
        dataset.id.write_direct_chunk((0, 0, 0), raw)
        return dataset[0]


def sparse(dtype: str, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(1).poisson(0.2, shape).astype(dtype)


def dense(dtype: str, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    largest = np.iinfo(dtype).max
    return np.random.default_rng(2).integers(0, largest, shape, np.dtype(dtype), endpoint=True)


# ---- what is whole


def test_every_real_chunk_is_taken(real_files):
    for path in real_files:
        with h5py.File(path) as file:
            images = file["entry/data/data"]
            for number in range(len(images)):
                _, raw = images.id.read_direct_chunk((number, 0, 0))
                check_chunk(raw, [BITSHUFFLE_FILTER], images.shape[1:], images.dtype)


@pytest.mark.parametrize("dtype", ["<u1", "<u2", "<u4"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 4), SHAPE, (64, 64), (514, 1030)])
@pytest.mark.parametrize("make", [sparse, dense])
@pytest.mark.parametrize(
    ("filters", "compression"),
    [
        ([], None),
        ([LZ4_FILTER], hdf5plugin.LZ4()),
        # An EIGER2 has LZ4 blocks of 8192 bytes, an EIGER1 one for the whole image.
        ([LZ4_FILTER], hdf5plugin.LZ4(nbytes=8192)),
        ([BITSHUFFLE_FILTER], hdf5plugin.Bitshuffle()),
        ([BITSHUFFLE_FILTER], hdf5plugin.Bitshuffle(nelems=64)),
    ],
    ids=["none", "lz4", "lz4 8192", "bslz4", "bslz4 64"],
)
def test_what_the_filters_write_is_taken(filters, compression, make, shape, dtype):
    raw = raw_chunk(make(dtype, shape), compression)
    check_chunk(raw, filters, shape, np.dtype(dtype))


def test_one_lz4_block_for_the_whole_image_is_taken():
    image = sparse("<u2", (514, 1030))
    raw = raw_chunk(image, hdf5plugin.LZ4())
    _, block = struct.unpack_from(">QI", raw)
    assert block >= image.nbytes, "the filter's default is one block, as on an EIGER1"
    check_chunk(raw, [LZ4_FILTER], image.shape, image.dtype)


# ---- what is not


def test_a_chunk_cut_off_anywhere_is_refused(real_chunk):
    raw, shape, dtype = real_chunk
    for length in range(0, len(raw), 997):
        with pytest.raises(ChunkError):
            check_chunk(raw[:length], [BITSHUFFLE_FILTER], shape, dtype)
    for length in (1, 11, 12, 13, 15, 16, 17, len(raw) - 1):
        with pytest.raises(ChunkError):
            check_chunk(raw[:length], [BITSHUFFLE_FILTER], shape, dtype)


def test_a_chunk_with_bytes_after_its_end_is_refused(real_chunk):
    raw, shape, dtype = real_chunk
    with pytest.raises(ChunkError, match="end at byte"):
        check_chunk(raw + b"\0", [BITSHUFFLE_FILTER], shape, dtype)


def test_each_bit_of_the_header_counts(real_chunk):
    raw, shape, dtype = real_chunk
    passed = []
    for bit in range(8 * HEADER_BYTES):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            check_chunk(bytes(flipped), [BITSHUFFLE_FILTER], shape, dtype)
        except ChunkError:
            continue
        passed.append(bit)
        with pytest.raises(OSError, match="filter returned failure"):
            decode(bytes(flipped), BITSHUFFLE_FILTER, shape, dtype)
    # Blocks of 8208 bytes would be as many as those of 8192, so that only the filter can tell.
    assert passed == [92]


@pytest.mark.parametrize("code", [LZ4_FILTER, BITSHUFFLE_FILTER])
@pytest.mark.parametrize("size", [0, 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1])
def test_a_lying_size_is_refused(code, size):
    compression = hdf5plugin.LZ4() if code == LZ4_FILTER else hdf5plugin.Bitshuffle()
    image = dense("<u2")
    raw = raw_chunk(image, compression)
    with pytest.raises(ChunkError, match=f"promises {size} bytes, {image.nbytes} expected"):
        check_chunk(struct.pack(">Q", size) + raw[8:], [code], SHAPE, image.dtype)


@pytest.mark.parametrize("block", [0, 1, 8, 24, 2**31, 2**32 - 16, 2**32 - 1])
def test_a_lying_block_size_is_refused(block):
    image = dense("<u2", (64, 64))
    raw = bytearray(raw_chunk(image, hdf5plugin.Bitshuffle(nelems=64)))
    raw[8:12] = struct.pack(">I", block)
    with pytest.raises(ChunkError):
        check_chunk(bytes(raw), [BITSHUFFLE_FILTER], image.shape, image.dtype)


@pytest.mark.parametrize("code", [LZ4_FILTER, BITSHUFFLE_FILTER])
@pytest.mark.parametrize("length", [0, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_lying_block_length_is_refused(code, length):
    compression = hdf5plugin.LZ4() if code == LZ4_FILTER else hdf5plugin.Bitshuffle()
    raw = bytearray(raw_chunk(dense("<u2"), compression))
    raw[12:16] = struct.pack(">I", length)
    with pytest.raises(ChunkError, match=f"states {length} bytes"):
        check_chunk(bytes(raw), [code], SHAPE, np.dtype("<u2"))


def test_a_zero_block_size_of_lz4_is_refused():
    raw = bytearray(raw_chunk(dense("<u2"), hdf5plugin.LZ4()))
    raw[8:12] = bytes(4)
    with pytest.raises(ChunkError, match="block size of 0"):
        check_chunk(bytes(raw), [LZ4_FILTER], SHAPE, np.dtype("<u2"))


@pytest.mark.parametrize("change", [-1, 1])
def test_an_uncompressed_chunk_has_exactly_its_size(change):
    size = SHAPE[0] * SHAPE[1] * 2
    with pytest.raises(ChunkError, match=f"{size + change} bytes found, {size} expected"):
        check_chunk(bytes(size + change), [], SHAPE, np.dtype("<u2"))


@pytest.mark.parametrize("filters", [[1], [2, BITSHUFFLE_FILTER], [LZ4_FILTER, LZ4_FILTER]])
def test_other_filters_are_refused(filters):
    with pytest.raises(ChunkError, match="none that an EIGER writes"):
        check_chunk(bytes(100), filters, SHAPE, np.dtype("<u2"))


def test_another_type_than_the_header_says_is_refused(real_chunk):
    raw, shape, _ = real_chunk
    for dtype in ("<u1", "<u4"):
        with pytest.raises(ChunkError):
            check_chunk(raw, [BITSHUFFLE_FILTER], shape, np.dtype(dtype))


# ---- what is anything


CHUNKS = [
    (code, np.dtype(dtype), raw_chunk(make(dtype), compression))
    for code, compression in (
        (LZ4_FILTER, hdf5plugin.LZ4(nbytes=1024)),
        (LZ4_FILTER, hdf5plugin.LZ4()),
        (BITSHUFFLE_FILTER, hdf5plugin.Bitshuffle()),
        (BITSHUFFLE_FILTER, hdf5plugin.Bitshuffle(nelems=64)),
    )
    for dtype in ("<u1", "<u2", "<u4")
    for make in (sparse, dense)
]
# Bytes that break lengths and LZ4's own run lengths, beside any others.
VALUES = st.one_of(st.sampled_from([0, 1, 0x0F, 0x7F, 0x80, 0xF0, 0xFF]), st.integers(0, 255))


@st.composite
def broken_chunks(draw) -> tuple[int, np.dtype, bytes]:
    """Draw a whole chunk and change bytes near its start, anywhere, or its length."""
    code, dtype, raw = draw(st.sampled_from(CHUNKS))
    changed = bytearray(raw)
    near = st.integers(0, min(40, len(raw) - 1))
    places = st.one_of(near, st.integers(0, len(raw) - 1))
    for place, value in draw(st.lists(st.tuples(places, VALUES), max_size=8)):
        changed[place] = value
    kept = draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))
    return code, dtype, bytes(changed[:kept]) + draw(st.binary(max_size=8))


def decodes_or_is_refused(chunk: tuple[int, np.dtype, bytes]) -> None:
    code, dtype, raw = chunk
    try:
        check_chunk(raw, [code], SHAPE, dtype)
    except ChunkError:
        return
    # The lengths agree, so the filter stays inside the bytes; it may still find that what they
    # hold is not LZ4.
    try:
        image = decode(raw, code, SHAPE, dtype)
    except OSError:
        return
    assert (image.shape, image.dtype) == (SHAPE, dtype)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(broken_chunks(), st.integers(0, 3), st.binary(max_size=9))
def test_one_among_others_is_found_as_one_by_one(chunk, place, before):
    code, dtype, raw = chunk
    try:
        check_chunk(raw, [code], SHAPE, dtype)
        expected = True
    except ChunkError:
        expected = False
    good = next(other for of, kind, other in CHUNKS if (of, kind) == (code, dtype))
    chunks = [good] * 3
    chunks.insert(place, raw)
    # Others of the same compression may have other blocks.
    alike = raw[:HEADER_BYTES] == good[:HEADER_BYTES]
    ends = len(before) + np.cumsum([len(each) for each in chunks])
    begins = ends - [len(each) for each in chunks]
    together = np.frombuffer(before + b"".join(chunks), np.uint8)
    for beside in (together, np.append(together, np.zeros(9, np.uint8))):
        found = are_whole(beside, begins, ends, [code], SHAPE, dtype)
        assert found == (expected and alike)


@pytest.mark.parametrize(
    ("code", "most", "most_of_last"),
    # LZ4 stores as it is what it cannot compress; in bitshuffle it may grow, by its own bound.
    [(LZ4_FILTER, 1024, 374), (BITSHUFFLE_FILTER, 1024 + 4 + 16, 368 + 1 + 16)],
)
def test_a_length_may_not_be_more_than_a_block_takes(code, most, most_of_last):
    """Five blocks of 1024 bytes and one of what is left, of 41 x 67 pixels of two bytes."""
    dtype, rest = np.dtype("<u2"), bytes(6 if code == BITSHUFFLE_FILTER else 0)

    def chunk(lengths):
        blocks = b"".join(struct.pack(">I", length) + bytes(length % 2**31) for length in lengths)
        return struct.pack(">QI", 41 * 67 * 2, 1024) + blocks + rest

    def taken(raw):
        try:
            check_chunk(raw, [code], SHAPE, dtype)
        except ChunkError:
            return False
        return True

    plain = [9] * 6
    tried = {(9, 0): True, (9, 5): True, (most, 0): True, (most_of_last, 5): True}
    tried |= {(0, 0): False, (0, 5): False, (most + 1, 3): False, (most_of_last + 1, 5): False}
    tried |= {(2**31, 0): False, (2**31, 5): False}
    for (length, number), expected in tried.items():
        raw = chunk([*plain[:number], length, *plain[number + 1 :]])
        assert taken(raw) == expected, (length, number)
        both = chunk(plain), raw
        ends = np.cumsum([len(each) for each in both])
        begins = ends - [len(each) for each in both]
        together = np.frombuffer(b"".join(both), np.uint8)
        found = are_whole(together, begins, ends, [code], SHAPE, dtype)
        assert found == expected, (length, number)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(broken_chunks())
def test_a_broken_chunk_is_refused_or_does_no_harm(chunk):
    decodes_or_is_refused(chunk)


@pytest.mark.long
@pytest.mark.timeout(600)
@settings(max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(broken_chunks())
def test_ten_thousand_broken_chunks_do_no_harm(chunk):
    decodes_or_is_refused(chunk)


@pytest.mark.parametrize("chunk", CHUNKS, ids=lambda chunk: f"{chunk[0]} {chunk[1]}")
def test_the_chunks_that_are_broken_were_whole(chunk):
    code, dtype, raw = chunk
    check_chunk(raw, [code], SHAPE, dtype)
    image = decode(raw, code, SHAPE, dtype)
    assert any(np.array_equal(image, make(dtype.str)) for make in (sparse, dense))
