"""Certificates for tests, and a far end of TLS that is in the test's hands."""

from __future__ import annotations

import contextlib
import socket
import ssl
from pathlib import Path
from typing import NamedTuple

import trustme

import gtcp
from support.calls import Call
from support.peers import listen
from support.timing import LONG


class Files(NamedTuple):
    """PEM files: a certificate for 127.0.0.1 with its key, and who issued it."""

    crt: Path
    key: Path
    ca: Path


class Authority:
    """Who issues the certificates of one test run, and the contexts that they make."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    def issue(self, *names: str, **options: object) -> trustme.LeafCert:
        return self._ca.issue_cert(*names, **options)  # type: ignore[arg-type]

    def client(self) -> ssl.SSLContext:
        """For a client that trusts this authority, and nobody else."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._ca.configure_trust(context)
        return context

    def server(self, certificate: trustme.LeafCert | None = None, *, mutual: bool = False) -> ssl.SSLContext:
        """For a server at 127.0.0.1 (or with another certificate); `mutual`: clients need one, too."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (certificate or self.issue("127.0.0.1")).configure_cert(context)
        if mutual:
            self._ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def files(self, folder: Path) -> Files:
        """Those of a server, in this folder."""
        certificate = self.issue("127.0.0.1", "localhost")
        crt, key, ca = folder / "server.crt", folder / "server.key", folder / "ca.crt"
        certificate.private_key_pem.write_to_path(key)
        crt.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        self._ca.cert_pem.write_to_path(ca)
        return Files(crt, key, ca)


class Ends(contextlib.ExitStack):
    """Both ends of TLS connections: ours, and a socket of the ssl module. Closed at the end of the block."""

    def __init__(self, authority: Authority) -> None:
        super().__init__()
        self.ours = authority.client()
        self.theirs = authority.server()

    def connect(self, *, receive_buffer: int | None = None) -> tuple[gtcp.Conn, ssl.SSLSocket]:
        with listen(receive_buffer=receive_buffer) as listener:
            host, port = listener.getsockname()
            dial = Call(gtcp.Conn, (host, port), LONG, tls=self.ours)
            plain, _ = listener.accept()
        plain.settimeout(LONG)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        far = self.enter_context(self.theirs.wrap_socket(plain, server_side=True, suppress_ragged_eofs=False))
        conn: gtcp.Conn = dial.result()
        self.callback(conn.close)
        return conn, far
