# Gureum's commands. `make run` gives a working server, `make test` runs every check.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help setup setup-fuzz build run test lint docs check fuzz bench bench-compare bench-baseline bench-limits bench-growth bench-peers demo prove simulate clean

# ccache, where it is installed, stands in for the C and C++ compilers by the PATH alone: setting CC or CXX
# would make cargo believe that everything has changed.
export PATH := /usr/lib/ccache:$(HOME)/.cargo/bin:$(PATH)

# What people run. Named, so that what only the tests turn on in the server is never in it.
PRODUCT := --package gureum-server --package gureum-client

# Seconds for each fuzz target.
TIME ?= 60

# Seeds of simulations.
SEEDS ?= 200
# Which proof, with its options.
WHAT ?= --help
# What `bench-limits` is to do otherwise than by default.
LIMITS ?=
# What is to grow for `bench-growth`, with its options.
GROWTH ?= --help

# The ratio from which on a bench counts as slower.
THRESHOLD ?= 1.3

# The benches, into the release that the proofs build, with its features: the workspace's. Failpoints are among them, two
# look-ups of a name for each batch, which is nothing beside its fsync. A second for warming up and three for measuring:
# all 25 in some two minutes.
BENCH := cargo bench --workspace --target-dir target/prove --bench wire --bench server -- \
	--noplot --warm-up-time 1 --measurement-time 3

# Where a comparison has its results, emptied before: what is left there of a bench that is gone would count.
MEASURED := target/bench-measured
BASELINE := benches/baseline.json

# What to compare with the peers: PEERS="--scenario pairs --rounds 1"; PEERS=--help lists it.
PEERS ?=

help:
	@sed -n 's/^## //p' $(firstword $(MAKEFILE_LIST))

## make run      installs what is missing, builds, starts a server in ./run and says what to type next
run: setup
	cargo build --release $(PRODUCT) --bins
	exec scripts/run.sh

## make test     every check: format, lints, docs, each fuzz target for 10 s, all tests
test: setup-fuzz lint docs
	scripts/fuzz.sh 10
	cargo build --workspace --bins
	cargo test --workspace --doc --quiet
	scripts/check.sh
	target/debug/simulate --seeds 12 --days 5
	target/debug/simulate --seeds 101..103 --days 10
	target/debug/simulate --story devices --seeds 2 --days 7
	target/debug/simulate --story groups --seeds 3..7 --days 5

## make check    the tests alone, without the set-up and the lints
check:
	@cargo build --workspace --bins
	scripts/check.sh

## make build    the release binaries, in ./target/release
build: setup
	cargo build --release $(PRODUCT) --bins

## make demo     plays the whole story with the real binaries and shows what they print
demo: setup
	cargo build --release $(PRODUCT) --bins
	exec scripts/demo.sh

## make fuzz     each fuzz target for TIME=60 seconds
fuzz: setup-fuzz
	scripts/fuzz.sh $(TIME)

## make bench    the criterion benches, each against its last run
bench: setup
	CRITERION_HOME=$(CURDIR)/target/criterion $(BENCH)

## make bench-compare  the same against benches/baseline.json, as ratios; fails where one is above THRESHOLD=1.3
bench-compare: setup
	@test -e $(BASELINE) || { echo "$(BASELINE) is missing: make bench-baseline measures and writes it" >&2; exit 1; }
	rm -rf $(MEASURED)
	CRITERION_HOME=$(CURDIR)/$(MEASURED) $(BENCH)
	cargo build --release --workspace --bin compare --target-dir target/prove
	target/prove/release/compare --threshold $(THRESHOLD) $(MEASURED) $(BASELINE)

## make bench-baseline  measures and writes benches/baseline.json anew
bench-baseline: setup
	rm -rf $(MEASURED)
	CRITERION_HOME=$(CURDIR)/$(MEASURED) $(BENCH)
	cargo build --release --workspace --bin compare --target-dir target/prove
	target/prove/release/compare --write $(MEASURED) $(BASELINE)

## make bench-limits  Gureum beside the bare parts below it, LIMITS="--rounds 1"; LIMITS=--help lists the options
bench-limits: setup
	cargo build --release --workspace --bins --target-dir target/prove
	target/prove/release/limits $(LIMITS)

## make bench-growth  what a message costs as all grows, GROWTH="stored --rounds 3"; GROWTH=--help lists what can grow
bench-growth: setup
	cargo build --release --workspace --bins --target-dir target/prove
	target/prove/release/growth $(GROWTH)

## make bench-peers  the same work on NATS, Redis, Mosquitto and ejabberd: PEERS="--scenario pairs", PEERS=--help
bench-peers: setup
	cargo build --release --workspace --bins --target-dir target/prove
	scripts/peers.sh $(PEERS)

## make simulate simulated weeks under faults, SEEDS=200 of them; a failure prints how to replay it
simulate: setup
	cargo build --package gureum-tests --bin simulate
	target/debug/simulate --seeds $(SEEDS) --days 14

## make prove    a proof at scale, WHAT="network --messages 400"; WHAT=--help lists them
prove: setup
	cargo build --release --workspace --bins --target-dir target/prove
	target/prove/release/prove $(WHAT)

## make clean    removes what was built and the server in ./run
clean:
	cargo clean
	cargo clean --manifest-path fuzz/Cargo.toml
	cargo clean --manifest-path benches/peers/Cargo.toml
	rm -rf run fuzz/corpus fuzz/artifacts

setup:
	@scripts/setup.sh

setup-fuzz:
	@scripts/setup.sh fuzz

lint:
	@cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo fmt --manifest-path benches/peers/Cargo.toml --check
	cargo clippy --workspace --all-targets -- -D warnings

docs:
	@RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
