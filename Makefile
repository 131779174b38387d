# Corax. `make help` lists the targets.
GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.version=$(VERSION)
BUILD    := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'
ARCHES   := amd64 arm64 arm riscv64 mipsle
UNIT     := $(shell $(GO) list ./... 2>/dev/null | grep -v /integration)
LINT     := $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
FUZZTIME ?= 10s

.PHONY: help build cross test unit integration race lint fuzz bench demo soak generate clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build bin/corax for this machine
	$(BUILD) -o bin/corax ./cmd/corax

cross: ## Build bin/corax-linux-<arch> for every architecture; compile for darwin
	@for a in $(ARCHES); do echo "linux/$$a"; GOOS=linux GOARCH=$$a GOMIPS=softfloat $(BUILD) -o bin/corax-linux-$$a ./cmd/corax || exit 1; done
	@echo darwin/arm64; GOOS=darwin GOARCH=arm64 $(BUILD) -o /dev/null ./cmd/corax

test: build cross ## Everything that proves the project (installs what it needs, or says what is missing)
	@./integration/tools.sh
	$(GO) test -race -shuffle=on $(UNIT)
	$(GO) test -run '^$$' -bench . -benchtime 1x $(UNIT) >/dev/null
	CORAX_BIN=$(CURDIR)/bin/corax $(GO) test -count=1 -timeout 30m ./integration/...

unit: ## Unit tests only, with the race detector
	$(GO) test -race -shuffle=on $(UNIT)

integration: build ## Real agents in network namespaces
	@./integration/tools.sh
	CORAX_BIN=$(CURDIR)/bin/corax $(GO) test -count=1 -timeout 30m ./integration/...

race: ## The integration tests with an agent built with the race detector
	CGO_ENABLED=1 $(GO) build -race -o bin/corax-race ./cmd/corax
	CORAX_BIN=$(CURDIR)/bin/corax-race $(GO) test -count=1 -timeout 60m ./integration/...

lint: ## Formatting, vet, linters, go.mod
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(LINT) run

fuzz: ## Every fuzz target for FUZZTIME (10s)
	@for p in $$(grep -rl --include=*_test.go '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
	  for f in $$(grep -rhoE --include=*_test.go '^func Fuzz[A-Za-z0-9_]+' $$p/*_test.go | cut -c6- | sort -u); do \
	    echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$p || exit 1; done; done

bench: build ## Ratios against other systems on one topology, in one run
	@./integration/tools.sh bench
	$(GO) run ./integration/bench -corax bin/corax

demo: build ## Pods of three domains talk through real agents, live
	$(GO) run ./integration/demo -corax bin/corax

soak: build ## The long tests: soak, chaos, scale
	CORAX_BIN=$(CURDIR)/bin/corax CORAX_SOAK=1 $(GO) test -count=1 -timeout 6h -run Soak ./integration/...

generate: ## Golden files
	$(GO) test ./control -run Golden -update
	$(GO) test ./cmd/corax -run Golden -update

clean: ## Remove what was built
	rm -rf bin .cache
