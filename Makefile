# `make demo` and `make test` set up what they need; see README.md.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test test-long bench check format proto lock clean

.venv/ready: requirements/dev.txt pyproject.toml
	sh .ci/system-packages python
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $@

demo: .venv/ready
	$(BIN)/python deploy/demo/demo.py $(if $(WWW),"$(WWW)")

test: .venv/ready
	sh .ci/system-packages interop
	$(BIN)/python -m pytest -n 4 --dist worksteal -m "not long"

test-long: .venv/ready
	sh .ci/system-packages interop
	$(BIN)/python -m pytest -m long --timeout 3600

bench: .venv/ready
	sh .ci/system-packages interop
	$(BIN)/python tests/bench/bench.py

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python proto/generate.py --check

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: .venv/ready
	$(BIN)/python proto/generate.py

LOCK = uv pip compile --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
SERVER = --extra server --extra hsm --extra aws

# What the client and the daemon take is a part of what was tested, in the same versions.
lock:
	$(LOCK) $(SERVER) --group dev pyproject.toml -o requirements/dev.txt
	$(LOCK) -c requirements/dev.txt pyproject.toml -o requirements/client.txt
	$(LOCK) -c requirements/dev.txt $(SERVER) pyproject.toml -o requirements/server.txt

clean:
	rm -rf .venv build dist
