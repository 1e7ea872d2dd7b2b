//! What an explorer did, as a demonstration for a policy: its turns in the policy's grammar, tokenised once by the policy's chat, with
//! the observations that the policy would be shown. In: a right trajectory, and what its searches found. Out: a trajectory of tokens
//! whose mask is on what the policy is to say, or why it cannot be one. It knows no judge and no budget.
//!
//! An explorer that samples tokens in the policy's own vocabulary has nothing to translate: its tokens stand as they are.

use std::fmt;
use std::sync::Arc;

use hypereyes_chat::Chat;
use hypereyes_domain::{
    Chunk, Ending, Failure, Generate, GenerateError, PolicyVersion, RolloutSummary, Sampled, Sampling, Sequence, Spoken, Stop, Task,
    Trajectory,
};
use hypereyes_environment::tags::{Reading, read_tags};
use hypereyes_environment::{Action, Tools, opened_thought, parse_turn};
use hypereyes_pictures::Picture;
use hypereyes_rollout::{Setup, run_group};
use serde_json::{Value, json};

use super::tape::Tape;

/// Tokens of a prompt's end that are looked at for what the template puts into the policy's mouth.
const LAST: usize = 64;
/// Tags whose content is no thought.
const ALOUD: [(&str, &str); 2] = [("<tool_call>", "</tool_call>"), ("<answer>", "</answer>")];

/// What no thought holds that is taught.
const TAGS: [&str; 8] = ["<tool_call", "</tool_call", "<answer", "</answer", "<reason", "</reason", "<think", "</think"];

/// Why a right trajectory is no demonstration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// A call was refused by the environment: nobody is to learn to make it.
    RefusedCall,
    /// A turn means something else in the policy's grammar.
    Unclear,
    /// It does not fit into a turn or the context of the policy (`rollout.max_turn_tokens`, `rollout.max_context_tokens`).
    TooLong,
    /// In the policy's own limits the same turns lead elsewhere.
    Strayed,
    /// The policy's chat cannot be shown the task.
    Unshown(String),
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RefusedCall => "a call of it was refused",
            Self::Unclear => "a turn of it means something else in the policy's grammar",
            Self::TooLong => "it is longer than rollout.max_turn_tokens or rollout.max_context_tokens of the policy",
            Self::Strayed => "the same turns lead elsewhere in the policy's limits",
            Self::Unshown(reason) => reason,
        })
    }
}

/// A demonstration, and the crops that it shows.
pub type Shown = (Trajectory, Vec<Arc<Picture>>);

/// A trajectory as a demonstration. `crops` are those that it was shown; `tape` has what its searches found.
///
/// # Errors
/// [`Misfit`].
pub async fn demonstrate(
    setup: &Setup,
    task: &Task,
    pictures: &[Arc<Picture>],
    explored: &Trajectory,
    crops: Vec<Arc<Picture>>,
    tape: &Tape,
) -> Result<Shown, Misfit> {
    if explored.summary.rounds.iter().any(|round| round.call.is_none()) {
        return Err(Misfit::RefusedCall);
    }
    let (trajectory, crops) = match &explored.spoken {
        None => (explored.clone(), crops),
        Some(spoken) => recited(setup, task, pictures, &explored.summary, spoken, tape).await?,
    };
    Ok((unsampled(trajectory), crops))
}

async fn recited(
    setup: &Setup,
    task: &Task,
    pictures: &[Arc<Picture>],
    explored: &RolloutSummary,
    spoken: &Spoken,
    tape: &Tape,
) -> Result<Shown, Misfit> {
    let tools = Tools::of(&setup.config.env.tools);
    let turns = spoken.turns.iter().map(|said| Turn::of(said, &tools)).collect::<Result<Arc<[Turn]>, Misfit>>()?;
    let search = Arc::new(tape.replay());
    let setup = Setup { search: search.clone(), ..setup.clone() };
    let recital = Recital { chat: setup.chat.clone(), turns };
    let played = run_group(&setup, &recital, task, pictures, &[0], Sampling::GREEDY).await;
    let played = played.map_err(|error| Misfit::Unshown(error.message))?;
    let trajectory = played.trajectories.into_iter().next().ok_or(Misfit::Strayed)?;
    let (summary, cost) = (&trajectory.summary, |summary: &RolloutSummary| (summary.round_count(), summary.searches()));
    match summary.ending {
        Ending::TurnTruncated | Ending::ContextFull => Err(Misfit::TooLong),
        Ending::Answered if summary.answer == explored.answer && cost(summary) == cost(explored) && !search.strayed() => {
            Ok((trajectory, played.crops))
        }
        _ => Err(Misfit::Strayed),
    }
}

/// Without log-probs and versions: nobody is to take them for the policy's.
fn unsampled(mut trajectory: Trajectory) -> Trajectory {
    trajectory.logprobs.fill(0.0);
    trajectory.versions.fill(PolicyVersion(0));
    trajectory
}

/// A turn as the policy is to say it: a thought, and what it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    thought: String,
    deed: String,
}

impl Turn {
    /// Of what an explorer said. Whatever it said beside its call or answer is its thought.
    ///
    /// # Errors
    /// [`Misfit`] when it did nothing, or would do something else said like this.
    pub fn of(said: &str, tools: &Tools) -> Result<Self, Misfit> {
        let read = parse_turn(said, tools);
        let deed = match &read.action {
            Action::Answer(answer) => format!("<answer>{answer}</answer>"),
            Action::Call(_) => call(&read_tags(said, Reading::Strict).call.ok_or(Misfit::Unclear)?),
            Action::BadCall(_) => return Err(Misfit::RefusedCall),
            Action::None => return Err(Misfit::Unclear),
        };
        let same = |turn: &Self| parse_turn(&turn.after(""), tools).action == read.action;
        let thought = read.reason.unwrap_or_else(|| beside(said));
        // A thought that cannot be told apart from what is done is left out.
        let thought = if TAGS.iter().any(|tag| thought.contains(tag)) { String::new() } else { thought };
        let turn = Self { thought, deed };
        [turn.clone(), Self { thought: String::new(), ..turn }].into_iter().find(same).ok_or(Misfit::Unclear)
    }

    /// The words, where the policy's chat has put `opening` into its mouth: the thought that it opens is closed.
    pub fn after(&self, opening: &str) -> String {
        let Self { thought, deed } = self;
        match opened(opening) {
            Some(name) => format!("{thought}\n</{name}>\n\n{deed}"),
            None if thought.is_empty() => deed.clone(),
            None => format!("<reason>{thought}</reason>{deed}"),
        }
    }
}

/// The name of the thought that an opening begins.
fn opened(opening: &str) -> Option<&str> {
    let (_, tag) = opening.rsplit_once('<')?;
    let name = tag.split(|letter: char| !letter.is_ascii_alphabetic()).next()?;
    (!name.is_empty()).then_some(name)
}

/// A call as the grammar writes it, with nothing beside its name and arguments.
fn call(call: &Value) -> String {
    let json = json!({"name": call["name"], "arguments": call["arguments"]}).to_string();
    // No text in it can end the call, or be a tag of its own: `<` stands in strings only.
    format!("<tool_call>{}</tool_call>", json.replace('<', "\\u003c"))
}

/// What was said beside calls and answers.
fn beside(said: &str) -> String {
    let (mut words, mut rest) = (String::new(), said);
    loop {
        let next = ALOUD.iter().filter_map(|(open, close)| Some((rest.find(open)?, open.len(), close))).min();
        let Some((at, length, close)) = next else { break };
        words.push_str(&rest[..at]);
        let inside = &rest[at + length..];
        rest = inside.find(close).map_or("", |end| &inside[end + close.len()..]);
    }
    words.push_str(rest);
    words.trim().to_owned()
}

/// Says turns that are known, one after the other.
#[derive(Clone)]
struct Recital {
    chat: Arc<Chat>,
    turns: Arc<[Turn]>,
}

struct Reciting {
    of: Recital,
    opening: String,
    at: usize,
}

impl Generate for Recital {
    type Sequence = Reciting;

    async fn start(&self, prompt: Chunk, seeds: Vec<u64>, _: Sampling) -> Result<Vec<Reciting>, GenerateError> {
        let last = &prompt.tokens[prompt.tokens.len().saturating_sub(LAST)..];
        let opening = opened_thought(&self.chat.decode(last)).to_owned();
        Ok(seeds.iter().map(|_| Reciting { of: self.clone(), opening: opening.clone(), at: 0 }).collect())
    }
}

impl Sequence for Reciting {
    async fn advance(&mut self, _: Chunk, max_tokens: usize) -> Result<Sampled, GenerateError> {
        let over = || GenerateError { failure: Failure::Policy, message: "all turns were said".into() };
        let turn = self.of.turns.get(self.at).ok_or_else(over)?;
        self.at += 1;
        let mut tokens = self.of.chat.encode(&turn.after(&self.opening));
        tokens.push(self.of.chat.end_token());
        let stop = if tokens.len() > max_tokens { Stop::Length } else { Stop::EndToken };
        tokens.truncate(max_tokens);
        let count = tokens.len();
        Ok(Sampled { tokens, logprobs: vec![0.0; count], versions: vec![PolicyVersion(0); count], stop })
    }
}

#[cfg(test)]
mod tests {
    use hypereyes_environment::Search;
    use rand::seq::IndexedRandom;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::testing::workshop;

    const SEARCH: &str = r#"{"name":"text_search","arguments":{"input":["Mexico currency","Peru currency"]}}"#;

    fn said(text: &str) -> Result<String, Misfit> {
        Turn::of(text, &Tools::default()).map(|turn| turn.after(""))
    }

    #[test]
    fn turns_are_said_in_the_grammar_of_the_policy() {
        let call = |json: &str| format!("<tool_call>{json}</tool_call>");
        assert_eq!(said(&call(SEARCH)), Ok(call(SEARCH)));
        let thought = format!("<reason>both at once</reason>{}", call(SEARCH));
        assert_eq!(said(&thought), Ok(thought.clone()));
        // A call that the server read comes before the words that were said with it.
        assert_eq!(said(&format!("{}both at once", call(SEARCH))), Ok(thought.clone()));
        assert_eq!(said(&format!("<think>both at once</think>\n\nLet me look.\n{}\n", call(SEARCH))), Ok(thought));
        // The first call is the one that is run; keys of other protocols are not taught.
        let many = format!("{}{}", call(r#"{"id":"x","name":"text_search","arguments":{"input":"a"}}"#), call(SEARCH));
        assert_eq!(said(&many), Ok(call(r#"{"name":"text_search","arguments":{"input":"a"}}"#)));
        assert_eq!(said("So it is <answer> Peru </answer>."), Ok("<reason>So it is .</reason><answer>Peru</answer>".into()));
        assert_eq!(said("I do not know"), Err(Misfit::Unclear));
        assert_eq!(said(&call(r#"{"name":"fly","arguments":{}}"#)), Err(Misfit::RefusedCall));
    }

    #[test]
    fn a_thought_that_the_template_opens_is_closed() {
        let turn = Turn::of("<reason>why</reason><answer>Peru</answer>", &Tools::default()).expect("an answer");
        assert_eq!(turn.after("<think>\n"), "why\n</think>\n\n<answer>Peru</answer>");
    }

    #[test]
    fn whatever_is_said_does_the_same_again() {
        let pieces = [
            "<tool_call>",
            "</tool_call>",
            "<answer>",
            "</answer>",
            "<reason>",
            "</reason>",
            "<think>",
            "</think>",
            "Peru",
            " ",
            "<tool_call>{\"name\":\"text_search\",\"arguments\":{\"input\":[\"<answer>x</answer>\"]}}</tool_call>",
            "<answer>Chad</answer>",
            "{}",
            "\"",
        ];
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let (mut said, tools) = (0, Tools::default());
        for _ in 0..20_000 {
            let text: String = (0..random.random_range(0..12)).filter_map(|_| pieces.choose(&mut random).copied()).collect();
            if let Ok(turn) = Turn::of(&text, &tools) {
                said += 1;
                let action = |text: &str| parse_turn(text, &tools).action;
                assert_eq!(action(&turn.after("")), action(&text), "{text:?}");
                assert_eq!(Turn::of(&turn.after(""), &tools).as_ref(), Ok(&turn), "{text:?}");
            }
        }
        assert!(said > 2000, "{said}");
    }

    #[tokio::test]
    async fn a_dialogue_in_text_becomes_tokens_of_the_policy() {
        let setup = workshop(1, 0).setup;
        let task = Task {
            id: "t".into(),
            kind: hypereyes_domain::TaskKind::TEXTUAL_CONSTRAINTS,
            question: "What is the currency of Mexico?".into(),
            answers: vec!["peso".into()],
            pictures: vec![],
            layer: None,
            shown: vec![],
            reference: None,
            metadata: Default::default(),
        };
        let tape = Tape::of(setup.search.clone());
        let turns = [format!("<tool_call>{SEARCH}</tool_call>"), "<answer>peso</answer>".to_owned()];
        // As an explorer of text would have played it: the environment shows it other observations, with the same findings.
        let recital = Recital {
            chat: setup.chat.clone(),
            turns: turns.iter().map(|said| Turn::of(said, &Tools::default()).expect("a turn")).collect(),
        };
        let searched: Arc<dyn Search> = Arc::new(Tape::of(setup.search.clone()));
        let there = Setup { search: searched, ..setup.clone() };
        let played = run_group(&there, &recital, &task, &[], &[0], Sampling::GREEDY).await.expect("plays");
        let expected = played.trajectories[0].clone();
        let queries = ["Mexico currency", "Peru currency"].map(|text| hypereyes_environment::Query::Text(text.into()));
        tape.search(0, &queries).await;
        let spoken = Spoken { turns: turns.to_vec(), tokens: 999, ..Spoken::default() };
        let explored = Trajectory { spoken: Some(Box::new(spoken)), ..Trajectory::from(expected.summary.clone()) };
        let (shown, crops) = demonstrate(&setup, &task, &[], &explored, vec![], &tape).await.expect("it fits");
        assert_eq!((&shown.prompt, &shown.response, &shown.mask), (&expected.prompt, &expected.response, &expected.mask));
        assert!(crops.is_empty() && shown.spoken.is_none() && shown.logprobs.iter().all(|logprob| *logprob == 0.0));
        let own: Vec<u32> = shown.response.iter().zip(&shown.mask).filter(|(_, own)| **own).map(|(token, _)| *token).collect();
        assert_eq!(setup.chat.decode(&own), turns.map(|turn| format!("{turn}<|im_end|>")).concat());
        // What was searched is not searched again: without it the same turns lead elsewhere.
        let lost = demonstrate(&setup, &task, &[], &explored, vec![], &Tape::of(setup.search.clone())).await;
        assert_eq!(lost.expect_err("nothing was kept"), Misfit::Strayed);
        let mut short = setup.clone();
        short.config.max_context_tokens = 40;
        tape.search(0, &queries).await;
        let long = demonstrate(&short, &task, &[], &explored, vec![], &tape).await;
        assert_eq!(long.expect_err("too long"), Misfit::TooLong);
    }
}
