//! Small clusters: workloads, networks, how pods live and end.

mod lifecycle;
mod network;
mod rig;
mod sidecars;
mod workloads;
