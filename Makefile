# The two commands: `make demo` makes a film from nothing, `make test` proves that all of it works.
# Both install what is missing (see scripts/setup.sh). The queries of the program are checked against the committed
# data in .sqlx, so no build needs a database.

export SQLX_OFFLINE = true
export PATH := $(HOME)/.cargo/bin:$(PATH)

LOCALE ?= en
TEMPLATE ?= promo
DATA ?= .flatrender
PROGRAMS := -p flatrender-api -p flatrender-renderer

.PHONY: help setup build trial demo up test chaos soak fuzz fmt lint sqlx-prepare clean-data

help:
	@echo "make demo [LOCALE=fa] [TEMPLATE=story] [KEEP=1]   render a sample film; KEEP=1 stays up afterwards"
	@echo "make up                                           run the platform until Ctrl-C"
	@echo "make test                                         everything that proves it works"
	@echo "make chaos [FAULT=f03]                            engine and farm under faults, the long form"
	@echo "make soak                                         those of them that take hours: F6, F8, F35 as the list has them"
	@echo "make fuzz [MINUTES=5]                             the API of a live server, from its OpenAPI document"
	@echo "make fmt | lint | build | setup                   one step of it"
	@echo "make sqlx-prepare                                 renew .sqlx after a query or a migration changed"
	@echo "make clean-data                                   remove what make demo and make up keep"

setup:
	@scripts/setup.sh build

build: setup
	@cargo build --locked --release $(PROGRAMS)

# What the demo and the tests share: less than half the time of a release, and optimised where pixels are made.
trial: setup
	@cargo build --locked $(PROGRAMS)

demo: trial
	@target/debug/flatrender demo --data $(DATA) --template $(TEMPLATE) --locale $(LOCALE) $(if $(KEEP),--keep)

up: build
	@target/release/flatrender up --data $(DATA)

test:
	@scripts/setup.sh test
	@scripts/test.sh

chaos:
	@scripts/setup.sh test
	@scripts/chaos.sh $(FAULT)

soak:
	@scripts/setup.sh test
	@FLATRENDER_CHAOS=soak scripts/chaos.sh 'f(06|08|35)_'

fuzz:
	@scripts/setup.sh test
	@scripts/fuzz.sh $(or $(MINUTES),5)

fmt:
	@cargo fmt --all

lint:
	@cargo fmt --all --check
	@cargo clippy --locked --workspace --all-targets -- -D warnings

sqlx-prepare:
	@scripts/setup.sh test
	@scripts/sqlx-prepare.sh

clean-data:
	@scripts/clean-data.sh $(DATA)
