//! Who is asked how often, and what of it is remembered.

use std::time::{Duration, Instant};

use hypereyes_domain::{Accuracy, Task};
use hypereyes_judge::{ModelConfig, ModelJudge, PromptKind, accuracies};
use hypereyes_scoring::{Tally, Verdict};
use serde_json::json;

use crate::rig::{FAILED, config, group, judged, says, task};
use crate::support::{Reply, Server};

#[tokio::test]
async fn equal_answers_are_judged_once_and_verdicts_are_remembered() {
    let server = Server::start(|asked| {
        let body = format!("{}\n{}", asked.line, asked.body);
        for part in ["POST /v1/chat/completions", "\"model\":\"judge\"", "\"temperature\":0.25", "\"max_tokens\":7", "Which city?"] {
            assert!(body.contains(part), "{part} is not in {body}");
        }
        Reply::say(if body.contains("in the city of Paris") { "Correct" } else { "Incorrect." })
    })
    .await;
    let judge = ModelJudge::new(&ModelConfig { temperature: 0.25, max_tokens: Some(7), ..config(&server) }).unwrap();
    let answers = ["in the city of Paris", "Rome", "in the city of Paris", "Rome", "Rome"];
    let want = [Accuracy::Correct, Accuracy::Wrong, Accuracy::Correct, Accuracy::Wrong, Accuracy::Wrong];
    assert_eq!(accuracies(&judge, &task(), &Tally::of(&group(&answers))).await[..], want);
    assert_eq!(accuracies(&judge, &task(), &Tally::of(&group(&answers))).await[..], want);
    assert_eq!(server.count(), 2);
    let elsewhere = Task { answers: vec!["Rome".into()], ..task() };
    accuracies(&judge, &elsewhere, &Tally::of(&group(&["Rome"]))).await;
    assert_eq!(server.count(), 3, "another right answer is another question");
}

#[tokio::test]
async fn busy_broken_and_senseless_replies_are_asked_again() {
    for bad in [
        Reply::refuse(429, ""),
        Reply::refuse(503, ""),
        Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{]x".to_vec()),
        Reply::Raw(vec![]),
        Reply::say("Hm."),
    ] {
        let server = Server::script(vec![bad, Reply::say("correct")]).await;
        assert_eq!(judged(&config(&server), &["Paris"]).await, [Accuracy::Correct]);
        assert_eq!(server.count(), 2);
    }
}

#[tokio::test]
async fn a_judge_that_fails_masks_the_rollout_and_never_calls_it_wrong() {
    let server = Server::script(vec![Reply::refuse(500, "")]).await;
    assert_eq!(judged(&config(&server), &["Paris"]).await, [FAILED]);
    assert_eq!(server.count(), 3, "as many attempts as are allowed");

    let server = Server::script(vec![Reply::refuse(401, "")]).await;
    assert_eq!(judged(&config(&server), &["Paris"]).await, [FAILED]);
    assert_eq!(server.count(), 1, "what no attempt can mend is not tried again");

    let server = Server::script(vec![Reply::Slow(Duration::from_secs(30), Box::new(Reply::say("correct")))]).await;
    let began = Instant::now();
    assert_eq!(judged(&ModelConfig { attempt_timeout_ms: 300, deadline_ms: 700, ..config(&server) }, &["Paris"]).await, [FAILED]);
    assert!(began.elapsed() < Duration::from_secs(20), "the deadline holds for all attempts together");

    let nobody = ModelConfig { url: "http://127.0.0.1:1/v1".into(), model: "judge".into(), deadline_ms: 5000, ..ModelConfig::default() };
    assert_eq!(judged(&nobody, &["Paris", "Paris"]).await, [FAILED, FAILED]);

    let endless = [b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n".as_slice(), &[b'x'; 300 << 10]].concat();
    let server = Server::script(vec![Reply::Raw(endless)]).await;
    assert_eq!(judged(&config(&server), &["Paris"]).await, [FAILED]);
}

#[tokio::test]
async fn no_more_requests_are_open_than_allowed() {
    let server = Server::script(vec![Reply::Slow(Duration::from_millis(30), Box::new(Reply::say("incorrect")))]).await;
    let config = ModelConfig { concurrency: 3, ..config(&server) };
    let answers: Vec<String> = (0..12).map(|at| format!("city {at}")).collect();
    let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
    assert_eq!(judged(&config, &answers).await, vec![Accuracy::Wrong; 12]);
    assert_eq!((server.count(), server.at_once()), (12, 3));
}

/// What is asked names the question and the prediction in each of them, with the tokens that its reply takes, and the verdict comes back.
#[tokio::test]
async fn every_prompt_is_asked_and_its_verdicts_are_taken() {
    for kind in PromptKind::ALL {
        let server = Server::start(move |asked| {
            let message = asked.body["messages"][0]["content"].as_str().expect("a text").to_owned();
            assert!(message.contains("Which city?") && message.contains("Paris"), "{message}");
            assert_eq!(asked.body["max_tokens"], if kind == PromptKind::Hle { 1024 } else { 30 });
            assert!(asked.body.get("seed").is_none(), "one vote has no seed");
            Reply::say(&says(kind, if message.contains("the city of Paris") { Verdict::Correct } else { Verdict::Wrong }))
        })
        .await;
        let config = ModelConfig { prompt: kind, ..config(&server) };
        assert_eq!(judged(&config, &["the city of Paris", "Rome"]).await, [Accuracy::Correct, Accuracy::Wrong], "{kind:?}");
        assert_eq!(server.count(), 2);
    }
}

#[tokio::test]
async fn who_declines_is_neither_wrong_nor_a_failure_where_the_prompt_knows_it() {
    for kind in PromptKind::ALL {
        let server = Server::script(vec![Reply::say("VERDICT: NOT_ATTEMPTED")]).await;
        let want = if kind == PromptKind::SimpleQa { Accuracy::NotAttempted } else { FAILED };
        assert_eq!(judged(&ModelConfig { prompt: kind, ..config(&server) }, &["I do not know"]).await, [want], "{kind:?}");
    }
}

/// Prompts that compare with one truth are told the first right answer, the others all of them.
#[tokio::test]
async fn prompts_are_told_the_right_answers_that_their_rules_know() {
    for kind in PromptKind::ALL {
        let server = Server::script(vec![Reply::say(&says(kind, Verdict::Wrong))]).await;
        let judge = ModelJudge::new(&ModelConfig { prompt: kind, ..config(&server) }).unwrap();
        let two = Task { answers: vec!["Paris".into(), "Lutetia".into()], ..task() };
        assert_eq!(accuracies(&judge, &two, &Tally::of(&group(&["Rome"]))).await[..], [Accuracy::Wrong]);
        let message = server.asked()[0].body["messages"][0]["content"].to_string();
        let all = matches!(kind, PromptKind::Plain | PromptKind::SimpleQa);
        assert_eq!((message.contains("Paris"), message.contains("Lutetia")), (true, all), "{kind:?}");
    }
}

/// What evaluations keep can be compared with what they keep elsewhere.
#[test]
fn what_is_kept_of_a_judge_holds_no_address() {
    let config = ModelConfig { url: "http://10.0.0.1/v1".into(), model: "m".into(), api_key_env: "KEY".into(), ..ModelConfig::default() };
    let kept = json!(config.about()).to_string();
    assert!(!kept.contains("10.0.0.1") && !kept.contains("KEY"), "{kept}");
}
