"""Handshakes that must fail, and those that never end. Row ids are those of the project's table of faults."""

import contextlib
import datetime as dt
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

import gtcp
import gtcp.aio
from conftest import MakePeer
from gtcp import _tls
from net.ends import MakePool, Serve
from support.calls import Call
from support.collector import at_collection
from support.crew import together
from support.faces import everywhere
from support.peers import drips, listen, read, says, silent, socket_pair
from support.timing import LONG, SHORT, eventually, quick, takes
from support.tls import Authority, Ends


def echo(conn: gtcp.Conn) -> None:
    for package in conn.packages():
        conn.send_pkg(package)


def never(conn: gtcp.Conn) -> None:
    raise AssertionError("the handler was called")


def address_of(server: gtcp.Server) -> tuple[str, int]:
    address = server.get_listened_address()
    assert address is not None
    return address.host, address.port


def expired(authority: Authority) -> trustme.LeafCert:
    return authority.issue("127.0.0.1", not_after=dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc))


BAD = {
    "expired": lambda authority: authority.server(expired(authority)),
    "wrong host": lambda authority: authority.server(authority.issue("example.org")),
    "wrong authority": lambda authority: Authority().server(),
}


@pytest.mark.parametrize("what", BAD)
def test_G1_a_certificate_that_proves_nothing_is_refused(serve: Serve, authority: Authority, what: str) -> None:
    server = serve(never, tls=BAD[what](authority))
    with pytest.raises(gtcp.CertificateError) as caught:
        gtcp.Conn(address_of(server), LONG, tls=authority.client())
    assert isinstance(caught.value, ssl.SSLCertVerificationError)
    assert isinstance(caught.value, gtcp.Error)
    assert "certificate verify failed" in str(caught.value)


def test_G1_verification_is_on_by_default(serve: Serve, authority: Authority) -> None:
    server = serve(never)
    for dial in (
        lambda: gtcp.Conn(address_of(server), LONG, tls=True),
        lambda: gtcp.PoolConn(address_of(server), tls=True),
    ):
        with pytest.raises(gtcp.CertificateError):
            dial()


def test_G1_the_name_is_the_one_that_was_asked_for(serve: Serve, authority: Authority) -> None:
    server = serve(echo, tls=authority.server(authority.issue("example.org")))
    with gtcp.Conn(address_of(server), LONG, tls=authority.client(), server_hostname="example.org") as conn:
        assert conn.send_recv_pkg(b"x", timeout=LONG) == b"x"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_G1_old_versions_are_refused(serve: Serve, authority: Authority) -> None:
    old = authority.server()
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1
    with pytest.raises(gtcp.TLSError) as caught:
        gtcp.Conn(address_of(serve(never, tls=old)), LONG, tls=authority.client())
    assert isinstance(caught.value, ssl.SSLError)


def test_G1_a_client_without_a_certificate_where_one_is_required(
    serve: Serve, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(never, tls=authority.server(mutual=True))
    # In TLS 1.3 the client's own handshake is over before the server can say no.
    with (
        caplog.at_level(logging.WARNING, "gtcp"),
        pytest.raises(gtcp.Error) as caught,
        gtcp.Conn(address_of(server), LONG, tls=authority.client()) as conn,
    ):
        conn.recv_pkg(timeout=LONG)
    assert isinstance(caught.value, gtcp.TLSError | gtcp.ResetError)
    server.shutdown(LONG)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_G1_both_sides_can_prove_who_they_are(serve: Serve, authority: Authority) -> None:
    seen: list[Any] = []

    def handler(conn: gtcp.Conn) -> None:
        info = conn.tls_info()
        assert info is not None
        seen.append(info.peer_certificate)
        echo(conn)

    ours = authority.client()
    authority.issue("client.example").configure_cert(ours)
    with gtcp.Conn(address_of(serve(handler, tls=authority.server(mutual=True))), LONG, tls=ours) as conn:
        assert conn.send_recv_pkg(b"x", timeout=LONG) == b"x"
    assert ("DNS", "client.example") in seen[0]["subjectAltName"]


def test_G2_a_plain_client_of_a_tls_server(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    server = serve(never)
    with (
        caplog.at_level(logging.WARNING, "gtcp"),
        socket.create_connection(address_of(server), LONG) as plain,
        quick(10 * SHORT),
    ):
        plain.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        while plain.recv(4096):  # an alert at most
            pass
    server.shutdown(LONG)
    assert len(caplog.records) == 1
    assert "handshake" in caplog.records[0].message


@pytest.mark.parametrize("greeting", [b"220 mail.example ready\r\n", b"\x00\x05hello", b"\x15\x03\x01\x00\x02\x02\x28"])
def test_G2_a_tls_client_of_a_plain_server(peer: MakePeer, authority: Authority, greeting: bytes) -> None:
    with quick(10 * SHORT), pytest.raises(gtcp.TLSError):
        gtcp.Conn(peer(says(greeting)).address, LONG, tls=authority.client())


def test_G2_a_server_that_hangs_up_in_the_handshake(peer: MakePeer, authority: Authority) -> None:
    with pytest.raises(gtcp.Error) as caught:
        gtcp.Conn(peer(lambda sock: None).address, LONG, tls=authority.client())
    assert isinstance(caught.value, gtcp.TLSError | gtcp.EOF | gtcp.ResetError)


def test_G3_a_server_that_never_answers(peer: MakePeer, authority: Authority) -> None:
    address = peer(silent).address
    with takes(2 * SHORT), pytest.raises(gtcp.Timeout):
        gtcp.Conn(address, 2 * SHORT, tls=authority.client())
    with takes(2 * SHORT), pytest.raises(gtcp.PoolTimeout), gtcp.Pool(address, tls=authority.client()) as pool:
        pool.acquire(2 * SHORT)


@everywhere
def test_G3_a_pool_tells_the_trouble_of_the_last_dial_only(
    peer: MakePeer, make_pool: MakePool, authority: Authority
) -> None:
    pool = make_pool(peer(silent).address, tls=authority.client(), connect_timeout=SHORT / 2)
    for _ in range(4):
        with pytest.raises(gtcp.PoolTimeout, match="agreeing on TLS") as caught:
            pool.acquire(LONG)
        assert str(caught.value).count("timed out while") == 1


def test_D1_G3_a_handshake_that_drips_does_not_extend_the_timeout(peer: MakePeer, authority: Authority) -> None:
    record = b"\x16\x03\x03\x40\x00" + b"\x02\x00\x3f\xfc" + bytes(200)
    address = peer(drips(record, SHORT / 20)).address
    with takes(3 * SHORT), pytest.raises(gtcp.Timeout):
        gtcp.Conn(address, 3 * SHORT, tls=authority.client())


def test_G3_fifty_clients_that_never_shake_hands(serve: Serve, authority: Authority) -> None:
    server = serve(echo, handshake_timeout=10 * SHORT)
    silent = [socket.create_connection(address_of(server), LONG) for _ in range(50)]
    try:
        with quick(6 * SHORT), gtcp.Conn(address_of(server), LONG, tls=authority.client()) as conn:
            assert conn.send_recv_pkg(b"x", timeout=LONG) == b"x"
        for sock in silent:
            assert sock.recv(1) == b""
    finally:
        for sock in silent:
            sock.close()


def test_D1_G3_a_client_that_drips_its_handshake_is_cut_off(serve: Serve) -> None:
    server = serve(never, handshake_timeout=3 * SHORT)
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)
    over = threading.Event()

    def drip(sock: socket.socket) -> None:
        for i in range(len(hello)):
            if over.wait(SHORT / 20):
                return
            try:
                sock.send(hello[i : i + 1])
            except OSError:
                return

    with takes(3 * SHORT, 2 * SHORT), socket.create_connection(address_of(server), LONG) as sock:
        dripping = Call(drip, sock)
        assert sock.recv(1) == b""
        over.set()
        dripping.result()


@pytest.mark.parametrize("how", ["close", "reset"])
def test_G4_words_before_the_handshake_reach_no_handler(serve: Serve, how: str) -> None:
    server = serve(never)
    with socket.create_connection(address_of(server), LONG) as plain:
        plain.sendall(b"\x00\x05admin")
        if how == "reset":
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    assert server.shutdown(LONG) == 0


def test_G4_start_tls_refuses_what_was_said_in_the_clear(authority: Authority) -> None:
    def handler(conn: gtcp.Conn) -> None:
        conn.send(b"hello" + b"injected")
        with pytest.raises(gtcp.EOF):
            conn.recv(1, timeout=LONG)

    with gtcp.Server("127.0.0.1:0", handler) as server, gtcp.Conn(address_of(server), LONG) as conn:
        assert conn.recv(5, timeout=LONG) == b"hello"
        with pytest.raises(gtcp.BrokenError):
            conn.start_tls(authority.client(), server_hostname="127.0.0.1")


@pytest.mark.parametrize("number", range(1, 9))
def test_E22_a_receive_that_begins_while_start_tls_does(authority: Authority, number: int) -> None:
    """Where the collector runs other threads can: one of the two calls is refused, and has changed nothing."""
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        session = _tls.client_session((), authority.client(), "one.example")
        receivers: list[Call] = []

        def receive() -> None:
            receivers.append(Call(conn.recv, 5, timeout=LONG))
            eventually(lambda: conn._activity()[0] or not receivers[0].running)

        with at_collection(number, receive):
            try:
                conn._start_tls(*session, time.monotonic() + SHORT)
            except gtcp.ConcurrencyError:
                refused = True
            except gtcp.Timeout:
                refused = False
        if refused:
            assert conn.tls_info() is None
            theirs.sendall(b"plain")
            assert receivers[0].result() == b"plain"
        else:
            assert read(theirs, 3) == b"\x16\x03\x01"
            for receiver in receivers:
                assert isinstance(receiver.error(), gtcp.ConcurrencyError | gtcp.BrokenError)


def test_a_handshake_that_failed_has_agreed_on_nothing(authority: Authority) -> None:
    with socket_pair() as (ours, _), gtcp.Conn.from_socket(ours) as conn:
        with pytest.raises(gtcp.Timeout):
            conn.start_tls(authority.client(), server_hostname="one.example", timeout=0)
        with pytest.raises(gtcp.BrokenError, match="handshake failed"):
            conn.tls_info()
        conn.close()
        with pytest.raises(gtcp.ClosedError):
            conn.tls_info()


def test_nor_has_one_that_is_under_way(authority: Authority) -> None:
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        starting = Call(conn.start_tls, authority.client(), server_hostname="one.example", timeout=LONG)
        assert read(theirs, 3) == b"\x16\x03\x01"
        with pytest.raises(gtcp.ConcurrencyError, match="not over"):
            conn.tls_info()
        conn.close()
        assert isinstance(starting.error(), gtcp.ClosedError)


@pytest.mark.parametrize("name", ["recv", "send", "send_recv", "start_tls", "close"])
def test_H1_start_tls_and_another_thread_at_the_same_moment(authority: Authority, name: str) -> None:
    """One of them comes first; the other is refused or takes its turn, and both end."""
    session_of = authority.client()
    calls: dict[str, Callable[[gtcp.Conn], object]] = {
        "recv": lambda conn: conn.recv(1, timeout=SHORT / 4),
        "send": lambda conn: conn.send(b"x", timeout=SHORT / 4),
        "send_recv": lambda conn: conn.send_recv(b"x", 1, timeout=SHORT / 4),
        "start_tls": lambda conn: conn.start_tls(session_of, server_hostname="one.example", timeout=SHORT / 4),
        "close": lambda conn: conn.close(),
    }
    for _ in range(20):
        with socket_pair() as (ours, _), gtcp.Conn.from_socket(ours) as conn:
            starting, other = together([lambda: calls["start_tls"](conn), lambda: calls[name](conn)])
            errors = (gtcp.Timeout, gtcp.ConcurrencyError, gtcp.ClosedError, gtcp.BrokenError, RuntimeError)
            assert isinstance(starting.error(), errors)
            if name == "send":
                assert other._error is None or isinstance(other._error, errors)
            elif name != "close":
                assert isinstance(other.error(), errors)
            # Who was refused has changed nothing.
            if isinstance(starting.error(), gtcp.ConcurrencyError) and name != "start_tls":
                assert conn.tls_info() is None


def test_start_tls_on_both_sides(authority: Authority) -> None:
    def handler(conn: gtcp.Conn) -> None:
        assert conn.recv_line(timeout=LONG) == b"STARTTLS"
        conn.send(b"go\n")
        conn.start_tls(authority.server(), server_side=True, timeout=LONG)
        echo(conn)

    with gtcp.Server("127.0.0.1:0", handler) as server, gtcp.Conn(address_of(server), LONG) as conn:
        assert conn.tls_info() is None
        conn.send(b"STARTTLS\n")
        assert conn.recv_line(timeout=LONG) == b"go"
        conn.start_tls(authority.client(), timeout=LONG)
        assert conn.send_recv_pkg(b"secret", timeout=LONG) == b"secret"
        info = conn.tls_info()
        assert info is not None
        assert info.version == "TLSv1.3"


def test_start_tls_lets_gathered_sends_leave_first(authority: Authority) -> None:
    """In plain, as they were meant: the handshake does not overtake them."""

    def handler(conn: gtcp.Conn) -> None:
        conn.send(b"go\n")
        conn.start_tls(authority.server(), server_side=True, timeout=LONG)
        echo(conn)

    with (
        gtcp.Server("127.0.0.1:0", handler, gather_sends=True) as server,
        gtcp.Conn(address_of(server), LONG) as conn,
    ):
        assert conn.recv_line(timeout=LONG) == b"go"
        conn.start_tls(authority.client(), timeout=LONG)
        assert conn.send_recv_pkg(b"secret", timeout=LONG) == b"secret"


def test_those_of_a_client_too(authority: Authority) -> None:
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        with conn.gathered():
            conn.send(b"STARTTLS\n")
            with pytest.raises(gtcp.Timeout):
                conn.start_tls(authority.client(), server_hostname="one.example", timeout=SHORT)
        assert read(theirs, 12) == b"STARTTLS\n\x16\x03\x01"


def test_start_tls_verifies_the_name_that_was_dialled(authority: Authority) -> None:
    theirs = authority.server(authority.issue("localhost"))

    def handler(conn: gtcp.Conn) -> None:
        with contextlib.suppress(gtcp.Error):
            conn.start_tls(theirs, server_side=True, timeout=LONG)
            echo(conn)

    with gtcp.Server("127.0.0.1:0", handler) as server:
        port = server.get_listened_port()
        with gtcp.Conn(f"localhost:{port}", LONG) as conn:
            conn.start_tls(authority.client(), timeout=LONG)
            assert conn.send_recv_pkg(b"x", timeout=LONG) == b"x"
        with gtcp.Conn(f"127.0.0.1:{port}", LONG) as conn, pytest.raises(gtcp.CertificateError):
            conn.start_tls(authority.client(), timeout=LONG)


@pytest.mark.parametrize(
    ("name", "error"),
    [(5, TypeError), (b"localhost", TypeError), ("a\0b", ValueError), ("x" * 5000, ValueError), ("a b", ValueError)],
    ids=["int", "bytes", "zero", "long", "space"],
)
@pytest.mark.parametrize("make", [gtcp.Conn, gtcp.PoolConn, gtcp.Pool, gtcp.get_pool, gtcp.aio.Conn])
def test_a_bad_server_hostname_is_told_before_anybody_is_dialled(
    authority: Authority, make: Any, name: Any, error: type[Exception]
) -> None:
    with listen() as listener:
        listener.setblocking(False)
        with pytest.raises(error, match=r"server_hostname|host name"):
            make(listener.getsockname(), tls=authority.client(), server_hostname=name)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_the_name_and_the_protocol_are_negotiated(serve: Serve, authority: Authority) -> None:
    asked: list[str | None] = []
    theirs = authority.server(authority.issue("one.example"))
    theirs.sni_callback = lambda session, name, context: asked.append(name)
    theirs.set_alpn_protocols(["pkg/2", "pkg/1"])
    ours = authority.client()
    ours.set_alpn_protocols(["pkg/1"])
    with gtcp.Conn(address_of(serve(echo, tls=theirs)), LONG, tls=ours, server_hostname="one.example") as conn:
        info = conn.tls_info()
    assert info is not None
    assert (asked, info.alpn_protocol) == (["one.example"], "pkg/1")
    assert info.peer_certificate is not None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_next_dial_resumes_the_session(serve: Serve, authority: Authority, version: ssl.TLSVersion) -> None:
    ours = authority.client()
    ours.maximum_version = version
    server = serve(echo)
    resumed = []
    for _ in range(3):
        with gtcp.Conn(address_of(server), LONG, tls=ours) as conn:
            assert conn.send_recv_pkg(b"x", timeout=LONG) == b"x"
            info = conn.tls_info()
            assert info is not None
            resumed.append(info.resumed)
    assert resumed == [False, True, True]


def test_reload_tls_keeps_what_is_open(authority: Authority, tmp_path: Any) -> None:
    crt, key, _ = authority.files(tmp_path)
    server = gtcp.Server("127.0.0.1:0", echo)
    server.set_tls_key_crt(crt, key)
    with server, gtcp.Conn(address_of(server), LONG, tls=authority.client()) as before:
        old = before.tls_info()
        authority.files(tmp_path)  # renewed
        server.reload_tls()
        with gtcp.Conn(address_of(server), LONG, tls=authority.client()) as after:
            new = after.tls_info()
            assert old is not None
            assert new is not None
            assert old.peer_certificate != new.peer_certificate
            for conn in (before, after):
                assert conn.send_recv_pkg(b"x", timeout=LONG) == b"x"
        key.write_text("nonsense")
        with pytest.raises(gtcp.TLSError):
            server.reload_tls()
        with gtcp.Conn(address_of(server), LONG, tls=authority.client()) as conn:  # as before
            assert conn.send_recv_pkg(b"x", timeout=LONG) == b"x"


def test_H1_close_ends_a_handshake(peer: MakePeer, ends: Ends) -> None:
    with gtcp.Conn(peer(silent).address, LONG) as conn:
        shaking = Call(conn.start_tls, ends.ours, timeout=LONG).sleeping()
        with quick():
            conn.close()
            with pytest.raises(gtcp.ClosedError):
                shaking.result()


@pytest.mark.parametrize(
    ("tls", "error"), [(1, TypeError), ("yes", TypeError), (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ValueError)]
)
def test_wrong_configurations_are_told_before_a_dial(tls: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="tls must be"):
        gtcp.Conn("127.0.0.1:1", tls=tls)
    with pytest.raises(error, match="tls must be"):
        gtcp.Pool("127.0.0.1:1", tls=tls)
    with pytest.raises(ValueError, match="server_hostname is for TLS"):
        gtcp.Conn("127.0.0.1:1", server_hostname="x")


@pytest.mark.parametrize("missing", ["crt", "key", "ca"])
def test_load_key_crt_names_the_file_that_is_missing(authority: Authority, tmp_path: Any, missing: str) -> None:
    files = dict(zip(("crt", "key", "ca"), map(str, authority.files(tmp_path)), strict=True))
    files[missing] = str(tmp_path / "nowhere.pem")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pem"):
        gtcp.load_key_crt(files["crt"], files["key"], ca_file=files["ca"])


def test_load_key_crt_says_that_a_key_is_encrypted(authority: Authority, tmp_path: Any) -> None:
    crt, key, _ = authority.files(tmp_path)
    plain = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    Path(key).write_bytes(plain.private_bytes(*form, encryption))
    with pytest.raises(gtcp.TLSError) as caught:
        gtcp.load_key_crt(crt, key)
    assert str(caught.value).startswith("the key file is encrypted")
