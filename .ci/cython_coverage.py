"""Coverage of the core: the lines that Cython's plugin reports, but for two things.

Its tracer is Python code, which runs at each line of the core. There the interpreter may turn to another
thread, in the middle of what the core does in one go: tests then meet races that the core does not have.
Here a line costs a call of C.

Its report counts what no trace can reach: heads of functions, and what runs once, when the module is
imported, under the name of the module instead of its part's. Here lines inside of functions count.
"""

import operator
import re
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path

from coverage.plugin import CoveragePlugin, FileReporter, FileTracer

ROOT = Path(__file__).resolve().parents[1]
HEAD = re.compile(r"\s*(?:async def|def|cdef(?! class))\b[^=]*\(")


def lines_of_functions(source: str) -> Iterator[int]:
    head = None
    for number, line in enumerate(source.splitlines(), 1):
        if not line.strip():
            continue
        depth = len(line) - len(line.lstrip())
        if head is not None and depth > head:
            yield number
        else:
            head = depth if HEAD.match(line) else None


class Tracer(FileTracer):
    """All of it in C: signal handlers do not run here either, whose exceptions would switch the plugin off."""

    has_dynamic_source_filename = bool  # False
    line_number_range = operator.attrgetter("f_lineno", "f_lineno")

    def __init__(self, path: str) -> None:
        self.source_filename = partial(str, path)


class Reporter(FileReporter):
    def __init__(self, reporter) -> None:
        super().__init__(reporter.filename)
        self.reporter = reporter

    def lines(self) -> set[int]:
        return self.reporter.lines().intersection(lines_of_functions(self.source()))

    def excluded_lines(self) -> set[int]:
        return self.reporter.excluded_lines()


class Plugin(CoveragePlugin):
    def __init__(self) -> None:
        parts = map(str, ROOT.glob("gtcp/_corelib/*.pxi"))
        self.file_tracer = {path: Tracer(path) for path in parts}.get

    def configure(self, config) -> None:
        self.config = config

    def file_reporter(self, filename: str) -> FileReporter:
        return Reporter(self.cython.file_reporter(filename))

    @cached_property
    def cython(self):
        from Cython.Coverage import Plugin  # refuses to be imported by a second interpreter

        plugin = Plugin()
        plugin.configure(self.config)
        return plugin


def coverage_init(registry, _options) -> None:
    plugin = Plugin()
    registry.add_configurer(plugin)
    registry.add_file_tracer(plugin)
