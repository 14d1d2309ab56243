# make demo    build, install into an environment of its own, arm a million timers
# make test    the same for the tests, on a release build and on a debug build
# make help    the rest
#
# PYTHON=python3.13 chooses the interpreter; each one has its own environments under .venv/.

PYTHON ?= python3
DEMO_ARGS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=

MAKEFLAGS += --no-builtin-rules --no-print-directory
.SUFFIXES:
.SECONDARY:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

tag := $(shell $(PYTHON) -c \
	'import sys; print("%s-%d.%d.%d" % ((sys.implementation.name,) + sys.version_info[:3]) \
	+ sys.abiflags)' 2>/dev/null)
venv := .venv/$(tag)
release := $(venv)-release
debug := $(venv)-debug
develop := $(venv)-develop

package := pyproject.toml setup.py README.md LICENSE \
	$(wildcard timerheap/*.py timerheap/*.pyx timerheap/*.pxi timerheap/*.pyi csrc/*.h)

# The installed package is what is tried, never the checkout that happens to be the current directory.
run = PYTHONSAFEPATH=1 $(1)/bin/python

# Runs a command quietly: its log is shown when it fails, and Ctrl-C leaves no tracebacks behind.
quietly = trap 'exit 130' INT; { $(1); } </dev/null >$(@D).log 2>&1 || { cat $(@D).log >&2; exit 1; }

.PHONY: help
help:
	@echo "make demo         build and run the main job          DEMO_ARGS='--timers 100000'"
	@echo "make test         tests on release and debug builds   PYTEST_ARGS='-k ticker'"
	@echo "make test-release, make test-debug                    one of the two"
	@echo "make lint types   ruff, cython-lint, codespell; mypy, stubtest"
	@echo "make dist         sdist and wheel into dist/"
	@echo "make develop      an editable install with every tool: . $(develop)/bin/activate"
	@echo "make stress       the ledger under many threads        STRESS_ARGS='--seconds 60'"
	@echo "make bench        ns per operation and bytes per timer, beside asyncio"
	@echo "make clean        removes builds and environments"
	@echo "PYTHON=$(PYTHON) chooses the interpreter"

.PHONY: demo
demo: $(release)/.with-cli
	@$(call run,$(release)) -m timerheap $(DEMO_ARGS)

.PHONY: test test-release test-debug
test:
	@$(MAKE) test-release
	@$(MAKE) test-debug

test-release test-debug: test-%: $(venv)-%/.with-test $(venv)-%/.with-cli
	@echo "== tests on the $* build, $(tag)"
	@$(call run,$(venv)-$*) -m pytest $(PYTEST_ARGS)

.PHONY: lint
lint: $(release)/.with-lint
	@$(call run,$(release)) -m ruff check .
	@PATH="$(release)/bin:$$PATH" cython-lint timerheap
	@$(release)/bin/codespell

.PHONY: types
types: $(release)/.with-lint $(release)/.with-cli
	@$(call run,$(release)) -m mypy
	@$(call run,$(release)) -m mypy.stubtest --allowlist .ci/stubtest-allow timerheap

.PHONY: dist wheel
dist wheel: $(release)/.with-dist
	@rm -rf dist
	@$(call run,$(release)) -m build --outdir dist .

.PHONY: develop
develop: $(develop)/.editable
	@echo "ready: . $(develop)/bin/activate"

.PHONY: stress
stress: $(release)/.with-test
	@$(call run,$(release)) tests/stress/ledger.py $(STRESS_ARGS)

.PHONY: bench
bench: $(release)/.with-perf
	@$(release)/bin/python perf/footprint.py
	@$(release)/bin/python perf/bench_timers.py $(BENCH_ARGS)

.PHONY: clean
clean:
	rm -rf .venv build dist timerheap.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f timerheap/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Environments. A stamp is written last, so that an interrupted step is done again.

$(venv)-%/.created:
	@.ci/preflight '$(PYTHON)'
	@echo "creating $(@D)"
	@mkdir -p $(@D)
	@$(call quietly,$(PYTHON) -m venv --clear $(@D))
	@touch $@

$(venv)-%/.installed: $(venv)-%/.created $(package)
	@.ci/preflight '$(PYTHON)'
	@echo "building timerheap ($*), about a minute"
	@$(call quietly,TIMERHEAP_DEBUG=$(if $(filter debug,$*),1,0) $(@D)/bin/python -m pip install .)
	@touch $@

# The package itself is in place by now, and stays: only what its extra asks for is added.
define extra
$(venv)-%/.with-$(1): $(venv)-%/.installed
	@echo "installing the tools of timerheap[$(1)]"
	@$$(call quietly,$$(@D)/bin/python -m pip install 'timerheap[$(1)]')
	@touch $$@
endef
$(foreach name,cli test lint dist perf,$(eval $(call extra,$(name))))

$(develop)/.editable: $(develop)/.created $(package)
	@.ci/preflight '$(PYTHON)'
	@echo "building timerheap in place, about a minute"
	@$(call quietly,$(@D)/bin/python -m pip install --editable '.[cli,test,lint,dist]')
	@touch $@
