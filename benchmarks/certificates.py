"""A certificate authority and a server certificate for the TLS group, made once and kept in the cache directory."""

from __future__ import annotations

from functools import cache

from benchmarks.build import Unavailable, cache_dir

NAME = "localhost"
AUTHORITY = str(cache_dir() / "authority.pem")
SERVER = str(cache_dir() / "server.pem")  # chain and key


@cache
def make_certificates() -> None:
    """Fresh ones for each run: they do not live long."""
    try:
        import trustme
    except ImportError:
        raise Unavailable("trustme is not installed") from None
    authority = trustme.CA()
    authority.cert_pem.write_to_path(AUTHORITY)
    authority.issue_cert(NAME).private_key_and_cert_chain_pem.write_to_path(SERVER)
