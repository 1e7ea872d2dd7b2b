# What developers run. `just` lists the recipes.

default:
    @just --list

# The main job on this machine.
up *args:
    cargo run --release -- up {{args}}

# All tests.
test:
    cargo test --release --workspace

# What continuous integration runs.
ci:
    bash .ci/run

# Lints, denied in review though not in the gate.
lint:
    cargo clippy --release --workspace --all-targets

# Formatting.
fmt:
    cargo fmt --all
