//! What crosses crates: architecture, documentation, Kubernetes manifests and the settings in them.

mod docs;
mod k8s;
mod k8s_engine;
mod k8s_settings;
mod keys;
mod tidy;
