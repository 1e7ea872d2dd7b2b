//! In whose name a caller may speak. In: an actor's name, the connection that uses it, and what the caller can show: its certificate,
//! and a secret of its process that it sends with every call. Out: whether the name is the caller's. A name belongs to the first
//! connection that uses it, for as long as it is open; after that to whoever shows the same secret, or, where none was ever shown,
//! the same certificate. Somebody else gets it once nothing is leased under it. So an actor that reconnects goes on, one that is
//! started again under its old name begins anew, and none speaks for another. It knows no wire.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use hypereyes_domain::ActorId;

/// Names of one connection: an actor has one, what stands in front of several some more.
pub const MOST_NAMES: usize = 64;
/// A name that was not used for so long counts no more: actors that are started again have others, and what stands in front of them
/// keeps its connection.
const UNUSED: Duration = Duration::from_secs(600);
/// Names that are remembered.
const MOST: usize = 1 << 16;

/// A BLAKE3 hash.
pub type Mark = [u8; 32];

/// Who calls.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The connection; it is open for as long as somebody else holds it too. `None` within a process.
    pub connection: Option<Arc<u64>>,
    /// Of its certificate, where it showed one.
    pub certificate: Option<Mark>,
    /// Of the secret of its process, where it sent one.
    pub secret: Option<Mark>,
}

/// Why a name is not the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotYours {
    /// Another speaks in it.
    #[error("the name is another's: its connection is open, or leases are out under it")]
    InUse,
    /// The caller has too many, or there are too many altogether.
    #[error("the connection uses too many names")]
    TooMany,
}

#[derive(Debug)]
struct Speaker {
    connection: u64,
    open: Weak<u64>,
    certificate: Option<Mark>,
    secret: Option<Mark>,
    heard: Instant,
}

/// Names in use.
#[derive(Debug, Default)]
pub struct Speakers {
    known: HashMap<ActorId, Speaker>,
}

impl Speakers {
    /// Whether `actor` is the caller's name; from now on it is, where it can be. `holds`: whether leases are out under it.
    ///
    /// # Errors
    /// [`NotYours`]; then nothing has changed.
    pub fn claim(&mut self, actor: &ActorId, caller: &Caller, holds: bool) -> Result<(), NotYours> {
        // Within a process nobody is a stranger.
        let Some(connection) = &caller.connection else { return Ok(()) };
        if let Some(speaker) = self.known.get_mut(actor) {
            let same = speaker.connection == **connection && speaker.open.strong_count() > 0;
            let shown = speaker.secret.is_some() && speaker.secret == caller.secret;
            let may = if shown {
                true
            } else if same {
                // Two processes behind one connection tell themselves apart by their secrets.
                speaker.secret.is_none() || caller.secret.is_none()
            } else {
                let free = speaker.open.strong_count() == 0;
                let heir = speaker.secret.is_none() && speaker.certificate == caller.certificate;
                free && (heir || !holds)
            };
            if !may {
                return Err(NotYours::InUse);
            }
            *speaker = Speaker::of(connection, caller, speaker.secret.filter(|_| same));
            return Ok(());
        }
        let names = self.known.values().filter(|speaker| speaker.connection == **connection && speaker.is_there()).count();
        if self.known.len() >= MOST {
            self.known.retain(|_, speaker| speaker.is_there());
        }
        if names >= MOST_NAMES || self.known.len() >= MOST {
            return Err(NotYours::TooMany);
        }
        self.known.insert(actor.clone(), Speaker::of(connection, caller, None));
        Ok(())
    }
}

impl Speaker {
    fn of(connection: &Arc<u64>, caller: &Caller, secret: Option<Mark>) -> Self {
        let open = Arc::downgrade(connection);
        let (certificate, secret) = (caller.certificate, caller.secret.or(secret));
        Self { connection: **connection, open, certificate, secret, heard: Instant::now() }
    }

    /// Whether its connection is open and it was heard of not long ago.
    fn is_there(&self) -> bool {
        self.open.strong_count() > 0 && self.heard.elapsed() < UNUSED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(connection: &Arc<u64>, secret: Option<u8>) -> Caller {
        Caller { connection: Some(connection.clone()), certificate: None, secret: secret.map(|secret| [secret; 32]) }
    }

    #[test]
    fn a_name_is_of_the_connection_that_uses_it_while_it_is_open() {
        let (mut speakers, a) = (Speakers::default(), ActorId::from("a"));
        let (one, two) = (Arc::new(1), Arc::new(2));
        assert_eq!(speakers.claim(&a, &caller(&one, None), false), Ok(()));
        assert_eq!(speakers.claim(&a, &caller(&two, None), false), Err(NotYours::InUse));
        assert_eq!(speakers.claim(&a, &caller(&two, Some(7)), true), Err(NotYours::InUse));
        assert_eq!(speakers.claim(&a, &caller(&one, None), true), Ok(()));
        drop(one);
        assert_eq!(speakers.claim(&a, &caller(&two, None), true), Ok(()), "who was started again goes on");
        let stranger = Caller { certificate: Some([9; 32]), ..caller(&Arc::new(3), None) };
        drop(two);
        assert_eq!(speakers.claim(&a, &stranger, true), Err(NotYours::InUse), "another certificate, and leases are out");
        assert_eq!(speakers.claim(&a, &stranger, false), Ok(()));
    }

    #[test]
    fn a_secret_follows_its_process_over_connections_and_nobody_else_has_it() {
        let (mut speakers, a) = (Speakers::default(), ActorId::from("a"));
        let (one, two, three) = (Arc::new(1), Arc::new(2), Arc::new(3));
        assert_eq!(speakers.claim(&a, &caller(&one, Some(1)), false), Ok(()));
        assert_eq!(speakers.claim(&a, &caller(&two, Some(1)), true), Ok(()), "it reconnects before the old connection is known to be gone");
        assert_eq!(speakers.claim(&a, &caller(&one, Some(2)), true), Err(NotYours::InUse));
        drop(two);
        assert_eq!(speakers.claim(&a, &caller(&three, Some(2)), true), Err(NotYours::InUse), "leases are out");
        assert_eq!(speakers.claim(&a, &caller(&three, None), true), Err(NotYours::InUse));
        assert_eq!(speakers.claim(&a, &caller(&three, Some(2)), false), Ok(()), "a heir begins anew");
        assert_eq!(speakers.claim(&a, &caller(&one, Some(1)), false), Err(NotYours::InUse), "and its zombie is refused");
    }

    #[test]
    fn one_connection_has_so_many_names() {
        let (mut speakers, one) = (Speakers::default(), Arc::new(1));
        let names = (0..100).filter(|n| speakers.claim(&ActorId::new(format!("a{n}")), &caller(&one, None), false).is_ok()).count();
        assert_eq!(names, MOST_NAMES);
        assert_eq!(speakers.claim(&"b".into(), &caller(&Arc::new(2), None), false), Ok(()));
    }
}
