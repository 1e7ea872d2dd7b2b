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

# Kubernetes manifests: render, check against strict schemas, test. Needs kustomize or kubectl, and python3.
k8s:
    k8s/render
    python3 -m venv target/k8s && target/k8s/bin/pip install --quiet -r k8s/requirements.txt && target/k8s/bin/python k8s/validate.py
    cargo test --release -p hypereyes-tests --test k8s --test k8s_settings
