# Two targets do everything on a fresh Debian machine with Go, git and gcc:
#   make demo   build, back up a folder, mount it, copy it out, compare
#   make test   every test, the race detector where goroutines share things
# make soak tells the stories of scale in full: a million files, 20 GiB, 2,000
# runs, an hour of readers, a year of five machines, the protocol in all its states. It
# takes an hour and a half on two cores, and 25 GB in TMPDIR.
SHELL   := /bin/sh
GO      ?= go
BIN     := .bin
# SQLite: refuse writes to its internals, no extensions, and keep a prepared
# statement as it is: without QPSG it may be prepared anew, at ten times its own
# cost, whenever a parameter changes. Nobody asks for its count of memory, which
# takes a lock for every allocation.
TAGS    := sqlite_omit_load_extension
export CGO_CFLAGS := -O2 -DSQLITE_DEFAULT_DEFENSIVE -DSQLITE_TRUSTED_SCHEMA=0 -DSQLITE_ENABLE_QPSG -DSQLITE_DEFAULT_MEMSTATUS=0
# One set of flags for all, or SQLite is compiled once more for each.
export GOFLAGS := $(strip $(GOFLAGS) -trimpath)
# Some set GOFLAGS=-buildvcs=false; this program says what it was built from.
VCS     := $(if $(wildcard .git),$(shell git rev-parse --git-dir >/dev/null 2>&1 && echo -buildvcs=true))
TEST    := $(GO) test
FLAGS   := -tags $(TAGS) -vet=off
RACE    := ./backup/... ./fs/... ./metastore/... ./remote/...
SOAK    := ReadersOver|FourThousandFolders|HalfAMillionEntries|MillionTinyFiles|HundredGiB|TwentyGiB|TheIndexGrows|KilledAnywhere|VastFolder|AnyStateOfTheProtocol|AYearOf
FUZZTIME ?= 10s
BENCHTIME ?= 1s
LONG    := -out docs/BENCHMARKS.md $(if $(filter 0,$(shell id -u)),-cold)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: build demo test stories units race soak lint bench fuzz tools clean

build:
	@mkdir -p $(BIN)
	$(GO) build -tags $(TAGS) $(VCS) -o $(BIN)/vaultik ./cmd/vaultik

# tools installs the programs that demo and the tests run, and says which.
tools:
	@integration/install.sh

demo: tools build
	@integration/demo.sh $(BIN)/vaultik

# Compilers wait for SQLite, and stories for mounts and networks, so two things are
# done at a time, and lint when all that it needs is compiled.
test: tools
	$(MAKE) --no-print-directory -j2 stories units

stories:
	$(TEST) $(FLAGS) -timeout 30m ./integration
	$(MAKE) --no-print-directory lint

units: race
	$(TEST) $(FLAGS) -timeout 20m $$($(GO) list -tags $(TAGS) ./... | grep -v '/integration$$')

# With the race detector everything takes ten times as long, so -short: fewer random
# trees, less data. It does not see SQLite, which is compiled as fast as can be:
# optimised that takes a minute.
race:
	CGO_CFLAGS="$(subst -O2,-O0,$(CGO_CFLAGS))" $(GO) test $(FLAGS) -race -short -timeout 20m $(RACE)

soak: tools
	VAULTIK_SOAK=1 $(GO) test $(FLAGS) -v -count 1 -p 1 -timeout 3h -run '$(SOAK)' ./backup ./fs/fusefs ./remote/prune ./integration

lint:
	@out=$$(gofmt -l .); test -z "$$out" || { echo "not gofmt-clean:"; echo "$$out"; exit 1; }
	$(GO) vet -tags $(TAGS) ./...
	$(GO) run $(STATICCHECK) -tags $(TAGS) ./...
	@if command -v shellcheck >/dev/null; then shellcheck -s sh docs/recover.sh integration/*.sh; fi

# bench runs the Go benchmarks, then compares vaultik with restic and borg, if
# they are there, and writes docs/BENCHMARKS.md. That takes an hour and some 20 GB
# below TMPDIR, installs the Linux source tree with apt, if it is not there, and as
# root drops the kernel's caches time and again.
# SHORT=1 writes nothing and is done in a minute. COMPARE has more flags, such
# as COMPARE='-restic /opt/restic': go run ./integration/compare -help.
bench: build
	$(GO) test $(FLAGS) -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) $$(grep -rl --include="*_test.go" "^func Benchmark" . | xargs -n1 dirname | sort -u)
	$(GO) run -tags $(TAGS) ./integration/compare -vaultik $(BIN)/vaultik $(if $(SHORT),-short,$(LONG)) $(COMPARE)

# fuzz runs every fuzz target for FUZZTIME each. SHORT=1 does so blindly, without
# compiling everything anew.
fuzz:
	@integration/fuzz.sh $(TAGS) $(FUZZTIME) $(if $(SHORT),short)

clean:
	rm -rf $(BIN)
