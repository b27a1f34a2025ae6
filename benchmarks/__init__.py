"""gtcp beside its peers: ``python -m benchmarks --help``. What the numbers mean is in ``benchmarks/README.md``."""
