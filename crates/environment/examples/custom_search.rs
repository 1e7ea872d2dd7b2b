//! A search back end of one's own, and an episode that uses it: `cargo run --release -p hypereyes-environment --example custom_search`.
//!
//! In: a few notes, which are what can be found. Out: what an agent is told when it searches them, turn by turn, and how the episode
//! ends. docs/contributing/adding-a-search-backend.md says how a back end becomes one that settings can name.

use std::sync::Arc;

use hypereyes_environment::{EnvConfig, Episode, Fault, Hit, Outcome, Query, Search, SearchFuture, Step};

/// Notes that are searched by the words that they share with a query.
struct Notes(Vec<(&'static str, &'static str)>);

impl Notes {
    fn find(&self, query: &Query) -> Outcome {
        // A failure is not the same as nothing found: the policy is told so, and is not blamed.
        let Query::Text(text) = query else { return Err(query.failed(Fault::Refused, "notes are texts")) };
        let asked: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
        let score =
            |text: &str| asked.iter().filter(|word| text.to_lowercase().contains(word.as_str())).count() as f64 / asked.len() as f64;
        let mut hits: Vec<Hit> = self
            .0
            .iter()
            .map(|(title, text)| Hit { title: (*title).into(), content: (*text).into(), score: Some(score(text)), ..Hit::default() })
            .filter(|hit| hit.score > Some(0.0))
            .collect();
        // Best first; how many are shown is the episode's business.
        hits.sort_by(|left, right| right.score.partial_cmp(&left.score).expect("scores are numbers"));
        Ok(hits)
    }
}

impl Search for Notes {
    fn search<'a>(&'a self, _layer: u64, queries: &'a [Query]) -> SearchFuture<'a> {
        Box::pin(async move { queries.iter().map(|query| self.find(query)).collect() })
    }
}

#[tokio::main]
async fn main() {
    let notes = Notes(vec![
        ("Rabat", "Rabat is the capital of Morocco"),
        ("Tunis", "Tunis is the capital of Tunisia"),
        ("Casablanca", "Casablanca is the largest city of Morocco"),
    ]);
    let config = EnvConfig { text_hits: 2, ..EnvConfig::default() };
    let mut episode = Episode::new(config, Arc::new(notes), 0, "Which country has capital Rabat?", vec![]);

    // What a policy might write; both queries are searched at the same time.
    for turn in [
        r#"<reason>two at once</reason><tool_call>{"name":"text_search","arguments":{"input":["capital Rabat","largest city"]}}</tool_call>"#,
        "<reason>it is there</reason><answer>Morocco</answer>",
    ] {
        println!("agent: {turn}");
        match episode.step(turn).await {
            Step::Observed { text, round, .. } => {
                println!("tool: {text}\n({} searches, {} failed)\n", round.searches, round.failed_searches)
            }
            Step::Done { ending, answer } => println!("{}: {}", ending.label(), answer.unwrap_or_default()),
        }
    }
}
