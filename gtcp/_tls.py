"""TLS by ssl.SSLContext. Loaded when the first connection needs it: importing gtcp does not import ssl."""

from __future__ import annotations

import math
import ssl
import time
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

from gtcp import _core
from gtcp._errors import EOF, Error


class TLSError(Error, ssl.SSLError):
    """TLS failed: no agreement in the handshake, a damaged record. The connection can only be closed."""


class CertificateError(TLSError, ssl.SSLCertVerificationError):
    """The peer's certificate is not valid for the name, or for anybody."""


class TruncatedError(TLSError, ssl.SSLEOFError):
    """The peer's bytes ended without the goodbye of TLS: somebody may have cut them off.

    `partial` and `expected` are those of `EOF`: what had come of the unit, and its size.
    """

    partial: bytes = b""
    expected: int | None = None


for _class in (TLSError, CertificateError, TruncatedError):
    _class.__module__ = "gtcp"


@dataclass(frozen=True, slots=True)
class TLSInfo:
    """What both sides agreed on. `peer_certificate` is what `SSLObject.getpeercert()` gives, None without one."""

    version: str | None
    cipher: str | None
    alpn_protocol: str | None
    resumed: bool
    peer_certificate: dict[str, Any] | None


TLSInfo.__module__ = "gtcp"


def client_context(tls: object) -> ssl.SSLContext:
    """The context of a client: the given one, or for True one that verifies chain and name, TLS 1.2 or later."""
    if tls is True:
        return _default_context()
    if not isinstance(tls, ssl.SSLContext):
        raise TypeError(f"tls must be an ssl.SSLContext or True, not {type(tls).__name__}")
    if tls.protocol == ssl.PROTOCOL_TLS_SERVER:
        raise ValueError("tls must be a context for clients, not one made for servers")
    return tls


def server_context(tls: object) -> ssl.SSLContext:
    """The context of a server, which only the user can make."""
    if not isinstance(tls, ssl.SSLContext):
        raise TypeError(f"a server's TLS configuration must be an ssl.SSLContext, not {type(tls).__name__}")
    if tls.protocol == ssl.PROTOCOL_TLS_CLIENT:
        raise ValueError("a server's TLS configuration must be a context for servers, not one made for clients")
    return tls


def _make_default_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


_default_context = lru_cache(maxsize=1)(_make_default_context)


def load_key_crt(
    crt_file: str | PathLike[str],
    key_file: str | PathLike[str],
    *,
    ca_file: str | PathLike[str] | None = None,
    server_side: bool = False,
) -> ssl.SSLContext:
    """A context with a certificate and its key, from PEM files at exactly these paths.

    For a client (the default) the peer's chain and name are verified, against `ca_file` or the system's authorities.
    With `server_side`, `ca_file` makes client certificates of these authorities required. OSError when a file cannot be
    read, TLSError when its content is wrong.
    """
    purpose = ssl.Purpose.CLIENT_AUTH if server_side else ssl.Purpose.SERVER_AUTH
    for path in (crt_file, key_file, *([] if ca_file is None else [ca_file])):
        with Path(path).open("rb"):  # OpenSSL does not say which one cannot be read
            pass
    try:
        context = ssl.create_default_context(purpose, cafile=ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(crt_file, key_file, password=_no_password)
    except ssl.SSLError as error:
        raise translate(error) or error from None
    if server_side and ca_file is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_password() -> bytes:
    """Instead of OpenSSL's question on the terminal."""
    raise TLSError(0, "the key file is encrypted; load it into an ssl.SSLContext yourself")


# -- handshakes

# How to resume the last session with each peer: the fewest bytes and cycles that a new connection can cost. A session
# keeps its context alive, so they are few, and stored here: on the context they would be a cycle.
_tickets: dict[tuple[object, ...], Ticket] = {}
_MAX_TICKETS = 32
# Seconds until the session of a peer that did not resume one is read again.
_MIN_PAUSE, _MAX_PAUSE = 0.125, 60.0


Session = tuple[ssl.SSLObject, tuple[Any, Any, Any, Any], ssl.MemoryBIO, ssl.MemoryBIO, Any]
"""What the core needs of a session: itself, its calls, the records on both sides, and `translate`."""


def connect(conn: _core.BlockingConn, context: ssl.SSLContext, host: str, deadline: float | None) -> None:
    """The client's side of the handshake, resuming the last session with this peer if there is one."""
    peer = peer_of(conn, context, host)
    remember(peer, conn._start_tls(*client_session(peer, context, host), deadline))


def accept(conn: _core.BlockingConn, context: ssl.SSLContext, deadline: float | None) -> None:
    """The server's side of the handshake."""
    conn._start_tls(*server_session(context), deadline)


def peer_of(conn: _core.BaseConn, context: ssl.SSLContext, host: str) -> tuple[object, ...]:
    """Whose session can be resumed. One that nobody verified serves only those who do not ask for it."""
    return context, context.verify_mode, context.check_hostname, host, conn._names()[1]


def client_session(peer: tuple[object, ...], context: ssl.SSLContext, host: str) -> Session:
    ticket = _tickets.get(peer)
    return _new_session(context, server_hostname=host or None, session=None if ticket is None else ticket.session())


def server_session(context: ssl.SSLContext) -> Session:
    return _new_session(context, server_side=True)


def remember(peer: tuple[object, ...], tls: _core.Tls) -> None:
    """For the next connection to this peer."""
    ticket = _tickets.pop(peer, None) or Ticket()
    ticket.note(tls)
    _tickets[peer] = ticket
    while len(_tickets) > _MAX_TICKETS:
        _tickets.pop(next(iter(_tickets)), None)


def _new_session(context: ssl.SSLContext, **how: Any) -> Session:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        session = context.wrap_bio(incoming, outgoing, **how)
    except ssl.SSLError as error:
        raise translate(error) or error from None
    return session, _calls_of(session), incoming, outgoing, translate


def _calls_of(session: ssl.SSLObject) -> tuple[Any, Any, Any, Any]:
    """What the core calls. The methods of a plain SSLObject only pass on to another object, so that one is called."""
    inner: Any = getattr(session, "_sslobj", None)
    if type(session) is ssl.SSLObject and hasattr(inner, "shutdown"):
        return inner.read, inner.write, inner.do_handshake, inner.shutdown
    return session.read, session.write, session.do_handshake, session.unwrap


class Ticket:
    """What the next connection to a peer resumes.

    OpenSSL's session is read as seldom as can be: in Python 3.10 to 3.12 each reading loses it, 7 KiB
    (https://github.com/python/cpython/issues/116810).
    """

    __slots__ = ("_last", "_pause", "_read_at", "_session")

    def __init__(self) -> None:
        self._session: ssl.SSLSession | None = None
        self._last: _core.Tls | None = None
        self._read_at = -math.inf
        self._pause = 0.0

    def note(self, tls: _core.Tls) -> None:
        """A connection to the peer was made: the session that it resumed goes on, or its own takes the place."""
        if self._session is not None and tls.ask(_was_resumed):
            self._pause = 0.0
        else:
            self._session, self._last = None, tls

    def session(self) -> ssl.SSLSession | None:
        """The session for the next connection. Only now, because TLS 1.3 sends tickets after the handshake."""
        now = time.monotonic()
        if self._last is not None and now >= self._read_at + self._pause:
            # A peer that resumes nothing is believed: it is asked ever more seldom.
            self._read_at, self._pause = now, min(_MAX_PAUSE, 2 * self._pause or _MIN_PAUSE)
            self._session, self._last = self._last.ask(_session_of), None
        return self._session


def _session_of(session: ssl.SSLObject) -> ssl.SSLSession | None:
    return session.session


def _was_resumed(session: ssl.SSLObject) -> bool:
    return bool(session.session_reused)


def info(session: ssl.SSLObject) -> TLSInfo:
    """What an established session says of itself."""
    cipher = session.cipher()
    return TLSInfo(
        session.version(),
        None if cipher is None else cipher[0],
        session.selected_alpn_protocol(),
        bool(session.session_reused),
        session.getpeercert(),
    )


def translate(error: BaseException) -> BaseException | None:
    """The exception to raise for one of the ssl module; None for "more records are needed", EOF for the goodbye."""
    if isinstance(error, ssl.SSLWantReadError | ssl.SSLWantWriteError):
        return None
    if isinstance(error, TLSError) or not isinstance(error, ssl.SSLError):
        return error
    if isinstance(error, ssl.SSLZeroReturnError):
        return EOF()
    kind = TLSError
    if isinstance(error, ssl.SSLCertVerificationError):
        kind = CertificateError
    elif isinstance(error, ssl.SSLEOFError):
        kind = TruncatedError
    translated = kind(*error.args)
    for name in ("library", "reason", "verify_code", "verify_message"):
        if hasattr(error, name):
            setattr(translated, name, getattr(error, name))
    return translated
