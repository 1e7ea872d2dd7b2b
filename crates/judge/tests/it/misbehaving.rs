//! A judge that answers slowly, wrongly, never, in prose, in half a form, with both words, without an end: under every prompt it is counted
//! by reason, and no answer is wrong because of it.

use std::collections::BTreeMap;
use std::time::Duration;

use hypereyes_judge::{ModelConfig, PromptKind, metrics as names};
use hypereyes_scoring::Verdict;
use metrics_util::debugging::DebuggingRecorder;
use serde_json::{Value, json};

use crate::rig::{FAILED, config, counted, judged, says};
use crate::support::{Reply, Server};

/// What it may reply, and the reason under which each of its attempts is counted.
fn misbehaviour(kind: PromptKind) -> Vec<(&'static str, Reply, &'static str)> {
    let right = says(kind, Verdict::Correct);
    let message = |content: Value, finish: &'static str| Reply::Message(json!({"role": "assistant", "content": content}), finish);
    let choices = |choices: Value| Reply::Json(json!({"choices": choices}));
    let endless = [b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n".as_slice(), &[b'x'; 300 << 10]].concat();
    vec![
        ("prose", Reply::say("The prediction is the capital of France, so it looks fine to me."), "no_verdict"),
        ("nothing", Reply::say(""), "no_verdict"),
        ("both words", Reply::say("Correct or Incorrect"), "no_verdict"),
        (
            "half of JSON",
            Reply::say("{\"extracted_final_answer\": \"Paris\", \"reasoning\": \"The same\", \"correct\": \"yes"),
            "no_verdict",
        ),
        ("a guess", Reply::say("Probably correct"), "no_verdict"),
        ("a denial", Reply::say("Not correct"), "no_verdict"),
        ("right, and cut off", message(json!(right), "length"), "truncated"),
        ("right, and withheld", message(json!(right), "content_filter"), "withheld"),
        ("right, in a thought without an end", Reply::say(&format!("<think>{right}")), "truncated"),
        (
            "right, as a thought of its own field",
            Reply::Message(json!({"role": "assistant", "content": null, "reasoning_content": right}), "stop"),
            "malformed",
        ),
        ("two choices", choices(json!([{"message": {"content": right}}, {"message": {"content": right}}])), "malformed"),
        ("no choice", choices(json!([])), "malformed"),
        ("a number", message(json!(1), "stop"), "malformed"),
        ("no JSON", Reply::Status(200, String::new(), right.clone()), "malformed"),
        ("an enormous body", Reply::Raw(endless), "too_long"),
        ("an enormous reply", Reply::say(&format!("{}{right}", " ".repeat(300 << 10))), "too_long"),
        ("a broken body", Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\n{\"choices\"".to_vec()), "transport"),
        ("a failure", Reply::refuse(500, "out of memory"), "server"),
        ("too many requests", Reply::refuse(429, "later"), "busy"),
        ("nothing in time", Reply::Slow(Duration::from_secs(30), Box::new(Reply::say(&right))), "slow"),
    ]
}

#[tokio::test]
async fn whatever_a_judge_does_is_counted_and_calls_nothing_wrong() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _here = metrics::set_default_local_recorder(&recorder);
    for kind in PromptKind::ALL {
        for (what, reply, reason) in misbehaviour(kind) {
            let server = Server::script(vec![reply]).await;
            let config = ModelConfig { prompt: kind, attempts: 2, attempt_timeout_ms: 1_000, ..config(&server) };
            assert_eq!(judged(&config, &["Paris"]).await, [FAILED], "{kind:?}: {what}");
            assert_eq!(server.count(), 2, "{kind:?}: {what} is asked again");
            let snapshot = counted(&snapshotter, names::JUDGE_MISSES);
            assert_eq!(snapshot, BTreeMap::from([(reason.to_owned(), 2)]), "{kind:?}: {what}");
        }
        let server = Server::script(vec![Reply::refuse(401, "no")]).await;
        assert_eq!(judged(&ModelConfig { prompt: kind, ..config(&server) }, &["Paris"]).await, [FAILED]);
        assert_eq!(counted(&snapshotter, names::JUDGE_MISSES), BTreeMap::from([("refused".to_owned(), 1)]));
        // One that comes to its senses is believed from then on.
        let server = Server::script(vec![Reply::say("Hm."), Reply::say(&says(kind, Verdict::Wrong))]).await;
        let verdicts = judged(&ModelConfig { prompt: kind, ..config(&server) }, &["Rome"]).await;
        assert_eq!((verdicts, server.count()), (vec![hypereyes_domain::Accuracy::Wrong], 2));
        counted(&snapshotter, names::JUDGE_MISSES);
    }
}

/// A reply that says both in the form that is asked for.
#[tokio::test]
async fn a_form_that_says_both_is_a_contradiction_or_none() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let hle = says(PromptKind::Hle, Verdict::Correct);
    for (kind, said, reason) in [
        (PromptKind::Plain, "VERDICT: INCORRECT\nVERDICT: CORRECT".to_owned(), "contradiction"),
        (PromptKind::Plain, "It is not the same.\nVERDICT: CORRECT".to_owned(), "contradiction"),
        (PromptKind::SimpleQa, "VERDICT: NOT_ATTEMPTED\nVERDICT: INCORRECT".to_owned(), "contradiction"),
        (PromptKind::HyperEyes, "Correct\nIncorrect".to_owned(), "no_verdict"),
        (PromptKind::Hle, hle.replace("\"Paris\"", "\"None\""), "contradiction"),
        (PromptKind::Hle, hle.replace("\"correct\"", "\"correct\":\"no\",\"correct\""), "no_verdict"),
        (PromptKind::Hle, format!("{hle}\n{hle}"), "no_verdict"),
    ] {
        let server = Server::script(vec![Reply::say(&said)]).await;
        let config = ModelConfig { prompt: kind, attempts: 1, ..config(&server) };
        assert_eq!(judged(&config, &["Paris"]).await, [FAILED], "{kind:?}: {said}");
        assert_eq!(counted(&snapshotter, names::JUDGE_MISSES), BTreeMap::from([(reason.to_owned(), 1)]), "{kind:?}: {said}");
    }
}
