"""Splits a stream of server-sent events into the data of each. Pure, sans I/O."""

MAX_EVENT_BYTES = 4 * 2**20
"""A line or an event's data above it is skipped."""


class EventStream:
    """Takes a stream in pieces, cut anywhere; memory is bounded whatever comes.

    Comments, names and ids are dropped: what the Messages API sends names itself in
    its data. What a stream breaks off in, before the blank line, is no event.
    """

    def __init__(self) -> None:
        self._line = bytearray()  # that has begun
        self._is_long = False  # and is being skipped
        self._data: list[bytes] = []  # of the event that has begun
        self._data_bytes = 0
        self.skipped = 0
        """How many events were too long."""

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that end in this piece."""
        end = piece.find(b"\n")
        if end < 0:
            self._hold(piece)
            return []
        lines = piece[end + 1 :].split(b"\n")
        self._hold(piece[:end])
        found: list[bytes] = []
        self._end_line(found)
        rest = lines.pop()
        for line in lines:
            self._take(line, found)
        self._hold(rest)
        return found

    def _hold(self, part: bytes) -> None:
        if self._is_long:
            return
        self._line += part
        if len(self._line) > MAX_EVENT_BYTES:
            self._is_long = True
            if self._line.startswith(b"data:"):
                self._data_bytes = MAX_EVENT_BYTES + 1
            self._line = bytearray()

    def _end_line(self, found: list[bytes]) -> None:
        if self._is_long:
            self._is_long = False
        else:
            line = bytes(self._line)
            self._line.clear()
            self._take(line, found)

    def _take(self, line: bytes, found: list[bytes]) -> None:
        if line.startswith(b"data:"):
            self._data_bytes += len(line)
            if self._data_bytes <= MAX_EVENT_BYTES:
                self._data.append(line[5:])
            else:
                self._data.clear()
        elif line in (b"", b"\r"):
            if self._data_bytes > MAX_EVENT_BYTES:
                self.skipped += 1
            elif self._data:
                data = self._data
                found.append(data[0] if len(data) == 1 else b"\n".join(data))
            self._data = []
            self._data_bytes = 0
