"""The extension module of gtcp; everything else about the package stands in pyproject.toml.

GTCP_BUILD=release|debug|coverage|asan|asan-greenlets|tsan|fuzz chooses how the core is compiled. GTCP_WERROR=1 makes
every warning of Cython and of the C compiler fatal: for the project's own checks, never for users,
whose next compiler has warnings that nobody has seen yet.
"""

import os
import sys
from glob import glob

from setuptools import Extension, setup

if sys.platform == "win32":
    sys.exit("gtcp does not support Windows: its core waits with poll(2) on POSIX sockets. Linux, macOS and WSL work.")

HARDEN = ["-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2", "-Wformat", "-Wformat-security"]
SANITIZE = ["-O1", "-g", "-UNDEBUG", "-U_FORTIFY_SOURCE", "-fno-omit-frame-pointer"]

# Flavour: the flags of the compiler, the flags of the linker. They come after the interpreter's own
# flags, so what stands here wins.
FLAVOURS = {
    "release": (
        ["-O3", "-g0", "-fvisibility=hidden", *HARDEN],
        ["-Wl,-z,relro,-z,now"] if sys.platform == "linux" else [],
    ),
    "debug": (["-O0", "-g", "-UNDEBUG", "-U_FORTIFY_SOURCE"], []),
    "coverage": (["-O0", "-g", "-U_FORTIFY_SOURCE", "-DCYTHON_TRACE=1", "-DCYTHON_TRACE_NOGIL=1"], []),
    "asan": (
        [*SANITIZE, "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
        ["-fsanitize=address,undefined"],
    ),
    # The same without marks around what is on the stack: greenlet copies the stack piece by piece, marks and all, and
    # the piece that takes the place would meet those of the piece before.
    "asan-greenlets": (
        [*SANITIZE, "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "--param=asan-stack=0"],
        ["-fsanitize=address,undefined"],
    ),
    # For clang: the instrumentation that libFuzzer steers by, its runtime comes with atheris. CPython and
    # Cython add 0 to null pointers.
    "fuzz": (
        [
            *SANITIZE,
            "-fsanitize=address,undefined,fuzzer-no-link",
            "-fno-sanitize=vptr,pointer-overflow,function",
            "-fno-sanitize-recover=undefined",
        ],
        [],
    ),
    "tsan": ([*SANITIZE, "-fsanitize=thread"], ["-fsanitize=thread"]),
}

flavour = os.environ.get("GTCP_BUILD", "release")
if flavour not in FLAVOURS:
    sys.exit(f"GTCP_BUILD={flavour!r} is none of {', '.join(FLAVOURS)}")
compile_args, link_args = FLAVOURS[flavour]

if os.environ.get("GTCP_WERROR") == "1":
    from Cython.Compiler import Options

    Options.warning_errors = True
    compile_args = [*compile_args, "-Wall", "-Wextra", "-Werror"]

core = Extension(
    "gtcp._core",
    ["gtcp/_core.pyx"],
    include_dirs=["gtcp/_corelib"],
    depends=sorted(glob("gtcp/_corelib/*.[ph]*")),
    extra_compile_args=compile_args,
    extra_link_args=link_args,
)
core.cython_directives = {
    "language_level": "3",
    # Methods that inspect.signature understands; and calls of them are not slower but faster than
    # those of plain method descriptors (CPython 3.11 to 3.13).
    "binding": True,
    # A socket cannot be pickled; the default would make objects that unpickle into broken ones.
    "auto_pickle": False,
    "autotestdict": False,
    "warn.unused": True,
    "linetrace": flavour == "coverage",
}
# gtcp/_corelib is no package, so its parts find each other's boundaries from the top.
core.cython_include_dirs = ["."]
# Cython.Coverage finds the C file only beside the module; otherwise it belongs into build/.
core.cython_c_in_temp = flavour != "coverage"

setup(
    ext_modules=[core],
    options={
        # One folder per flavour: switching back and forth mixes nothing up.
        "build": {"build_base": f"build/{flavour}"},
        # One translation unit: there is nothing to save by trusting time stamps.
        "build_ext": {"force": True},
    },
)
