"""Frames on a byte stream: a 4-byte big-endian length, then that many bytes.

An agent's stream opens with ``MARKER``. What comes before it (a login banner, a stray
print of a start-up script) is skipped and kept as evidence, up to a bound.
"""

from mas.errors import ProtocolError

MAX_FRAME_BYTES = 16 * 2**20
"""No frame is larger. A result.json is at most a quarter of it."""

MARKER = b"\0MAS/1\n"
MAX_PREAMBLE_BYTES = 64 * 2**10

_HEADER_BYTES = 4


def frame(payload: bytes) -> bytes:
    """Return ``payload`` with its length in front; ProtocolError where too large."""
    if len(payload) > MAX_FRAME_BYTES:
        raise ProtocolError(
            f"a frame of {len(payload)} bytes is over the limit of {MAX_FRAME_BYTES}"
        )
    return len(payload).to_bytes(_HEADER_BYTES, "big") + payload


class FrameDecoder:
    """Cuts frames out of a stream, however it arrives.

    With ``marker`` it first looks for ``MARKER``; ``preamble`` is what came before.
    """

    def __init__(self, *, marker: bool = False) -> None:
        self._buffer = bytearray()
        self._waits_for_marker = marker
        self.preamble = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes and return every frame that is complete now.

        Raises ProtocolError for a frame over the limit, as soon as its length is known,
        and for a stream that does not open with the marker.
        """
        self._buffer += data
        if self._waits_for_marker and not self._find_marker():
            return []
        frames: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= _HEADER_BYTES:
            end_of_header = start + _HEADER_BYTES
            length = int.from_bytes(self._buffer[start:end_of_header], "big")
            if length > MAX_FRAME_BYTES:
                raise ProtocolError(
                    f"a frame announces {length} bytes; the limit is {MAX_FRAME_BYTES}",
                    evidence=repr(bytes(self._buffer[start : start + 80])),
                )
            if len(self._buffer) - end_of_header < length:
                break
            start = end_of_header + length
            frames.append(bytes(self._buffer[end_of_header:start]))
        del self._buffer[:start]
        return frames

    def close(self) -> None:
        """The stream has ended: raise ProtocolError if it ended inside a frame."""
        if self._waits_for_marker:
            self.preamble = bytes(self._buffer)
        elif self._buffer:
            raise ProtocolError(
                f"the stream ended {len(self._buffer)} bytes into a frame"
            )

    def _find_marker(self) -> bool:
        at = self._buffer.find(MARKER)
        before = len(self._buffer) - len(MARKER) if at < 0 else at
        self.preamble = bytes(self._buffer[: max(0, min(before, MAX_PREAMBLE_BYTES))])
        if before > MAX_PREAMBLE_BYTES:
            raise ProtocolError(
                f"no greeting within the first {MAX_PREAMBLE_BYTES} bytes",
                evidence=self.preamble[:400].decode(errors="replace"),
            )
        if at < 0:
            return False
        del self._buffer[: at + len(MARKER)]
        self._waits_for_marker = False
        return True
