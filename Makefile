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

# The same with a sanitizer's runtime loaded first, that of the compiler which builds the extension.
sanitized = LD_PRELOAD=$$($(sanitizing_cc) -print-file-name=lib$(1).so) $(call run,$(venv)-$(1))
sanitizing_cc = $(if $(filter default,$(origin CC)),gcc,$(CC))
# What setup.py calls the sanitizer of an environment's name.
sanitizer = $(if $(filter asan,$(1)),address)$(if $(filter ubsan,$(1)),undefined)$(if $(filter tsan,$(1)),thread)

# Runs a command quietly: its log is shown when it fails, and Ctrl-C leaves no tracebacks behind.
quietly = trap 'exit 130' INT; { $(1); } </dev/null >$(@D).log 2>&1 || { cat $(@D).log >&2; exit 1; }

.PHONY: help
help:
	@echo "make demo         build and run the main job          DEMO_ARGS='--timers 100000'"
	@echo "make test         tests on release and debug builds   PYTEST_ARGS='-k ticker'"
	@echo "make test-release, make test-debug                    one of the two"
	@echo "make test-pages   the tests on the release build, with pages of 16 and of 64 KiB"
	@echo "make lint types   ruff, cython-lint, codespell; mypy, stubtest"
	@echo "make dist         sdist and wheel into dist/"
	@echo "make develop      an editable install with every tool: . $(develop)/bin/activate"
	@echo "make stress       the ledger under many threads       SECONDS=60 THREADS=8 SEED=1"
	@echo "make test-native  the C core against a model: gcc, sanitizers, a fixed share of random histories"
	@echo "make fuzz         the same under libFuzzer             SECONDS=60, CLANG=clang-14"
	@echo "make valgrind     the C core under memcheck and DRD"
	@echo "make model        the wake protocol in Promela, every interleaving: spin, gcc"
	@echo "make mutants      seeded bugs, each of which the suite must catch"
	@echo "make leaks        references and memory, on a debug interpreter"
	@echo "make lateness     the worst that busy neighbours do to a timer"
	@echo "make python-ft    a free-threaded CPython 3.13, built once and kept in the cache"
	@echo "make test-ft      tests on release and debug builds and the ledger, without a GIL   SECONDS=60"
	@echo "make tsan-ft      the ledger without a GIL, interpreter and core under ThreadSanitizer   OPERATIONS=1000000"
	@echo "make asan, make ubsan, make tsan                      the tests and the ledger with a GIL, the core under"
	@echo "                  that sanitizer (gcc)                PYTEST_ARGS='-k fork' OPERATIONS=1000000 SEED=1"
	@echo "make reliability  all of these and the long tests, with one summary: hours"
	@echo "make bench        timerheap and its peers: a page with plots, about 40 minutes; make bench-quick, under five"
	@echo "make bench-compare BASE=v0.1.0                        two revisions, pyperf's table"
	@echo "make clean        removes builds and environments"
	@echo "PYTHON=$(PYTHON) chooses the interpreter"

.PHONY: demo
demo: $(release)/.with-cli
	@$(call run,$(release)) -m timerheap $(DEMO_ARGS)

.PHONY: test test-release test-debug
test:
	@$(MAKE) test-release
	@$(MAKE) test-debug

# The libraries that replace threads by greenlets are tried where they can be had.
green := $(if $(filter %t,$(tag)),,green)

test-release test-debug: test-%: $(venv)-%/.with-test $(venv)-%/.with-cli $(if $(green),$(venv)-%/.with-green)
	@echo "== tests on the $* build, $(tag)"
	@$(call run,$(venv)-$*) -m pytest $(PYTEST_ARGS)

# A process that loads the shim has such pages (tests/pages/shim.c), and so have the processes that it starts.
.PHONY: test-pages
test-pages: $(release)/.with-test $(release)/.with-cli build/pages.so
	@for bytes in 16384 65536; do \
		echo "== tests with pages of $$bytes bytes, $(tag)"; \
		LD_PRELOAD=$(abspath build/pages.so) PAGE_BYTES=$$bytes $(call run,$(release)) -m pytest $(PYTEST_ARGS) || exit 1; \
	done

build/pages.so: tests/pages/shim.c tests/pages/paging.h
	@mkdir -p $(@D)
	@$(CC) -O1 -Wall -Wextra -Werror -shared -fPIC $< -o $@ -ldl

.PHONY: lint
lint: $(release)/.with-lint
	@$(call run,$(release)) -m ruff check .
	@PATH="$(release)/bin:$$PATH" cython-lint timerheap tests/native
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
	@$(call run,$(release)) tests/stress/ledger.py --seconds $(or $(SECONDS),20) --threads $(or $(THREADS),8) \
		$(if $(SEED),--seed $(SEED)) $(STRESS_ARGS)

# Without a GIL. PYTHON_FT is a free-threaded interpreter; by default the one that `make python-ft` builds. The tests
# force the GIL off because their tools may not all declare that they do without; that the core itself does is a test.
.PHONY: python-ft test-ft test-ft-here tsan-ft tsan-ft-here
python-ft:
	@.ci/python-ft

test-ft:
	@python=$(or $(PYTHON_FT),$$(.ci/python-ft)) && $(MAKE) test-ft-here PYTHON="$$python"
test-ft-here: export PYTHON_GIL = 0
# Not every tool has a wheel of its newest version for such an interpreter.
test-ft-here: export PIP_PREFER_BINARY = 1
test-ft-here:
	@$(PYTHON) -c 'import sys; sys.exit(sys._is_gil_enabled())' 2>/dev/null || { echo '$(PYTHON) has a GIL' >&2; exit 1; }
	@$(MAKE) test
	@$(MAKE) stress SECONDS=$(or $(SECONDS),60)

# The races that CPython's own file names are the interpreter's, none of ours is left out.
tsan-ft:
	@python=$(or $(PYTHON_TSAN),$$(CLANG='$(CLANG)' .ci/python-ft --tsan)) && $(MAKE) tsan-ft-here PYTHON="$$python"
tsan-ft-here: export PYTHON_GIL = 0
tsan-ft-here: export PIP_PREFER_BINARY = 1
tsan-ft-here: export TSAN_OPTIONS = exitcode=66 suppressions=$(abspath $(dir $(PYTHON))..)/suppressions_free_threading.txt
tsan-ft-here: $(venv)-tsan/.with-test
	@$(call run,$(venv)-tsan) -m pytest -q -s tests/test_free_threaded.py
	@$(call run,$(venv)-tsan) tests/stress/ledger.py --threads $(or $(THREADS),8) $(if $(SEED),--seed $(SEED)) \
		--operations $(or $(OPERATIONS),1000000) $(STRESS_ARGS)

# With a GIL, on an interpreter that is not instrumented: so the runtime comes by LD_PRELOAD and sees what goes through
# the C library. That is enough for the GIL, a pthread mutex and condition variable, and for each allocation once
# PYTHONMALLOC says malloc. LeakSanitizer is off: the interpreter keeps what it made until the process ends, and the
# leaks of the core are the subject of `make leaks`. A process with a report ends with 66, a child of a test too. TSan
# goes on until then, and into the children of a fork, which it would otherwise not let start threads.
.PHONY: asan ubsan tsan
asan tsan: export PYTHONMALLOC = malloc
asan: export ASAN_OPTIONS = detect_leaks=0:exitcode=66
ubsan: export UBSAN_OPTIONS = halt_on_error=1:print_stacktrace=1:exitcode=66
tsan: export TSAN_OPTIONS = die_after_fork=0:exitcode=66
asan ubsan tsan: export TIMERHEAP_SANITIZED = $@
asan ubsan tsan: %: $(venv)-%/.with-test $(venv)-%/.with-cli
	@echo "== tests and ledger under lib$*, $(tag)"
	@$(call sanitized,$*) -m pytest $(PYTEST_ARGS)
	@$(call sanitized,$*) tests/stress/ledger.py --threads $(or $(THREADS),8) $(if $(SEED),--seed $(SEED)) \
		--operations $(or $(OPERATIONS),1000000) $(STRESS_ARGS)

# The native core alone (tests/native/README.md): _heap.pxi as C, without Python. CLANG and its LLVM tools are one
# version's; everything but `make fuzz` needs the C compiler only.
CLANG ?= $(firstword $(notdir $(wildcard /usr/bin/clang-19 /usr/bin/clang-14 /usr/bin/clang)) clang)
llvm = $(patsubst clang%,llvm-$(1)%,$(notdir $(CLANG)))
native := build/native
native_sources := $(native)/seam.c $(native)/constants.h $(wildcard tests/native/*.[ch] tests/pages/*.h csrc/*.h)
native_flags = -std=gnu11 -D_GNU_SOURCE -g -Itests/native -I$(native) -Icsrc \
	-I$(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')
# The module that Cython wraps around the heap is dropped, or at least never run: the heap needs nothing of Python.
native_link := -no-pie -Wl,--gc-sections -Wl,--unresolved-symbols=ignore-in-object-files -lpthread
native_cc = $(CC) $(native_flags) -Wall -Wextra -Werror -Wno-unused-parameter -Wno-missing-field-initializers \
	-Wno-cast-function-type -ffunction-sections -fdata-sections
native_clang = $(CLANG) $(native_flags) -Wno-everything -DNATIVE_NARROW

.PHONY: test-native fuzz valgrind
test-native: $(native)/replay-asan $(native)/replay $(native)/slab-asan $(native)/slab $(native)/threads-tsan
	@$(native)/replay-asan --runs 2000 --seed 1 tests/native/corpus/*
	@$(native)/slab-asan --runs 8 --seed 1
	@$(native)/slab --runs 20 --seed 2
	@$(native)/replay --runs 8 --seed 1
	@$(native)/threads-tsan --operations 100000

fuzz: $(native)/fuzz $(native)/replay-asan $(native)/replay-covered
	@mkdir -p $(native)/found
	@echo "fuzzing for $(or $(SECONDS),60) s; the log is $(native)/fuzz.log"
	@$(native)/fuzz -max_len=600 -timeout=20 -max_total_time=$(or $(SECONDS),60) -print_final_stats=1 -artifact_prefix=$(native)/ \
		$(native)/found tests/native/corpus >$(native)/fuzz.log 2>&1 || { tail -40 $(native)/fuzz.log; exit 1; }
	@grep -E 'executed_units|exec_per_sec' $(native)/fuzz.log
	@echo "what it found, under address and undefined:"
	@find $(native)/found tests/native/corpus -type f | xargs $(native)/replay-asan
	@LLVM_PROFILE_FILE=$(native)/covered.profraw sh -c \
		'find $(native)/found tests/native/corpus -type f | xargs $(native)/replay-covered' >/dev/null
	@$(call llvm,profdata) merge $(native)/covered.profraw -o $(native)/covered.profdata
	@$(call llvm,cov) export $(native)/replay-covered -instr-profile=$(native)/covered.profdata \
		| $(PYTHON) tests/native/coverage.py

# th_signal comes after the unlock by design, so DRD's remark about that says nothing.
valgrind: $(native)/replay-narrow $(native)/replay $(native)/slab $(native)/threads
	valgrind -q --error-exitcode=9 --leak-check=full $(native)/replay-narrow --runs 500 tests/native/corpus/*
	valgrind -q --error-exitcode=9 --leak-check=full $(native)/replay --runs 2
	valgrind -q --error-exitcode=9 $(native)/slab --runs 2 --operations 100000
	valgrind -q --error-exitcode=9 --leak-check=full $(native)/threads --operations 50000
	valgrind -q --error-exitcode=9 --tool=drd --report-signal-unlocked=no $(native)/threads --operations 50000

$(native)/constants.h: timerheap/_core.pyx
	@mkdir -p $(@D)
	@sed -nE 's/^    ([A-Z_]+) = ([0-9][0-9 <]*[0-9]|[0-9]) .*/#define LIBRARY_\1 (\2)/p' $< >$@

$(native)/seam.c: tests/native/seam.pyx timerheap/_heap.pxi $(venv)-native/.with-cython
	@mkdir -p $(@D)
	@$(venv)-native/bin/cython -3 -o $@ $<

$(venv)-native/.with-cython: $(venv)-native/.created pyproject.toml
	@$(call quietly,$(@D)/bin/python -m pip install "$$(sed -n 's/^requires .*"\(cython==[^"]*\)".*/\1/p' pyproject.toml)")
	@touch $@

replay_sources := $(native)/seam.c tests/native/fuzz.c tests/native/replay.c

$(native)/replay: $(native_sources)
	@$(native_cc) -O2 $(replay_sources) $(native_link) -o $@

$(native)/replay-narrow: $(native_sources)
	@$(native_cc) -O2 -DNATIVE_NARROW $(replay_sources) $(native_link) -o $@

$(native)/replay-asan: $(native_sources)
	@$(native_cc) -O1 -DNATIVE_NARROW -fsanitize=address,undefined -fno-sanitize-recover=all $(replay_sources) \
		$(native_link) -o $@

$(native)/slab: $(native_sources)
	@$(native_cc) -O2 tests/native/slab.c -o $@

$(native)/slab-asan: $(native_sources)
	@$(native_cc) -O1 -fsanitize=address,undefined -fno-sanitize-recover=all tests/native/slab.c -o $@

$(native)/threads: $(native_sources)
	@$(native_cc) -O1 -DNATIVE_PLAIN $(native)/seam.c tests/native/threads.c $(native_link) -o $@

$(native)/threads-tsan: $(native_sources)
	@$(native_cc) -O1 -DNATIVE_PLAIN -fsanitize=thread $(native)/seam.c tests/native/threads.c $(native_link) -o $@

# Counters, not the comparisons: the model compares more than the fuzzer can use, at a fifth of the speed.
$(native)/fuzz: $(native_sources)
	@$(native_clang) -O2 -fsanitize-coverage=inline-8bit-counters,pc-table -c $(native)/seam.c -o $(native)/fuzz-seam.o
	@$(native_clang) -O2 -fsanitize-coverage=inline-8bit-counters,pc-table -c tests/native/fuzz.c -o $(native)/fuzz-fuzz.o
	@$(CLANG) -fsanitize=fuzzer $(native)/fuzz-seam.o $(native)/fuzz-fuzz.o $(native_link) -o $@

$(native)/replay-covered: $(native_sources)
	@$(native_clang) -O1 -fprofile-instr-generate -fcoverage-mapping $(replay_sources) $(native_link) -o $@

# MODEL_ARGS='--only fork'. It says which Debian package is missing, if one is.
.PHONY: model
model:
	@$(PYTHON) tests/model/run.py $(MODEL_ARGS)

.PHONY: mutants
mutants: $(release)/.with-test $(release)/.with-mutants
	@$(call run,$(release)) tests/mutants/run.py $(MUTANTS_ARGS)

.PHONY: life
life: $(release)/.with-test
	@$(call run,$(release)) -m pytest -s --timeout 7200 --life-repeat $(or $(REPEAT),200) --exit-limit $(or $(LIMIT),2) \
		tests/test_exit.py tests/test_fork.py tests/test_life.py

.PHONY: faults
faults: $(release)/.with-test
	@$(call run,$(release)) -m pytest -s tests/test_faults.py

# A debug interpreter counts every reference. Debian has one: python3.11-dbg, with headers in python3.11-dev.
.PHONY: leaks leaks-here
leaks:
	@$(MAKE) leaks-here PYTHON=$(or $(DEBUG_PYTHON),python3.11-dbg)
leaks-here: $(release)/.installed
	@$(call run,$(release)) tests/stress/leaks.py $(LEAKS_ARGS)

.PHONY: lateness
lateness: $(release)/.installed
	@$(call run,$(release)) tests/stress/lateness.py $(LATENESS_ARGS)

.PHONY: reliability
reliability:
	@PYTHON='$(PYTHON)' tests/reliability

.PHONY: bench bench-quick bench-compare
bench bench-quick: $(release)/.with-perf
	@$(release)/bin/python perf/run.py $(if $(filter bench-quick,$@),--quick) $(BENCH_ARGS)

bench-compare: $(release)/.with-perf
	@$(if $(BASE),,echo "usage: make bench-compare BASE=<git revision>" >&2; exit 2)
	@$(release)/bin/python perf/compare.py $(BASE) $(BENCH_ARGS)

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
	@$(call quietly,TIMERHEAP_DEBUG=$(if $(filter debug,$*),1,0) TIMERHEAP_SANITIZE=$(call sanitizer,$*) \
		$(@D)/bin/python -m pip install .)
	@touch $@

# The package itself is in place by now, and stays: only what its extra asks for is added.
define extra
$(venv)-%/.with-$(1): $(venv)-%/.installed
	@echo "installing the tools of timerheap[$(1)]"
	@$$(call quietly,$$(@D)/bin/python -m pip install 'timerheap[$(1)]')
	@touch $$@
endef
$(foreach name,cli test green lint dist perf mutants,$(eval $(call extra,$(name))))

$(develop)/.editable: $(develop)/.created $(package)
	@.ci/preflight '$(PYTHON)'
	@echo "building timerheap in place, about a minute"
	@$(call quietly,$(@D)/bin/python -m pip install --editable '.[cli,test,lint,dist]')
	@touch $@
