# Penstock. `make help` prints the targets; each does its own set-up on a machine with Node >= 20.
SHELL := /bin/bash
NODE := node_modules/.bin/node
PENSTOCK := $(NODE) src/main.ts
READY := node_modules/.package-lock.json
WEB := dist/console/index.html
ARGS ?=
.DEFAULT_GOAL := help

.PHONY: help
help: ## Print this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

$(READY): package.json package-lock.json
	@# Not `npm ci`: that fails when a registry lacks the builds of a tool for other platforms.
	npm install --no-save --no-audit --no-fund --loglevel=error
	@touch $@

$(WEB): $(READY) $(shell find src/console/web -type f 2>/dev/null) vite.config.ts
	npm run --silent build:web

.PHONY: up
up: $(WEB) ## Install, then start everything here; without a GPU the engines are rehearsed
	@$(PENSTOCK) up $(ARGS)

.PHONY: serve
serve: $(WEB) ## Start Penstock on inventory.yaml; engines outlive it
	@$(PENSTOCK) serve $(ARGS)

.PHONY: deploy-models
deploy-models: $(READY) ## Apply manifests/ on inventory.yaml through the running Penstock
	@$(PENSTOCK) apply $(ARGS)

.PHONY: plan
plan: $(READY) ## The same without doing it: fit with its sum, placement, commands, changes
	@$(PENSTOCK) plan $(ARGS) || [ $$? -eq 3 ]

.PHONY: check
check: $(READY) ## Lint, format, types
	npm run --silent check

.PHONY: test
test: check $(WEB) ## All tests; a missing real part is skipped loudly, under CI=true it fails
	npm run --silent test -- $(ARGS)

.PHONY: bench
bench: $(READY) ## Measure the gateway against a baseline in the same run
	@$(NODE) test/bench/gateway.ts $(ARGS)

.PHONY: bench-policy
bench-policy: $(READY) ## Limits, overload, fairness, callers who leave, on rehearsed engines; 90 minutes
	@$(NODE) test/bench/policy.ts $(ARGS)

.PHONY: bench-simulator
bench-simulator: $(READY) ## Measure one simulator process: 10,000 streams, 50,000 tokens/s, one core
	@ulimit -n $$(ulimit -H -n) && $(NODE) test/bench/simulator.ts $(ARGS)

.PHONY: calibrate
calibrate: $(READY) ## The flight simulator against every published measurement; ARGS=--fit fits anew
	@$(NODE) runtimes/simulator/calibration/main.ts $(ARGS)

.PHONY: conformance
conformance: $(WEB) ## Deploy a real vLLM (CPU build, from PyPI) and stream from it
	bash conformance/run $(ARGS)

.PHONY: simulator-image
simulator-image: $(READY) ## Build the flight simulator's image into the inventory's Docker engines
	@$(PENSTOCK) simulator-image $(ARGS)

.PHONY: clean
clean: ## Remove what was installed and built here; .penstock (your state) stays
	rm -rf node_modules dist
