# `make run` and `make test` require only Python: they install everything else into .venv and build the
# page. See docs/development.md.

PYTHON ?= python3
TORCH := torch==2.13.0
# pip's arguments for installing torch; overrides the automatic choice below.
TORCH_SOURCE ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --disable-pip-version-check --quiet
# Installs exactly the locked files; files with other hashes are refused.
LOCKED := $(PIP) --no-deps --require-hashes
WHEELS := $(LOCKED) --only-binary :all:

# Exits with 0 if this version of Node.js can run Vite, else with 1.
IS_RECENT := const [major, minor] = process.versions.node.split(".").map(Number); \
	process.exit(major > 22 || major == 22 && minor >= 12 || major == 20 && minor >= 19 ? 0 : 1)
# The Node.js wheel, if installed, takes precedence over an older Node.js on PATH.
NPM := cd frontend && PATH="$(abspath $(BIN)):$$PATH" npm
PACKAGES := frontend/node_modules/.package-lock.json
PAGE := frontend/dist/index.html
# Includes directories, whose modification times change when a file is removed.
PAGE_SOURCES := $(wildcard frontend/*.*) $(shell find frontend/src frontend/public 2>/dev/null)

.PHONY: run test check system-test audit bench chaos compose-test docs fuzz key-test pictures race-test \
	swap-test wheel wheel-test lint lint-page lock setup clean
.DELETE_ON_ERROR:

run: $(VENV)/run.done $(PAGE)
	$(BIN)/musiclab up

# Two processes, because tests spend half of their time waiting. Tests of a module run in the same process
# and share servers. Modules keep their order, in which the slowest come first.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# All tests required for main; nine to ten minutes.
test: $(VENV)/test.done $(PAGE)
	$(NPM) run --silent test
	$(PYTEST)

# Lint, types, and fast unit tests without servers; a minute and a half.
check: lint $(PAGE)
	$(NPM) run --silent test
	$(PYTEST) tests/unit -m "not servers and not browser and not slow"

# Long-running tests; about half an hour. Requires root and apt.
system-test: fuzz race-test key-test wheel-test compose-test swap-test chaos

# Sends thousands of valid and invalid requests, and validates the responses against openapi.yaml.
fuzz: $(VENV)/test.done
	$(BIN)/python -m tests.system.contract_fuzz

# Deletes a thousand jobs while they are being completed.
race-test: $(VENV)/test.done
	$(BIN)/python -m tests.system.deletion_races

# Kills processes at random; about ten minutes.
chaos: $(VENV)/test.done
	$(BIN)/python -m tests.system.chaos --backend sqlite --kills 20 --seed 1
	$(BIN)/python -m tests.system.chaos --backend postgresql --kills 20 --seed 1

# Runs jobs for four minutes while TorchServe's keys expire every minute and TorchServe is restarted.
key-test: $(VENV)/test.done
	$(BIN)/python -m tests.system.key_expiry --minutes 4

# Builds and runs the containers of docker-compose.yml with podman. Requires root and apt.
compose-test: $(VENV)/test.done
	$(BIN)/python -m tests.system.compose

# Deploys checkpoints under load: ten times in each of two ways.
swap-test: $(VENV)/test.done
	$(BIN)/python -m tests.system.swaps

# Installs the wheel into an empty environment and uses it as an unprivileged user. Requires root.
wheel-test: $(VENV)/test.done wheel
	$(BIN)/python -m tests.system.wheel

# Saves screenshots of every state of the page (wide and narrow, light and dark) in build/pictures.
pictures: $(VENV)/test.done $(PAGE)
	$(BIN)/python -m tests.system.screenshots --to build/pictures

# Benchmarks; about ten minutes on an otherwise idle machine.
bench: $(VENV)/test.done
	$(BIN)/python -m benchmarks

lint: $(VENV)/test.done lint-page docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation as a website, in build/docs. A broken link is an error.
docs: $(VENV)/test.done
	$(BIN)/zensical build --strict --clean

lint-page: $(PACKAGES)
	$(NPM) run --silent lint

setup: $(VENV)/test.done $(PAGE)

# Builds a wheel in dist/ that runs without this checkout.
wheel: $(VENV)/run.done $(PAGE)
	rm -rf dist
	$(BIN)/hatchling build --target wheel

# Updates requirements/ to the newest versions that pyproject.toml allows, for all versions of Python and
# all platforms. UPGRADE= keeps locked versions that are still allowed.
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

# Lists known vulnerabilities of locked packages; for information only, never fails.
audit: $(VENV)/test.done $(PACKAGES)
	-$(BIN)/uv tool run pip-audit --disable-pip --require-hashes -r requirements/dev.txt
	-$(NPM) audit

# run/ contains the database, so the marker that ties the cache to it is deleted, too.
clean:
	rm -rf $(VENV) run cache/.musiclab-database .cache dist frontend/dist frontend/node_modules

$(VENV)/venv.done:
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else \
		"MusicLab requires Python 3.11, 3.12 or 3.13; for example: make run PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/locked.done: $(VENV)/venv.done requirements/model.txt
	$(WHEELS) -r requirements/model.txt
	touch $@

# Installed once, after its dependencies, so that it does not change their versions.
$(VENV)/torch.done: | $(VENV)/locked.done
ifneq ($(TORCH_SOURCE),)
	$(PIP) $(TORCH_SOURCE)
else
	@# Without a GPU, installs the build without CUDA if pip finds it. Otherwise uv selects the build for
	@# this machine from PyTorch's own indexes. The build on PyPI is not used, because it installs
	@# gigabytes of CUDA on every machine.
	(! command -v nvidia-smi && $(PIP) $(TORCH)+cpu) 2>/dev/null \
	|| ($(WHEELS) -r requirements/uv.txt \
		&& $(BIN)/uv pip install --python $(BIN)/python --torch-backend=auto $(TORCH)) \
	|| (echo "PyTorch's index is unreachable. Set the source of torch, for example" \
		"TORCH_SOURCE='$(TORCH) --find-links DIRECTORY', or TORCH_SOURCE='$(TORCH)' for pip's default" \
		"index, which downloads gigabytes of CUDA." && exit 1)
endif
	touch $@

# Installs encodec without its dependency torchaudio, which is never used and fails to load on many
# machines. encodec is published only as source; its build dependencies are locked, too.
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
		|| echo "The browser tests require Chromium on PATH; install it."
	touch $@

# Uses Node.js from PATH if it can run Vite, else from a wheel.
$(VENV)/node.done: requirements/node.txt | $(VENV)/run.done
	@(npm --version && node -e '$(IS_RECENT)') >/dev/null 2>&1 || $(WHEELS) -r requirements/node.txt
	touch $@

$(PACKAGES): frontend/package.json frontend/package-lock.json | $(VENV)/node.done
	$(NPM) ci --no-audit --no-fund --no-update-notifier --loglevel=error >/dev/null

$(PAGE): $(PACKAGES) $(PAGE_SOURCES) | $(VENV)/node.done
	$(NPM) run --silent build >/dev/null
