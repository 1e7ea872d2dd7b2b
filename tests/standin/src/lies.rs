//! What a server may do wrong, and when. In: rates, or an order for the next request. Out: the lie of a request, if any. Drawn from a
//! seed, in the order in which requests come.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Serialize, Serializer};

/// One way to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lie {
    /// A sampled id is left out; its log-prob is there.
    ShortIds,
    /// A sampled id is another one than its log-prob's.
    OtherIds,
    /// The echoed prompt has another token in it.
    OtherPrompt,
    /// Placeholders of pictures are expanded twice.
    Expansion,
    /// There are no log-probs.
    NoLogprobs,
    /// A log-prob is not finite, as far as JSON can say so: vLLM says -9999, SGLang null.
    NotFinite,
    /// A log-prob is above zero.
    PositiveLogprob,
    /// The weights are said to be another version than they are.
    StaleVersion,
    /// No answer, ever.
    Hang,
    /// The connection ends in the middle of the reply.
    Drop,
    /// 429 with `Retry-After`.
    Busy,
    /// 503.
    Unavailable,
    /// The reply is no JSON.
    Malformed,
    /// The reply is endless.
    Oversized,
    /// The server starts again in the middle of the turn: connections end, weights are those of the start.
    Restart,
    /// Somebody puts other weights in, in the middle of the turn.
    Swap,
    /// New weights are not taken, and it says so.
    ReloadFails,
}

/// Every lie with its name.
const NAMES: [(Lie, &str); 17] = [
    (Lie::ShortIds, "short_ids"),
    (Lie::OtherIds, "other_ids"),
    (Lie::OtherPrompt, "other_prompt"),
    (Lie::Expansion, "expansion"),
    (Lie::NoLogprobs, "no_logprobs"),
    (Lie::NotFinite, "not_finite"),
    (Lie::PositiveLogprob, "positive_logprob"),
    (Lie::StaleVersion, "stale_version"),
    (Lie::Hang, "hang"),
    (Lie::Drop, "drop"),
    (Lie::Busy, "busy"),
    (Lie::Unavailable, "unavailable"),
    (Lie::Malformed, "malformed"),
    (Lie::Oversized, "oversized"),
    (Lie::Restart, "restart"),
    (Lie::Swap, "swap"),
    (Lie::ReloadFails, "reload_fails"),
];

impl Lie {
    /// Every lie that an answer to a request for tokens can be.
    pub fn of_turns() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|(lie, _)| *lie).filter(|lie| *lie != Self::ReloadFails)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(lie, _)| *lie == self).expect("every lie has a name").1
    }
}

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Lie {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = || NAMES.map(|(_, name)| name).join(", ");
        NAMES.iter().find(|(_, own)| *own == name).map(|(lie, _)| *lie).ok_or_else(|| format!("{name:?} is no lie: give {}", known()))
    }
}

impl Serialize for Lie {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// How often it lies in which way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lies {
    /// What the draws depend on.
    pub seed: u64,
    /// Share of the requests that meet each lie.
    pub rates: Vec<(Lie, f64)>,
}

impl Lies {
    /// Every lie of a turn, together in this share of the turns.
    pub fn all(seed: u64, rate: f64) -> Self {
        let each = rate / Lie::of_turns().count() as f64;
        Self { seed, rates: Lie::of_turns().map(|lie| (lie, each)).collect() }
    }

    /// Adds what `NAME=RATE` says; `all` stands for every lie of a turn together.
    ///
    /// # Errors
    /// What of it is not understood.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let (name, rate) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=RATE"))?;
        let rate: f64 = rate.parse().map_err(|_| format!("{rate:?} is no rate"))?;
        if !(0.0..=1.0).contains(&rate) {
            return Err(format!("a rate of {rate} is not within 0..=1"));
        }
        match name {
            "all" => self.rates.extend(Self::all(0, rate).rates),
            name => self.rates.push((name.parse()?, rate)),
        }
        Ok(())
    }
}

/// What comes up while a server runs.
#[derive(Debug)]
pub(crate) struct Draws {
    lies: Lies,
    random: ChaCha8Rng,
    ordered: VecDeque<Lie>,
}

impl Draws {
    pub(crate) fn new(lies: Lies) -> Self {
        Self { random: ChaCha8Rng::seed_from_u64(lies.seed), lies, ordered: VecDeque::new() }
    }

    /// Has the next request that a lie is possible for meet it.
    pub(crate) fn order(&mut self, lie: Lie) {
        self.ordered.push_back(lie);
    }

    /// The lie of a request, for which those that `fits` says are possible.
    pub(crate) fn draw(&mut self, fits: impl Fn(Lie) -> bool) -> Option<Lie> {
        if let Some(at) = self.ordered.iter().position(|lie| fits(*lie)) {
            return self.ordered.remove(at);
        }
        let mut point: f64 = self.random.random();
        for (lie, rate) in &self.lies.rates {
            if point < *rate {
                return Some(*lie).filter(|lie| fits(*lie));
            }
            point -= rate;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lie_is_spelt_in_one_way() {
        for (lie, name) in NAMES {
            assert_eq!((lie.name(), name.parse()), (name, Ok(lie)));
        }
        assert!("truth".parse::<Lie>().expect_err("no lie").contains("short_ids"));
    }

    #[test]
    fn draws_have_their_rates_and_orders_come_first() {
        let mut draws = Draws::new(Lies { seed: 1, rates: vec![(Lie::Busy, 0.1), (Lie::Hang, 0.3)] });
        draws.order(Lie::ReloadFails);
        draws.order(Lie::Swap);
        let turn = |lie| lie != Lie::ReloadFails;
        assert_eq!(draws.draw(turn), Some(Lie::Swap), "the other one waits for its occasion");
        assert_eq!(draws.draw(|lie| !turn(lie)), Some(Lie::ReloadFails));
        let drawn: Vec<_> = (0..10_000).map(|_| draws.draw(turn)).collect();
        let share = |wanted| drawn.iter().filter(|lie| **lie == wanted).count();
        assert!((900..1100).contains(&share(Some(Lie::Busy))) && (2800..3200).contains(&share(Some(Lie::Hang))));
        assert_eq!(drawn.len(), share(Some(Lie::Busy)) + share(Some(Lie::Hang)) + share(None));
    }

    #[test]
    fn rates_are_read() {
        let mut lies = Lies::default();
        lies.add("busy=0.25").expect("sound");
        lies.add("all=0.16").expect("sound");
        assert!(lies.rates.len() == 17 && (lies.rates[1].1 - 0.01).abs() < 1e-12);
        for wrong in ["busy", "busy=2", "busy=x", "trust=0.1"] {
            lies.add(wrong).expect_err(wrong);
        }
    }
}
