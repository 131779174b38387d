# Corax. `make help` lists the targets.
GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BUILD    := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
SMALL    := -tags nokube,nethttpomithttp2 -pgo=off -gcflags='all=-l -d=maxshapelen=64' -ldflags '-s -w -X main.version=$(VERSION) -funcalign=1'# no inlining
LINT     := $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
UNIT      = $(shell $(GO) list ./... | grep -v /integration)
RACE     := $(if $(shell command -v gcc),-race)# the race detector needs a C compiler
FUZZTIME ?= 10s
.PHONY: help build small cross portable test unit integration kubernetes race lint fuzz bench demo demo-k8s soak image generate clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build bin/corax for this machine
	$(BUILD) -o bin/corax ./cmd/corax

cross: ## Build bin/corax-linux-<arch> for every architecture
	@for a in amd64 arm64 arm riscv64 mipsle; do echo "bin/corax-linux-$$a"; GOOS=linux GOARCH=$$a GOMIPS=softfloat $(BUILD) -o bin/corax-linux-$$a ./cmd/corax || exit 1; done

small: ## Build bin/corax-small, without Kubernetes, for the smallest devices
	$(BUILD) $(SMALL) -o bin/corax-small ./cmd/corax

portable: small ## Compile for other systems, mostly without Kubernetes; bin/corax-small is below 15 MB
	@n=$$(wc -c <bin/corax-small); test $$n -lt 15000000 || { echo "bin/corax-small has $$n bytes"; exit 1; }; for a in arm64 mipsle; do echo "linux/$$a"; GOOS=linux GOARCH=$$a GOMIPS=softfloat $(BUILD) -tags nokube -o /dev/null ./cmd/corax || exit 1; done
	CGO_ENABLED=0 GOOS=linux GOARCH=arm $(GO) build ./...
	GOOS=darwin GOARCH=arm64 $(GO) vet -tags nokube ./cmd/... ./dataplane/... ./nat/...

test: build portable unit integration ## Everything that proves the project

unit: ## Unit tests; every benchmark once
	@./integration/tools.sh
	$(GO) test $(RACE) -run '^$$' $(UNIT) >/dev/null # builds side by side, then tests one by one
	$(GO) test $(RACE) -p 1 -shuffle=on $(UNIT)
	$(GO) test -p 1 ./nat/natlab ./proxy/channel # in full: less of them runs with the race detector
	$(GO) test -run '^$$' -bench . -benchtime 1x $(UNIT) >/dev/null
	cd deploy/charttest && $(GO) test -count=1 ./... # Go's test cache does not see the chart

kubernetes: ## Build the programs of Kubernetes that tests run (10 minutes, once)
	@./integration/k8stools/build.sh

integration: build kubernetes ## Real agents in network namespaces, a real Kubernetes API
	@./integration/tools.sh
	CORAX_BIN=$(CURDIR)/bin/corax $(GO) test -count=1 -p 1 -timeout 40m ./integration/... # one by one: they have bounds in seconds

race: ## The integration tests, with an agent built with the race detector
	CGO_ENABLED=1 $(GO) build -race -o bin/corax-race ./cmd/corax
	CORAX_BIN=$(CURDIR)/bin/corax-race $(GO) test -count=1 -p 1 -timeout 60m ./integration/...

lint: ## Formatting, vet, linters, go.mod
	$(GO) mod tidy -diff
	$(LINT) run

fuzz: ## Every fuzz target for FUZZTIME
	@grep -rlE --include='*_test.go' '^func Fuzz' . | while read -r f; do grep -oE '^func Fuzz[A-Za-z0-9_]+' $$f | cut -c6- | while read -r t; do \
	  echo "$$f $$t"; $(GO) test -run '^$$' -fuzz "^$$t$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x ./$$(dirname $$f) || exit 1; done || exit 1; done

bench: build ## Ratios against other systems on one topology, in one run
	@./integration/tools.sh bench
	$(GO) run ./integration/bench -corax bin/corax

demo: build ## Pods of three domains, real agents; DATAPATH=netstack: rootless edges
	$(GO) run ./integration/demo -corax bin/corax $(if $(DATAPATH),-datapath $(DATAPATH))

demo-k8s: build kubernetes ## Three domains on a real Kubernetes API: a gateway node dies
	$(GO) run ./integration/demok8s -corax bin/corax

soak: build kubernetes ## The long tests: soak, chaos, scale, simulated NATs
	CORAX_NATLAB_SEEDS=6000 $(GO) test -count=1 -run TestRandom ./nat/natlab
	CORAX_BIN=$(CURDIR)/bin/corax CORAX_SOAK=1 $(GO) test -count=1 -timeout 6h -run Soak ./integration/...

image: cross ## The container image of four architectures, without a container engine
	$(GO) run ./deploy/image -bin bin -version $(VERSION) -o bin/corax-image.tar

generate: ## Golden files, and deploy/manifests from the chart
	$(GO) test ./control ./cmd/corax -update
	cd deploy/charttest && $(GO) test -count=1 . -update

clean: ## Remove what was built
	rm -rf bin
