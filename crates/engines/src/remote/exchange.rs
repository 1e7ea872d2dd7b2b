//! One question to one server, and what it says. In: a question, the words around it. Out: a reply, read. Questions are written and
//! replies read beside the async threads: pictures and ids are megabytes. A question that nobody waits for any longer is given up at the
//! server too.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::dialect::{Around, Speak};
use super::link::{Call, Link};
use super::metrics::UnderWay;
use super::outcome::{Miss, Outcome};
use super::request::Ask;

/// Longest time to tell a server that a request is given up.
const GIVING_UP: Duration = Duration::from_secs(5);

/// A question and its way.
#[derive(Clone, Debug)]
pub struct Question {
    /// What is asked.
    pub ask: Arc<Ask>,
    /// The model's name at the server.
    pub model: String,
    /// The label of the weights.
    pub label: String,
    /// Whether the turn's seed is sent.
    pub seeded: bool,
}

/// Asks once, waits until `late` at most, and reads the reply with `read`.
///
/// # Errors
/// [`Miss`].
pub async fn exchange<T: Send + 'static>(
    link: &Link,
    speaker: &'static dyn Speak,
    question: &Question,
    late: impl Future<Output = ()>,
    read: impl FnOnce(&'static dyn Speak, &[u8], &Ask) -> Result<T, Miss> + Send + 'static,
) -> Result<T, Miss> {
    let request = name();
    let (asked, called) = (question.clone(), request.clone());
    let call = apart(move || {
        let around = Around { model: &asked.model, label: &asked.label, request: &called, seeded: asked.seeded };
        Ok(speaker.question(&asked.ask, &around))
    });
    let call = call.await?;
    let under_way = UnderWay::begin();
    let mut giving_up = GivingUp { link, call: speaker.abort(&request) };
    let reply = link.ask_until(&call, late).await;
    if !matches!(&reply, Err(Miss { outcome: Outcome::Slow, .. })) {
        giving_up.call = None;
    }
    drop(giving_up);
    under_way.answered();
    let (reply, ask) = (reply?, question.ask.clone());
    apart(move || read(speaker, &reply, &ask)).await
}

/// Work beside the async threads.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T, Miss> + Send + 'static) -> Result<T, Miss> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|died| Err(Miss::last(Outcome::Malformed, format!("a reply could not be read: {died}"))))
}

/// A name that no other request of any process has, and that none begins with: SGLang gives up all requests whose names begin as it is told.
fn name() -> String {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("hypereyes-{:016x}-{:016x}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Tells the server, unless the request has been answered.
struct GivingUp<'a> {
    link: &'a Link,
    call: Option<Call>,
}

impl Drop for GivingUp<'_> {
    fn drop(&mut self) {
        // Best effort: a request that nobody gives up ends by itself, at its limit of tokens.
        if let (Some(call), Ok(runtime)) = (self.call.take(), Handle::try_current()) {
            let link = self.link.clone();
            runtime.spawn(async move { link.ask(&call, Instant::now() + GIVING_UP).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_the_beginning_of_another() {
        let names: Vec<String> = (0..300).map(|_| name()).collect();
        for (at, one) in names.iter().enumerate() {
            assert!(names.iter().skip(at + 1).all(|other| !other.starts_with(one) && !one.starts_with(other)), "{one}");
        }
    }
}
