//! How the ranks of one training job find each other.
//!
//! In: which rank this is and where rank 0 is. Out: a [`Collective`] that all ranks are part of. Rank 0 draws a generation
//! and tells it to whoever asks over its gRPC service; a rank of an earlier incarnation of the job is turned away. A group that has
//! lost a rank is not mended: its processes end, are started again, and meet anew.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result};
use hypereyes_chassis::{BadInput, Findings};
use hypereyes_collective::{Collective, Hub, RankInfo, Tcp, Transport};
use hypereyes_proto::ports;
use serde::{Deserialize, Serialize};

/// More ranks than this are a slip.
const MOST_RANKS: usize = 1 << 16;

/// Settings of a rank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RanksConfig {
    /// Which rank this process is, from 0. Rank 0 serves the actors and writes checkpoints. Default 0.
    pub rank: usize,
    /// Ranks of the job. Default 1.
    pub world: usize,
    /// Rank 0's gRPC address, for the others. Default 127.0.0.1:7000.
    pub leader: String,
    /// Address on which rank 0 hears the others; any free port. Default 127.0.0.1: only this machine.
    pub listen: IpAddr,
    /// `tcp` or `nccl`. Default `tcp`.
    pub transport: Transport,
    /// Which of the visible GPUs carries this rank's NCCL. Default 0.
    pub gpu: usize,
    /// Whether each rank keeps only its shard of the optimiser's state (ZeRO). Default true; the weights are the same.
    pub sharded: bool,
    /// Seconds after which a rank that does not arrive is named and the group given up; also for meeting. Default 120.
    pub timeout_s: u64,
}

impl Default for RanksConfig {
    fn default() -> Self {
        Self {
            rank: 0,
            world: 1,
            leader: ports::here(ports::LEARNER).to_string(),
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            transport: Transport::Tcp,
            gpu: 0,
            sharded: true,
            timeout_s: 120,
        }
    }
}

/// Where rank 0 waits for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meeting {
    /// Drawn anew at each start.
    pub generation: u64,
    /// Ranks that are expected.
    pub world: usize,
    /// TCP port of the hub.
    pub port: u16,
}

impl RanksConfig {
    /// What is wrong with the settings.
    ///
    /// # Errors
    /// [`BadInput`] that names the key.
    pub fn check(&self) -> Result<(), BadInput> {
        self.findings().result()
    }

    /// The same, all of it.
    pub fn findings(&self) -> Findings {
        let mut found = Findings::default();
        if self.world == 0 || self.world > MOST_RANKS {
            found.refuse("world", format!("= {}: give 1 to {MOST_RANKS}", self.world));
        } else if self.rank >= self.world {
            found.refuse("rank", format!("= {} of world = {}: ranks count from 0", self.rank, self.world));
        }
        found.span("timeout_s", self.timeout_s, 1, 1);
        found
    }

    /// The deadline of every call between ranks.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_s)
    }

    /// Rank 0 opens its hub; `None` where it is alone.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn open(&self) -> Result<Option<(Hub, Meeting)>> {
        if self.world == 1 {
            return Ok(None);
        }
        let hub = Hub::bind(SocketAddr::new(self.listen, 0))?;
        let port = hub.address()?.port();
        Ok(Some((hub, Meeting { generation: rand::random(), world: self.world, port })))
    }

    /// Rank 0 waits for the others. Blocks.
    ///
    /// # Errors
    /// Names the rank that does not come.
    pub fn lead(&self, open: Option<(Hub, Meeting)>) -> Result<Box<dyn Collective>> {
        let star = match open {
            None => Tcp::alone(),
            Some((hub, meeting)) => {
                let place = RankInfo { rank: 0, world: self.world, generation: meeting.generation };
                hub.meet(place, self.timeout(), self.timeout())?
            }
        };
        Ok(self.transport.carry(star, self.gpu, self.timeout())?)
    }

    /// Another rank goes where rank 0 said. Blocks.
    ///
    /// # Errors
    /// When rank 0 cannot be reached.
    pub fn join(&self, meeting: Meeting) -> Result<Box<dyn Collective>> {
        let host = self.leader.rsplit_once(':').map_or(self.leader.as_str(), |(host, _)| host);
        let host = host.trim_start_matches("http://").trim_start_matches("https://").trim_matches(['[', ']']);
        let mut found = (host, meeting.port).to_socket_addrs().with_context(|| format!("ranks: leader = {:?}", self.leader))?;
        let address = found.next().with_context(|| format!("ranks: leader = {:?} has no address", self.leader))?;
        let place = RankInfo { rank: self.rank, world: self.world, generation: meeting.generation };
        let star = Tcp::join(place, address, self.timeout())?;
        Ok(self.transport.carry(star, self.gpu, self.timeout())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_be_meant_are_named() {
        let check = |rank, world| RanksConfig { rank, world, ..RanksConfig::default() }.check().map_err(|error| error.to_string());
        assert!(check(0, 1).is_ok() && check(3, 4).is_ok());
        assert!(check(4, 4).unwrap_err().contains("rank = 4 of world = 4"));
        assert!(check(0, 0).unwrap_err().contains("world = 0"));
    }

    #[test]
    fn ranks_meet_where_rank_0_says() {
        let of = |rank| RanksConfig { rank, world: 2, leader: "http://localhost:1".into(), timeout_s: 5, ..RanksConfig::default() };
        let (hub, meeting) = of(0).open().unwrap().unwrap();
        let other = std::thread::spawn(move || of(1).join(meeting).unwrap().broadcast(0, vec![]).unwrap());
        of(0).lead(Some((hub, meeting))).unwrap().broadcast(0, vec![7]).unwrap();
        assert_eq!(other.join().unwrap(), [7]);
    }
}
