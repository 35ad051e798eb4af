# Every target that builds first runs scripts/install-llvm.sh, which installs what is missing and
# writes target/llvm.env: the features that fit this machine's LLVM, and where it lies.
#
#   BB_NO_LLVM=1 make TARGET    builds without LLVM
#   make gemma2 ARGS="..."      passes arguments to the program

LLVM_ENV = target/llvm.env
WITH_LLVM = . ./$(LLVM_ENV) &&
ARGS =

# What Miri can run: safe and unsafe code of the core, no LLVM, no files mapped into memory. Drawings and some large
# random cases, which have no unsafe code, and every text of the text form take it too long; its `powi` and `ln` round at
# random, which the tests of `op::math` compare with.
MIRI_TESTS = storage:: op:: graph:: exec:: shape:: --skip display --skip buffers_needed --skip bounds_hold \
	--skip round_trip --skip broken_texts --skip op::math --skip uniform_numbers

.DEFAULT_GOAL := help
.PHONY: help setup lint-tools gemma2 test format lint test-llvm test-no-llvm doc test-long models bench peers peers-models miri clean

help: ## Show this help
	@echo "brain-blitz: make TARGET"
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  \1@\2/p' Makefile | awk -F@ '{ printf "%-16s %s\n", $$1, $$2 }'

setup: ## Install LLVM 22 and a C toolchain when they are missing
	@sh scripts/install-llvm.sh $(LLVM_ENV)

gemma2: setup ## Build and run the Gemma 2 example
	$(WITH_LLVM) cargo run --release $$CARGO_FEATURES --example gemma2 -- $(ARGS)

test: format lint test-llvm test-no-llvm doc ## Run every check: format, lints, tests with and without LLVM, docs

lint-tools: setup
	@$(WITH_LLVM) { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1 || rustup component add rustfmt clippy

format: lint-tools ## Check the format
	$(WITH_LLVM) cargo fmt --all -- --check

lint: lint-tools ## Run clippy on all targets, with and without LLVM
	$(WITH_LLVM) cargo clippy --all-targets $$CARGO_FEATURES -- -D warnings
	$(WITH_LLVM) cargo clippy --all-targets --no-default-features -- -D warnings

test-llvm: setup ## Run unit, integration and doc tests with LLVM
	$(WITH_LLVM) cargo test $$CARGO_FEATURES

test-no-llvm: setup ## Run the same tests without LLVM
	$(WITH_LLVM) cargo test --no-default-features

doc: setup ## Build the documentation; a warning is an error
	$(WITH_LLVM) RUSTDOCFLAGS="-D warnings" cargo doc --no-deps $$CARGO_FEATURES

test-long: setup ## Run the tests that take minutes too (BB_LONG=1), optimized
	$(WITH_LLVM) BB_LONG=1 cargo test --release $$CARGO_FEATURES

models: ## Fetch the real models that long tests run (351 MB, into the user's cache folder)
	sh scripts/fetch-models.sh

bench: setup ## Run the benchmarks
	$(WITH_LLVM) cargo bench $$CARGO_FEATURES $(ARGS)

peers-models: setup ## Compare whole models with llama.cpp (builds it; 5.2 GB of random weights)
	$(WITH_LLVM) cargo build --release $$CARGO_FEATURES --bin brain-blitz
	python3 benches/peers/llama.py $(ARGS)

peers: setup ## Compare with PyTorch, ONNX Runtime and numpy, row by row
	$(WITH_LLVM) benches/peers/run.sh $(ARGS)

# The workers of the process-wide pool never end, which Miri calls a leak.
miri: ## Run the core's unit tests under Miri (nightly Rust)
	rustup component add --toolchain nightly miri rust-src
	MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks" PROPTEST_CASES=2 \
		cargo +nightly miri test --no-default-features --lib -- $(MIRI_TESTS)

clean: ## Remove everything that was built
	cargo clean
