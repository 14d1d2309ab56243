# The laboratory: what looks for the bugs that ordinary tests do not find. The Makefile includes this, with the
# environments, $(run) and $(quietly) that are used here; paths start at the checkout. What each finds, and the figures
# seen last, are in tests/README.md.

##
## The laboratory:

## make stress       the ledger under many threads       SECONDS=60 THREADS=8 SEED=1   STRESS_ARGS='--patience 0.001'
.PHONY: stress
stress: $(release)/.with-test
	@$(call run,$(release)) tests/stress/ledger.py --seconds $(or $(SECONDS),20) --threads $(or $(THREADS),8) \
		$(if $(SEED),--seed $(SEED)) $(STRESS_ARGS)

## make test-pages   the tests on the release build, with pages of 16 and of 64 KiB
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

## make asan, make ubsan, make tsan                      the tests and the ledger with a GIL, the core under that
##                   sanitizer (asan: clang-19, else gcc) PYTEST_ARGS='-k fork' OPERATIONS=1000000 SEED=1
# With a GIL, on an interpreter that is not instrumented: so the runtime comes by LD_PRELOAD and sees what goes through
# the C library. That is enough for the GIL, a pthread mutex and condition variable, and for each allocation once
# PYTHONMALLOC says malloc. LeakSanitizer is off: the interpreter keeps what it made until the process ends, and the
# leaks of the core are the subject of `make leaks`. A process with a report ends with 66, a child of a test too. TSan
# goes on until then, and into the children of a fork, which it would otherwise not let start threads.
.PHONY: asan ubsan tsan
asan tsan: export PYTHONMALLOC = malloc
# A runtime takes its locks around a fork since clang 17 and gcc 14. With an older gcc, for want of a clang-19, the child
# of a process whose threads begin, end or allocate meanwhile waits now and then for ever for a lock that one of them held.
asan: export CC := $(if $(filter-out default,$(origin CC)),$(CC),$(or $(notdir $(wildcard /usr/bin/clang-19)),gcc))
# Its own signal stack of each thread is taken down so late that gcc 12's runtime reports itself.
asan: export ASAN_OPTIONS = detect_leaks=0:exitcode=66:use_sigaltstack=0
ubsan: export UBSAN_OPTIONS = halt_on_error=1:print_stacktrace=1:exitcode=66
tsan: export TSAN_OPTIONS = die_after_fork=0:exitcode=66
asan ubsan tsan: export TIMERHEAP_SANITIZED = $@
asan ubsan tsan: %: $(venv)-%/.with-test $(venv)-%/.with-cli
	@echo "== tests and ledger under lib$*, $(tag)"
	@$(call sanitized,$*) -m pytest $(PYTEST_ARGS)
	@$(call sanitized,$*) tests/stress/ledger.py --threads $(or $(THREADS),8) $(if $(SEED),--seed $(SEED)) \
		--operations $(or $(OPERATIONS),1000000) $(STRESS_ARGS)

# `run` with a sanitizer's runtime loaded first, that of the compiler which builds the extension.
sanitized = LD_PRELOAD=$$($(sanitizing_cc) -print-file-name=$(runtime)) $(call run,$(venv)-$(1))
runtime = $(if $(findstring clang,$(sanitizing_cc)),libclang_rt.$(1)-$$(uname -m).so,lib$(1).so)
sanitizing_cc = $(if $(filter default,$(origin CC)),gcc,$(CC))
# What setup.py calls the sanitizer of an environment's name; the Makefile's rule for an environment asks.
sanitizer = $(if $(filter asan,$(1)),address)$(if $(filter ubsan,$(1)),undefined)$(if $(filter tsan,$(1)),thread)

## make python-ft    a free-threaded CPython 3.13, built once and kept in the cache
## make test-ft      tests on release and debug builds and the ledger, without a GIL   SECONDS=60
## make tsan-ft      the ledger without a GIL, interpreter and core under ThreadSanitizer   OPERATIONS=1000000
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

# The races that CPython's own file names are the interpreter's, and so are those of tests/races_of_cpython.txt; none of
# ours is left out.
tsan-ft:
	@python=$(or $(PYTHON_TSAN),$$(CLANG='$(CLANG)' .ci/python-ft --tsan)) && $(MAKE) tsan-ft-here PYTHON="$$python"
tsan-ft-here: export PYTHON_GIL = 0
tsan-ft-here: export PIP_PREFER_BINARY = 1
tsan-ft-here: export TSAN_OPTIONS = exitcode=66 suppressions=$(abspath build/races_of_cpython.txt)
tsan-ft-here: build/races_of_cpython.txt $(venv)-tsan/.with-test
	@$(call run,$(venv)-tsan) -m pytest -q -s tests/test_free_threaded.py \
		tests/test_loop_heap.py tests/test_async_channels.py
	@$(call run,$(venv)-tsan) tests/stress/ledger.py --threads $(or $(THREADS),8) $(if $(SEED),--seed $(SEED)) \
		--operations $(or $(OPERATIONS),1000000) $(STRESS_ARGS)

.PHONY: build/races_of_cpython.txt
build/races_of_cpython.txt:
	@mkdir -p $(@D)
	@cat $(dir $(PYTHON))../suppressions_free_threading.txt tests/races_of_cpython.txt >$@

## make test-portable the tests and the ledger on a release build by POSIX alone   SECONDS=60
.PHONY: portable test-portable
portable: $(venv)-portable/.with-test $(venv)-portable/.with-cli $(if $(green),$(venv)-portable/.with-green)
test-portable: portable
	@echo "== tests and ledger on the portable build, $(tag)"
	@$(call run,$(venv)-portable) -m pytest $(PYTEST_ARGS)
	@$(call run,$(venv)-portable) tests/stress/ledger.py --seconds $(or $(SECONDS),60) --threads $(or $(THREADS),8) \
		$(if $(SEED),--seed $(SEED)) $(STRESS_ARGS)

## make test-asyncio the tests of asyncio and of uvloop over timerheap's loops, against what they give without, on each
##                   interpreter of .ci/pythons          PYTHON=python3.13 ASYNCIO_ARGS='--suite asyncio test_timeouts'
.PHONY: test-asyncio test-asyncio-here
test-asyncio:
	@failed=0; for python in $(if $(filter command line environment,$(origin PYTHON)),'$(PYTHON)',$$(.ci/pythons)); do \
		echo "== tests of asyncio and uvloop, $$python"; \
		if "$$python" -c 'import test.test_asyncio'; then \
			$(MAKE) test-asyncio-here PYTHON="$$python" || failed=1; \
		else \
			echo "its own tests are not there (Debian has them in libpython3.x-testsuite): nothing is run"; \
			$(if $(filter command line environment,$(origin PYTHON)),failed=1;) \
		fi; \
	done; exit $$failed
test-asyncio-here: $(release)/.with-asyncio
	@$(call run,$(release)) tests/asyncio_suite/run.py $(ASYNCIO_ARGS)

## make test-native  the C core against a model: gcc, sanitizers, a fixed share of random histories
## make fuzz         the same under libFuzzer             SECONDS=60, CLANG=clang-14
## make valgrind     the C core under memcheck and DRD
## make test-aarch64 the C core on another architecture: Debian's cross compiler, qemu
# The native core alone (tests/native/README.md): the parts of timerheap/core without Python, as C. CLANG and its LLVM
# tools are one version's; everything but `make fuzz` needs the C compiler only.
CLANG ?= $(firstword $(notdir $(wildcard /usr/bin/clang-19 /usr/bin/clang-14 /usr/bin/clang)) clang)
llvm = $(patsubst clang%,llvm-$(1)%,$(notdir $(CLANG)))
native := build/native
native_sources := $(native)/seam.c $(wildcard tests/native/*.[ch] tests/pages/*.h csrc/*.h)
native_flags = -std=gnu11 -D_GNU_SOURCE -g -include tests/native/hooks.h -Icsrc \
	-I$(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')
# The module that Cython wraps around the heap is dropped, or at least never run: the heap needs nothing of Python.
native_link := -no-pie -Wl,--gc-sections -Wl,--unresolved-symbols=ignore-in-object-files -lpthread
native_cc = $(CC) $(native_flags) -Wall -Wextra -Werror -Wno-unused-parameter -Wno-missing-field-initializers \
	-Wno-cast-function-type -ffunction-sections -fdata-sections
native_clang = $(CLANG) $(native_flags) -Wno-everything -DNATIVE_NARROW

.PHONY: test-native fuzz valgrind test-aarch64
test-native: $(addprefix $(native)/,replay-asan replay-portable-asan replay slab-asan slab threads-tsan broken \
		platform platform-portable platform-tsan platform-portable-tsan platform-apple)
	@$(native)/replay-asan --runs 2000 --seed 1 tests/native/corpus/*
	@$(native)/slab-asan --runs 8 --seed 1
	@$(native)/slab --runs 20 --seed 2
	@$(native)/replay --runs 8 --seed 1
	@$(native)/threads-tsan --operations 100000
	@$(native)/broken
	@$(native)/replay-portable-asan --runs 300 --seed 1
	@for twin in platform platform-portable; do \
		$(native)/$$twin && $(native)/$$twin-tsan --rounds 200 --forks 0 || exit 1; \
	done
	@$(native)/platform-apple

# Built here, run by an emulator of the processor and of the system calls. That one loses its own threads where a child
# of a process with several starts any: no forks.
cross := aarch64-linux-gnu
emulated = qemu-aarch64 -L /usr/$(cross) $(native)/aarch64
on_aarch64 := $(addprefix $(native)/aarch64/,replay replay-narrow slab threads platform platform-portable)
test-aarch64: $(on_aarch64)
	@$(emulated)/replay-narrow --runs 300 --seed 1 tests/native/corpus/*
	@$(emulated)/replay --runs 8 --seed 1
	@$(emulated)/slab --runs 2 --seed 1
	@$(emulated)/threads --operations 20000
	@$(emulated)/platform --rounds 500 --forks 0
	@$(emulated)/platform-portable --rounds 500 --forks 0

.PHONY: cross-tools
cross-tools:
	@missing=; \
	command -v $(cross)-gcc >/dev/null || missing="gcc-$(cross)"; \
	[ -f /usr/$(cross)/include/stdlib.h ] || missing="$$missing libc6-dev-arm64-cross"; \
	command -v qemu-aarch64 >/dev/null || missing="$$missing qemu-user"; \
	[ -z "$$missing" ] || { echo "missing, by the names of Debian's packages: $$missing" >&2; exit 1; }
	@mkdir -p $(native)/aarch64

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

$(native)/seam.c: tests/native/seam.pyx $(wildcard timerheap/core/*.pxi csrc/*.pxd) $(venv)-native/.with-cython
	@mkdir -p $(@D)
	@$(venv)-native/bin/cython -3 -I csrc -o $@ $<

$(venv)-native/.with-cython: $(venv)-native/.created pyproject.toml
	@$(call quietly,$(@D)/bin/python -m pip install "$$(sed -n 's/^requires .*"\(cython[^"]*\)".*/\1/p' pyproject.toml)")
	@touch $@

replay_sources := $(native)/seam.c tests/native/fuzz.c tests/native/replay.c

$(native)/replay $(native)/aarch64/replay: $(native_sources)
	@$(native_cc) -O2 $(replay_sources) $(native_link) -o $@

$(native)/replay-narrow $(native)/aarch64/replay-narrow: $(native_sources)
	@$(native_cc) -O2 -DNATIVE_NARROW $(replay_sources) $(native_link) -o $@

$(native)/replay-asan: $(native_sources)
	@$(native_cc) -O1 -DNATIVE_NARROW -fsanitize=address,undefined -fno-sanitize-recover=all $(replay_sources) \
		$(native_link) -o $@

$(native)/replay-portable-asan: $(native_sources)
	@$(native_cc) -O1 -DTH_PORTABLE=1 -DNATIVE_NARROW -fsanitize=address,undefined -fno-sanitize-recover=all \
		$(replay_sources) $(native_link) -o $@

$(native)/slab $(native)/aarch64/slab: $(native_sources)
	@$(native_cc) -O2 -DNATIVE_PLAIN tests/native/slab.c -o $@

$(native)/slab-asan: $(native_sources)
	@$(native_cc) -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -DNATIVE_PLAIN tests/native/slab.c -o $@

$(native)/threads $(native)/aarch64/threads: $(native_sources)
	@$(native_cc) -O1 -DNATIVE_PLAIN -DTIMERHEAP_DEBUG $(native)/seam.c tests/native/threads.c $(native_link) -o $@
$(native)/replay-gcov: $(native_sources)
	@$(native_cc) -O1 --coverage -DNATIVE_NARROW $(replay_sources) $(native_link) -o $@

$(native)/slab-gcov: $(native_sources)
	@$(native_cc) -O1 --coverage -DNATIVE_PLAIN tests/native/slab.c -o $@

$(native)/broken: $(native_sources)
	@$(native_cc) -O1 -DNATIVE_PLAIN -DTIMERHEAP_DEBUG $(native)/seam.c tests/native/broken.c $(native_link) -o $@

$(native)/broken-gcov: $(native_sources)
	@$(native_cc) -O1 --coverage -include tests/coverage/hook.h -DNATIVE_PLAIN -DTIMERHEAP_DEBUG $(native)/seam.c \
		tests/native/broken.c $(native_link) -o $@

$(native)/threads-gcov: $(native_sources)
	@$(native_cc) -O1 --coverage -fprofile-update=atomic -DNATIVE_PLAIN $(native)/seam.c tests/native/threads.c \
		$(native_link) -o $@

$(native)/threads-tsan: $(native_sources)
	@$(native_cc) -O1 -DNATIVE_PLAIN -DTIMERHEAP_DEBUG -fsanitize=thread $(native)/seam.c tests/native/threads.c \
		$(native_link) -o $@

$(addprefix $(native)/,platform platform-portable aarch64/platform aarch64/platform-portable): $(native_sources)
	@$(native_cc) -O2 -DNATIVE_PLAIN $(if $(findstring portable,$@),-DTH_PORTABLE=1) tests/native/platform.c -lpthread -o $@

$(native)/platform-tsan $(native)/platform-portable-tsan: $(native_sources)
	@$(native_cc) -O1 -DNATIVE_PLAIN $(if $(findstring portable,$@),-DTH_PORTABLE=1) -fsanitize=thread tests/native/platform.c \
		-lpthread -o $@

$(native)/platform-apple: $(native_sources) tests/native/apple/mach/mach_time.h
	@$(native_cc) -O2 -DNATIVE_PLAIN -D__APPLE__ -U__linux__ -Itests/native/apple tests/native/platform.c -lpthread -o $@

$(on_aarch64): CC := $(cross)-gcc
$(on_aarch64): | cross-tools

# Counters, not the comparisons: the model compares more than the fuzzer can use, at a fifth of the speed.
$(native)/fuzz: $(native_sources)
	@$(native_clang) -O2 -fsanitize-coverage=inline-8bit-counters,pc-table -c $(native)/seam.c -o $(native)/fuzz-seam.o
	@$(native_clang) -O2 -fsanitize-coverage=inline-8bit-counters,pc-table -c tests/native/fuzz.c -o $(native)/fuzz-fuzz.o
	@$(CLANG) -fsanitize=fuzzer $(native)/fuzz-seam.o $(native)/fuzz-fuzz.o $(native_link) -o $@

$(native)/replay-covered: $(native_sources)
	@$(native_clang) -O1 -fprofile-instr-generate -fcoverage-mapping $(replay_sources) $(native_link) -o $@

## make coverage     the lines of Python, Cython and C that no test reaches   MORE=1 adds to what the run before counted
# A debug build that counts, its tests, and the native ones; tests/coverage/report.py says how. coverage.py is for the
# Python files only, and traces their tests in a second pass: what it does to a process disturbs other tests.
.PHONY: coverage
covered_python := tests/test_main.py tests/test_testing.py
coverage: $(venv)-coverage/.with-test $(venv)-coverage/.with-cli $(venv)-coverage/.with-coverage build/coverage.so \
		$(native)/replay-gcov $(native)/slab-gcov $(native)/broken-gcov $(native)/threads-gcov
	@$(if $(MORE),,find build -name '*.gcda' -delete; rm -rf build/coverage)
	@LD_PRELOAD=$(abspath build/coverage.so) $(call run,$(venv)-coverage) -m pytest $(PYTEST_ARGS)
	@$(native)/replay-gcov --runs 2000 --seed 1 tests/native/corpus/*
	@$(native)/slab-gcov --runs 1 --seed 1
	@$(native)/threads-gcov --operations 50000
	@LD_PRELOAD=$(abspath build/coverage.so) $(native)/broken-gcov
	@COVERAGE_FILE=$(abspath build/coverage/python) \
		$(call run,$(venv)-coverage) -m coverage run -m pytest -q $(covered_python)
	@$(call run,$(venv)-coverage) tests/coverage/report.py build/coverage/python build

build/coverage.so: tests/coverage/shim.c
	@mkdir -p $(@D)
	@$(CC) -O1 -Wall -Wextra -Werror -shared -fPIC $< -o $@ -ldl

## make model        the wake protocol in Promela, every interleaving: spin, gcc
# MODEL_ARGS='--only fork'. It says which Debian package is missing, if one is.
.PHONY: model
model:
	@$(PYTHON) tests/model/run.py $(MODEL_ARGS)

## make mutants      seeded bugs, each of which the suite must catch
.PHONY: mutants
mutants: $(release)/.with-test $(release)/.with-mutants
	@$(call run,$(release)) tests/mutants/run.py $(MUTANTS_ARGS)

## make life         processes that end and fork at every moment   REPEAT=200
.PHONY: life
life: $(release)/.with-test
	@$(call run,$(release)) -m pytest -s --timeout 7200 --life-repeat $(or $(REPEAT),200) --exit-limit $(or $(LIMIT),2) \
		tests/test_exit.py tests/test_fork.py tests/test_life.py

## make faults       every allocation and every start of a thread made to fail in turn
.PHONY: faults
faults: $(release)/.with-test
	@$(call run,$(release)) -m pytest -s tests/test_faults.py

## make leaks        references and memory, on a debug interpreter
# A debug interpreter counts every reference. Debian has one: python3.11-dbg, with headers in python3.11-dev.
.PHONY: leaks leaks-here
leaks:
	@$(MAKE) leaks-here PYTHON=$(or $(DEBUG_PYTHON),python3.11-dbg)
leaks-here: $(release)/.installed
	@$(call run,$(release)) tests/stress/leaks.py $(LEAKS_ARGS)

## make test-integration                               real programs on the event loops, their servers from Debian
## make test-programs, make test-anyio                   its two halves   PYTEST_ARGS='-k redis'
.PHONY: test-integration test-programs test-anyio servers
test-integration: test-programs test-anyio

test-programs: servers $(release)/.with-test $(release)/.with-integration
	@echo "== real programs on the event loops, $(tag)"
	@$(call run,$(release)) -m pytest tests/integration $(PYTEST_ARGS)

test-anyio: $(release)/.with-test $(release)/.with-integration $(release)/anyio/.unpacked
	@echo "== anyio's own tests on the event loops, $(tag)"
	@PYTHONPATH=$(abspath tests/integration) $(call run,$(release)) tests/integration/anyio_suite.py $(release)/anyio

# It says which Debian package is missing, if one is.
servers:
	@$(PYTHON) tests/integration/servers.py

# anyio's own tests are in its sdist only; those of the version that is installed.
$(venv)-%/anyio/.unpacked: $(venv)-%/.with-integration
	@rm -rf $(@D)
	@mkdir -p $(@D)
	@$(call quietly,cd $(@D) && ../bin/python -m pip download --no-deps --no-binary anyio \
		"$$(../bin/python -m pip freeze | grep '^anyio==')" && tar -xzf anyio-*.tar.gz --strip-components 1)
	@touch $@

## make lateness     the worst that busy neighbours do to a timer
.PHONY: lateness
lateness: $(release)/.installed
	@$(call run,$(release)) tests/stress/lateness.py $(LATENESS_ARGS)

## make reliability  all of these and the long tests, with one summary: hours
.PHONY: reliability
reliability:
	@PYTHON='$(PYTHON)' tests/reliability
