# What a user of the checkout types; tests/lab.mk, included at the end, has the laboratory. A line that begins with ##
# is a line of `make help`. Each interpreter has its own environments under .venv/.

PYTHON ?= python3
DEMO_ARGS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=

MAKEFLAGS += --no-builtin-rules --no-print-directory
.SUFFIXES:
.SECONDARY:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
# With -j two pips would write into one environment, and into one log.
.NOTPARALLEL:

tag := $(shell $(PYTHON) -c \
	'import sys; print("%s-%d.%d.%d" % ((sys.implementation.name,) + sys.version_info[:3]) \
	+ sys.abiflags)' 2>/dev/null)
venv := .venv/$(tag)
release := $(venv)-release
debug := $(venv)-debug
develop := $(venv)-develop

package := pyproject.toml setup.py README.md LICENSE _timerheap_pytest.py \
	$(wildcard timerheap/*.py timerheap/*.py? timerheap/core/* csrc/*)

# The installed package is what is tried, never the checkout that happens to be the current directory.
run = PYTHONSAFEPATH=1 $(1)/bin/python

# Runs a command quietly: its log is shown when it fails, and Ctrl-C leaves no tracebacks behind.
quietly = trap 'exit 130' INT; { $(1); } </dev/null >$(@D).log 2>&1 || { cat $(@D).log >&2; exit 1; }

.PHONY: help
help:
	@sed -n 's/^## \{0,1\}//p' $(MAKEFILE_LIST)

## make demo         build and run the main job          DEMO_ARGS='--timers 100000'
.PHONY: demo
demo: $(release)/.with-cli
	@$(call run,$(release)) -m timerheap $(DEMO_ARGS)

## make test         tests on release and debug builds   PYTEST_ARGS='-k ticker'
## make test-release, make test-debug                    one of the two
.PHONY: test test-release test-debug
test:
	@$(MAKE) test-release
	@$(MAKE) test-debug

# The libraries that replace threads by greenlets need a GIL, and cannot always be had for the newest interpreter.
green := $(if $(filter %t,$(tag)),,green)

test-release test-debug: test-%: $(venv)-%/.with-test $(venv)-%/.with-cli $(if $(green),$(venv)-%/.with-green)
	@echo "== tests on the $* build, $(tag)"
	@$(call run,$(venv)-$*) -m pytest $(PYTEST_ARGS)

## make test-examples                                 the examples, that on Dask among them
.PHONY: test-examples
test-examples: $(release)/.with-test $(release)/.with-examples
	@echo "== examples, $(tag)"
	@$(call run,$(release)) -m pytest tests/test_examples.py $(PYTEST_ARGS)

## make lint types   ruff, cython-lint, codespell, shellcheck, actionlint, zizmor; mypy, pyright, stubtest
.PHONY: lint
lint: $(release)/.with-lint
	@$(call run,$(release)) -m ruff check .
	@PATH="$(release)/bin:$$PATH" cython-lint timerheap tests/native
	@$(release)/bin/codespell
	@PATH="$(abspath $(release)/bin):$$PATH" .ci/lint-scripts

.PHONY: types
types: $(release)/.with-lint $(release)/.with-cli
	@$(call run,$(release)) -m mypy
	@$(call run,$(release)) -m mypy tests/typed_usage.py
	@$(release)/bin/basedpyright --pythonpath $(release)/bin/python
	@$(call run,$(release)) -m mypy examples
	@$(call run,$(release)) -m mypy.stubtest --allowlist .ci/stubtest-allow timerheap

## make docstrings   those of the native module, written into its stub
.PHONY: docstrings
docstrings: $(release)/.installed
	@$(call run,$(release)) tests/docstrings.py

## make dist         sdist and wheel into dist/
.PHONY: dist wheel
dist wheel: $(release)/.with-dist
	@rm -rf dist
	@$(call run,$(release)) -m build --outdir dist .
	@$(call check_distributions,dist)

check_distributions = $(call run,$(release)) -m twine check --strict $(1)/* && $(release)/bin/check-wheel-contents $(1)/*.whl

## make wheels       a manylinux_2_17 wheel for each interpreter, built by ziglang, tried, into wheelhouse/
## make wheels-aarch64                                   the same for 64-bit ARM, cross-built
.PHONY: wheels wheels-aarch64
wheels wheels-aarch64: $(release)/.with-dist $(release)/.with-wheels
	@mkdir -p wheelhouse
	@rm -f wheelhouse/*.tar.gz wheelhouse/*_$(wheels_for).whl
	@$(call run,$(release)) -m build --sdist --outdir wheelhouse . >/dev/null
	@PATH="$(abspath $(release)/bin):$$PATH" .ci/wheels wheelhouse/*.tar.gz wheelhouse $(wheels_for)
	@$(call check_distributions,wheelhouse)
wheels: wheels_for = $(shell uname -m)
wheels-aarch64: wheels_for = aarch64

## make sdist-ends   the sdist with the oldest and the newest build tools of pyproject.toml's ranges, each with each
.PHONY: sdist-ends
sdist-ends: $(release)/.with-dist
	@rm -rf build/sdist
	@$(call run,$(release)) -m build --sdist --outdir build/sdist . >/dev/null
	@.ci/sdist-ends '$(PYTHON)' build/sdist/*.tar.gz

## make develop      an editable install with every tool; then . .venv/*-develop/bin/activate
.PHONY: develop
develop: $(develop)/.editable
	@echo "ready: . $(develop)/bin/activate"

## make bench        timerheap and its peers: a page with plots, about an hour; make bench-quick, under ten minutes
## make bench-asyncio                                    asyncio's timers on several event loops, twenty minutes
## make bench-compare BASE=v0.1.0                        two revisions, pyperf's table
## make bench-huge                                       a hundred million slots of a TimerArray: wants 5 GB
.PHONY: bench bench-quick bench-asyncio bench-compare bench-huge
bench bench-quick: $(release)/.with-perf
	@$(release)/bin/python perf/run.py $(if $(filter bench-quick,$@),--quick) $(BENCH_ARGS)

bench-asyncio: $(release)/.with-perf
	@$(release)/bin/python perf/run.py --only asyncio $(BENCH_ARGS)

bench-compare: $(release)/.with-perf
	@$(if $(BASE),,echo "usage: make bench-compare BASE=<git revision>" >&2; exit 2)
	@$(release)/bin/python perf/compare.py $(BASE) $(BENCH_ARGS)

bench-huge: $(release)/.installed
	@$(release)/bin/python perf/huge.py $(BENCH_ARGS)

## make docs         the documentation, into build/docs; its code is run first
.PHONY: docs
docs: $(release)/.with-docs
	@$(call run,$(release)) docs/blocks.py
	@$(call run,$(release)) -m sphinx -q -n -W --keep-going -b html -d build/docs/.doctrees docs build/docs
	@echo "build/docs/index.html"

## make clean        removes builds and environments
## PYTHON=python3.13 chooses the interpreter
.PHONY: clean
clean:
	rm -rf .venv build dist wheelhouse timerheap.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
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
	@$(call quietly,TIMERHEAP_DEBUG=$(if $(filter debug coverage,$*),1,0) TIMERHEAP_SANITIZE=$(call sanitizer,$*) \
		TIMERHEAP_PORTABLE=$(if $(filter portable,$*),1,0) TIMERHEAP_COVERAGE=$(if $(filter coverage,$*),1,0) \
		$(@D)/bin/python -m pip install .)
	@touch $@

# The package itself is in place by now, and stays: only what its extra asks for is added.
define extra
$(venv)-%/.with-$(1): $(venv)-%/.installed
	@echo "installing the tools of timerheap[$(1)]"
	@$$(call quietly,$$(@D)/bin/python -m pip install 'timerheap[$(1)]')
	@touch $$@
endef
$(foreach name,cli test lint dist docs wheels perf mutants coverage asyncio integration examples,$(eval $(call extra,$(name))))

# Asked for anew each time until it is there: building gevent would take longer than the tests, and often fail.
$(venv)-%/.with-green: $(venv)-%/.installed
	@echo "installing the tools of timerheap[green]"
	@trap 'exit 130' INT; if $(@D)/bin/python -m pip install --only-binary :all: 'timerheap[green]' </dev/null >$(@D).log 2>&1; \
		then touch $@; else echo "gevent and eventlet cannot be had for $(tag), see $(@D).log: their tests are skipped"; fi

$(develop)/.editable: $(develop)/.created $(package)
	@.ci/preflight '$(PYTHON)'
	@echo "building timerheap in place, about a minute"
	@$(call quietly,$(@D)/bin/python -m pip install --editable '.[cli,test,lint,dist]')
	@touch $@

include tests/lab.mk
