//! How many connections, or bytes of requests, there may be: of one address and of all.
//!
//! In: addresses of those who come. Out: a [`Place`], which is given back when it is dropped, or why there is none. An
//! address of IPv6 stands for its /64, which is what one host has.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::metrics::gauge;
use rustix::process::{Resource, getrlimit};

use crate::metrics::{CONNECTIONS, REQUEST_BYTES};

/// Descriptors that are left for files and calls to others.
const SPARED: u64 = 64;

/// Places, counted. Clones are one and the same.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The gauge, and what is served there: its label.
    gauge: &'static str,
    name: &'static str,
    most: usize,
    most_of_peer: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_peer: HashMap<IpAddr, usize>,
}

impl Places {
    /// For connections: at most `most` places, fewer where the process may not have as many descriptors, and `most_of_peer` for one address,
    /// but never more than half: one address leaves room for others.
    pub(crate) fn new(name: &'static str, most: usize, most_of_peer: usize) -> Self {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let room = usize::try_from(descriptors.saturating_sub(SPARED).max(descriptors / 2)).unwrap_or(usize::MAX);
        Self::of(CONNECTIONS, name, most.min(room), most_of_peer)
    }

    /// For bytes of requests: at most `most`, and `most_of_peer` of one address.
    pub(crate) fn bytes(name: &'static str, most: usize, most_of_peer: usize) -> Self {
        Self { most_of_peer: most_of_peer.min(most), ..Self::of(REQUEST_BYTES, name, most, most) }
    }

    fn of(gauge: &'static str, name: &'static str, most: usize, most_of_peer: usize) -> Self {
        let most = most.max(2);
        Self { gauge, name, most, most_of_peer: most_of_peer.clamp(1, most / 2), taken: Arc::default() }
    }

    /// A place for somebody at `peer`.
    ///
    /// # Errors
    /// The label under which the refusal is counted: `full`, or `full_of_peer`.
    pub(crate) fn take(&self, peer: IpAddr) -> Result<Place, &'static str> {
        self.take_many(Some(peer), 1)
    }

    /// So many places for somebody; those without an address count as one.
    ///
    /// # Errors
    /// As [`Places::take`].
    pub(crate) fn take_many(&self, peer: Option<IpAddr>, many: usize) -> Result<Place, &'static str> {
        let peer = host(peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        let mut taken = self.lock();
        if many > self.most.saturating_sub(taken.all) {
            return Err("full");
        }
        let of_peer = taken.by_peer.get(&peer).copied().unwrap_or(0);
        if many > self.most_of_peer.saturating_sub(of_peer) {
            return Err("full_of_peer");
        }
        taken.by_peer.insert(peer, of_peer + many);
        taken.all += many;
        gauge!(self.gauge, "listener" => self.name).increment(many as f64);
        Ok(Place { places: self.clone(), peer, many })
    }

    /// Places that are taken.
    pub(crate) fn taken(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Places of one connection or message.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    peer: IpAddr,
    many: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= self.many;
        gauge!(self.places.gauge, "listener" => self.places.name).decrement(self.many as f64);
        if let Some(of_peer) = taken.by_peer.get_mut(&self.peer) {
            *of_peer -= self.many;
            if *of_peer == 0 {
                taken.by_peer.remove(&self.peer);
            }
        }
    }
}

/// What counts as one peer: an address of IPv4, however it is written, or a network of 64 bits of IPv6.
fn host(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_room_and_places_come_back() {
        let places = Places::of(CONNECTIONS, "test", 6, 99);
        let (one, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().expect("an address"), "::ffff:10.0.0.2".parse().expect("an address"));
        let held: Vec<Place> = (0..3).map(|_| places.take(one).expect("half of all")).collect();
        assert_eq!(places.take(one).expect_err("no more than half"), "full_of_peer");
        assert_eq!(places.take("::ffff:10.0.0.1".parse().expect("an address")).expect_err("the same host"), "full_of_peer");
        let others: Vec<Place> = (0..3).map(|_| places.take(other).expect("the other half")).collect();
        assert_eq!(places.take("10.0.0.3".parse().expect("an address")).expect_err("all are taken"), "full");
        drop(held);
        assert_eq!(places.taken(), 3);
        assert!(places.take(one).is_ok());
        drop(others);
        assert!(places.lock().by_peer.is_empty());
        let (near, far): (IpAddr, IpAddr) = ("2001:db8::1".parse().expect("an address"), "2001:db8::ffff:1".parse().expect("an address"));
        assert_eq!(host(near), host(far), "one host has a whole network");
    }
}
