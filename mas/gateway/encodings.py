"""Undoes an answer's content-encoding, for the meter; what is forwarded stays encoded.

Memory is bounded whatever comes: an answer that unfolds beyond all measure is refused.
"""

import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Protocol

import brotli
import zstandard

from mas.errors import MasError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

SLICE_BYTES = 16 * 1024
"""How much is decoded at a time."""
MAX_SLICE_BYTES = 16 * 2**20
"""What a slice may unfold to: gzip's best is a thousandfold."""
MAX_TOTAL_BYTES = 512 * 2**20
"""What an answer may unfold to."""

_MAX_CODINGS = 3
_ZSTD_WINDOW_BYTES = 8 * 2**20
"""The largest that HTTP allows (RFC 9659)."""
_GZIP_MAGIC = b"\x1f"


class EncodingError(MasError):
    """The bytes are not what content-encoding says, or unfold beyond all measure."""


class Decoder(Protocol):
    """Decodes one answer, piece by piece."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What ``data`` adds, in bounded pieces; EncodingError where it is bad."""
        ...


def decoder_for(content_encoding: str) -> Decoder | None:
    """The decoder for a header's value, several codings included; None: not known."""
    names = [name.strip().lower() for name in content_encoding.split(",")]
    names = [name for name in names if name not in ("", "identity")]
    if len(names) > _MAX_CODINGS or not all(name in _CODINGS for name in names):
        return None
    return _Chain([_CODINGS[name]() for name in reversed(names)])


class _Coding(Protocol):
    def decode(self, data: bytes) -> bytes:
        """What a slice unfolds to; a library's error or EncodingError where bad."""
        ...


class _Chain:
    """Undoes codings one after the other, the last applied first."""

    def __init__(self, codings: list[_Coding]) -> None:
        self._codings = codings
        self._total_bytes = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        for piece in self._decode(data, 0):
            self._total_bytes += len(piece)
            if self._codings and self._total_bytes > MAX_TOTAL_BYTES:
                raise _bomb(MAX_TOTAL_BYTES)
            yield piece

    def _decode(self, data: bytes, level: int) -> Iterator[bytes]:
        if level == len(self._codings):
            yield data
            return
        for at in range(0, len(data), SLICE_BYTES):
            try:
                piece = self._codings[level].decode(data[at : at + SLICE_BYTES])
            except (zlib.error, brotli.error, zstandard.ZstdError) as error:
                raise EncodingError(
                    f"the answer's encoding is broken: {error}"
                ) from error
            if piece:
                yield from self._decode(piece, level + 1)


class _Gzip:
    """Members one after the other, as RFC 1952 allows; what follows them is ignored."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(16 + zlib.MAX_WBITS)

    def decode(self, data: bytes) -> bytes:
        decoded = b""
        while data:
            if self._member.eof:
                if not data.startswith(_GZIP_MAGIC):
                    break
                self._member = zlib.decompressobj(16 + zlib.MAX_WBITS)
            decoded += self._member.decompress(data, MAX_SLICE_BYTES)
            _check(self._member.unconsumed_tail, decoded)
            data = self._member.unused_data
        return decoded


class _Deflate:
    """With the zlib header that is prescribed, or without it, as some send it."""

    def __init__(self) -> None:
        self._head = b""
        self._stream: zlib._Decompress | None = None

    def decode(self, data: bytes) -> bytes:
        if self._stream is None:
            data = self._head = self._head + data
            if len(data) < 2:
                return b""
            is_zlib = data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
            sign = 1 if is_zlib else -1
            self._stream = zlib.decompressobj(sign * zlib.MAX_WBITS)
        decoded = self._stream.decompress(data, MAX_SLICE_BYTES)
        _check(self._stream.unconsumed_tail, decoded)
        return decoded


class _Brotli:
    def __init__(self) -> None:
        self._stream = brotli.Decompressor()

    def decode(self, data: bytes) -> bytes:
        if self._stream.is_finished():
            return b""
        decoded: bytes = self._stream.process(data, output_buffer_limit=MAX_SLICE_BYTES)
        if not self._stream.can_accept_more_data() and not self._stream.is_finished():
            raise _bomb(MAX_SLICE_BYTES)
        return decoded


class _Sink(BytesIO):
    """Takes what zstandard unfolds, within the bound that the library does not have."""

    def write(self, data: "ReadableBuffer", /) -> int:
        written = super().write(data)
        if self.tell() > MAX_SLICE_BYTES:
            raise _bomb(MAX_SLICE_BYTES)
        return written

    def take(self) -> bytes:
        taken = self.getvalue()
        self.seek(0)
        self.truncate()
        return taken


class _Zstd:
    def __init__(self) -> None:
        self._sink = _Sink()
        decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
        self._stream = decompressor.stream_writer(self._sink, closefd=False)

    def decode(self, data: bytes) -> bytes:
        self._stream.write(data)
        return self._sink.take()


def _check(unconsumed: bytes, decoded: bytes) -> None:
    if unconsumed or len(decoded) > MAX_SLICE_BYTES:
        raise _bomb(MAX_SLICE_BYTES)


def _bomb(most: int) -> EncodingError:
    return EncodingError(f"the answer unfolds to more than {most // 2**20} MiB")


_CODINGS: dict[str, Callable[[], _Coding]] = {
    "gzip": _Gzip,
    "x-gzip": _Gzip,
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _Zstd,
}
