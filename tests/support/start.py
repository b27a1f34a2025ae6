"""What a child of `support.child` runs: one function of one test module."""

import importlib.util
import json
import signal
import sys
from pathlib import Path


def main(source: str, name: str, arguments: str) -> None:
    """Call `name` of the module in the file `source`."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has it ignored
    spec = importlib.util.spec_from_file_location("program", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["program"] = module
    spec.loader.exec_module(module)
    getattr(module, name)(*json.loads(arguments))


if __name__ == "__main__":
    here = Path(__file__).parent
    # As in the parent: the folder of the tests instead of this file's own, whose modules have common names.
    sys.path[:] = [str(here.parent), *(entry for entry in sys.path if Path(entry) != here)]
    main(*sys.argv[1:])
