//! Turns as policies and their accidents write them, 200,000 of them, through the environment into the reward: nothing panics, nothing
//! inside a thought acts, who searched nothing is paid as a guess and never becomes a reference.

use std::sync::Arc;

use hypereyes_domain::{Accuracy, Area, Call, Ending, Reference, RolloutSummary, Round, Task, TaskKind};
use hypereyes_environment::{Action, BoxUnits, EnvConfig, Episode, Hit, Query, Search, SearchFuture, Step, Tools, parse_turn};
use hypereyes_pictures::RgbImage;
use hypereyes_scoring::{AliasJudge, TraceConfig, candidate, score_group};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Turns in all.
const TURNS: usize = 200_000;

/// Finds one hit for everything.
struct Finds;

impl Search for Finds {
    fn search<'a>(&'a self, _: u64, queries: &'a [Query]) -> SearchFuture<'a> {
        let hit = |query: &Query| match query {
            Query::Picture(_) => Hit::default(),
            _ => Hit { title: "Paris".into(), ..Hit::default() },
        };
        Box::pin(async move { queries.iter().map(|query| Ok(vec![hit(query)])).collect() })
    }
}

struct Draws(ChaCha8Rng);

impl Draws {
    fn below(&mut self, bound: usize) -> usize {
        self.0.next_u32() as usize % bound
    }

    fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// What policies say, well and badly.
const SAID: [&str; 44] = [
    "<answer>Paris</answer>",
    "<answer> paris </answer>",
    "<answer>Rome</answer>",
    "<answer></answer>",
    "<answer>Paris",
    "the <answer> tag",
    "<tool_call>{\"name\":\"text_search\",\"arguments\":{\"input\":[\"capital of France\"]}}</tool_call>",
    "<tool_call>{\"name\":\"text_search\",\"arguments\":{\"input\":[\"a\",\"a\",\"b\"]}}</tool_call>",
    "<tool_call>{\"name\":\"text_search\",\"arguments\":{\"input\":[]}}</tool_call>",
    "<tool_call>{\"name\":\"text_search\",\"arguments\":{\"input\":[\"?\",\" \",\"\u{200b}\",\"...\"]}}</tool_call>",
    "<tool_call>{\"name\":\"text_search\",\"arguments\":{\"input\":\" | |\"}}</tool_call>",
    "<tool_call>{\"name\":\"text_search\",\"arguments\":{\"input\":\"a|b|?\"}}</tool_call>",
    "<tool_call>{\"name\":\"text_search\",\"arguments\":{\"query\":\"a\"}}</tool_call>",
    "<tool_call>{\"name\":\"text_search\",\"arguments\":{\"input\":NaN}}</tool_call>",
    "<tool_call>{\"name\":\"text_search\",\"input\":[\"a\"]}</tool_call>",
    "<tool_call>{\"name\":\"fly\",\"arguments\":{}}</tool_call>",
    "<tool_call>{\"name\":\"fly\"}</tool_call>",
    "<tool_call>{}</tool_call>",
    "<tool_call>[1]</tool_call>",
    "<tool_call>{\"name\":\"image_search\",\"arguments\":{}}</tool_call>",
    "<tool_call>{\"name\":\"image_search\",\"arguments\":{\"image_id\":\"img_9\"}}</tool_call>",
    "<tool_call>{\"name\":\"image_search\",\"arguments\":{\"image_id\":\"img_0|img_1\"}}</tool_call>",
    "<tool_call>{\"name\":\"image_search\",\"arguments\":{\"area\":[[0,0,0.5,1],[0.5,0,1,1]]}}</tool_call>",
    "<tool_call>{\"name\":\"image_search\",\"arguments\":{\"area\":[[0,0,0.5,1],[0.5,0,0.5,1]]}}</tool_call>",
    "<tool_call>{\"name\":\"image_search\",\"arguments\":{\"area\":[[0.5,0.5,0.5,0.5]]}}</tool_call>",
    "<tool_call>{\"name\":\"image_search\",\"arguments\":{\"area\":[[0.9,0.9,0.1,0.1]]}}</tool_call>",
    "<tool_call>{\"name\":\"image_search\",\"arguments\":{\"area\":[[0,0,500,1000]]}}</tool_call>",
    "<tool_call>{\"name\":\"image_search\",\"arguments\":{\"area\":[[0,0,96,64]]}}</tool_call>",
    "<tool_call>{\"name\":\"image_search\",\"arguments\":{\"area\":[[0,0,1e999,NaN]]}}</tool_call>",
    "<tool_call>{\"name\":\"image_search\",\"arguments\":{\"area\":[0,0,1,1]}}</tool_call>",
    "<tool_call>{\"name\":\"image_search\",\"arguments\":{\"bbox_2d\":[[0,0,1,1]]}}</tool_call>",
    "<tool_call>{\"name\":\"image_search\",\"arguments\":\"{}\"}</tool_call>",
    "<tool_call>",
    "</tool_call>",
    "<think>",
    "</think>",
    "<reason>",
    "</reason>",
    "<Think time=\"3\">",
    "```json",
    "<|im_end|>",
    "\u{e9}\u{200b}",
    "hm, ",
    "\n",
];

/// Pieces in any order, with some letters changed, cut or doubled.
fn mutated(draws: &mut Draws) -> String {
    let mut bytes = Vec::new();
    for _ in 0..1 + draws.below(4) {
        bytes.extend_from_slice(draws.of(&SAID).as_bytes());
    }
    for _ in 0..draws.of(&[0, 0, 1, 3]) {
        let at = draws.below(bytes.len());
        match draws.below(4) {
            0 => bytes[at] = draws.below(256) as u8,
            1 => {
                bytes.remove(at);
            }
            2 => bytes.truncate(at.max(1)),
            _ => bytes.insert(at, draws.of(b"<>/\"{}[],.:019eN- ")),
        }
        if bytes.is_empty() {
            bytes.push(b' ');
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Plays turns until the episode ends or they do.
async fn play(config: EnvConfig, turns: &[String]) -> RolloutSummary {
    let mut episode = Episode::new(config, Arc::new(Finds), 0, "Which?", vec![RgbImage::new(192, 128).into()]);
    let mut rounds = Vec::new();
    for turn in turns {
        match episode.step(turn).await {
            Step::Done { ending, answer } => return RolloutSummary { rounds, ending, answer },
            Step::Observed { text, round, .. } => {
                assert!(!text.is_empty() && text.len() < 4000, "{turn:?}: {} bytes", text.len());
                rounds.push(round);
            }
        }
    }
    RolloutSummary { rounds, ending: Ending::ContextFull, answer: None }
}

fn task() -> Task {
    Task {
        id: "t".into(),
        kind: TaskKind::VISUAL_SELECT,
        question: "Which?".into(),
        answers: vec!["Paris".into()],
        pictures: vec![],
        layer: None,
        metadata: Default::default(),
        shown: vec![],
        reference: None,
    }
}

#[tokio::test]
async fn no_mutated_turn_panics_or_is_paid_above_an_honest_success() {
    let mut draws = Draws(ChaCha8Rng::seed_from_u64(17));
    let reference = Reference { rounds: 2, searches: 4 };
    let honest = RolloutSummary { rounds: vec![Round::counted(2, 0); 2], ending: Ending::Answered, answer: Some("Paris".into()) };
    let (task, trace) = (task(), TraceConfig { wrong_in_band_bonus: 0.05, ..TraceConfig::default() });
    let (mut turns, mut lucky, mut searchers, mut idle) = (0, 0, 0, 0);
    while turns < TURNS {
        let mut group = vec![honest.clone()];
        for _ in 0..7 {
            let said: Vec<String> = (0..1 + draws.below(4)).map(|_| mutated(&mut draws)).collect();
            turns += said.len();
            let box_units = draws.of(&[BoxUnits::Ratio, BoxUnits::Thousandths, BoxUnits::Pixels]);
            let summary = play(EnvConfig { max_turns: 4, max_rounds: 3, box_units, ..EnvConfig::default() }, &said).await;
            summary.check().unwrap_or_else(|error| panic!("{said:?}: {error}"));
            group.push(summary);
        }
        let scores = score_group(&trace, &AliasJudge, &task, &group, Some(reference));
        assert!(scores[0].bonus > 0.0, "the honest one keeps a bonus");
        for (score, summary) in scores.iter().zip(&group) {
            let spent = summary.spent();
            assert!(score.reward <= 1.2, "{summary:?}");
            if spent.searches == 0 {
                let guess = if score.accuracy == Accuracy::Correct { 1.0 } else { -0.1 };
                assert!(score.reward <= guess && score.reward < scores[0].reward, "{summary:?}: {score:?}");
                lucky += usize::from(score.accuracy == Accuracy::Correct);
                idle += usize::from(score.accuracy == Accuracy::Correct && spent.rounds > 0);
            } else {
                searchers += 1;
            }
        }
        let best = candidate(&scores, &group).expect("the honest one succeeded");
        assert!(best.reference.is_possible() && group[best.rollout].searches() > 0);
    }
    println!("{turns} turns; {searchers} rollouts searched, {lucky} guessed right, {idle} of them after calls that searched nothing");
    assert!(lucky > 1000 && searchers > 1000 && idle > 100, "{lucky} {searchers} {idle}");
}

/// Thoughts of any words and actions but their own closing tag, between words that open none.
#[test]
fn nothing_inside_a_thought_acts() {
    let mut draws = Draws(ChaCha8Rng::seed_from_u64(18));
    const INSIDE: [&str; 12] = [
        "<answer>INSIDE</answer>",
        "<answer>INSIDE",
        "<tool_call>{\"name\":\"text_search\",\"arguments\":{\"input\":[\"INSIDE\"]}}</tool_call>",
        "<tool_call>{\"name\":\"image_search\",\"arguments\":{\"image_id\":\"INSIDE\"}}</tool_call>",
        "<tool_call>{\"name\":\"INSIDE\"}</tool_call>",
        "<tool_call>",
        "<answer>",
        "</answer>",
        "</tool_call>",
        "\"}}",
        "maybe ",
        "```\n",
    ];
    const OUTSIDE: [&str; 6] = [
        "so ",
        "<answer>outside</answer>",
        "<tool_call>{\"name\":\"text_search\",\"arguments\":{\"input\":[\"outside\"]}}</tool_call>",
        "<tool_call>{bad}</tool_call>",
        "the <answer> tag ",
        "the <tool_call> tag ",
    ];
    let tools = Tools::default();
    let (mut answers, mut calls) = (0, 0);
    for _ in 0..TURNS {
        let mut turn = String::new();
        let words =
            |draws: &mut Draws, from: &[&'static str], most: usize| (0..draws.below(most)).map(|_| draws.of(from)).collect::<String>();
        // A thought that the prompt opened, thoughts with tags of their own, a thought that is not closed.
        if draws.below(4) == 0 {
            turn.push_str(&format!("{}</think>", words(&mut draws, &INSIDE, 5)));
        }
        for _ in 0..draws.below(4) {
            turn.push_str(&words(&mut draws, &OUTSIDE, 3));
            let (open, close) = draws.of(&[
                ("<think>", "</think>"),
                ("<reason>", "</reason>"),
                ("<THINK a=\"1\">", "</Think >"),
                ("<thinking>", "</thinking>"),
            ]);
            turn.push_str(&format!("{open}{}{close}", words(&mut draws, &INSIDE, 6)));
        }
        turn.push_str(&words(&mut draws, &OUTSIDE, 3));
        if draws.below(4) == 0 {
            turn.push_str(&format!("<think>{}", words(&mut draws, &INSIDE, 5)));
        }
        match parse_turn(&turn, &tools).action {
            Action::Answer(answer) => {
                assert!(!answer.contains("INSIDE"), "{turn}");
                answers += 1;
            }
            Action::Call(call) => {
                assert_eq!(call, Call::text_search(&["outside"]), "{turn}");
                calls += 1;
            }
            Action::BadCall(refusal) => panic!("{turn}: {}", refusal.message),
            Action::None => {}
        }
    }
    println!("{TURNS} turns with thoughts: {answers} answers, {calls} calls, none from a thought");
    assert!(answers > 10_000 && calls > 10_000, "{answers} {calls}");
}

/// No numbers make a box of the whole picture but those that mean it.
#[test]
fn no_box_in_other_units_is_the_whole_picture() {
    let mut draws = Draws(ChaCha8Rng::seed_from_u64(19));
    for _ in 0..TURNS {
        let units = draws.of(&[BoxUnits::Ratio, BoxUnits::Thousandths, BoxUnits::Pixels]);
        let mut edge = || draws.of(&[0.0, 0.3, 1.0, 1.04, 1.3, 64.0, 96.0, 500.0, 1000.0, 1044.0, 1e6, -3.0, f64::NAN]);
        let edges = [edge(), edge(), edge(), edge()];
        let Ok(read) = units.read(Area::from(edges), (192, 128)) else { continue };
        let full = match units {
            BoxUnits::Ratio => [1.0, 1.0],
            BoxUnits::Thousandths => [1000.0, 1000.0],
            BoxUnits::Pixels => [192.0, 128.0],
        };
        for (at, edge) in <[f64; 4]>::from(read).into_iter().enumerate() {
            assert!((0.0..=1.0).contains(&edge), "{units:?} {edges:?}");
            assert!((edge - edges[at] / full[at % 2]).abs() <= 0.05 + 1e-9, "{units:?} {edges:?} became {read:?}");
        }
    }
}
