//! Where each service listens unless its settings say otherwise, and so where its callers look for it.
//!
//! One table: services and callers that are started by hand meet, and `k8s/` uses the same numbers. Nothing comes in; the defaults of
//! settings are made of what goes out. It opens no port. An actor serves nobody and has none.

use std::net::{Ipv4Addr, SocketAddr};

/// The learner's port: leases, groups and weights; its rank 0 also meets the other ranks there.
pub const LEARNER: u16 = 7000;
/// The reward service's port.
pub const REWARD: u16 = 7001;
/// The teacher service's port.
pub const TEACHER: u16 = 7002;

/// A port of this machine that only this machine reaches.
pub fn here(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
