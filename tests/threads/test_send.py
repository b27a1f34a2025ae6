"""Several threads send on one connection: they queue up, and what they send never interleaves.

Row ids are those of the project's table of faults.
"""

import random
import socket
import threading

import pytest

import gtcp
from support.crew import Worker, results, together
from support.peers import read, read_frame, socket_pair
from support.timing import LONG, SHORT, takes

HUGE = bytes(16 << 20)
WIDE = gtcp.PkgOption(header_size=4)


@pytest.mark.parametrize(("senders", "packages", "most"), [(16, 100, 500), (8, 20, 60_000), (64, 20, 2000)])
def test_C9_packages_of_many_senders_never_interleave(senders: int, packages: int, most: int) -> None:
    """Through small buffers, which are full at first: packages leave in pieces."""
    sizes = random.Random(1)
    sent = [[bytes([sender, i]) * sizes.randrange(1, most // 2) for i in range(packages)] for sender in range(senders)]
    with socket_pair() as (ours, theirs):
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        with gtcp.Conn.from_socket(ours) as conn:

            def send_all(mine: list[bytes]) -> None:
                for body in mine:
                    conn.send_pkg(body, timeout=LONG)

            crew = [Worker(lambda mine=mine: send_all(mine)) for mine in sent]  # type: ignore[misc]
            crew[-1].asleep()
            came = [read_frame(theirs) for _ in range(senders * packages)]
            results(crew)
    # Each sender's packages are whole and in its order.
    for sender, mine in enumerate(sent):
        assert [body for body in came if body[0] == sender] == mine


def test_C9_a_batch_is_not_interrupted_by_other_senders() -> None:
    batches = [[bytes([sender, i]) * 300 for i in range(200)] for sender in range(4)]
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        reader = Worker(lambda: [read_frame(theirs) for _ in range(800)])
        results(together([lambda batch=batch: conn.send_pkgs(batch, timeout=LONG) for batch in batches]))  # type: ignore[misc]
        came = reader.result()
    assert [came[i][0] for i in range(0, 800, 200)] == [came[i][0] for i in range(199, 800, 200)]
    assert sorted(came) == sorted(body for batch in batches for body in batch)


def test_C9_waiting_for_another_sender_counts_into_the_timeout() -> None:
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        first = Worker(lambda: conn.send(HUGE, timeout=LONG))
        first.asleep()
        with takes(SHORT), pytest.raises(gtcp.Timeout, match="another call") as waited:
            conn.send(b"never begun", timeout=SHORT)
        assert waited.value.sent in {None, 0}
        # Nothing of the second message is in the stream, and the connection is as before.
        assert read(theirs, len(HUGE)) == HUGE
        first.result()
        conn.send(b"next")
        assert read(theirs, 4) == b"next"


def test_C9_senders_come_first_come_first_served() -> None:
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        crew = [Worker(lambda: conn.send(HUGE, timeout=LONG))]
        crew[0].asleep()
        for i in range(10):
            crew.append(Worker(lambda i=i: conn.send(bytes([i]), timeout=LONG)))  # type: ignore[misc]
            crew[-1].asleep()
        read(theirs, len(HUGE))
        assert read(theirs, 10) == bytes(range(10))
        results(crew)


def test_C9_sending_does_not_wait_for_a_receiver() -> None:
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        receiver = Worker(lambda: conn.recv(5, timeout=LONG))
        receiver.asleep()
        conn.send(b"ping", timeout=LONG)
        assert read(theirs, 4) == b"ping"
        theirs.sendall(b"reply")
        assert receiver.result() == b"reply"


def test_C7_a_buffer_cannot_be_resized_while_it_is_sent() -> None:
    data = bytearray(HUGE)
    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        sender = Worker(lambda: conn.send(data, timeout=LONG))
        sender.asleep()
        with pytest.raises(BufferError):
            data.append(0)
        assert read(theirs, len(HUGE)) == HUGE
        sender.result()
        data.append(0)  # nobody holds it any more


def test_C9_a_mixture_of_everything_stays_in_step() -> None:
    """Packages, batches and exchanges from many threads: the peer parses every byte and answers what asks."""
    stop = b"stop"

    def serve(sock: socket.socket) -> int:
        count = 0
        while (body := read_frame(sock)) != stop:
            count += 1
            if body[:1] == b"?":
                sock.sendall(len(body).to_bytes(2, "big") + body)
        return count

    with socket_pair() as (ours, theirs), gtcp.Conn.from_socket(ours) as conn:
        server = Worker(lambda: serve(theirs))
        gate = threading.Barrier(6)

        def send() -> None:
            gate.wait(LONG)
            for i in range(100):
                conn.send_pkg(b"." * i, timeout=LONG)

        def batch() -> None:
            gate.wait(LONG)
            for i in range(10):
                conn.send_pkgs([b"." * i] * 10, timeout=LONG)

        def ask(name: bytes) -> None:
            gate.wait(LONG)
            for i in range(50):
                question = b"?" + name + bytes([i]) * i
                assert conn.send_recv_pkg(question, timeout=LONG) == question

        crew = [Worker(send), Worker(send), Worker(batch), Worker(batch)]
        crew += [Worker(lambda: ask(b"a")), Worker(lambda: ask(b"b"))]
        results(crew)
        conn.send_pkg(stop)
        assert server.result() == 2 * 100 + 2 * 100 + 2 * 50
