# The front door; CMake does the building. Each target sees to its own packages (scripts/setup).
#
#   make             everything that is installed: the module, penstockd, penstock-worker, penstockctl
#   make run         all of it at work on 127.0.0.1:8080, or PORT=
#   make run-cluster one queue over four hosts of this machine
#   make test        every test
#   make install     what was built, below PREFIX (/usr/local), for packages below DESTDIR; make uninstall takes it away
#   make deb         Debian packages, in build/deb; make test-deb tries them in a bare Debian
#   make bench       measured against the peers
#   make storm       everything killed at random, KILLS (1000) times over JOBS (50000) promised jobs, on one host and on five;
#                    and HISTORIES (10000) of the order in Redis beside that of one host
#   make sanitize    the tests under ASan+UBSan, the multi-threaded units under TSan
#   make test-http3  the tests over HTTP/3, with the Nginx and the curl of the next Debian
#   make test-nginx  the module in Nginx's own build, and a smoke test, for each version that is at hand, or NGINX_TREES="DIR ..."
#   make test-arm64  built for arm64, the units' tests and some of the whole under qemu
#   make fuzz        libFuzzer, FUZZ_SECONDS (60) for each target
#   make gpu-check   on a machine with a GPU: the CUDA engine against its references, and its speed
#   make gpu-kit     the same in a folder, $(BUILD)/gpu-kit, to be carried to such a machine; make test-gpu-kit tries it here
#   make module NGINX_SRC=DIR    the module for another Nginx source tree
#   make format, make lint, make clean

BUILD ?= build
PORT ?= 8080
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 60
JOBS ?= $(shell nproc)
# Tests wait more than they compute.
TEST_JOBS ?= $(shell n=$$(nproc); echo $$((n > 4 ? n : 4)))

MODULE := ngx_http_penstock_module
PROGRAMS := $(MODULE) penstockd penstock-worker penstockctl
SOURCES = $(shell git ls-files --cached --others --exclude-standard '*.cc' '*.h' '*.cu' '*.cuh')

LAUNCHER := $(if $(shell command -v ccache),-DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
CONFIGURE = cmake -S . -G Ninja $(LAUNCHER)
BUILD_IN = cmake --build
# Some tests load the machine, and others beside them are judged by time: what fails is tried once more, and the output says so.
CTEST = ctest --output-on-failure --no-label-summary --no-tests=error --repeat until-pass:2 -j $(TEST_JOBS)

.DELETE_ON_ERROR:
.PHONY: all run run-cluster test install uninstall dist deb test-deb test-http3 test-nginx test-arm64 bench storm gpu-check gpu-kit test-gpu-kit format lint sanitize asan tsan fuzz module clean setup-build

all: $(BUILD)/build.ninja
	$(BUILD_IN) $(BUILD) --target $(PROGRAMS)

# CMake looks after its own files from the second time on.
$(BUILD)/build.ninja: | setup-build
	$(CONFIGURE) -B $(BUILD)

setup-build:
	@scripts/setup build

# Without the package there is one model less.
run: all
	@scripts/setup run || true
	@scripts/run $(BUILD) $(PORT)

# Two edges, two hosts with simulated GPUs, and the Redis by which they share a queue.
run-cluster: all
	@scripts/run-cluster $(BUILD) $(PORT)

install: all
	@scripts/setup install
	scripts/install $(BUILD) $(PREFIX) $(DESTDIR)

uninstall:
	scripts/install --remove $(PREFIX) $(DESTDIR)

# The sources of a release, of what is committed.
dist: NAME = penstock-$(shell sed -n 's/^project.penstock VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)
dist:
	@mkdir -p $(BUILD)
	git archive --prefix=$(NAME)/ -o $(BUILD)/$(NAME).tar.gz HEAD

# The packages, in $(BUILD)/deb.
deb: setup-build
	@scripts/setup install deb
	scripts/deb $(BUILD)

# ... and their life in a bare Debian.
test-deb: deb
	@scripts/setup test-deb
	tests/packages/test_deb $(BUILD)/deb

test: $(BUILD)/build.ninja
	@scripts/setup build install test browser
	$(BUILD_IN) $(BUILD)
	$(CTEST) --test-dir $(BUILD)

# All that is built goes into a folder of its own, as the module is for another Nginx.
test-http3: HTTP3 := $(BUILD)/http3
test-http3: setup-build
	@scripts/setup build test sanitize
	scripts/get_http3 $(HTTP3)/peers
	$(CONFIGURE) -B $(HTTP3)/build -DNGINX_SRC=$(abspath $(HTTP3)/peers/src)
	$(BUILD_IN) $(HTTP3)/build --target $(PROGRAMS)
	PENSTOCK_NGINX=$(abspath $(HTTP3)/peers/nginx) PENSTOCK_CURL=$(abspath $(HTTP3)/peers/curl) \
	    $(CTEST) --test-dir $(HTTP3)/build -R integration.test_http2

test-nginx: all
	@scripts/setup test sanitize
	tests/packages/test_nginx $(BUILD) $(BUILD)/trees $(NGINX_TREES)

# Each unit, and what goes through all parts. What judges by time, or starts programs of its own, stays away.
ARM64_UNITS := base http wire limit metrics redis challenge keys queue shared_answers results pool simulate ctl llama
ARM64_TESTS := test_request test_limits test_jobs test_tokens test_demo_model test_keys
test-arm64: ARM64 = $(abspath $(BUILD))/arm64
test-arm64: setup-build
	@scripts/setup build test arm64
	scripts/get_arm64 $(ARM64)
	NGINX_MACHINE=aarch64 $(CONFIGURE) -B $(ARM64)/build --toolchain $(abspath scripts/arm64.cmake) -DPENSTOCK_ARM64=$(ARM64)
	$(BUILD_IN) $(ARM64)/build --target $(PROGRAMS) $(ARM64_UNITS:=_test)
	for unit in $(ARM64_UNITS); do qemu-aarch64-static -L $(ARM64)/root $(ARM64)/build/$${unit}_test --gtest_brief=1 || exit 1; done
	tests/arm64/emulate $(ARM64)/build $(ARM64)/root $(ARM64)/programs
	PENSTOCK_BUILD=$(ARM64)/programs PENSTOCK_NGINX=$(ARM64)/programs/nginx /usr/bin/python3 -B -m pytest -q -p no:cacheprovider \
	    $(ARM64_TESTS:%=tests/integration/%.py)

bench: $(BUILD)/build.ninja
	@scripts/setup build bench
	$(BUILD_IN) $(BUILD)
	tests/bench/run $(BUILD)

KILLS ?= 1000
HISTORIES ?= 10000
storm: JOBS = 50000
storm: $(BUILD)/build.ninja
	@scripts/setup build test
	$(BUILD_IN) $(BUILD) --target $(PROGRAMS) queue_test
	tests/fault/storm.py $(BUILD) --kills $(KILLS) --jobs $(JOBS) --seconds 3600
	tests/fault/storm.py $(BUILD) --engine process --kills $(KILLS) --jobs $$(($(JOBS) / 2)) --seconds 3600
	PENSTOCK_BUILD=$(BUILD) tests/fault/storm.py $(BUILD) --engine http --kills $$(($(KILLS) / 2)) --jobs $$(($(JOBS) / 5)) --seconds 3600
	PENSTOCK_BUILD=$(BUILD) tests/fault/storm_hosts.py $(BUILD) --kills $(KILLS) --jobs $(JOBS) --seconds 3600
	PENSTOCK_BUILD=$(BUILD) tests/fault/storm_hosts.py $(BUILD) --redis replicated --engine process --kills $$(($(KILLS) / 5)) \
	    --jobs $$(($(JOBS) * 2 / 5)) --seconds 3600
	PENSTOCK_HISTORIES=$(HISTORIES) $(BUILD)/queue_test --gtest_filter='SharedOrderHistories*' --gtest_brief=1

gpu-check:
	@scripts/gpu-check $(BUILD)

gpu-kit: all
	@scripts/gpu-check --kit $(BUILD)/gpu-kit $(BUILD)

test-gpu-kit: gpu-kit
	PENSTOCK_BUILD=$(abspath $(BUILD)) /usr/bin/python3 -B -m pytest -q -p no:cacheprovider tests/integration/test_gpu_kit.py

sanitize: asan tsan

asan: ASAN := $(BUILD)/asan
asan: setup-build
	@scripts/setup build test sanitize
	scripts/build_asan_nginx $(BUILD)/asan-nginx
	$(CONFIGURE) -B $(ASAN) -DPENSTOCK_SANITIZE=address,undefined -DNGINX_SRC=$(abspath $(BUILD)/asan-nginx/src)
	$(BUILD_IN) $(ASAN)
	PENSTOCK_ASAN=1 PENSTOCK_NGINX=$(abspath $(BUILD)/asan-nginx/nginx) $(CTEST) --test-dir $(ASAN)

# The units whose code runs on several threads.
TSAN_TESTS := limit_test metrics_test llama_test queue_test nvml_test
tsan: TSAN := $(BUILD)/tsan
tsan: setup-build
	$(CONFIGURE) -B $(TSAN) -DPENSTOCK_SANITIZE=thread
	$(BUILD_IN) $(TSAN) --target $(TSAN_TESTS)
	for test in $(TSAN_TESTS); do TSAN_OPTIONS=halt_on_error=1 $(TSAN)/$$test --gtest_brief=1 || exit 1; done

FUZZERS = $(basename $(notdir $(wildcard tests/fuzz/*_fuzz.cc)))
fuzz: setup-build
	@scripts/setup build fuzz
	CC=clang CXX=clang++ $(CONFIGURE) -B $(BUILD)/fuzz -DPENSTOCK_FUZZ=ON -DPENSTOCK_SANITIZE=address,undefined \
	    -DCMAKE_CXX_FLAGS=-fsanitize=fuzzer-no-link
	$(BUILD_IN) $(BUILD)/fuzz --target $(FUZZERS)
	for fuzzer in $(FUZZERS); do \
	    name=$${fuzzer%_fuzz}; mkdir -p $(BUILD)/fuzz/corpus/$$name tests/fuzz/corpus/$$name; \
	    $(BUILD)/fuzz/$$fuzzer -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=$(BUILD)/fuzz/ -print_final_stats=1 \
	        $(BUILD)/fuzz/corpus/$$name tests/fuzz/corpus/$$name || exit 1; \
	done

# One build folder for each tree: objects for two versions of Nginx never mix.
module: MODULE_BUILD = $(BUILD)/module-$(shell printf %s '$(abspath $(NGINX_SRC))' | sha256sum | cut -c1-8)
module: setup-build
	@test -n "$(NGINX_SRC)" || { echo 'make module: say which Nginx: make module NGINX_SRC=DIR' >&2; exit 1; }
	$(CONFIGURE) -B $(MODULE_BUILD) -DNGINX_SRC=$(abspath $(NGINX_SRC))
	$(BUILD_IN) $(MODULE_BUILD) --target $(MODULE)
	@echo built $(MODULE_BUILD)/$(MODULE).so

format:
	@scripts/setup lint
	clang-format -i $(SOURCES)

# A folder of its own, that is never built: for the fuzz targets too.
lint: setup-build
	@scripts/setup lint
	clang-format --dry-run -Werror $(SOURCES)
	$(CONFIGURE) -B $(BUILD)/lint -DPENSTOCK_FUZZ=ON
	sed -i 's/ -fno-gnu-unique//g' $(BUILD)/lint/compile_commands.json  # clang has no such option
	run-clang-tidy -quiet -p $(BUILD)/lint -j $(JOBS) -extra-arg=-Wno-unknown-warning-option \
	    -extra-arg=-Wno-ignored-optimization-argument -extra-arg=-Wthread-safety '^$(CURDIR)/(ngx_module|shared|worker|tests)/'

clean:
	rm -rf $(BUILD) run
