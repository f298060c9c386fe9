# `make` lists the targets. PYTHON chooses the interpreter: make test PYTHON=python3.12
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PEERS := .venv/.peers
DENSITIES := .venv/.densities
NEWEST := .venv-newest/bin/python
ALONE := cartpole-a2c,pendulum-sac-3000,pendulum-a2c-gaussian,pendulum-a2c-tanh,textbook-a2c
ARGS ?=
define INTERPRETER
@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' \
  || { echo "error: $(PYTHON) is not Python 3.10 to 3.14; choose one, make PYTHON=python3.12 ..." >&2; exit 2; }
endef
unexport PYTHONDONTWRITEBYTECODE # or each of the processes that tests begin compiles all modules anew

.DEFAULT_GOAL := help
.PHONY: help train test test-all test-newest faults verify lint format results bench bench-learning peers planted clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

train: $(READY) ## train A2C on CartPole; ARGS="env=pendulum agent=sac" passes overrides on
	@$(BIN)/python train.py $(ARGS)

test: $(READY) ## the fast tests, five to seven minutes on two cores
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not faults" $(ARGS)

test-all: $(READY) ## every test but the long campaigns
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not faults" $(ARGS)

test-newest: ## the fast tests with the newest of all libraries, in .venv-newest
	$(INTERPRETER)
	@test -x $(NEWEST) || $(PYTHON) -m venv .venv-newest
	@echo "installing the newest of everything into .venv-newest"
	@$(NEWEST) -m pip install -q --disable-pip-version-check -U --upgrade-strategy eager '.[dev,box2d,mujoco]'
	@$(NEWEST) -m pytest -n 2 --dist worksteal -m "not slow and not faults" $(ARGS)

faults: $(READY) ## the figures of docs/reliability.md: hundreds of kills, flips and bad inputs, two hours
	@$(BIN)/python -m pytest -rP -m faults tests/faults $(ARGS)

planted: $(READY) ## plant each listed error and see its test fail, half an hour; ARGS="only=ppo" for a part
	@$(BIN)/python bench/planted.py $(ARGS)

bench-learning: $(PEERS) ## learning beside Stable-Baselines3, hours; ARGS="only=cartpole-ppo" for a part
	@$(BIN)/python bench/bench_learning.py $(ARGS)

verify: $(READY) ## the gallery: every density against draws, integrals and 50 digits, with pictures
	@$(BIN)/python tools/verify.py $(ARGS)

lint: $(READY) ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(READY) ## let ruff format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

results: $(READY) ## the learning results of docs/results.md, about half an hour
	@$(BIN)/python bench/bench_learning.py $(or $(ARGS),only=$(ALONE))

bench: $(PEERS) ## docs/performance.md anew, most of an hour; ARGS="only=sac256" for a part, elsewhere
	@$(BIN)/python bench/bench.py $(or $(ARGS),write=true)

peers: $(DENSITIES) ## docs/peers.md anew: other libraries' log-probabilities against 50 digits, a minute
	@$(BIN)/python bench/peers.py $(or $(ARGS),write=true)

clean: ## remove what was installed and cached, not the runs
	rm -rf .venv .venv-newest build *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(READY): pyproject.toml constraints.txt
	$(INTERPRETER)
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing what constraints.txt pins into .venv, once"
	@$(BIN)/python -m pip install -q --no-compile --disable-pip-version-check -c constraints.txt '.[dev]'
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true # on all cores; pip compiles on one
	@touch $@

$(PEERS): $(READY)
	@echo "installing the peers of the benchmarks and their environments into .venv, once"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt '.[dev,bench,box2d,mujoco]'
	@touch $@

$(DENSITIES): $(READY)
	@echo "installing the libraries whose log-probabilities are measured into .venv, once"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt '.[dev,peers]'
	@touch $@
