//! What an answer must be. In: what was asked, and what a server said. Out: tokens and log-probs that can be trained on, or which lie was
//! told. Nothing is made up: what is missing is a failure.

use hypereyes_domain::Stop;

use super::outcome::{Miss, Outcome};
use super::request::{Ask, Echo, Finish, Place, Reads, Reply, Said, Scores, Span};

/// Log-probs a little above 0 are rounding.
const ROUNDING: f64 = 1e-3;
/// What servers say in the place of an infinity: JSON has none.
const STAND_IN: f64 = -9998.0;

/// A turn that was held against what was asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// Sampled ids, the end token included.
    pub tokens: Vec<u32>,
    /// Log-prob of each.
    pub logprobs: Vec<f32>,
    /// Why it stopped: an end token, or the limit.
    pub stop: Stop,
    /// Whether other weights than those that were there when it was asked sampled some of it.
    pub straddles: bool,
}

/// A turn: `labels` are those of the weights that the server has had since it was asked, the first of them then.
///
/// # Errors
/// [`Miss`] with the lie.
pub fn turn(ask: &Ask, max_tokens: usize, labels: &[String], reply: Reply) -> Result<Checked, Miss> {
    match &reply.finish {
        Finish::Stop | Finish::Length => {}
        Finish::Abort => return Err(Miss::again(Outcome::Aborted, "the server gave the request up")),
        Finish::Other(word) => return Err(Miss::last(Outcome::Malformed, format!("it finished by {word:?}"))),
    }
    expansion(ask, &reply.echo)?;
    let tokens = reply.tokens.unwrap_or_default();
    if tokens.is_empty() {
        return Err(Miss::last(Outcome::NoTokens, "it sampled no token"));
    }
    if tokens.len() > max_tokens {
        return Err(Miss::last(Outcome::TooLong, format!("it sampled {} tokens, {max_tokens} were asked for", tokens.len())));
    }
    let said = reply.logprobs.ok_or_else(|| Miss::last(Outcome::NoLogprobs, "it gives no log-probs"))?;
    if tokens.len() < said.len() || reply.count.is_some_and(|count| tokens.len() < count) {
        let spoken_of = said.len().max(reply.count.unwrap_or(0));
        return Err(Miss::last(Outcome::ShortIds, format!("{} ids came, and it speaks of {spoken_of}", tokens.len())));
    }
    if said.len() < tokens.len() {
        return Err(Miss::last(Outcome::NoLogprobs, format!("{} log-probs came for {} tokens", said.len(), tokens.len())));
    }
    let stop = ends(&tokens, &ask.reads, reply.finish == Finish::Stop, max_tokens)?;
    let logprobs = tokens.iter().zip(said).enumerate().map(|(at, (token, said))| logprob(at, *token, said)).collect::<Result<_, _>>()?;
    let straddles = versions(tokens.len(), labels, reply.versions.as_deref())?;
    Ok(Checked { tokens, logprobs, stop, straddles })
}

/// Whether the server read what was meant.
fn expansion(ask: &Ask, echo: &Echo) -> Result<(), Miss> {
    let meant = ask.expanded.len();
    let refuse = |reason: String| Err(Miss::last(Outcome::Expansion, reason));
    if let Some(ids) = &echo.ids {
        if ids.len() != meant {
            return refuse(format!("it read {} tokens where {meant} were meant: it expands pictures otherwise", ids.len()));
        }
        if let Some(at) = (0..meant).find(|at| ids[*at] != ask.expanded[*at]) {
            return refuse(format!("it read token {} at {at} where {} was meant", ids[at], ask.expanded[at]));
        }
        return Ok(());
    }
    match echo.count {
        Some(count) if count == meant => Ok(()),
        Some(count) => refuse(format!("it read {count} tokens where {meant} were meant: it expands pictures otherwise")),
        None => refuse("it does not say which tokens it read".into()),
    }
}

/// Whether the ids are some that can have been sampled, and why they end.
fn ends(tokens: &[u32], reads: &Reads, stopped: bool, max_tokens: usize) -> Result<Stop, Miss> {
    let refuse = |reason: String| Err(Miss::last(Outcome::OtherIds, reason));
    let ends = |token: &u32| reads.end_tokens.contains(token);
    for (at, token) in tokens.iter().enumerate() {
        if *token as usize >= reads.vocabulary {
            return refuse(format!("token {token} at {at} is outside the vocabulary of {}", reads.vocabulary));
        }
        if *token == reads.pad {
            return refuse(format!("token {at} is the placeholder of pictures, which was forbidden"));
        }
        if ends(token) && at + 1 < tokens.len() {
            return refuse(format!("{} tokens follow the end token at {at}", tokens.len() - at - 1));
        }
    }
    match (tokens.last().is_some_and(ends), stopped) {
        (true, _) => Ok(Stop::EndToken),
        (false, false) if tokens.len() == max_tokens => Ok(Stop::Length),
        (false, false) => {
            let message = format!("{} ids came and the limit is said to be reached, which is {max_tokens}", tokens.len());
            Err(Miss::last(Outcome::ShortIds, message))
        }
        (false, true) => Err(Miss::last(Outcome::ShortIds, "it stopped, and the end token is not among the ids")),
    }
}

/// The log-prob of a token, of which a server says something.
fn logprob(at: usize, token: u32, (of, logprob): Said) -> Result<f32, Miss> {
    if let Some(of) = of.filter(|of| *of != token) {
        return Err(Miss::last(Outcome::OtherIds, format!("the log-prob at {at} is of token {of}, {token} was sampled")));
    }
    sound(logprob).map_err(|(outcome, what)| Miss::last(outcome, format!("the log-prob of token {token} at {at} {what}")))
}

/// A log-prob that can be trained on.
fn sound(logprob: Option<f64>) -> Result<f32, (Outcome, String)> {
    let Some(value) = logprob else { return Err((Outcome::NotFinite, "is none".into())) };
    let value_f32 = value as f32;
    if !value_f32.is_finite() || value < STAND_IN {
        return Err((Outcome::NotFinite, format!("is {value}")));
    }
    if value > ROUNDING {
        return Err((Outcome::PositiveLogprob, format!("is {value}, of a probability above 1")));
    }
    Ok(value_f32.min(0.0))
}

/// Whether every token was sampled by weights that this engine put there since it asked; true when by several.
fn versions(tokens: usize, labels: &[String], spans: Option<&[Span]>) -> Result<bool, Miss> {
    let Some(spans) = spans else { return Err(Miss::last(Outcome::StaleVersion, "it does not say which weights sampled")) };
    let mut end = 0;
    for span in spans {
        if span.start != end || span.end <= span.start {
            let message = format!("weights are named for tokens {}..{}, after {end}", span.start, span.end);
            return Err(Miss::last(Outcome::StaleVersion, message));
        }
        end = span.end;
        if !labels.contains(&span.label) {
            let message = format!("weights {:?} sampled, which are not those that were put there; was it restarted?", span.label);
            return Err(Miss::again(Outcome::StaleVersion, message));
        }
    }
    if end != tokens {
        return Err(Miss::last(Outcome::StaleVersion, format!("weights are named for {end} of {tokens} tokens")));
    }
    Ok(spans.iter().any(|span| Some(&span.label) != labels.first()))
}

/// Scores: one place per token from `from` on.
///
/// # Errors
/// [`Miss`] with the lie.
pub fn scores(ask: &Ask, from: usize, scores: &Scores) -> Result<(), Miss> {
    expansion(ask, &scores.echo)?;
    let asked = &ask.expanded[from..];
    if scores.places.len() != asked.len() {
        return Err(Miss::last(Outcome::ShortIds, format!("{} entries came for {} tokens", scores.places.len(), asked.len())));
    }
    for (at, (place, token)) in scores.places.iter().zip(asked).enumerate() {
        if place.token != *token {
            let message = format!("it speaks of token {} where {token} was asked about (response token {at})", place.token);
            return Err(Miss::last(Outcome::OtherIds, message));
        }
    }
    Ok(())
}

/// What a place of the response says, with `top` likeliest tokens.
///
/// # Errors
/// [`Miss`] where it says less.
pub fn place(at: usize, place: &Place, top: usize) -> Result<f32, Miss> {
    let Some(value) = place.logprob else {
        return Err(Miss::last(Outcome::NoLogprobs, format!("response token {at} has no log-prob")));
    };
    let value = sound(Some(value)).map_err(|(outcome, what)| Miss::last(outcome, format!("the log-prob of response token {at} {what}")))?;
    if place.top.len() != top {
        let message = format!("{} likeliest tokens came for response token {at}, {top} were asked for", place.top.len());
        return Err(Miss::last(Outcome::Malformed, message));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hypereyes_domain::Sampling;

    use super::super::request::Want;
    use super::*;

    const END: u32 = 7;
    const PAD: u32 = 9;

    fn ask() -> Ask {
        let reads = Reads { vocabulary: 10, pad: PAD, end_tokens: vec![END] };
        Ask {
            expanded: vec![1, PAD, PAD, 2],
            compact: vec![1, PAD, 2],
            pictures: vec![],
            reads: Arc::new(reads),
            want: Want::Turn { sampling: Sampling::GREEDY, seed: 0, max_tokens: 4 },
        }
    }

    fn reply() -> Reply {
        let span = |start, end, label: &str| Span { start, end, label: label.into() };
        Reply {
            tokens: Some(vec![3, 4, END]),
            count: Some(3),
            logprobs: Some(vec![(Some(3), Some(-0.5)), (Some(4), Some(5e-4)), (Some(END), Some(-1.0))]),
            finish: Finish::Stop,
            echo: Echo { ids: Some(vec![1, PAD, PAD, 2]), count: Some(4) },
            versions: Some(vec![span(0, 2, "v1"), span(2, 3, "v2")]),
        }
    }

    fn labels() -> [String; 2] {
        ["v1".into(), "v2".into()]
    }

    #[test]
    fn what_was_asked_for_passes() {
        let checked = turn(&ask(), 4, &labels(), reply()).expect("sound");
        assert_eq!((checked.tokens, checked.stop, checked.straddles), (vec![3, 4, END], Stop::EndToken, true));
        assert_eq!(checked.logprobs, [-0.5, 0.0, -1.0], "rounding is none");
        let mut within = reply();
        within.versions = Some(vec![Span { start: 0, end: 3, label: "v1".into() }]);
        within.echo.ids = None;
        assert!(!turn(&ask(), 4, &labels(), within).expect("a count will do").straddles);
        let mut cut = reply();
        (cut.tokens, cut.finish) = (Some(vec![3, 4, 5]), Finish::Length);
        cut.logprobs.as_mut().expect("there")[2].0 = Some(5);
        assert_eq!(turn(&ask(), 3, &labels(), cut).expect("the limit").stop, Stop::Length);
    }

    #[test]
    fn every_lie_has_its_name() {
        type Lie = fn(&mut Reply);
        let cases: [(Outcome, bool, Lie); 22] = [
            (Outcome::Aborted, true, |reply| reply.finish = Finish::Abort),
            (Outcome::Malformed, false, |reply| reply.finish = Finish::Other("repetition".into())),
            (Outcome::Expansion, false, |reply| reply.echo.ids = Some(vec![1, PAD, 2])),
            (Outcome::Expansion, false, |reply| reply.echo.ids = Some(vec![1, PAD, PAD, 3])),
            (Outcome::Expansion, false, |reply| reply.echo = Echo { ids: None, count: Some(6) }),
            (Outcome::Expansion, false, |reply| reply.echo = Echo::default()),
            (Outcome::NoTokens, false, |reply| reply.tokens = None),
            (Outcome::NoTokens, false, |reply| reply.tokens = Some(vec![])),
            (Outcome::TooLong, false, |reply| reply.tokens = Some(vec![3; 5])),
            (Outcome::ShortIds, false, |reply| reply.tokens = Some(vec![3, 4])),
            (Outcome::ShortIds, false, |reply| reply.count = Some(4)),
            (Outcome::ShortIds, false, |reply| (reply.finish, reply.tokens) = (Finish::Length, Some(vec![3, 4, 5]))),
            (Outcome::ShortIds, false, |reply| reply.tokens = Some(vec![3, 4, 5])),
            (Outcome::NoLogprobs, false, |reply| reply.logprobs = None),
            (Outcome::NoLogprobs, false, |reply| reply.logprobs.as_mut().expect("there").truncate(2)),
            (Outcome::OtherIds, false, |reply| reply.tokens = Some(vec![3, 40, END])),
            (Outcome::OtherIds, false, |reply| reply.tokens = Some(vec![3, PAD, END])),
            (Outcome::OtherIds, false, |reply| reply.tokens = Some(vec![END, 4, END])),
            (Outcome::OtherIds, false, |reply| reply.logprobs.as_mut().expect("there")[1].0 = Some(5)),
            (Outcome::NotFinite, false, |reply| reply.logprobs.as_mut().expect("there")[1].1 = None),
            (Outcome::NotFinite, false, |reply| reply.logprobs.as_mut().expect("there")[1].1 = Some(-9999.0)),
            (Outcome::PositiveLogprob, false, |reply| reply.logprobs.as_mut().expect("there")[1].1 = Some(0.1)),
        ];
        for (number, (outcome, again, lie)) in cases.into_iter().enumerate() {
            let mut lied = reply();
            lie(&mut lied);
            let miss = turn(&ask(), 4, &labels(), lied).expect_err("a lie");
            assert_eq!((miss.outcome, miss.again), (outcome, again), "{number}: {}", miss.reason);
        }
    }

    #[test]
    fn tokens_of_weights_that_nobody_put_there_are_stale() {
        let of = |spans: Option<Vec<Span>>| turn(&ask(), 4, &labels(), Reply { versions: spans, ..reply() }).expect_err("stale");
        let span = |start, end, label: &str| Span { start, end, label: label.into() };
        let restarted = of(Some(vec![span(0, 3, "default")]));
        assert!(restarted.again && restarted.reason.contains("restarted"), "{restarted:?}");
        for spans in
            [None, Some(vec![]), Some(vec![span(0, 2, "v1")]), Some(vec![span(1, 3, "v1")]), Some(vec![span(0, 1, "v1"), span(2, 3, "v1")])]
        {
            assert_eq!(of(spans).outcome, Outcome::StaleVersion);
        }
    }
}
