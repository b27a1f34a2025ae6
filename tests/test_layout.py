"""Who may import whom, and how large a part may grow: the shape that keeps the package readable.

A module that is not in `MAY_IMPORT` fails the test: its place is to be decided, not found.
"""

import ast
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import gtcp
import gtcp.aio

PACKAGE = Path(__file__).parents[1] / "gtcp"
if not PACKAGE.is_dir():
    pytest.skip("the suite runs against an installed wheel, without the source tree", allow_module_level=True)

BASE = {"_errors", "_options"}
CONN = BASE | {"_core", "_address", "_resolve", "_dial", "_tls"}
LEASE = CONN | {"_conn", "_stats", "_lease", "_pooloptions"}
POOL = LEASE | {"_attempt", "_connector", "_watchlist", "_lending", "_threads", "_reaper"}
SERVER = CONN | {"_conn", "_limits", "_listen", "_listener", "_report", "_serving", "_stats", "_workers"}
MAY_IMPORT = {
    "_stats": set[str](),
    "_errors": {"_stats"},
    "_options": {"_errors"},
    "_core": {"_errors"},
    "_address": BASE | {"_core"},
    "_resolve": BASE | {"_core", "_address"},
    "_dial": BASE | {"_core", "_address", "_resolve"},
    "_tls": BASE | {"_core", "_address"},
    "_greenlets": BASE | {"_core"},
    "_waiting": {"_core"},
    "_handlers": BASE | {"_core"},
    "_conn": CONN,
    "_threads": {"_core"},
    "_reaper": {"_core", "_threads"},
    "_attempt": CONN | {"_conn"},
    "_lease": CONN | {"_conn"},
    "_pooloptions": LEASE,
    "_watchlist": LEASE,
    "_lending": LEASE | {"_watchlist"},
    "_connector": LEASE | {"_attempt"},
    "_pool": POOL,
    "_shared": POOL | {"_pool"},
    "_listener": CONN,
    "_limits": BASE | {"_core"},
    "_listen": CONN | {"_limits", "_listener"},
    "_report": BASE | {"_conn", "_limits", "_stats"},
    "_workers": {"_core", "_conn", "_threads", "_greenlets"},
    "_serving": CONN | {"_conn", "_limits", "_listener", "_report"},
    "_accepting": {"_listener", "_serving"},
    "_acceptor": CONN | {"_accepting", "_listener", "_serving"},
    "_service": SERVER | {"_acceptor"},
    "_server": SERVER | {"_service"},
    "_processes": {"_core", "_dial"},
    "_serve": SERVER | {"_service", "_server", "_processes"},
    "_funcs": POOL | {"_pool", "_server"},
}
# The modules of gtcp.aio, from the lowest to the highest, and what each needs of the package itself.
AIO = {
    "_dial": CONN,
    "_conn": CONN | {"_conn"},
    "_lease": LEASE,
    "_pooloptions": LEASE,
    "_loops": set[str](),
    "_timeout": set[str](),
    "_pool": POOL,
    "_shared": POOL | {"_shared"},
    "_acceptor": {"_accepting", "_listener", "_serving"},
    "_service": CONN | {"_conn", "_listen", "_listener", "_report", "_serving"},
    "_server": CONN | {"_conn", "_limits", "_listen", "_listener", "_report", "_stats"},
    "_funcs": CONN | {"_conn"},
}
# What a user's extras may bring in; everything else is gtcp or the standard library.
OPTIONAL = {"greenlet", "gevent"}

MODULES = sorted(PACKAGE.glob("*.py"))
CONTRIBUTED = sorted((PACKAGE / "contrib").glob("*.py"))
IN_LOOPS = sorted((PACKAGE / "aio").glob("*.py"))
FOR_TESTS = sorted((PACKAGE / "testing").glob("*.py"))
PARTS = sorted((PACKAGE / "_corelib").glob("*.pxi"))
BOUNDARIES = sorted((PACKAGE / "_corelib").glob("*.pxd"))
CORE = PACKAGE / "_core.pyx"


def by_name(path: Path) -> str:
    return path.name


# The Python layer.


def imports(path: Path, *, typing: bool = True) -> set[str]:
    """Every module that a Python file imports anywhere, as an absolute name; optionally not for types alone."""
    tree = ast.parse(path.read_text())
    if not typing:
        tree = WithoutTyping().visit(tree)
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                module = f"gtcp.{module}".rstrip(".")
            # `from gtcp import _core` names a module, `from gtcp._errors import EOF` does not.
            package = module in {"gtcp", "gtcp.aio"}
            found |= {f"{module}.{alias.name}" for alias in node.names} if package else {module}
    return found


class WithoutTyping(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if ast.unparse(node.test).endswith("TYPE_CHECKING") else self.generic_visit(node)


@pytest.mark.parametrize("path", [path for path in MODULES if path.stem != "__init__"], ids=by_name)
def test_a_module_imports_only_what_lies_below(path: Path) -> None:
    assert path.stem in MAY_IMPORT, f"decide in {Path(__file__).name} what {path.name} may import"
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("gtcp.")}
    assert ours <= MAY_IMPORT[path.stem]


@pytest.mark.parametrize("path", [path for path in IN_LOOPS if path.stem != "__init__"], ids=by_name)
def test_a_module_of_aio_imports_only_what_lies_below(path: Path) -> None:
    assert path.stem in AIO, f"decide in {Path(__file__).name} what aio/{path.name} may import"
    ours = {name for name in imports(path) if name.startswith("gtcp.")}
    below = list(AIO)[: list(AIO).index(path.stem)]
    assert ours <= {f"gtcp.{name}" for name in AIO[path.stem]} | {f"gtcp.aio.{name}" for name in below}


@pytest.mark.parametrize("path", FOR_TESTS, ids=by_name)
def test_what_tests_connections_shares_no_code_with_them(path: Path) -> None:
    assert not [name for name in imports(path) if re.match(r"gtcp(?!\.testing)", name)]


@pytest.mark.parametrize("path", MODULES + IN_LOOPS + CONTRIBUTED + FOR_TESTS, ids=by_name)
def test_nothing_is_needed_at_run_time(path: Path) -> None:
    tops = {name.split(".")[0] for name in imports(path, typing=False)}
    assert tops <= {"gtcp"} | OPTIONAL | sys.stdlib_module_names


def test_the_package_only_reexports() -> None:
    docstring, *rest = WithoutTyping().visit(ast.parse((PACKAGE / "__init__.py").read_text())).body
    assert isinstance(docstring, ast.Expr)
    assigned = {target.id for node in rest if isinstance(node, ast.Assign) for target in node.targets}
    assert assigned - {"_TYPE_CHECKING"} == {"_LATER", "__all__", "__version__"}
    functions = {node.name for node in rest if isinstance(node, ast.FunctionDef)}
    assert functions <= {"__getattr__", "__dir__"}, "names that are loaded when first asked for, and nothing else"
    assert {type(node) for node in rest} <= {ast.ImportFrom, ast.Assign, ast.FunctionDef}


@pytest.mark.parametrize("package", [gtcp, gtcp.aio], ids=lambda package: package.__name__)
def test_all_is_sorted_and_complete(package: Any) -> None:
    # As the linter sorts: constants, classes, functions.
    assert list(package.__all__) == sorted(package.__all__, key=lambda name: (not name.isupper(), name.islower(), name))
    assert len(set(package.__all__)) == len(package.__all__)
    for name in package.__all__:
        assert hasattr(package, name), name
    public = {name for name, value in vars(package).items() if not name.startswith("_") and not is_module(value)}
    assert public <= set(package.__all__)


def is_module(value: object) -> bool:
    return isinstance(value, type(sys))


@pytest.mark.parametrize("package", [gtcp, gtcp.aio], ids=lambda package: package.__name__)
def test_a_public_class_says_where_users_find_it(package: Any) -> None:
    for name in package.__all__:
        if isinstance(getattr(package, name), type):
            assert getattr(package, name).__module__ == package.__name__


# The core.


def code(path: Path) -> str:
    """The text of a Cython file without comments and strings."""
    literals = r'"""[\s\S]*?"""' + r"|'''[\s\S]*?'''" + r'|"(?:\\.|[^"\\\n])*"' + r"|'(?:\\.|[^'\\\n])*'"
    return re.sub(rf"{literals}|#[^\n]*", lambda m: "" if m[0].startswith("#") else '""', path.read_text())


def imported(path: Path) -> set[str]:
    """Every module that a Cython file imports or cimports."""
    return set(re.findall(r"^\s*(?:from|import|cimport)\s+([\w.]+)", code(path), re.MULTILINE))


def words(path: Path) -> set[str]:
    return set(re.findall(r"\w+", code(path)))


def part(name: str) -> Path:
    path = PACKAGE / "_corelib" / f"{name}.pxi"
    assert path in PARTS
    return path


def test_the_core_is_a_table_of_contents() -> None:
    text = re.sub(r'\A"""[\s\S]*?"""', "", CORE.read_text())
    text = re.sub(r"#[^\n]*", "", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    allowed = re.compile(r'include "_corelib/\w+\.pxi"|cimport cython')
    assert [line for line in lines if not allowed.fullmatch(line)] == []
    included = re.findall(r"_corelib/(\w+\.pxi)", text)
    assert sorted(included) == [path.name for path in PARTS]


def test_a_part_uses_only_parts_above_it() -> None:
    order = [PACKAGE / "_corelib" / name for name in re.findall(r"_corelib/(\w+\.pxi)", CORE.read_text())]
    defined = {
        path: set(re.findall(r"^cdef class (\w+)", code(path), re.MULTILINE))
        | set(re.findall(r"^(?:cdef|cpdef|def) [^\n=]*?(\w+)\(", code(path), re.MULTILINE))
        for path in order
    }
    for i, path in enumerate(order):
        later = set[str]().union(*(defined[below] for below in order[i + 1 :])) - defined[path]
        assert not called(path) & later, path.name


def called(path: Path) -> set[str]:
    """Names that a part calls or declares something with; `.name(` is a method, not a function."""
    text = code(path)
    return set(re.findall(r"(?<![\w.])(\w+)\(", text)) | set(re.findall(r"\bcdef (\w+) \w+", text))


@pytest.mark.parametrize("path", [CORE, *PARTS, *BOUNDARIES], ids=by_name)
def test_the_core_knows_one_python_module_of_ours(path: Path) -> None:
    ours = {name for name in imported(path) if name.startswith(("gtcp", "."))}
    assert ours <= {"gtcp._errors"} | {f"gtcp._corelib.{boundary.stem}" for boundary in BOUNDARIES}


@pytest.mark.parametrize("name", ["buffer", "framing", "parser"])
def test_the_parser_knows_no_descriptor_and_no_clock(name: str) -> None:
    assert not {"posix", "errno", "time", "socket"} & {last(each) for each in imported(part(name))}
    assert not {"fd", "fileno", "errno", "recv", "send", "poll", "now"} & words(part(name))


def test_the_free_list_does_no_io() -> None:
    assert not {"errno", "socket"} & {last(each) for each in imported(part("freelist"))}
    assert not {"recv", "send", "poll", "connect", "accept", "nogil"} & words(part("freelist"))


def last(dotted: str) -> str:
    return dotted.rsplit(".", 1)[-1]


@pytest.mark.parametrize("path", PARTS, ids=by_name)
def test_a_part_can_be_read_in_one_sitting(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= 450


@pytest.mark.parametrize("path", [CORE, *PARTS, *BOUNDARIES], ids=by_name)
def test_no_banned_dialect(path: Path) -> None:
    text = code(path)
    assert not re.search(r"^\s*(DEF|IF|ELIF)\s", text, re.MULTILINE), "constants are enums, #ifdef lives in .h"
    assert not re.search(r"cimport\s+\*|import\s+\*", text), "no star imports"
    # The C of Cython 3.3.1 gives an element back twice when there is no memory to append it.
    assert not re.search(r"\[[^{}\n]*\sfor\s[\w, ]+\sin\s[^{}\n]*\]", text), "no list comprehensions"


@pytest.mark.parametrize("path", PARTS, ids=by_name)
def test_c_is_declared_in_pxd_files_only(path: Path) -> None:
    externs = re.findall(r"cdef extern[^\n]*", code(path))
    assert externs == []


def test_H15_no_build_says_that_it_can_do_without_the_gil() -> None:
    """The books of a pool and the turns of a connection count on it: first comes the thread sanitizer's word."""
    sources = [PACKAGE.parent / "setup.py", PACKAGE / "_core.pyx", *PACKAGE.glob("_corelib/*.p*")]
    assert len(sources) > 30
    for source in sources:
        assert "freethreading_compatible" not in source.read_text(), source
    assert re.search(r'^skip = \["cp3\?\?t-\*"', (PACKAGE.parent / "pyproject.toml").read_text(), re.MULTILINE)
