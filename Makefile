# `make run` and `make test` set up what they need in .venv and build the page, from nothing but Python;
# see README.md.

PYTHON ?= python3
TORCH := torch==2.13.0
# pip's arguments for installing torch, where the choice below does not suit.
TORCH_SOURCE ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --disable-pip-version-check --quiet
# From the lock: these very files and nothing else. Files that do not have the hashes are refused.
LOCKED := $(PIP) --no-deps --require-hashes
WHEELS := $(LOCKED) --only-binary :all:

# Whether Vite runs on a Node.js, as it exits.
IS_RECENT := const [major, minor] = process.versions.node.split(".").map(Number); \
	process.exit(major > 22 || major == 22 && minor >= 12 || major == 20 && minor >= 19 ? 0 : 1)
# Where the wheel of Node.js is installed, it goes before an older one of PATH.
NPM := cd frontend && PATH="$(abspath $(BIN)):$$PATH" npm
PACKAGES := frontend/node_modules/.package-lock.json
PAGE := frontend/dist/index.html
# With the folders, whose times tell that a file was removed.
PAGE_SOURCES := $(wildcard frontend/*.*) $(shell find frontend/src frontend/public 2>/dev/null)

.PHONY: run test check system-test audit bench chaos compose-test fuzz key-test pictures race-test \
	swap-test wheel wheel-test lint lint-page lock setup clean
.DELETE_ON_ERROR:

run: $(VENV)/run.done $(PAGE)
	$(BIN)/musiclab up

# Two processes, as half of the time tests wait. A module's tests stay together, which share servers;
# in their order, in which those that take long come first.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# All that guards main, in nine to ten minutes.
test: $(VENV)/test.done $(PAGE)
	$(NPM) run --silent test
	$(PYTEST)

# What takes a minute and a half: lint, types, and the quick ones of the tests that start no server.
check: lint $(PAGE)
	$(NPM) run --silent test
	$(PYTEST) tests/unit -m "not servers and not browser and not slow"

# The long forms, in about half an hour; as root, on a machine with apt.
system-test: fuzz race-test key-test wheel-test compose-test swap-test chaos

# Thousands of requests, right and wrong ones, whose answers have to be what the contract says.
fuzz: $(VENV)/test.done
	$(BIN)/python -m tests.system.contract_fuzz

# A thousand jobs deleted as they are being completed.
race-test: $(VENV)/test.done
	$(BIN)/python -m tests.system.deletion_races

# Kills everything at random, in about ten minutes.
chaos: $(VENV)/test.done
	$(BIN)/python -m tests.system.chaos --backend sqlite --kills 20 --seed 1
	$(BIN)/python -m tests.system.chaos --backend postgresql --kills 20 --seed 1

# Jobs for four minutes, in which TorchServe's keys end every minute and change with its restart.
key-test: $(VENV)/test.done
	$(BIN)/python -m tests.system.key_expiry --minutes 4

# The containers of docker-compose.yml, built and run by podman; as root, on a machine with apt.
compose-test: $(VENV)/test.done
	$(BIN)/python -m tests.system.compose

# Swaps checkpoints under load, ten times in each of two ways.
swap-test: $(VENV)/test.done
	$(BIN)/python -m tests.system.swaps

# The wheel, installed into an empty environment and tried by a user without rights; as root.
wheel-test: $(VENV)/test.done wheel
	$(BIN)/python -m tests.system.wheel

# Every state of the page, wide and narrow, light and dark, to be looked at in build/pictures.
pictures: $(VENV)/test.done $(PAGE)
	$(BIN)/python -m tests.system.screenshots --to build/pictures

# How fast it is, in about ten minutes; the machine should have nothing else to do.
bench: $(VENV)/test.done
	$(BIN)/python -m benchmarks

lint: $(VENV)/test.done lint-page
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lint-page: $(PACKAGES)
	$(NPM) run --silent lint

setup: $(VENV)/test.done $(PAGE)

# A wheel in dist/ that needs nothing of this checkout.
wheel: $(VENV)/run.done $(PAGE)
	rm -rf dist
	$(BIN)/hatchling build --target wheel

# Renews requirements/: the newest versions that pyproject.toml allows, for all Pythons and platforms.
# UPGRADE= keeps the locked versions that still fit.
UPGRADE ?= --upgrade
COMPILE = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header $(UPGRADE)
lock: $(VENV)/venv.done
	$(WHEELS) -r requirements/uv.txt
	$(COMPILE) pyproject.toml --extra model --group build --group torch --group dev -o requirements/dev.txt
	$(COMPILE) pyproject.toml --extra model --group build --group torch -c requirements/dev.txt -o requirements/model.txt
	$(COMPILE) pyproject.toml --group build -c requirements/dev.txt -o requirements/orchestrator.txt
	for group in java node uv; do \
		$(COMPILE) --group $$group -c requirements/dev.txt -o requirements/$$group.txt || exit 1; done
	$(COMPILE) --group encodec --no-deps -o requirements/encodec.txt

# Known vulnerabilities in what is locked, for information: it never fails.
audit: $(VENV)/test.done $(PACKAGES)
	-$(BIN)/uv tool run pip-audit --disable-pip --require-hashes -r requirements/dev.txt
	-$(NPM) audit

# With run/ goes the database, so the cache may belong to the next one.
clean:
	rm -rf $(VENV) run cache/.musiclab-database .cache dist frontend/dist frontend/node_modules

$(VENV)/venv.done:
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else \
		"MusicLab needs Python 3.11, 3.12 or 3.13; name one: make run PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/locked.done: $(VENV)/venv.done requirements/model.txt
	$(WHEELS) -r requirements/model.txt
	touch $@

# After what it depends on, so that it brings no other versions of that. Installed once.
$(VENV)/torch.done: | $(VENV)/locked.done
ifneq ($(TORCH_SOURCE),)
	$(PIP) $(TORCH_SOURCE)
else
	@# A build without CUDA where pip can find one and there is no GPU to use; else uv knows PyTorch's
	@# own indexes, and takes the build that suits the machine. Never PyPI's, which brings gigabytes
	@# of CUDA to every machine.
	(! command -v nvidia-smi && $(PIP) $(TORCH)+cpu) 2>/dev/null \
	|| ($(WHEELS) -r requirements/uv.txt \
		&& $(BIN)/uv pip install --python $(BIN)/python --torch-backend=auto $(TORCH)) \
	|| (echo "PyTorch's index cannot be reached. Say where torch comes from, for example" \
		"TORCH_SOURCE='$(TORCH) --find-links FOLDER', or TORCH_SOURCE='$(TORCH)' for pip's default" \
		"index, which downloads gigabytes of CUDA." && exit 1)
endif
	touch $@

# encodec without the torchaudio it asks for, which is never used here and loads on few machines. It
# is published as source only; what builds it is locked, too.
$(VENV)/run.done: $(VENV)/locked.done $(VENV)/torch.done requirements/encodec.txt requirements/java.txt \
		pyproject.toml hatch_build.py
	$(LOCKED) --no-build-isolation -r requirements/encodec.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	$(BIN)/python -m orchestrator.serving.java >/dev/null 2>&1 || $(WHEELS) -r requirements/java.txt
	touch $@

$(VENV)/test.done: $(VENV)/run.done requirements/dev.txt
	$(WHEELS) -r requirements/dev.txt
	command -v chromium >/dev/null || command -v google-chrome >/dev/null || (apt-get update -qq \
		&& apt-get install -y -qq --no-install-recommends chromium >/dev/null) \
		|| echo "The tests in a browser need Chromium on PATH; install it."
	touch $@

# Node.js of PATH, where Vite runs on it; else that of a wheel.
$(VENV)/node.done: requirements/node.txt | $(VENV)/run.done
	@(npm --version && node -e '$(IS_RECENT)') >/dev/null 2>&1 || $(WHEELS) -r requirements/node.txt
	touch $@

$(PACKAGES): frontend/package.json frontend/package-lock.json | $(VENV)/node.done
	$(NPM) ci --no-audit --no-fund --no-update-notifier --loglevel=error >/dev/null

$(PAGE): $(PACKAGES) $(PAGE_SOURCES) | $(VENV)/node.done
	$(NPM) run --silent build >/dev/null
