# What a person types. `make help` lists it.

.DEFAULT_GOAL := help
.PHONY: help run demo test quick marathon upgrade-test container-test install-test coverage bench install lock lint \
  release to-test check-system trial-broker read-tests tests

# Any Python from 3.11 on; it makes .venv.
PYTHON ?= python3
BIN := .venv/bin
# What OpenID Connect needs, where it is set up.
SIGN_ON := $(shell (test -n "$$OIDC_ISSUER" || grep -qs '^ *OIDC_ISSUER=.' .env) && echo .venv/.installed-sso)
# What is locked names every package: there is nothing to find out.
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --no-deps

help:
	@echo "make run      install, prepare and serve (Ctrl-C ends it)"
	@echo "make demo     the same with sample data of its own and simulated devices"
	@echo "make test     lint, types and all tests, on SQLite and PostgreSQL"
	@echo "make quick    the tests that start no process, on SQLite"
	@echo "make marathon the long tests at full length, on both databases"
	@echo "make upgrade-test  a large installation of an earlier version, upgraded (FROM=v1.2.3)"
	@echo "make lint     lint and types"
	@echo "make coverage which lines and branches no test runs"
	@echo "make install-test  what docs/install.md says, in a new Debian (as root)"
	@echo "make bench    measure it here, in some fifteen minutes"
	@echo "make container-test the image of deploy/Dockerfile: built, run, killed (as root, on Debian)"
	@echo "make install  only .venv and the run-time dependencies"
	@echo "make lock     write requirements*.txt anew from pyproject.toml (needs uv)"
	@echo "make release VERSION=1.2.3  name what is on main, and tag it"

run: install trial-broker
	@exec $(BIN)/python -m iotsupport.trial.run

demo: install trial-broker
	@exec $(BIN)/python -m iotsupport.trial.run --demo

install: .venv/.installed-run $(SIGN_ON)

# --- Installation: each stamp is newer than what it was made from, so that a second run starts at once ---------------

# The pip that came with Python may take twice as long for all that follows; where there is no newer one, it does.
.venv/.made:
	@PYTHON="$(PYTHON)" sh .ci/make-venv
	@$(PIP) --require-hashes -r requirements-pip.txt || echo "Going on with the pip that came with Python."
	@touch $@

.venv/.installed-run: requirements.txt | .venv/.made
	@echo "Installing the dependencies…"
	@$(PIP) --require-hashes -r requirements.txt
	@touch $@

.venv/.installed-sso: requirements-sso.txt | .venv/.installed-run
	@echo "Installing what OpenID Connect needs…"
	@$(PIP) --require-hashes -r requirements-sso.txt
	@touch $@

# Those of the run are among them: one installation for both. The first test that loads a module compiles it: the most
# part is loaded by none.
.venv/.installed-dev: requirements-dev.txt requirements.txt | .venv/.made
	@echo "Installing the development dependencies…"
	@$(PIP) --no-compile --require-hashes -r requirements-dev.txt
	@touch .venv/.installed-run
	@$(PIP) --require-hashes -r requirements-trial.txt || echo "Its tests are skipped: iotcore is not made for this machine."
	@touch $@

# A broker from the package index, where Mosquitto is not installed and no other broker is set.
trial-broker: .venv/.installed-run
	@if ! PATH="$$PATH:/usr/sbin:/usr/local/sbin" command -v mosquitto >/dev/null \
	  && ! $(BIN)/python -c "import iotcore" 2>/dev/null \
	  && test -z "$$($(BIN)/python -c 'from iotsupport import settings; print(settings.MQTT_URL)')"; then \
	  echo "Mosquitto is not installed: installing iotcore, a broker for trying things out…"; \
	  $(PIP) --require-hashes -r requirements-trial.txt \
	  || echo "That did not work here. Install Mosquitto (package mosquitto) to hear announcements."; \
	fi

# --- Tests -----------------------------------------------------------------------------------------------------------

# A test goes to whichever worker is free; those that share a server stay together: iotsupport/tests/support/selection.py.
SPREAD := --no-loadscope-reorder
ON_BOTH := $(BIN)/python -m iotsupport.tests.support.on_both_databases
# What is compiled once is there for the next process: each reads all tests before it runs some.
quick read-tests tests marathon coverage container-test: export PYTHONDONTWRITEBYTECODE :=

# While programs are still being installed, what needs only packages has begun. Lint's words come when it has ended.
test: .venv/.made
	@$(MAKE) --no-print-directory --keep-going --output-sync=target --jobs 4 lint tests

# A `make` that is tested is no part of this one.
tests: check-system read-tests
	+env -u MAKEFLAGS -u MFLAGS $(ON_BOTH) $(BIN)/pytest -n auto $(SPREAD)

# Reading all tests once compiles them for the processes that run them.
read-tests: .venv/.installed-dev
	@read=$$($(BIN)/pytest --collect-only --quiet 2>&1) || { echo "$$read"; exit 1; }

# Side by side: one waits for the processor, the other for the disk and the network.
to-test: .venv/.made
	@$(MAKE) --no-print-directory --jobs 2 check-system .venv/.installed-dev

quick: .venv/.installed-dev
	$(BIN)/pytest -n 2 $(SPREAD) -m "not processes"

marathon: to-test
	WHOLE_MARATHONS=1 $(ON_BOTH) $(BIN)/pytest -n 2 $(SPREAD) -m marathon

# Of the last release, or what FROM names: a thousand configurations, pulled, migrated, and started again.
upgrade-test: to-test
	$(BIN)/python -m iotsupport.tests.support.upgrade $(if $(FROM),--from "$$FROM") $(if $(ON),--on $(ON))

# Writes docs/coverage.md, also where a test failed.
coverage: to-test
	@set -e; data=$$(mktemp -d); trap 'rm -rf "$$data"' EXIT; export COVERAGE_FILE="$$data/run"; failed=0; \
	$(ON_BOTH) $(BIN)/coverage run -m pytest -n auto $(SPREAD) || failed=$$?; \
	$(BIN)/coverage combine --quiet; \
	$(BIN)/coverage report --show-missing --skip-covered; \
	$(BIN)/coverage json --quiet -o "$$data/report.json"; \
	$(BIN)/python -m iotsupport.tests.support.coverage_report "$$data/report.json"; \
	exit $$failed

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	find . -path ./.venv -prune -o -path '*/templates/*.html' -print | xargs $(BIN)/djade --check --target-version 5.2
	$(BIN)/mypy . .ci/release.py
	$(BIN)/lint-imports --no-logo
	@# In a directory of its own: the tests read neither .env's data nor that of the checkout.
	data=$$(mktemp -d) && trap 'rm -rf "$$data"' EXIT && export DATA_DIR="$$data" \
	  && $(BIN)/python manage.py check --deploy --fail-level WARNING \
	  && $(BIN)/python manage.py makemigrations --check --dry-run

check-system:
	@sh .ci/install-system-packages

# Not among the tests: it makes a whole Debian, and takes the ports of a server.
install-test: install
	@sh .ci/install-system-packages debootstrap systemd-nspawn
	$(BIN)/python -m iotsupport.tests.support.new_debian

# Writes benchmarks/results.md.
bench: install
	@sh .ci/install-system-packages wrk
	$(BIN)/python -m benchmarks

# No registry is asked for the image that it builds on: debootstrap makes one of that name.
container-test: to-test
	@sh .ci/install-system-packages buildah crun debootstrap podman
	CONTAINER_TEST=1 sh .ci/in-own-mounts $(BIN)/pytest -rP iotsupport/tests/container

lock:
	uv pip compile --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
	  pyproject.toml -o requirements.txt
	uv pip compile --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
	  --extra dev -c requirements.txt pyproject.toml -o requirements-dev.txt
	uv pip compile --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
	  --extra sso -c requirements.txt -c requirements-dev.txt pyproject.toml -o requirements-sso.txt
	echo "pip" | uv pip compile --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
	  - -o requirements-pip.txt
	echo "iotcore~=0.4" | uv pip compile --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
	  - -o requirements-trial.txt

# --- A release -------------------------------------------------------------------------------------------------------

# By whatever name make was given it, it reaches no shell but as a value.
release:
	@$(PYTHON) .ci/release.py "$$VERSION"
