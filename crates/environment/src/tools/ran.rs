//! What came of a call before it is worded. In: outcomes of searches. Out: counts, and what records keep. Knows no tool.

use std::sync::Arc;

use hypereyes_domain::{Found, FoundHit};
use hypereyes_pictures::RgbImage;

use crate::observation;
use crate::search::{Hit, Outcome};

/// Characters of a part of a hit that records keep: they are for people, and a line of them is bounded.
const MOST_RECORDED: usize = 2000;

/// What became of one thing that a call asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Done {
    /// It was searched: hits as they are shown.
    Ran(Outcome),
    /// It could not be searched, and why in the words of the observation.
    Not(&'static str),
}

/// A call, executed.
#[derive(Clone, Debug, Default)]
pub struct Ran {
    /// The `kind` label of the counter of rounds.
    pub kind: &'static str,
    /// Everything that the call asked for, in its order, under the label that the observation gives it.
    pub items: Vec<(String, Done)>,
    /// Pictures to show, in the order of their labels.
    pub pictures: Vec<Arc<RgbImage>>,
    /// Lines that are said beside the results, or in their place; each ends with a line break.
    pub said: String,
}

impl Ran {
    /// Nothing was searched; `said` says why.
    pub fn nothing(kind: &'static str, said: impl Into<String>) -> Self {
        Self { kind, said: said.into(), ..Self::default() }
    }

    /// Outcomes under numbers from 1.
    pub fn numbered(outcomes: Vec<Outcome>) -> Vec<(String, Done)> {
        outcomes.into_iter().enumerate().map(|(at, outcome)| ((at + 1).to_string(), Done::Ran(outcome))).collect()
    }

    /// What was searched: labels and outcomes.
    pub fn searched(&self) -> impl Iterator<Item = (&str, &Outcome)> {
        self.items.iter().filter_map(|(label, done)| match done {
            Done::Ran(outcome) => Some((label.as_str(), outcome)),
            Done::Not(_) => None,
        })
    }

    /// Searches that ran.
    pub fn searches(&self) -> u32 {
        count(self.searched().count())
    }

    /// Searches that failed for a reason outside the policy.
    pub fn failed_searches(&self) -> u32 {
        count(self.searched().filter(|(_, outcome)| outcome.is_err()).count())
    }

    /// What records keep: everything that the call asked for, each part of a hit as far as it is shown (`max_chars` characters), and no
    /// further than records go. Where nothing could be asked for, what is said of the call.
    pub fn found(&self, max_chars: usize) -> Vec<Found> {
        let max_chars = max_chars.min(MOST_RECORDED);
        if self.items.is_empty() {
            return vec![Found::said(self.said.trim())];
        }
        let of = |(label, done): &(String, Done)| {
            let (hits, note) = match done {
                Done::Ran(Ok(hits)) if hits.is_empty() => (Vec::new(), Some(observation::NO_INFORMATION)),
                Done::Ran(Ok(hits)) => (hits.iter().map(|hit| shown(hit, max_chars)).collect(), None),
                Done::Ran(Err(_)) => (Vec::new(), Some(observation::SEARCH_FAILED)),
                Done::Not(why) => (Vec::new(), Some(*why)),
            };
            Found { label: label.clone(), hits, note: note.map(|note| note.trim().to_owned()) }
        };
        self.items.iter().map(of).collect()
    }
}

/// A hit as far as it is shown.
fn shown(hit: &Hit, max_chars: usize) -> FoundHit {
    let cut = |text: &str| text.chars().take(max_chars).collect::<String>();
    let parts = [Some(hit.content.as_str()), hit.detail.as_deref()];
    let parts: Vec<String> = parts.into_iter().flatten().filter(|part| !part.is_empty()).map(cut).collect();
    let said = |said: &Option<String>| said.as_deref().map(cut).filter(|said| !said.is_empty());
    FoundHit {
        title: cut(&hit.title),
        content: parts.join(" "),
        source: said(&hit.source),
        date: said(&hit.date),
        url: said(&hit.url),
        score: hit.score.filter(|score| score.is_finite()),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).expect("a call has far fewer searches")
}
