"""Frames survive every way a stream can be cut, and nothing else does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas.errors import ProtocolError
from mas.wire.framing import (
    MARKER,
    MAX_FRAME_BYTES,
    MAX_PREAMBLE_BYTES,
    FrameDecoder,
    frame,
)

payloads = st.lists(st.binary(max_size=300), max_size=8)


@given(payloads)
def test_frames_come_out_whole_a_byte_at_a_time(frames: list[bytes]) -> None:
    decoder = FrameDecoder()
    stream = b"".join(map(frame, frames))
    out = [got for i in range(len(stream)) for got in decoder.feed(stream[i : i + 1])]
    assert out == frames
    decoder.close()


@given(payloads, st.data())
def test_frames_do_not_depend_on_where_the_stream_is_cut(
    frames: list[bytes], data: st.DataObject
) -> None:
    stream = MARKER + b"".join(map(frame, frames))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    decoder = FrameDecoder(marker=True)
    out: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        out += decoder.feed(stream[start:end])
    assert out == frames
    decoder.close()


@given(payloads.filter(bool), st.data())
def test_a_stream_that_ends_inside_a_frame_is_an_error(
    frames: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(map(frame, frames))
    last = len(frame(frames[-1]))
    missing = data.draw(st.integers(1, last - 1))
    decoder = FrameDecoder()
    assert decoder.feed(stream[:-missing]) == frames[:-1]
    with pytest.raises(ProtocolError, match="bytes into a frame"):
        decoder.close()


@given(st.binary(max_size=2000).filter(lambda noise: MARKER not in noise + MARKER[:-1]))
def test_what_comes_before_the_marker_is_skipped_and_kept(noise: bytes) -> None:
    decoder = FrameDecoder(marker=True)
    assert decoder.feed(noise + MARKER + frame(b"hello")) == [b"hello"]
    assert decoder.preamble == noise


@pytest.mark.parametrize("chunk", [1, 1000, MAX_PREAMBLE_BYTES])
def test_a_marker_behind_too_much_noise_is_not_looked_for(chunk: int) -> None:
    stream = b"x" * (MAX_PREAMBLE_BYTES + 1) + MARKER
    decoder = FrameDecoder(marker=True)
    with pytest.raises(ProtocolError, match="no greeting"):
        for start in range(0, len(stream), chunk):
            decoder.feed(stream[start : start + chunk])


def test_a_stream_without_marker_is_given_up_after_a_bound() -> None:
    decoder = FrameDecoder(marker=True)
    with pytest.raises(ProtocolError, match="no greeting") as caught:
        for _ in range(MAX_PREAMBLE_BYTES // 1000 + 2):
            decoder.feed(b"x" * 1000)
    assert caught.value.evidence.startswith("xxx")


def test_a_frame_over_the_limit_is_refused_by_its_header_alone() -> None:
    header = (MAX_FRAME_BYTES + 1).to_bytes(4, "big")
    with pytest.raises(ProtocolError, match="the limit is"):
        FrameDecoder().feed(header)


def test_a_payload_over_the_limit_is_never_sent() -> None:
    with pytest.raises(ProtocolError, match="over the limit"):
        frame(bytes(MAX_FRAME_BYTES + 1))


@given(st.binary(max_size=500))
def test_garbage_yields_frames_or_a_protocol_error_and_nothing_else(
    garbage: bytes,
) -> None:
    decoder = FrameDecoder()
    try:
        frames = decoder.feed(garbage)
    except ProtocolError:
        return
    assert sum(len(payload) + 4 for payload in frames) <= len(garbage)
