# Every target sets itself up in .venv, also without a terminal, with an empty environment and in a path with a space.
# Console scripts in .venv/bin break in such a path (a `#!` line takes no space): always call `$(python) -m …`.

export PATH := $(or $(PATH),/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)

python := .venv/bin/python
candidates := $(if $(PYTHON),"$(PYTHON)",python3.14 python3.13 python3.12 python3.11 python3)
programs := git strace chromium# what tests need and pip cannot bring; Debian's packages have the same names
missing := $(foreach program,$(programs),$(if $(shell command -v $(program)),,$(program)))

# $(call venv,EXTRAS): .venv with this project and these extras, by the first Python that can make one.
# $(call venv,--apart NAME): .venv/apart/NAME, for what cannot live beside them. $(call venv,--npm NAME): .venv/npm/NAME, a server from npm.
define venv
	@for python in $(candidates); do \
	    if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	    then exec "$$python" tools/venv.py $(1); fi; \
	done; \
	echo "ownloop: no Python >= 3.11 with the modules venv and ensurepip among: "$(candidates); \
	echo "    PATH is $$PATH"; \
	echo "    install one (Debian: apt-get install python3 python3-venv) or name yours: make PYTHON=/path/to/python3"; \
	exit 1
endef

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

demo: ## a deployment that stops at its approval, with its inbox; and again with a kill -9 in the middle
	$(call venv,cli server)
	@$(python) examples/demo.py

test: ## every test but the long ones; ARGS="-k name" chooses, JOBS=2 bounds the processes
	$(call venv,test docs cli llm otel local server postgres temporal restate)
	$(call venv,--npm restate)
	$(call venv,--apart instructor frameworks)
	@for program in $(missing); do echo "missing: $$program; the tests that need it are skipped"; done
	@OWNLOOP_TEST_JOBS=$(JOBS) $(python) tools/run_tests.py $(ARGS)

check: ## lint, format, types, budgets, import rules
	$(call venv,test cli llm otel local server postgres temporal restate)
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy
	$(python) tools/check_budgets.py
	$(python) -m pytest -q tests/test_layout.py

soak: ## the long tests
	$(call venv,test cli llm otel local server postgres temporal restate)
	$(call venv,--npm restate)
	@$(python) -m pytest -m soak --timeout=0 $(ARGS)

mutants: ## change the core and the SQLite store in one place at a time: does a test notice? ARGS="--sample 400" tries so many
	$(call venv,test cli llm otel local server postgres temporal restate)
	@$(python) tools/mutants.py $(ARGS)

bench: ## the measurements of bench/README.md
	$(call venv,test cli llm otel local server postgres temporal restate)
	$(call venv,--npm restate)
	@$(python) -m bench

docs: ## the site of docs/ in build/docs, with warnings as errors; reads without a network
	$(call venv,docs cli llm otel server postgres temporal restate)
	$(python) -m sphinx -j2 -W --keep-going -q -d build/doctrees docs build/docs
	@echo "open build/docs/index.html"

missing: ## the programs that tests need and this machine lacks
	@echo $(missing)

clean: ## remove what the other targets made
	rm -rf .venv .venv.lock build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help demo test check soak mutants bench docs missing clean
