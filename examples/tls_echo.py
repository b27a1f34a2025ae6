"""An echo server and its clients over TLS, each sure of the other's certificate.

Makes a certificate for this machine with the program `openssl` unless files are given; a client that trusts other
authorities is shown to be refused.
"""

import argparse
import logging
import subprocess
import tempfile
from pathlib import Path

import gtcp


def echo(conn: gtcp.Conn) -> None:
    """Serve one client until it says goodbye."""
    for package in conn.packages():
        conn.send_pkg(b"> " + package)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    crt, key = folder / "server.crt", folder / "server.key"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run(  # noqa: S603
        [*command.split(), *names, "-out", crt, "-keyout", key], check=True, capture_output=True
    )
    return crt, key


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", nargs="?", default="127.0.0.1:8999", help="where the server listens")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        crt, key = make_certificate(Path(folder))
        server = gtcp.load_key_crt(crt, key, server_side=True)
        client = gtcp.load_key_crt(crt, key, ca_file=crt)

    with gtcp.Server(args.address, echo, tls=server):
        for i in range(3):
            with gtcp.PoolConn(args.address, tls=client) as conn:  # one connection, one handshake
                reply = conn.send_recv_pkg(b"secret %d" % i, timeout=2.0)
                info = conn.tls_info()
                print(reply.decode(), conn.local_addr(), info.version if info else "plain")
        logging.getLogger("gtcp").setLevel(logging.ERROR)  # the server warns of handshakes that fail
        try:
            gtcp.Conn(args.address, tls=True)  # the authorities of this system did not sign the certificate
        except gtcp.CertificateError as error:
            print("refused:", error.verify_message)


if __name__ == "__main__":
    main()
