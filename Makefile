# make demo      build gtcp into its own environment and watch the pool at work
# make test      run the suite
# make test-long random lives of a pool, 2 000 of 100 steps, and the longer runs of the other models; ten minutes
# make lint      everything that needs no running
# make dist      sdist and wheel, and the suite against the installed wheel
# make faults    the suite, and the table of faults with the outcome of each row
# make chaos     25 000 random faults; ARGS="--seconds 60", ARGS="--seed 1 --only 7"
# make fuzz      a million inputs each for the parser and the arguments, by libFuzzer (clang is installed if need be); ARGS="1000000 7": seed 7
# make asan, tsan, valgrind    the suite, a stress of threads and a smoke test, on a core that is watched
# make asan-greenlets    what asan leaves out: what runs greenlets, on a core whose stack is not watched
# make flakes    the suite 20 times in any order, four at a time: each is the others' busy neighbour; TIMES=5 for fewer
# make soak      leaks: a million packages, leases and requests by id, 200 000 dials, 20 minutes of chaos; ARGS=--short for one minute
# make bench     gtcp beside its peers: every number, about 20 minutes; make bench-quick for two or three
# make coverage  which lines of Python and Cython the suite comes to: 95 % at least, and all of the parser
# make clean     back to a fresh checkout
#
# PYTHON=python3.12 chooses the interpreter, GTCP_BUILD=debug how the core is compiled (setup.py),
# ARGS="-k pool" goes to pytest.

PYTHON ?= python3
export GTCP_BUILD ?= release
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# Each interpreter has an environment of its own.
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(subst /,-,$(patsubst /%,%,$(PYTHON))))
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet

# The extension lies beside its sources, so only one flavour is in place at a time.
BUILT := $(VENV)/.built-$(GTCP_BUILD)
CORE := $(wildcard gtcp/*.pyx gtcp/_corelib/*.[ph]*)

.DELETE_ON_ERROR:
.PHONY: demo test test-long lint dist faults chaos fuzz asan asan-greenlets tsan valgrind soak flakes bench bench-quick coverage build clean

demo: build
	@echo "== examples/pool_basic.py: one connection serves every request =="
	@$(PY) examples/pool_basic.py
	@echo "== examples/pool_disconnect.py: a server that hangs up after each reply =="
	@$(PY) examples/pool_disconnect.py

test: build $(VENV)/.group-test
	$(PY) -m pytest $(ARGS)

# Side by side, as each of them mostly waits: 500 lives of a pool, four times with threads and once on each loop, which
# keep the same books.
test-long: build $(VENV)/.group-test
	$(MAKE) --no-print-directory -j7 $(addprefix long-,a_pool_and.1 a_pool_and.2 a_pool_and.3 a_pool_and.4 asyncio uvloop parser)

long-%:
	HYPOTHESIS_PROFILE=long $(PY) -m pytest --timeout=3600 -o faulthandler_timeout=0 -k $(basename $*) \
		tests/net/test_pool_model.py tests/core/test_parser_model.py $(ARGS)

lint: build $(VENV)/.group-test $(VENV)/.group-lint
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	PATH="$(VENV)/bin:$$PATH" cython-lint gtcp
	$(VENV)/bin/codespell
	$(PY) -m mypy
	$(PY) -m mypy.stubtest gtcp --mypy-config-file pyproject.toml
	@echo "Compiling with every warning as an error"
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && \
		GTCP_WERROR=1 $(PY) setup.py --quiet build --build-base "$$scratch"

dist: $(VENV)/.group-dist
	rm -rf dist
	$(PY) -m build --quiet
	$(PY) .ci/check_dist.py dist
	.ci/test_wheel $(PYTHON) dist/*.whl $(ARGS)

faults: build $(VENV)/.group-test
	$(PY) -m pytest --faults $(ARGS)

chaos: build $(VENV)/.group-test
	$(PY) tests/chaos/run.py $(ARGS)

fuzz:
	.ci/fuzz $(PYTHON) $(ARGS)

# The whole suite, but for what asks about memory: the sanitizer has its own way with it. And but for a child that is
# forked while a thread begins, and begins one itself: GCC's libasan does not take its allocator's lock at a fork, so
# the child's thread waits for it for ever (AsanThread::ThreadStart, before any code of ours).
# What runs greenlets needs another core (setup.py).
asan:
	.ci/sanitize asan $(PYTHON) pytest -q -p no:cacheprovider --timeout 240 -k "not greenlet and not pkg_handler" \
		--deselect tests/isolated/test_fork.py::test_E19_idle_connections_of_a_child_expire_too \
		--deselect tests/fault/test_memory.py --deselect tests/fault/test_again.py \
		--deselect tests/contract/test_limits.py::test_an_idle_connection_holds_no_large_buffer --deselect tests/fault/test_soak.py \
		--deselect tests/contract/test_limits.py::test_B13_an_endless_line_costs_no_more_than_twice_its_limit \
		--deselect tests/fault/test_servers.py::test_B9_B10_clients_that_announce_huge_packages \
		--deselect tests/fault/test_servers.py::test_F9_clients_that_never_read $(ARGS)

asan-greenlets:
	.ci/sanitize asan-greenlets $(PYTHON) pytest -q -p no:cacheprovider --timeout 240 -k "greenlet or pkg_handler" \
		--deselect tests/fault/test_servers.py::test_F9_clients_that_never_read $(ARGS)

tsan:
	.ci/sanitize tsan $(PYTHON) tests/sanitizers/stress.py $(ARGS)

valgrind:
	.ci/valgrind $(PYTHON)

soak: build $(VENV)/.group-test
	$(PY) tests/soak/run.py $(ARGS)

# In any order, again and again; one after the other would take four hours. A failure does not end the others.
TIMES ?= 20
flakes: build $(VENV)/.group-test
	$(MAKE) --no-print-directory -k --output-sync=target -j$${LANES:-4} $(addprefix flake-,$(shell seq $(TIMES)))

flake-%:
	@seed=$$(( $$(date +%s) * 100 + $* )); echo "== run $*, --shuffle $$seed =="; \
		$(PY) -m pytest -q -p no:cacheprovider --shuffle $$seed $(ARGS)

# What is measured is the release build, whatever else lies in place.
bench bench-quick: $(VENV)/.group-bench
	$(MAKE) build GTCP_BUILD=release
	$(PY) -m benchmarks $(if $(filter bench-quick,$@),--quick) $(ARGS)

# Cython's plugin, which .ci/cython_coverage.py corrects, looks for the C file beside the module and beside the parts
# that it was made of. Left out are tests that trace lines themselves, and those that come to no other line than the
# rest: whole folders that do things again and again, and most faces of the contracts, which share their path.
# Greenlets have a process of their own: a tracer that tells them apart is slow.
PARSER := gtcp/_corelib/framing.pxi,gtcp/_corelib/parser.pxi,gtcp/_corelib/buffer.pxi
MEETS := not uvloop and not (2_gib or B21 or G11 or at_random or byte_by_byte or deaf_address or storm) \
	and not (contract and (TLS or PoolConn or aio) and not (batches and aio.Conn-TLS-asyncio))
# The tracer makes every step slow, and some tests ask how soon something is: what fails under it has to pass without.
AGAIN := $(PY) -m pytest -q --timeout 240 --last-failed --last-failed-no-failures none
coverage: export PYTHONPATH := $(CURDIR)/.ci
coverage: export GTCP_TEST_TOLERANCE = 10
coverage: $(VENV)/.group-coverage
	$(MAKE) build GTCP_BUILD=coverage
	ln -sf ../_core.c gtcp/_corelib/
	$(PY) -m coverage erase
	$(PY) -m coverage run --concurrency=greenlet -m pytest -q --timeout 240 tests/greenlets || $(AGAIN)
	$(PY) -m coverage run -m pytest -q --timeout 240 --ignore tests/greenlets --ignore tests/fault --ignore tests/interop \
		--deselect tests/threads/test_pool_places.py -k "$(MEETS)" $(ARGS) || $(AGAIN)
	$(PY) -m coverage combine --quiet
	$(PY) -m coverage report --include='$(PARSER)' --fail-under=100
	$(PY) -m coverage report

build: $(BUILT)

$(BUILT): setup.py pyproject.toml $(CORE) | $(VENV)/.group-build
	@echo "Compiling gtcp ($(GTCP_BUILD))"
	@rm -f $(VENV)/.built-*
	@$(PIP) --quiet --no-build-isolation --no-deps --editable .
	@touch $@

# The dependency groups of pyproject.toml, each installed when something first needs it.
$(VENV)/.group-%: pyproject.toml | $(VENV)/.created
	@echo "Installing what '$*' needs into $(VENV)"
	@$(PIP) --group $*
	@touch $@

# pip installs dependency groups since 25.1; the one that comes with Python is often older.
$(VENV)/.created: .ci/preflight.py
	@command -v $(PYTHON) >/dev/null || { echo "gtcp needs Python 3.10 or later; $(PYTHON) is not found" >&2; exit 1; }
	@$(PYTHON) .ci/preflight.py
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) --upgrade "pip>=25.1"
	@touch $@

clean:
	rm -rf build dist .venv .venv-* *.egg-info gtcp/*.so gtcp/_core.c gtcp/_corelib/_core.c
	rm -rf .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache .coverage* htmlcov
	find gtcp tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} +
