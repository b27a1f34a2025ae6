"""Say what this machine lacks to build gtcp, before anything fails halfway.

Runs on whatever `python3` is, so it is written for old ones too.
"""

import os
import shutil
import sys
import sysconfig


def missing():
    if sys.version_info < (3, 10):
        version = "%d.%d" % sys.version_info[:2]
        yield "Python 3.10 or later, but %s is %s; choose one: make PYTHON=python3.12 ..." % (sys.executable, version)
        return
    try:
        import ensurepip
        import venv

        assert ensurepip, venv
    except ImportError:
        yield "the modules venv and ensurepip of %s (Debian, Ubuntu: apt install python3-venv)" % sys.executable
    header = os.path.join(sysconfig.get_path("include"), "Python.h")
    if not os.path.exists(header):
        yield "%s, which the core is compiled with (Debian, Ubuntu: apt install python3-dev)" % header
    compiler = os.environ.get("CC", "cc").split()[0]
    if not any(map(shutil.which, (compiler, "gcc", "clang"))):
        yield "a C compiler (Debian, Ubuntu: apt install gcc libc6-dev)"


def main():
    if sys.platform == "win32":
        sys.exit("gtcp does not support Windows; Linux, macOS and WSL work.")
    found = list(missing())
    for each in found:
        sys.stderr.write("gtcp needs %s\n" % each)
    sys.exit(1 if found else 0)


main()
