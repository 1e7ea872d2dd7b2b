//! What the command line asks running services. In: an address. Out: plain facts. The only file here that sees the wire.

use std::net::SocketAddr;
use std::time::Duration;

use hypereyes_proto::{client, v1};
use serde::Serialize;

/// How long a service may take to answer; who asks is a person at a terminal.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a learner says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LearnerState {
    /// Optimiser steps done.
    pub step: u64,
    /// Newest policy version.
    pub version: u64,
    /// Pass over the tasks.
    pub epoch: u64,
    /// Groups trained.
    pub groups_trained: u64,
    /// Groups dropped.
    pub groups_dropped: u64,
    /// Groups leased or waiting.
    pub groups_outstanding: u64,
    /// True when no more leases are given.
    pub finished: bool,
    /// Tasks that failed too often and are not leased any more.
    pub tasks_set_aside: u64,
}

/// Asks a learner how far it is. The error is for people.
///
/// # Errors
/// When it does not answer in time.
pub async fn ask_learner(address: SocketAddr) -> Result<LearnerState, String> {
    let mut client = client::learner(&address.to_string()).map_err(|error| error.to_string())?;
    let reply = tokio::time::timeout(PATIENCE, client.status(v1::StatusRequest {})).await;
    let status = reply.map_err(|_| format!("no answer from {address}"))?.map_err(|status| status.message().to_owned())?.into_inner();
    Ok(LearnerState {
        step: status.step,
        version: status.version,
        epoch: status.epoch,
        groups_trained: status.groups_trained,
        groups_dropped: status.groups_dropped,
        groups_outstanding: status.groups_outstanding,
        finished: status.finished,
        tasks_set_aside: status.tasks_set_aside,
    })
}
