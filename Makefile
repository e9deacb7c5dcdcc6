# What there is to do with the repository. `make help` lists it.
#
# A variable can be given on the command line: make test CGO_ENABLED=0, make sim SEED=17.

GO      ?= go
SEED    ?=
SEEDS   ?= 1000
TIME    ?= 0
MUTANT  ?=
COUNT   ?= 20000
# Of two releases, the older: the last one or, while there is none, the oldest that runs what this tree's programs need (/state/).
MIXED   ?= $(shell git describe --tags --abbrev=0 2>/dev/null || echo 5aae641)
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# Wasmtime needs cgo, and cgo a C compiler that links; without one the programs run in wazero, which is pure Go.
CC_WORKS := $(shell t=$$(mktemp -d) && echo 'int main(void){return 0;}' >$$t/a.c && $$($(GO) env CC) -o $$t/a $$t/a.c >/dev/null 2>&1 && echo 1; rm -rf "$$t")
ifeq ($(origin CGO_ENABLED),undefined)
CGO_ENABLED := $(if $(CC_WORKS),1,0)
endif
export CGO_ENABLED
ENGINE := $(if $(filter 1,$(CGO_ENABLED)),wasmtime,wazero)

# What does I/O and has goroutines: the race detector looks at these, and the rest has one goroutine.
RACED := ./chunkstore ./dht ./node/... ./protocol ./sandbox/...

STATICCHECK := $(GO) tool -modfile=$(CURDIR)/tools/go.mod staticcheck
LDFLAGS := -s -w -X main.version=$(VERSION) -X github.com/compute-mesh/mesh/node.Version=$(VERSION)

.DEFAULT_GOAL := help
.PHONY: help build demo test race check fmt vet lint tidy generated arch programs sim scale mutants chaos mixed fuzz bench bench-compare testnet generate wasm clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## bin/mesh and bin/meshd
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/mesh
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/meshd
	@echo "bin/mesh and bin/meshd: tasks run in $(ENGINE)$(if $(CC_WORKS),, (no C compiler that works: wasmtime needs one))"

demo: build ## five peers count the words of Go's own source tree, and check themselves
	testnet/demo.sh

test: ## all tests, with both engines
	$(GO) test -timeout 9m ./...
ifeq ($(CGO_ENABLED),1)
	CGO_ENABLED=0 $(GO) test -timeout 9m ./sandbox/...
else
	@echo
	@echo "*** ONE ENGINE ONLY: without a C compiler wasmtime is not built; these tests ran tasks in wazero alone. ***"
endif

race: ## the packages that do I/O, under the race detector; what one goroutine tries over and over, less often
ifeq ($(CC_WORKS),1)
	CGO_ENABLED=1 $(GO) test -race -short -timeout 20m $(RACED)
else
	@echo "*** NOT RUN: the race detector needs a C compiler. ***"
endif

check: fmt vet lint tidy generated arch programs race ## everything but the tests: format, vet, staticcheck, generated code, rules, races
	@echo "check: all is well"

fmt:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { echo "gofmt -w these:"; echo "$$unformatted"; exit 1; }

vet:
	$(GO) vet ./...
	cd tools && $(GO) vet ./...
	@if test -f bench/go.mod; then cd bench && $(GO) vet ./...; fi

lint:
	$(STATICCHECK) ./...

tidy:
	$(GO) mod tidy -diff
	cd tools && $(GO) mod tidy -diff
	@if test -f bench/go.mod; then cd bench && $(GO) mod tidy -diff; fi

generated:
	cd tools && $(GO) run ./genproto -check

arch:
	$(GO) test ./internal/arch

programs:
	@if command -v clang-14 >/dev/null && command -v wasm-ld-14 >/dev/null && command -v wasm-opt >/dev/null; then examples/build.sh --check; \
	else echo "programs: NOT compared with their sources: no clang-14, wasm-ld-14 and wasm-opt (examples/build.sh says which packages)"; fi

sim: ## the market in simulated meshes, faults drawn from seeds: SEEDS=1000, one SEED=N again, or new ones for TIME=1h
	@mkdir -p bin
	@$(GO) test -c -o bin/sim.test ./testnet/sim
	@cd testnet/sim && ../../bin/sim.test -test.run '^TestChaos$$' -test.timeout 24h -seeds=$(SEEDS) -seed=$(SEED) -time=$(TIME)

scale: ## how well 1,000 peers share 100,000 tasks beside a central scheduler, then 10,000 peers with 10 tasks each: many minutes
	$(GO) test ./testnet/sim -run '^TestEfficiency$$' -count=1 -timeout 3h -v -efficiency=100,1000 -each=100
	$(GO) test ./testnet/sim -run '^TestEfficiency$$' -count=1 -timeout 3h -v -efficiency=1000,10000 -each=10

mutants: ## bugs planted into the market, one by one: the simulator must catch each; some of them: MUTANT=NAME
	$(GO) test -tags mutants ./testnet/sim -run "^TestMutants$$/$(MUTANT)" -count=1 -timeout 3h -v

chaos: ## real peers killed, stopped and parted at full size, with a table of figures: half an hour; RUN=Partition for one
	$(GO) test ./testnet/e2e -run 'TestChaos.*$(RUN)' -chaos -count=1 -timeout 3h -v

mixed: ## peers of an older commit and of this tree in one mesh, killed and upgraded: a few minutes; OLD=COMMIT, else the last release
	testnet/mixed.sh $(or $(OLD),$(MIXED))

fuzz: ## every fuzz target for COUNT=20000 inputs
	tools/fuzz.sh $(COUNT)

bench: build ## what the mesh costs, beside NATS, xargs, GNU parallel, Gearman and Dask on the same machine: ARGS=-quick, -run words, ...
	@mkdir -p bench/out
	cd bench && $(GO) run . -json out/figures.json -svg out/figures.svg $(ARGS)

bench-compare: ## the Go benchmarks of OLD=commit and of this tree, held against each other
	tools/bench-compare.sh $(OLD)

testnet: ## five real peers on this machine; testnet/down.sh ends them
	testnet/up.sh

generate: ## protocol/pb from protocol/wire.proto
	cd tools && $(GO) run ./genproto

wasm: ## the C programs of examples/ and the sandbox's tests, again
	examples/build.sh

clean: ## remove what was built
	rm -rf bin bench/out
