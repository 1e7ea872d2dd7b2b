//! What several tests of the whole house share: where the workspace is, and what its manifests for Kubernetes say.

pub mod k8s;

use std::path::PathBuf;

/// The root of the workspace.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace").to_owned()
}
