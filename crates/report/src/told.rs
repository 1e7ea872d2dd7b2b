//! An episode in words: the JSON of `ask` and its lines for a terminal. In: an episode that was read back. Out: either.

use hypereyes_domain::{Call, Ending, Trajectory};
use serde::Serialize;

use crate::transcript::{Episode, Found, Hit, Step};

/// What `ask --json` prints.
#[derive(Serialize)]
pub struct Answer<'a> {
    answer: Option<&'a str>,
    ending: Ending,
    rounds: u32,
    searches: u32,
    tokens: usize,
    /// Every executed round: its call and, per search, what was found.
    steps: Vec<RoundJson<'a>>,
    model: String,
    layer: u64,
}

#[derive(Serialize)]
struct RoundJson<'a> {
    call: Option<&'a Call>,
    found: Vec<Vec<String>>,
}

/// The answer to one question, with every round and what it found.
pub fn answer<'a>(trajectory: &'a Trajectory, episode: &Episode, model: String, layer: u64) -> Answer<'a> {
    let texts = |found: &Found| -> Vec<String> {
        let hits = found.hits.iter().map(|hit| hit.text.clone());
        hits.chain(found.note.clone()).collect()
    };
    let found = |step: &Step| -> Option<Vec<Vec<String>>> {
        match step {
            Step::Images { shots, .. } => Some(shots.iter().map(|shot| texts(&shot.found)).collect()),
            Step::Texts { asked, .. } => Some(asked.iter().map(|one| texts(&one.found)).collect()),
            Step::Refused { told, .. } => Some(vec![vec![told.clone()]]),
            Step::Answer { .. } | Step::Nothing { .. } => None,
        }
    };
    let found = episode.turns.iter().filter_map(|turn| found(&turn.step));
    let summary = &trajectory.summary;
    let steps = summary.rounds.iter().zip(found).map(|(round, found)| RoundJson { call: round.call.as_deref(), found }).collect();
    Answer {
        answer: summary.answer.as_deref(),
        ending: summary.ending,
        rounds: summary.round_count(),
        searches: summary.searches(),
        tokens: trajectory.tokens(),
        steps,
        model,
        layer,
    }
}

/// The episode as lines for a terminal.
pub fn lines(episode: &Episode) -> Vec<String> {
    let mut lines = Vec::new();
    let mut say = |line: String| lines.push(line);
    let found = |found: &Found| {
        let hit = |hit: &Hit| match hit.relevance {
            Some(relevance) => format!("{} ({relevance:.2})", hit.text),
            None => hit.text.clone(),
        };
        found.hits.iter().map(hit).chain(found.note.clone()).collect::<Vec<String>>().join("; ")
    };
    let mut round = 0;
    for turn in &episode.turns {
        if let Some(reason) = turn.reason.as_deref().filter(|reason| !reason.is_empty()) {
            say(format!("         {reason}"));
        }
        match &turn.step {
            Step::Images { on, shots } => {
                round += 1;
                say(format!("round {round}  image_search of {} on {on}, at once", count(shots.len(), "area", "areas")));
                for shot in shots {
                    let place =
                        shot.area.map_or("whole".into(), |area| format!("[{:.2} {:.2} {:.2} {:.2}]", area.x1, area.y1, area.x2, area.y2));
                    say(format!("         {}  {place}  {}", shot.number + 1, found(&shot.found)));
                }
            }
            Step::Texts { tool, asked } => {
                round += 1;
                say(format!("round {round}  {tool} of {}, at once", count(asked.len(), "query", "queries")));
                for one in asked {
                    say(format!("         {:?}  {}", one.query, found(&one.found)));
                }
            }
            Step::Refused { wanted, told } => {
                round += 1;
                say(format!("round {round}  {wanted}\n         {told}"));
            }
            Step::Answer { text } => say(format!("answer   {text}")),
            Step::Nothing { text } => say(format!("neither a call nor an answer: {text}")),
        }
    }
    if episode.answer.is_none() {
        say(format!("no answer: the episode ended with {}", episode.ending.label()));
    }
    lines
}

fn count(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_tells_each_round_with_its_findings() {
        use crate::transcript::tests::{PARALLEL, chat, mosaic, play};
        let folder = tempfile::tempdir().expect("a temporary folder");
        let chat = chat(folder.path());
        let trajectory = play(&chat, "Which one has currency sol?", &PARALLEL);
        let episode = Episode::read(Some(&chat), &trajectory, &[mosaic()]);
        let json = serde_json::to_value(answer(&trajectory, &episode, "m".into(), 0)).expect("plain");
        assert_eq!((json["answer"].as_str(), json["rounds"].as_u64(), json["searches"].as_u64()), (Some("Peru"), Some(2), Some(4)));
        assert_eq!(json["steps"][0]["found"][0][0], "Mexico");
        assert_eq!(json["steps"][1]["call"]["tool"], "text_search");
    }
}
