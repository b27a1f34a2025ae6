"""Check what the sdist and the wheel in a folder hold: sources here, only what runs there, no key in either.

And how the core in the wheel was compiled: what is asked for in setup.py can be undone by the environment's flags.
"""

import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import NoReturn

PRODUCTS = {".so", ".pyc"}
# Whatever else lies in a folder that MANIFEST.in grafts is somebody's own: a key, a log, a dump.
SDIST = [
    *("*.py", "*.pyi", "*.pyx", "*.pxd", "*.pxi", "*.h", "*.c", "*.go", "*/go.mod", "*/go.sum", "*.md", "*.supp"),
    *("LICENSE", "MANIFEST.in", "Makefile", "pyproject.toml", "PKG-INFO", "setup.cfg", "gtcp/py.typed"),
    *(f".ci/{name}" for name in ("fuzz", "run", "sanitize", "test_wheel", "valgrind")),
    *("tests/fuzz/corpus/*/" + "[0-9a-f]" * 40, "benchmarks/results/.gitignore"),
    *(f"gtcp.egg-info/{name}.txt" for name in ("SOURCES", "dependency_links", "requires", "top_level")),
    "gtcp.egg-info/PKG-INFO",
]
CORE = "gtcp/_core.*.so"
WHEEL = [CORE, *(f"gtcp-*.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD", "top_level.txt"))]
WHEEL += ["gtcp-*.dist-info/licenses/LICENSE"]

KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")
# What readelf says of a core that was compiled as it should be.
HARDENED = {
    "RELRO": re.compile(r"^\s*GNU_RELRO\s", re.MULTILINE),
    "immediate binding": re.compile(r"\((FLAGS\)\s.*\bBIND_NOW|FLAGS_1\)\s.*\bNOW)\b"),
    "a stack protector": re.compile(r"\bUND __stack_chk_fail(@|\s|$)", re.MULTILINE),
    "fortified calls": re.compile(r"\bUND __(?!stack_)\w+_chk(@|\s|$)", re.MULTILINE),
}

Files = dict[PurePosixPath, bytes]


def only(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        sys.exit(f"expected one {pattern} in {folder}, found {len(found)}")
    return found[0]


def of_sdist(path: Path) -> Files:
    with tarfile.open(path) as archive:
        files: Files = {}
        for member in archive:
            if not member.isdir():
                content = archive.extractfile(member) if member.isfile() else None
                files[PurePosixPath(*PurePosixPath(member.name).parts[1:])] = content.read() if content else b""
        return files


def of_wheel(path: Path) -> Files:
    with zipfile.ZipFile(path) as archive:
        return {PurePosixPath(name): archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def matches(path: PurePosixPath, patterns: list[str]) -> bool:
    """Whether one of the patterns, whose asterisk stands for folders too, is the path's."""
    return any(fnmatchcase(str(path), pattern) for pattern in patterns)


def softness(core: bytes) -> list[str]:
    """What the core was compiled without."""
    if sys.platform != "linux":
        return []  # the linker of macOS has no such options
    if not core.startswith(b"\x7fELF"):
        return ["anything: it is no ELF file"]
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(core)
        file.flush()
        command = ["readelf", "--wide", "--program-headers", "--dynamic", "--dyn-syms", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [name for name, pattern in HARDENED.items() if not pattern.search(said)]


def main() -> NoReturn:
    folder = Path(sys.argv[1])
    sdist = of_sdist(only(folder, "*.tar.gz"))
    wheel = of_wheel(only(folder, "*.whl"))

    # A coverage build leaves its C file beside the sources.
    made = {path for path in sdist if path.suffix in PRODUCTS or fnmatchcase(str(path), "gtcp/*.c")}
    tree = {PurePosixPath(path) for path in Path("gtcp").rglob("*") if path.is_file() and path.suffix != ".c"}
    sources = {path for path in tree if path.suffix not in PRODUCTS}
    runs = {path for path in sources if path.suffix in {".py", ".pyi"} or path.name == "py.typed"}
    tested = {PurePosixPath(path) for path in Path("tests").rglob("*.[ch]")}
    cores = [path for path in wheel if matches(path, [CORE])]
    problems = {
        "the sdist lacks": (sources | tested) - sdist.keys(),
        "the sdist should not hold": {path for path in sdist if not matches(path, SDIST)} | made,
        "the wheel lacks": runs - wheel.keys(),
        "the wheel should not hold": {path for path in wheel.keys() - runs if not matches(path, WHEEL)},
        "a private key is in": {path for files in (sdist, wheel) for path in files if KEY.search(files[path])},
    }
    said = [f"{problem} {path}" for problem, paths in problems.items() for path in sorted(paths)]
    if len(cores) != 1:
        said.append(f"the wheel holds {len(cores)} cores instead of one")
    said += [f"{path} was compiled without {what}" for path in cores for what in softness(wheel[path])]
    print(*said, sep="\n", end="\n" if said else "", file=sys.stderr)
    sys.exit(bool(said))


main()
