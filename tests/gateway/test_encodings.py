"""Content-encodings undone piece by piece: any cut gives the same; no bombs."""

import gzip
import itertools
import tracemalloc
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from mas.gateway import encodings
from mas.gateway.encodings import EncodingError, decoder_for

TEXT = b'event: ping\ndata: {"type": "ping"}\n\n' * 50


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": lambda data: zstandard.compress(data),
    "identity": lambda data: data,
    "": lambda data: data,
}


def decoded(content_encoding: str, pieces: list[bytes]) -> bytes:
    decoder = decoder_for(content_encoding)
    assert decoder is not None
    return b"".join(out for piece in pieces for out in decoder.feed(piece))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(
    st.sampled_from(sorted(PACKERS)),
    st.binary(max_size=3000),
    st.lists(st.integers(0, 4000), max_size=20),
)
def test_any_cut_gives_the_same(name: str, data: bytes, places: list[int]) -> None:
    packed = PACKERS[name](data)
    assert decoded(name, cut(packed, places)) == data


@pytest.mark.parametrize("name", sorted(PACKERS))
def test_one_byte_at_a_time(name: str) -> None:
    packed = PACKERS[name](TEXT)
    assert decoded(name.upper(), [bytes([byte]) for byte in packed]) == TEXT


def test_deflate_without_its_header() -> None:
    packed = raw_deflate(TEXT)
    assert decoded("deflate", [packed[:1], packed[1:]]) == TEXT


def test_what_a_server_flushes_is_there_at_once() -> None:
    gz = zlib.compressobj(wbits=31)
    flushed = gz.compress(TEXT) + gz.flush(zlib.Z_SYNC_FLUSH)
    assert decoded("gzip", [flushed]) == TEXT
    br = brotli.Compressor()
    assert decoded("br", [br.process(TEXT) + br.flush()]) == TEXT
    zs = zstandard.ZstdCompressor().compressobj()
    flushed = zs.compress(TEXT) + zs.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    assert decoded("zstd", [flushed]) == TEXT


def test_members_and_frames_follow_each_other() -> None:
    assert decoded("gzip", [gzip.compress(b"a") + gzip.compress(b"b")]) == b"ab"
    assert decoded("zstd", [zstandard.compress(b"a"), zstandard.compress(b"b")]) == (
        b"ab"
    )


def test_what_follows_the_end_is_ignored() -> None:
    assert decoded("gzip", [gzip.compress(TEXT) + b"\0\0", b"more"]) == TEXT
    assert decoded("deflate", [zlib.compress(TEXT) + b"\0\0", b"more"]) == TEXT
    assert decoded("br", [brotli.compress(TEXT), b"more"]) == TEXT


def test_several_codings_are_undone_from_the_last() -> None:
    packed = brotli.compress(gzip.compress(TEXT))
    assert decoded("gzip, identity,br", [packed[:7], packed[7:]]) == TEXT


@pytest.mark.parametrize(
    "value", ["compress", "gzip, aws-chunked", "gzip;q=1", "br, br, br, br", "\0"]
)
def test_an_encoding_that_nobody_knows(value: str) -> None:
    assert decoder_for(value) is None


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd"])
def test_bad_data_is_an_error_and_says_so(name: str) -> None:
    with pytest.raises(EncodingError, match="the answer's encoding is broken"):
        decoded(name, [b"data: not encoded at all\n\n" * 20])


@given(st.sampled_from(["gzip", "deflate", "br", "zstd"]), st.binary(max_size=400))
def test_no_bytes_raise_anything_else(name: str, data: bytes) -> None:
    decoder = decoder_for(name)
    assert decoder is not None
    try:
        pieces = list(decoder.feed(data))
    except EncodingError:
        return
    assert all(pieces)


def brotli_bomb(megabytes: int) -> bytes:
    packer = brotli.Compressor(quality=5)
    zeros = bytes(2**20)
    packed = [bytes(packer.process(zeros)) for _ in range(megabytes)]
    return b"".join([*packed, packer.finish()])


@pytest.mark.parametrize(
    ("name", "bomb"),
    [
        ("br", brotli_bomb(64)),
        ("zstd", zstandard.compress(bytes(64 * 2**20))),
        ("gzip, gzip", gzip.compress(gzip.compress(bytes(64 * 2**20)))),
    ],
)
def test_a_bomb_is_refused_and_takes_bounded_memory(name: str, bomb: bytes) -> None:
    assert len(bomb) < 32 * 1024
    tracemalloc.start()
    try:
        with pytest.raises(EncodingError, match="unfolds to more than 16 MiB"):
            decoded(name, [bomb])
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 4 * encodings.MAX_SLICE_BYTES


def test_an_answer_may_unfold_to_so_much_in_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encodings, "MAX_TOTAL_BYTES", 2**20)
    decoder = decoder_for("gzip")
    assert decoder is not None
    packed = gzip.compress(bytes(3 * 2**20))
    with pytest.raises(EncodingError, match="unfolds to more than 1 MiB"):
        for byte in packed:
            list(decoder.feed(bytes([byte])))


def test_an_answer_that_is_not_encoded_may_be_as_long_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encodings, "MAX_TOTAL_BYTES", 100)
    assert decoded("identity", [TEXT]) == TEXT
