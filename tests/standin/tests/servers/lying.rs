//! Lies: each is what it is called, is written down, and passes.

use std::time::Duration;

use hypereyes_standin::{Dialect, Lie, Lies, Options, Standin};
use reqwest::StatusCode;

use crate::support::{Client, Policy, Question, said};

/// What came of asking.
#[derive(Debug)]
enum Got {
    Answer(crate::support::Said),
    Status(StatusCode),
    NoJson,
    Broken,
    Nothing,
}

async fn ask(client: &Client, question: &Question) -> Got {
    let (path, body) = question.body(client.dialect);
    let work = async {
        let Ok(mut response) = client.post(path, &body).await else { return Got::Broken };
        if response.status() != StatusCode::OK {
            return Got::Status(response.status());
        }
        let mut text = vec![];
        loop {
            match response.chunk().await {
                Ok(Some(part)) if text.len() < 8 << 20 => text.extend(part),
                // It would go on.
                Ok(Some(_)) => return Got::Nothing,
                Ok(None) => break,
                Err(_) => return Got::Broken,
            }
        }
        match serde_json::from_slice(&text) {
            Ok(reply) => Got::Answer(said(&reply, client.dialect)),
            Err(_) => Got::NoJson,
        }
    };
    tokio::time::timeout(Duration::from_secs(2), work).await.unwrap_or(Got::Nothing)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lie_is_what_it_is_called_and_is_written_down() {
    let policy = Policy::new();
    let pictures = [policy.picture(1, 96, 64)];
    let whole = policy.prompt("Which one?", &pictures);
    let question = Question { most: 6, ..Question::new(policy.compact(&whole, &pictures), &pictures, 5) };
    for dialect in [Dialect::Vllm, Dialect::Sglang] {
        let standin = Standin::start(Options::new(policy.start(), dialect)).await.expect("starts");
        let client = Client::new(standin.url(), dialect);
        let honest = client.ask(&question).await;
        for lie in Lie::of_turns() {
            standin.lie_next(lie);
            let got = ask(&client, &question).await;
            let is_so = match (lie, &got) {
                (Lie::ShortIds, Got::Answer(said)) => said.tokens.len() + 1 == said.ids.len(),
                (Lie::OtherIds, Got::Answer(said)) => said.tokens != said.ids && said.tokens.len() == said.ids.len(),
                (Lie::OtherPrompt, Got::Answer(said)) => said.prompt != whole && said.prompt.len() == whole.len(),
                (Lie::Expansion, Got::Answer(said)) => said.prompt.len() > whole.len() && said.count == said.prompt.len(),
                (Lie::NoLogprobs, Got::Answer(said)) => said.ids.is_empty() && said.tokens == honest.tokens,
                (Lie::NotFinite, Got::Answer(said)) => said.logprobs.iter().any(|logprob| logprob.is_none_or(|value| value == -9999.0)),
                (Lie::PositiveLogprob, Got::Answer(said)) => said.logprobs.contains(&Some(0.5)),
                (Lie::StaleVersion, Got::Answer(said)) => said.versions != honest.versions && said.tokens == honest.tokens,
                (Lie::Swap, Got::Answer(said)) => said.versions.last().is_some_and(|(label, ..)| label == "foreign"),
                (Lie::Busy, Got::Status(status)) => *status == StatusCode::TOO_MANY_REQUESTS,
                (Lie::Unavailable, Got::Status(status)) => *status == StatusCode::SERVICE_UNAVAILABLE,
                (Lie::Malformed, Got::NoJson) => true,
                (Lie::Drop | Lie::Restart, Got::Broken) => true,
                (Lie::Hang | Lie::Oversized, Got::Nothing) => true,
                _ => false,
            };
            assert!(is_so, "{dialect:?} {lie}: {got:?}");
            let entries = standin.audit();
            assert_eq!(entries.last().expect("written down").lie, Some(lie));
            // Pictures of before are those of other weights, which vLLM must be told to forget.
            standin.restart().await;
            let passed = client.ask(&question).await;
            assert_eq!(
                (passed.tokens, passed.logprobs, passed.versions),
                (honest.tokens.clone(), honest.logprobs.clone(), honest.versions.clone())
            );
            assert_eq!(standin.audit().last().expect("written down").lie, None);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_come_at_their_rates_and_from_their_seed() {
    let policy = Policy::new();
    let prompt = policy.prompt("Which one?", &[]);
    let mut drawn = vec![];
    for _ in 0..2 {
        let mut options = Options::new(policy.start(), Dialect::Vllm);
        let audit = policy.folder.path().join(format!("audit-{}.jsonl", drawn.len()));
        options.audit = Some(audit.clone());
        options.lies = Lies { seed: 9, rates: vec![(Lie::ShortIds, 0.2), (Lie::Unavailable, 0.2)] };
        let standin = Standin::start(options).await.expect("starts");
        let client = Client::new(standin.url(), Dialect::Vllm);
        for seed in 0..50 {
            ask(&client, &Question { most: 2, ..Question::new(prompt.clone(), &[], seed) }).await;
        }
        let lies: Vec<Option<Lie>> = standin.audit().iter().map(|entry| entry.lie).collect();
        assert!((8..32).contains(&lies.iter().flatten().count()), "{lies:?}");
        let lines = std::fs::read_to_string(audit).expect("written");
        assert_eq!(lines.lines().count(), 50);
        assert_eq!(lines.matches(r#""lie":"short_ids""#).count(), lies.iter().filter(|lie| **lie == Some(Lie::ShortIds)).count());
        drawn.push(lies);
    }
    assert_eq!(drawn[0], drawn[1]);
}
