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
# Some set GOFLAGS=-buildvcs=false; this program says what it was built from.
VCS     := $(if $(wildcard .git),$(shell git rev-parse --git-dir >/dev/null 2>&1 && echo -buildvcs=true))
TEST    := $(GO) test
RACE    := ./backup/... ./fs/... ./metastore/... ./remote/...
SOAK    := ReadersOver|FourThousandFolders|HalfAMillionEntries|MillionTinyFiles|HundredGiB|TwentyGiB|TheIndexGrows|KilledAnywhere|VastFolder|AnyStateOfTheProtocol|AYearOf
FUZZTIME ?= 10s
BENCHTIME ?= 1s
LONG    := -out docs/BENCHMARKS.md $(if $(filter 0,$(shell id -u)),-cold)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: build demo test race soak lint bench fuzz tools clean

build:
	@mkdir -p $(BIN)
	$(GO) build -tags $(TAGS) -trimpath $(VCS) -o $(BIN)/vaultik ./cmd/vaultik

# tools installs the programs that demo and the tests run, and says which.
tools:
	@integration/install.sh

demo: tools build
	@integration/demo.sh $(BIN)/vaultik

# The package that takes longest goes first, and the others beside it.
test: tools lint
	$(TEST) -tags $(TAGS) -timeout 20m ./integration ./...
	$(MAKE) --no-print-directory race

race:
	$(GO) test -tags $(TAGS) -race -short -timeout 20m $(RACE)

soak: tools
	VAULTIK_SOAK=1 $(GO) test -tags $(TAGS) -v -count 1 -p 1 -timeout 3h -run '$(SOAK)' ./backup ./fs/fusefs ./remote/prune ./integration

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
	$(GO) test -tags $(TAGS) -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./...
	$(GO) run -tags $(TAGS) ./integration/compare -vaultik $(BIN)/vaultik $(if $(SHORT),-short,$(LONG)) $(COMPARE)

# fuzz runs every fuzz target for FUZZTIME each. A busy machine may end one with
# "context deadline exceeded", which says nothing; an input that fails is kept
# and fails again.
fuzz:
	@for pkg in $$($(GO) list -tags $(TAGS) ./...); do \
	  for f in $$($(GO) test -tags $(TAGS) -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "fuzz $$pkg $$f"; \
	    fuzz() { $(GO) test -tags $(TAGS) -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s $$pkg; }; \
	    fuzz || fuzz || exit 1; \
	  done; done

clean:
	rm -rf $(BIN)
