"""Short words for contenders, so that a case reads like a list of names."""

from __future__ import annotations

from benchmarks.plan import Command, Contender, Role


def cserver(*args: object) -> Command:
    return Command("cserver", _words(args))


def limit(server: Command, *args: object) -> Contender:
    """The blocking C client."""
    return Contender("C", Role.LIMIT, Command("cclient", _words(args)), server)


def go(server: Command, *args: object, name: str = "Go gtcp", role: Role = Role.PEER) -> Contender:
    return Contender(name, role, Command("gopeer", _words(args)), server)


def ours(name: str, server: Command, *args: object, module: str = "client_gtcp", variant: str = "") -> Contender:
    return Contender(name, Role.OURS, python(module, *args, variant=variant), server)


def peer(
    name: str, module: str, server: Command, *args: object, variant: str = "", role: Role = Role.PEER
) -> Contender:
    return Contender(name, role, python(module, *args, variant=variant), server)


def python(module: str, *args: object, variant: str = "") -> Command:
    return Command(module, (*_words(args), *(("--variant", variant) if variant else ())))


def _words(args: tuple[object, ...]) -> tuple[str, ...]:
    return tuple(str(word) for word in args)
