"""What the original does wrong with TLS: its numbers are in the test names."""

import logging
import socket
import ssl
from pathlib import Path

import pytest

import gtcp
from conftest import MakePeer
from support.peers import closed_address, says
from support.timing import LONG, quick
from support.tls import Authority, Files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Authority().files(tmp_path_factory.mktemp("certificates"))


def echo(conn: gtcp.Conn) -> None:
    for package in conn.packages():
        conn.send_pkg(package)


def test_H37_a_failed_dial_tells_nothing_of_the_configuration(files: Files, peer: MakePeer) -> None:
    context = gtcp.load_key_crt(files.crt, files.key, ca_file=files.ca)
    secrets = [line for path in files[:2] for line in path.read_text().splitlines() if "-----" not in line]
    plain = peer(says(b"220 no TLS here\r\n"))
    with closed_address() as nobody:
        for address in (nobody, plain.address):
            with pytest.raises(gtcp.Error) as caught:
                gtcp.Conn(address, LONG, tls=context)
            said = f"{caught.value!s} {caught.value!r} {caught.value.args}"
            assert not [secret for secret in secrets if secret in said]
            assert str(files.key) not in said
            assert "SSLContext" not in said


def test_H39_paths_are_taken_as_they_are(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name, source in zip(("a.crt", "a.key"), files, strict=False):
        (tmp_path / name).symlink_to(source)
    with pytest.raises(FileNotFoundError):  # nobody looks for them in other folders
        gtcp.load_key_crt("a.crt", "a.key")
    monkeypatch.chdir(tmp_path)
    assert isinstance(gtcp.load_key_crt("a.crt", "a.key"), ssl.SSLContext)


def test_H39_a_client_verifies_and_a_server_can_ask_for_certificates(files: Files) -> None:
    client = gtcp.load_key_crt(files.crt, files.key)
    assert (client.verify_mode, client.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert client.minimum_version == ssl.TLSVersion.TLSv1_2
    server = gtcp.load_key_crt(files.crt, files.key, server_side=True)
    assert server.verify_mode == ssl.CERT_NONE
    mutual = gtcp.load_key_crt(files.crt, files.key, ca_file=files.ca, server_side=True)
    assert mutual.verify_mode == ssl.CERT_REQUIRED


def test_H39_real_exchanges_over_what_load_key_crt_makes(files: Files) -> None:
    theirs = gtcp.load_key_crt(files.crt, files.key, server_side=True)
    with gtcp.Server("127.0.0.1:0", echo, tls=theirs) as server:
        address = server.get_listened_address()
        assert address is not None
        ours = gtcp.load_key_crt(files.crt, files.key, ca_file=files.ca)
        with gtcp.Conn(address, LONG, tls=ours) as conn:
            assert conn.send_recv_pkg(b"secret", timeout=LONG) == b"secret"
        stranger = gtcp.load_key_crt(files.crt, files.key)  # trusts the system's authorities only
        with pytest.raises(gtcp.CertificateError):
            gtcp.Conn(address, LONG, tls=stranger)


def test_H82_a_client_that_never_shakes_hands_costs_a_handler_only_its_limit(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = gtcp.load_key_crt(files.crt, files.key, server_side=True)
    ours = gtcp.load_key_crt(files.crt, files.key, ca_file=files.ca)
    called: list[gtcp.Conn] = []

    def handler(conn: gtcp.Conn) -> None:
        called.append(conn)
        echo(conn)

    with (
        caplog.at_level(logging.WARNING, "gtcp"),
        gtcp.Server("127.0.0.1:0", handler, tls=theirs, handshake_timeout=0.2) as server,
    ):
        address = server.get_listened_address()
        assert address is not None
        with socket.create_connection((address.host, address.port), LONG) as silent:
            with quick(), gtcp.Conn(address, LONG, tls=ours) as honest:  # nobody waits for the silent one
                assert honest.send_recv_pkg(b"x", timeout=LONG) == b"x"
            silent.settimeout(LONG)
            assert silent.recv(1) == b""
    assert len(called) == 1
    assert any("handshake" in record.message for record in caplog.records)
