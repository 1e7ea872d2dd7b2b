//! A cluster for tests: rendered Kubernetes manifests in, our real binaries as pods on this machine out.
//!
//! What comes in is what `kubectl kustomize` prints, and a binary for each image. What goes out is a [`Cluster`] that a test
//! changes, breaks, waits for and looks at. It knows nothing of hypereyes: any manifests of these kinds will do.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use hypereyes_kubesim::{Cluster, Options, Permit, Verdict};
//! # async fn scenario(manifests: &str) -> anyhow::Result<()> {
//! if let Err(reason) = Permit::check() {
//!     eprintln!("skipped: {reason}");
//!     return Ok(());
//! }
//! let binaries = [("hypereyes".to_owned(), "target/release/hypereyes".into())].into();
//! let cluster = Cluster::start(manifests, Options { binaries, ..Options::default() }).await?;
//! cluster.wait_ready("app.kubernetes.io/name=actor", Duration::from_secs(60)).await?;
//! let actors = cluster.names("app.kubernetes.io/name=actor").await?;
//! cluster.kill_pod(&actors[0]).await?;
//! cluster.partition(&[&actors[1]], &["reward-0"]).await?;
//! cluster.heal().await?;
//! assert_eq!(cluster.wait_job("learner", Duration::from_secs(600)).await?, Verdict::Complete);
//! # Ok(())
//! # }
//! ```
//!
//! # What is real
//!
//! - A network namespace, host name, IPC and IP address per pod, on a bridge in a namespace of its own; TCP is the kernel's.
//! - A PID and mount namespace per container. The program is process 1, so a SIGTERM that it does not handle is ignored.
//!   Volumes are where `mountPath` says; a read-only root is read-only; user, groups, capabilities and `no_new_privs` are set.
//! - Arguments, environment, downward API, ConfigMaps and Secrets as files (updates by one symlink), claims that outlive pods.
//! - gRPC, HTTP, TCP and exec probes, preStop, SIGTERM, grace, SIGKILL, exit codes.
//! - Init containers one after the other, sidecars among them: each has started before the next container does, is restarted
//!   by itself, and ends after the containers.
//!
//! # What is simulated
//!
//! - Controllers: Deployment, StatefulSet, (Indexed) Job with its failure policy, HorizontalPodAutoscaler, eviction with
//!   PodDisruptionBudgets. They are written after Kubernetes' rules, they are not its code. A bare Pod
//!   that was evicted is made again, which nobody does in Kubernetes.
//! - Names: a hosts file per pod that follows the pods. A ClusterIP's name is the address of one ready pod, chosen anew for
//!   every pod that asks: there is no virtual address, no spreading of one client's connections, no translation of ports.
//! - Metrics reach autoscalers by scraping pods directly; a metric that several pods export is their sum.
//! - The image: this machine's programs and libraries, read-only, with the given binary.
//! - Times: restart backoff is short, ConfigMap updates and endpoints are immediate, an autoscaler's clock can be sped up.
//!
//! # What is not there
//!
//! Scheduler, nodes and their loss, resource requests and limits, device plugins, NetworkPolicy (read, not enforced), seccomp,
//! storage drivers and access modes, service accounts' rights, admission, custom resources and their controllers, service
//! environment variables, a Job's success policy and its count of restarts in place, the way to any other network. That
//! manifests run here says nothing about these.

mod amount;
mod autoscale;
mod cluster;
mod container;
mod containers;
mod control;
mod events;
mod hosts;
mod manifest;
mod node;
mod permit;
mod plan;
mod pod;
mod probe;
mod root;
mod sandbox;
mod scrape;
mod status;
mod table;
mod volumes;
mod workloads;
mod world;

pub use amount::duration;
pub use cluster::Cluster;
pub use manifest::Key;
pub use permit::Permit;
pub use status::{Phase, PodInfo, Snapshot, Verdict};
pub use table::render as table;
pub use world::Options;
