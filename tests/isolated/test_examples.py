"""The examples print what they promise."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.peers import free_port, listen
from support.programs import require
from support.timing import LONG, SHORT

EXAMPLES = Path(__file__).parents[2] / "examples"
ANSWER = re.compile(r"> \d{4}-\d\d-\d\d \d\d:\d\d:\d\d 127\.0\.0\.1:(\d+) (127\.0\.0\.1:\d+)")


def run(example: str, address: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-X", "faulthandler", EXAMPLES / example, address, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=3 * LONG, check=False)


def lines(example: str, address: str) -> list[str]:
    done = run(example, address, f"--interval={SHORT / 2}")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def client_port(line: str, address: str) -> str:
    answer = ANSWER.fullmatch(line)
    assert answer, line
    assert answer[2] == address
    return answer[1]


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_port()}"


def test_pool_basic_keeps_one_connection(address: str) -> None:
    ports = [client_port(line, address) for line in lines("pool_basic.py", address)]
    assert len(ports) == 5
    assert len(set(ports)) == 1


def test_pool_disconnect_as_documented_then_by_default(address: str) -> None:
    printed = lines("pool_disconnect.py", address)
    middle = printed.index("as gtcp does by default:")
    documented, default = printed[:middle], printed[middle + 1 :]
    assert documented[0] == "check=False:"
    assert documented[2::2] == ["EOF", "EOF"]
    first, second = (client_port(line, address) for line in documented[1::2])
    assert first != second
    assert len({client_port(line, address) for line in default}) == len(default) == 4


def test_tls_echo_answers_on_one_connection_and_refuses_strangers(address: str) -> None:
    require("openssl")
    done = run("tls_echo.py", address)
    assert (done.returncode, done.stderr) == (0, "")
    *answers, refused = done.stdout.splitlines()
    assert [line.split()[:3] for line in answers] == [[">", "secret", str(i)] for i in range(3)]
    assert len({line.split()[3] for line in answers}) == 1
    assert {line.split()[4] for line in answers} == {"TLSv1.3"}
    assert refused.startswith("refused: self-signed certificate")


def test_aio_echo_shares_connections(address: str) -> None:
    done = run("aio_echo.py", address)
    assert (done.returncode, done.stderr) == (0, "")
    *replies, summary = done.stdout.splitlines()
    assert replies == [f"> task {i}" for i in range(20)]
    assert re.fullmatch(r"20 tasks, [1-4] connections", summary)


@pytest.mark.parametrize("example", ["pool_basic.py", "pool_disconnect.py", "aio_echo.py"])
def test_a_taken_address_is_an_error_that_names_it(example: str) -> None:
    with listen() as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run(example, address)
    assert done.returncode == 1
    assert done.stdout == ""
    assert address in done.stderr.splitlines()[-1]
