"""What every server shares: its settings, its names, how it comes to its listening socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from gtcp._address import Address, AddressLike, parse
from gtcp._limits import Limits
from gtcp._listener import Listener, adopt, check_listening_socket, listen

if TYPE_CHECKING:
    import socket
    import ssl
    from os import PathLike

HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])


class Listening(Generic[HandlerT]):
    """The settings of a server."""

    def __init__(
        self,
        address: AddressLike | Address,
        handler: HandlerT | None,
        tls: ssl.SSLContext | None,
        limits: Limits,
        sock: socket.socket | None,
        reuse_port: bool,
    ) -> None:
        if hasattr(self, "_limits"):  # made anew, one that runs could not be stopped any more
            raise RuntimeError("this Server has been made already")
        self.set_address(address)
        if sock is not None:
            check_listening_socket(sock)
            if address:
                raise ValueError(f"a server has an address or a socket, got {address!r} and {sock!r}")
        self._sock = sock
        self._reuse_port = reuse_port
        self._limits = limits
        self._tls: ssl.SSLContext | None = None
        self._tls_files: tuple[str | PathLike[str], str | PathLike[str]] | None = None
        if tls is not None:
            self.set_tls_config(tls)
        self._handler: HandlerT | None = None
        if handler is not None:
            self.set_handler(handler)
        self._listened: Address | None = None

    def _listen(self, address: Address) -> Listener:
        """SocketError or ResolveError when that cannot be."""
        if self._sock is not None:
            return adopt(self._sock, self._limits.backlog)
        return listen(address, self._limits.backlog, reuse_port=self._reuse_port)

    def set_address(self, address: AddressLike | Address) -> None:
        """Where to listen from the next `start` on. ValueError or TypeError for a bad address."""
        self._address = parse(address, listening=True)
        self._address_given = address

    def get_address(self) -> AddressLike | Address:
        """What `set_address` was given."""
        return self._address_given

    def set_handler(self, handler: HandlerT) -> None:
        """The function that is called with each new Conn from now on. TypeError when it is none."""
        if not callable(handler):
            raise TypeError(f"handler must be callable, got {handler!r}")
        self._handler = handler

    def set_tls_config(self, config: ssl.SSLContext) -> None:
        """TLS by this context for the connections accepted from now on. TypeError or ValueError for anything else."""
        from gtcp import _tls

        self._tls, self._tls_files = _tls.server_context(config), None

    def set_tls_key_crt(self, crt_file: str | PathLike[str], key_file: str | PathLike[str]) -> None:
        """TLS with a certificate and its key, PEM files, for the connections accepted from now on.

        OSError when a file cannot be read, TLSError when its content is wrong: the server is as before then.
        """
        from gtcp import _tls

        self._tls = _tls.load_key_crt(crt_file, key_file, server_side=True)
        self._tls_files = crt_file, key_file

    def reload_tls(self) -> None:
        """Reads the files of `set_tls_key_crt` again, for the connections accepted from now on.

        Those that are open go on. RuntimeError when the server has no files to read; errors as there.
        """
        if self._tls_files is None:
            raise RuntimeError("there are no files to read again: set_tls_key_crt was not called")
        self.set_tls_key_crt(*self._tls_files)

    def get_listened_address(self) -> Address | None:
        """The address in use; None while not listening."""
        return self._listened

    def get_listened_port(self) -> int:
        """The port in use; -1 while not listening."""
        address = self.get_listened_address()
        return -1 if address is None else address.port

    def __repr__(self) -> str:
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        return f"<{name} {'not listening' if self._listened is None else self._listened}>"


ServerT = TypeVar("ServerT", bound=Listening[Any])


class Names(dict[str, ServerT]):
    """Servers by name."""

    def register(self, name: str, server: ServerT) -> None:
        if self.setdefault(name, server) is not server:
            raise ValueError(f"there is a server named {name!r} already")

    def unregister(self, server: ServerT) -> None:
        for name in [name for name, known in self.items() if known is server]:
            del self[name]
