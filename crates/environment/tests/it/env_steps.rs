//! The step machine against the reference environment (family `env_steps` of `tests/data/golden.json`): what is
//! registered, counted, searched, returned and hinted. The wording is ours.

use std::sync::Arc;

use hypereyes_domain::Ending;
use hypereyes_environment::{EnvConfig, Episode, Fault, Hit, Outcome, Query, Search, SearchFuture, Step};
use hypereyes_pictures::RgbImage;
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Finds one hit for everything and remembers what was asked.
#[derive(Default)]
struct Recorder {
    queries: Mutex<Vec<String>>,
    sizes: Mutex<Vec<(u32, u32)>>,
    broken: bool,
}

impl Recorder {
    fn answer(&self, query: &Query) -> Outcome {
        match query {
            Query::Text(query) | Query::Page(query) => self.queries.lock().push(query.clone()),
            Query::Picture(picture) => self.sizes.lock().push(picture.dimensions()),
        }
        match self.broken {
            true => Err(query.failed(Fault::Unavailable, "broken")),
            false => Ok(vec![Hit { title: "hit".into(), content: "content".into(), ..Hit::default() }]),
        }
    }
}

impl Search for Recorder {
    fn search<'a>(&'a self, _: u64, queries: &'a [Query]) -> SearchFuture<'a> {
        Box::pin(async { queries.iter().map(|query| self.answer(query)).collect() })
    }
}

fn number(value: &Value) -> u32 {
    value.as_u64().and_then(|value| u32::try_from(value).ok()).expect("a number")
}

#[tokio::test]
async fn golden_episodes_go_as_in_the_reference() {
    let golden: Value = serde_json::from_str(include_str!("../data/golden.json")).expect("the file is JSON");
    let cases = golden["env_steps"].as_array().expect("a list of cases");
    assert_eq!(cases.len(), 14);
    for case in cases {
        let search = Arc::new(Recorder::default());
        let config = EnvConfig { max_turns: number(&case["max_turns"]), ..EnvConfig::default() };
        let pictures = case["images"].as_array().expect("a list").iter().map(|size| RgbImage::new(number(&size[0]), number(&size[1])));
        let question = case["question"].as_str().expect("text");
        let mut episode = Episode::new(config, search.clone(), 0, question, pictures.map(Arc::new).collect());
        for step in case["steps"].as_array().expect("a list") {
            search.queries.lock().clear();
            search.sizes.lock().clear();
            let got = episode.step(step["text"].as_str().expect("text")).await;
            check(&episode, &search, &got, &step["expected"], &format!("{}: {}", case["id"], case["note"]));
        }
    }
}

fn check(episode: &Episode, search: &Recorder, got: &Step, expected: &Value, what: &str) {
    assert_eq!(json!(episode.labels().collect::<Vec<_>>()), expected["registry"], "{what}");
    assert_eq!(episode.next_number(), number(&expected["image_counter"]), "{what}");
    assert_eq!(episode.counts(), (number(&expected["iterations"]), number(&expected["tool_calls_num"])), "{what}");
    let kind = expected["kind"].as_str().expect("text");
    let Step::Observed { text, pictures, round } = got else {
        let Step::Done { ending, .. } = got else { unreachable!("two variants") };
        assert_eq!(expected["done"], true, "{what}");
        let want = if kind == "max_turns" { Ending::TurnLimit } else { Ending::NoAction };
        assert_eq!(*ending, want, "{what}");
        return;
    };
    assert_eq!(expected["done"], false, "{what}");
    let sizes: Vec<_> = pictures.iter().map(|picture| json!([picture.width(), picture.height()])).collect();
    assert_eq!(json!(sizes), expected["image_sizes"], "{what}");
    assert_eq!(pictures.len() as u64, expected["image_placeholders"], "{what}");
    assert_eq!(text.starts_with("<tool_response>"), expected["wrapped_in_tool_response"] == true, "{what}");
    assert_eq!(text.contains("</tool_response>Q?"), expected["question_repeated"] == true, "{what}");
    let hint = match text.rsplit('\n').next() {
        Some("one call left") => "one_left",
        Some("no calls left, answer now") => "none_left",
        _ => "none",
    };
    assert_eq!(hint, expected["hint"], "{what}");
    let body = match kind {
        "no_queries" => "no valid keywords\n",
        "invalid_id" => "unknown image id\n",
        "all_crops_failed" => "all crops failed\n",
        "error" => "Error: ",
        // The reference shows 0.80 and 0.00 where a relevance is missing.
        "whole_image" | "image_results" => "1. hit content\n",
        "text_results" => "1\n1. hit: content\n",
        other => panic!("unknown kind {other}"),
    };
    assert!(text.contains(body), "{what}: {text}");
    assert_eq!(round.call.is_none(), kind == "error", "{what}");
    let searched = expected["searched"].as_array().map_or(&[][..], Vec::as_slice);
    let asked: Vec<_> = search.sizes.lock().iter().map(|size| json!([size.0, size.1])).collect();
    assert_eq!(asked, searched.iter().map(|one| one["size"].clone()).collect::<Vec<_>>(), "{what}");
    for one in searched {
        assert!(text.contains(&format!("{}\n1. ", one["id"].as_str().expect("text"))), "{what}: {text}");
    }
    for label in expected["failed_ids"].as_array().map_or(&[][..], Vec::as_slice) {
        assert!(text.contains(&format!("{} crop failed\n", label.as_str().expect("text"))), "{what}: {text}");
    }
    let queries = expected["queries"].as_array().map_or(&[][..], Vec::as_slice);
    assert_eq!(*search.queries.lock(), queries.iter().filter_map(Value::as_str).collect::<Vec<_>>(), "{what}");
    assert_eq!(round.searches as usize, searched.len() + queries.len(), "{what}");
}

#[tokio::test]
async fn a_failed_crop_burns_its_label_and_does_not_count_as_a_search() {
    let mut episode =
        Episode::new(EnvConfig::default(), Arc::new(Recorder::default()), 0, "<image>Q?", vec![RgbImage::new(100, 80).into()]);
    let call = r#"<tool_call>{"name":"image_search","arguments":{"area":[[0,0,0.5,1],[0.5,0,0.5,1],[0.5,0,1,1]]}}</tool_call>"#;
    let Step::Observed { text, pictures, round } = episode.step(call).await else { panic!("a call") };
    assert_eq!(
        text,
        "<tool_response>img_1\n1. hit content\nimg_3\n1. hit content\nimg_2 crop failed\na box is [x1,y1,x2,y2] with x1 < x2 and y1 < y2\n</tool_response>Q?"
    );
    assert_eq!((pictures.len(), round.searches, round.failed_searches), (2, 2, 0));
    assert_eq!(round.call.as_deref().map(|call| call.searches), Some(3));
    let found: Vec<(&str, Option<&str>)> = round.found.iter().map(|found| (found.label.as_str(), found.note.as_deref())).collect();
    assert_eq!(found, [("img_1", None), ("img_2", Some("crop failed")), ("img_3", None)], "in the order of the areas");
    assert_eq!((round.found[0].hits[0].title.as_str(), round.found[0].hits[0].score), ("hit", None));
}

#[tokio::test]
async fn failed_searches_are_said_and_counted() {
    let search = Arc::new(Recorder { broken: true, ..Recorder::default() });
    let mut episode =
        Episode::new(EnvConfig { crop_pictures: false, ..EnvConfig::default() }, search, 0, "Q?", vec![RgbImage::new(10, 10).into()]);
    let text_call = r#"<tool_call>{"name":"text_search","arguments":{"input":["a","b"]}}</tool_call>"#;
    let Step::Observed { text, round, .. } = episode.step(text_call).await else { panic!("a call") };
    assert_eq!((round.searches, round.failed_searches), (2, 2));
    assert!(text.starts_with("<tool_response>1\nsearch failed\n2\nsearch failed\n"), "{text}");
    let image_call = r#"<tool_call>{"name":"image_search","arguments":{"area":[[0,0,1,1]]}}</tool_call>"#;
    let Step::Observed { pictures, round, .. } = episode.step(image_call).await else { panic!("a call") };
    assert_eq!((pictures.len(), round.searches, round.failed_searches), (0, 1, 1));
}

#[tokio::test]
async fn calls_beyond_the_limit_of_rounds_are_not_run() {
    let config = EnvConfig { max_turns: 100, max_rounds: 2, ..EnvConfig::default() };
    let mut episode = Episode::new(config, Arc::new(Recorder::default()), 0, "Q?", vec![]);
    let call = r#"<tool_call>{"name":"text_search","arguments":{"input":"a"}}</tool_call>"#;
    for _ in 0..2 {
        assert!(matches!(episode.step(call).await, Step::Observed { .. }));
    }
    assert_eq!(episode.step(call).await, Step::Done { ending: Ending::TurnLimit, answer: None });
}
