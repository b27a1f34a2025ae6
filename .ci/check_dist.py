"""Check what the sdist and the wheel in a folder hold: sources here, only what runs there."""

import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

SOURCES = {".pyx", ".pxd", ".pxi", ".h"}
PRODUCTS = {".c", ".so", ".pyc"}


def only(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        sys.exit(f"expected one {pattern} in {folder}, found {len(found)}")
    return found[0]


def main() -> None:
    folder = Path(sys.argv[1])
    with tarfile.open(only(folder, "*.tar.gz")) as archive:
        sdist = {PurePosixPath(*PurePosixPath(name).parts[1:]) for name in archive.getnames()}
    with zipfile.ZipFile(only(folder, "*.whl")) as archive:
        wheel = {PurePosixPath(name) for name in archive.namelist()}

    tree = {PurePosixPath(path) for path in Path("gtcp").rglob("*") if path.is_file()}
    sources = {path for path in tree if path.suffix not in PRODUCTS}
    runs = {path for path in sources if path.suffix in {".py", ".pyi", ".typed"} or path.name == "py.typed"}
    problems = {
        "the sdist lacks": sources - sdist,
        "the sdist should not hold": {path for path in sdist if path.suffix in PRODUCTS},
        "the wheel lacks": runs - wheel,
        "the wheel should not hold": {path for path in wheel if path.suffix in SOURCES | {".c", ".pyc"}},
    }
    if not any(path.match("gtcp/_core.*.so") for path in wheel):
        problems["the wheel lacks"].add(PurePosixPath("gtcp/_core.so"))
    for problem, paths in problems.items():
        for path in sorted(paths):
            print(f"{problem} {path}", file=sys.stderr)
    sys.exit(any(problems.values()))


main()
