"""The parser in plain Python: what `gtcp._core.Parser` must do, without its buffers and shortcuts."""


class TooLong(Exception):
    """Where the parser raises LimitError."""


class Model:
    """Bytes in, units out. Every `take_*` answers a unit, or None and consumes nothing."""

    def __init__(self) -> None:
        self._data = bytearray()

    @property
    def buffered(self) -> int:
        return len(self._data)

    def feed(self, data: bytes) -> None:
        self._data += data

    def _consume(self, size: int) -> bytes:
        unit = bytes(self._data[:size])
        del self._data[:size]
        return unit

    def take_exact(self, size: int) -> bytes | None:
        return self._consume(size) if size <= len(self._data) else None

    def take_pkg(self, header_size: int, limit: int) -> bytes | None:
        if len(self._data) < header_size:
            return None
        size = int.from_bytes(self._data[:header_size], "big")
        if size > limit:
            raise TooLong
        if header_size + size > len(self._data):
            return None
        return self._consume(header_size + size)[header_size:]

    def take_pkgs(self, header_size: int, limit: int, into: list[bytes], count: int) -> int:
        taken = 0
        while taken != count and (package := self.take_pkg(header_size, limit)) is not None:
            into.append(package)
            taken += 1
        return taken

    def take_till(self, needle: bytes, limit: int, *, line: bool = False) -> bytes | None:
        at = self._data.find(needle)
        size = at if line else at + len(needle)
        if at >= 0 and size <= limit:
            return self._consume(at + len(needle))[:size]
        # A line as long as the limit may still end with the next byte; a delimiter needs room of its own.
        if len(self._data) > limit or (not line and len(self._data) == limit):
            raise TooLong
        return None
