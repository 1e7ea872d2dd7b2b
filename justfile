# What developers run. `just` lists the recipes.

default:
    @just --list

# The main job on this machine.
up *args:
    cargo run --release -- up {{args}}

# All tests but the slow ones.
test:
    cargo test --release --workspace

# The tests of one crate: `just test-package hypereyes-learner intake::`.
test-package name *filter:
    cargo test --release -p {{name}} {{filter}}

# What takes minutes each: kills, soaks, clusters; the last of them need root.
slow:
    bash .ci/slow

# What continuous integration runs.
ci:
    bash .ci/run

# Lints, as the gate has them.
lint:
    cargo clippy --release --workspace --all-targets --features hypereyes/cuda -- -D warnings

# Formatting, lints and documentation: what to run before a commit.
verify:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets --features hypereyes/cuda -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps --document-private-items

# Licences, sources, refused crates (needs cargo-deny).
deny:
    cargo deny check bans licenses sources

# Formatting.
fmt:
    cargo fmt --all

# Kubernetes manifests: render, check against strict schemas, test. Needs kustomize or kubectl, and python3.
k8s:
    k8s/render
    python3 -m venv target/k8s && target/k8s/bin/pip install --quiet -r k8s/requirements.txt && target/k8s/bin/python k8s/validate.py
    cargo test --release -p hypereyes-tests --test it k8s
