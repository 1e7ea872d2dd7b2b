//! What is told of a turn, in any dialect. In: a turn, and a lie. Out: the same turn, or one that is wrong in the lie's way. It knows
//! no JSON.

use crate::Lie;
use crate::asked::{Asked, Turn};
use crate::expand::Expanded;

/// What a reply says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    /// The expanded prompt.
    pub(crate) prompt: Vec<u32>,
    /// Sampled ids.
    pub(crate) tokens: Vec<u32>,
    /// (id, log-prob) of each sampled token; a log-prob that is not finite is `None`.
    pub(crate) logprobs: Option<Vec<(u32, Option<f32>)>>,
    /// What the weights were called: label, first token, token after the last.
    pub(crate) spans: Vec<(String, usize, usize)>,
}

/// Whether a request can meet a lie.
pub(crate) fn fits(lie: Lie, asked: &Asked) -> bool {
    let samples = asked.max_tokens != Some(0);
    match lie {
        Lie::ReloadFails => false,
        Lie::NoLogprobs | Lie::NotFinite | Lie::PositiveLogprob | Lie::ShortIds | Lie::OtherIds => samples && asked.logprobs.is_some(),
        Lie::Expansion => samples && !asked.pictures.is_empty(),
        Lie::OtherPrompt => samples && asked.echo,
        Lie::StaleVersion | Lie::Restart | Lie::Swap => samples,
        Lie::Hang | Lie::Drop | Lie::Busy | Lie::Unavailable | Lie::Malformed | Lie::Oversized => true,
    }
}

impl Told {
    /// A turn, told with a lie. `stale` is what the weights were called before, `placeholder` that of pictures, and `vocabulary` its size.
    pub(crate) fn of(turn: &Turn, asked: &Asked, lie: Option<Lie>, stale: &str, placeholder: u32, vocabulary: usize) -> Self {
        let logprobs = turn.tokens.iter().copied().zip(turn.logprobs.iter().map(|logprob| Some(*logprob))).collect();
        let mut told = Self {
            prompt: turn.prompt.clone(),
            tokens: turn.tokens.clone(),
            logprobs: asked.logprobs.is_some().then_some(logprobs),
            spans: turn.spans().into_iter().map(|(label, start, end)| (label.to_owned(), start, end)).collect(),
        };
        let another = |token: u32| (1..).map(|step| ((token as usize + step) % vocabulary) as u32).find(|other| *other != placeholder);
        let middle = turn.tokens.len() / 2;
        match lie {
            Some(Lie::ShortIds) => drop(told.tokens.pop()),
            Some(Lie::OtherIds) => {
                if let Some(token) = told.tokens.get_mut(middle) {
                    *token = another(*token).unwrap_or_default();
                }
            }
            Some(Lie::OtherPrompt) => {
                if let Some(token) = told.prompt.iter_mut().find(|token| **token != placeholder) {
                    *token = another(*token).unwrap_or_default();
                }
            }
            Some(Lie::Expansion) => {
                let sizes: Vec<usize> = turn.pictures.iter().map(|(_, length)| *length).collect();
                if let Ok(twice) = Expanded::of(&told.prompt, placeholder, &sizes) {
                    told.prompt = twice.tokens;
                }
            }
            Some(Lie::NoLogprobs) => told.logprobs = None,
            Some(lie @ (Lie::NotFinite | Lie::PositiveLogprob)) => {
                if let Some((_, logprob)) = told.logprobs.as_mut().and_then(|all| all.get_mut(middle)) {
                    *logprob = if lie == Lie::NotFinite { None } else { Some(0.5) };
                }
            }
            Some(Lie::StaleVersion) => told.spans.iter_mut().for_each(|(label, ..)| {
                *label = if label == stale { format!("before-{stale}") } else { stale.to_owned() };
            }),
            _ => {}
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::Sampling;

    use super::*;
    use crate::asked::End;

    const PAD: u32 = 9;

    #[test]
    fn every_lie_about_a_turn_changes_what_is_told_and_nothing_else_does() {
        let asked = Asked {
            id: "a".into(),
            tokens: vec![1, PAD, 2],
            pictures: vec![vec![0].into()],
            sampling: Sampling::of(1.0, 1.0),
            seed: Some(1),
            max_tokens: Some(8),
            stop: vec![],
            ignore_end: false,
            logprobs: Some(0),
            of_prompt: None,
            echo: true,
            must_fit: false,
        };
        let turn = Turn {
            prompt: vec![1, PAD, PAD, 2],
            pictures: vec![(1, 2)],
            tokens: vec![5, 8, 6],
            logprobs: vec![-1.0, -2.0, -3.0],
            top: vec![],
            labels: vec!["v1".into(), "v1".into(), "v2".into()],
            end: End::Length,
            of_prompt: vec![],
        };
        let told = |lie| Told::of(&turn, &asked, lie, "v1", PAD, 10);
        let honest = told(None);
        assert_eq!(honest.spans, [("v1".to_owned(), 0, 2), ("v2".to_owned(), 2, 3)]);
        for lie in Lie::of_turns() {
            let about_the_turn = [
                Lie::ShortIds,
                Lie::OtherIds,
                Lie::OtherPrompt,
                Lie::Expansion,
                Lie::NoLogprobs,
                Lie::NotFinite,
                Lie::PositiveLogprob,
                Lie::StaleVersion,
            ]
            .contains(&lie);
            assert!(fits(lie, &asked));
            assert_eq!(told(Some(lie)) != honest, about_the_turn, "{lie}");
        }
        assert_eq!(told(Some(Lie::OtherIds)).tokens, [5, 0, 6], "another one, and no placeholder");
        let blind = Asked { pictures: vec![], logprobs: None, echo: false, ..asked };
        assert!(![Lie::Expansion, Lie::NotFinite, Lie::OtherPrompt].iter().any(|lie| fits(*lie, &blind)));
    }
}
