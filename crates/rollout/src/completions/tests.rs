//! Whole episodes with a chat server that plays native calls, the grammar in text, errors and garbage.

#[path = "../../../openai/tests/support/mod.rs"]
mod support;

use std::time::Duration;

use hypereyes_domain::{Ending, Failure, GenerateError, Sampling, Trajectory};
use hypereyes_openai::{Client, Endpoint};
use serde_json::{Value, json};

use self::support::{Asked, Reply, Server};
use super::{ChatPlayer, MAX_REPLY_BYTES, counted};
use crate::scripted::{setup, task};
use crate::{Player, RolloutConfig, Rollouts};

const LOOK: &str = r#"<tool_call>{"name":"image_search","arguments":{"area":[[0,0,0.5,1],[0.5,0,1,1]]}}</tool_call>"#;

fn player(server: &Server, config: RolloutConfig) -> ChatPlayer {
    let endpoint = Endpoint { url: &server.url, model: "m", api_key_env: "" };
    let client = Client::new(endpoint, 8, MAX_REPLY_BYTES, counted).expect("sound");
    ChatPlayer::new(client, setup().search, config, Duration::from_secs(20))
}

async fn play_with(server: &Server, config: RolloutConfig) -> Result<Rollouts, GenerateError> {
    let (task, pictures) = task();
    player(server, config).play(&task, &pictures, &[7], Sampling::of(0.8, 0.7)).await
}

async fn play(server: &Server) -> Trajectory {
    let rollouts = play_with(server, RolloutConfig::default()).await.expect("plays");
    let trajectory = rollouts.trajectories.into_iter().next().expect("one rollout");
    trajectory.summary.check().expect("what the environment counts agrees");
    trajectory.check().expect("no tokens fit together");
    trajectory
}

fn ended(trajectory: &Trajectory) -> (Ending, Option<&str>, u32, u32) {
    let summary = &trajectory.summary;
    (summary.ending, summary.answer.as_deref(), summary.round_count(), summary.searches())
}

fn roles(asked: &Asked) -> Vec<String> {
    asked.body["messages"].as_array().expect("messages").iter().map(|one| one["role"].as_str().unwrap_or("?").to_owned()).collect()
}

/// A message with other counts of tokens.
fn counting(reply: Reply, prompt: u64, completion: u64) -> Reply {
    let Reply::Message(message, finish) = reply else { panic!("a message") };
    let usage = json!({"prompt_tokens": prompt, "completion_tokens": completion});
    Reply::Json(json!({"choices": [{"message": message, "finish_reason": finish}], "usage": usage}))
}

#[tokio::test]
async fn native_calls_run_at_once_and_their_results_go_back_under_their_ids() {
    let areas = json!({"image_id": "img_0", "area": [[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]]});
    let queries = json!({"input": ["Mexico currency", "Peru currency"]});
    let server = Server::script(vec![
        counting(Reply::call(&[("image_search", areas)]), 700, 40),
        counting(Reply::call(&[("text_search", queries), ("text_search", json!({"input": ["Chad"]}))]), 900, 50),
        counting(Reply::say("<answer>Mexico</answer>"), 1100, 8),
    ])
    .await;
    let rollouts = play_with(&server, RolloutConfig::default()).await.expect("plays");
    let trajectory = &rollouts.trajectories[0];
    assert_eq!(ended(trajectory), (Ending::Answered, Some("Mexico"), 2, 4));
    assert!(trajectory.prompt.is_empty() && trajectory.response.is_empty());
    let spoken = trajectory.spoken.as_deref().expect("it spoke");
    assert_eq!((trajectory.tokens(), spoken.prompt_tokens, spoken.completion_tokens), (1108, 2700, 98));
    assert_eq!((spoken.turns.len(), trajectory.pictures.len(), rollouts.crops.len()), (3, 3, 2));
    assert_eq!(trajectory.summary.rounds[0].found.len(), 2);

    let asked = server.asked();
    assert_eq!(roles(&asked[0]), ["system", "user"]);
    assert_eq!(roles(&asked[1]), ["system", "user", "assistant", "tool", "user"]);
    assert_eq!(roles(&asked[2]), ["system", "user", "assistant", "tool", "user", "assistant", "tool", "tool"]);
    let names: Vec<&Value> = asked[0].body["tools"].as_array().expect("tools").iter().map(|tool| &tool["function"]["name"]).collect();
    assert_eq!(names, ["image_search", "text_search"]);
    let told = &asked[2].body["messages"];
    let question = &told[1]["content"];
    assert!(question[0]["image_url"]["url"].as_str().is_some_and(|url| url.starts_with("data:image/png;base64,")));
    assert_eq!(question[1]["text"], "Which one has currency peso?");
    assert_eq!((&told[2]["tool_calls"][0]["id"], &told[3]["tool_call_id"]), (&json!("id_0"), &json!("id_0")));
    assert!(told[3]["content"].as_str().is_some_and(|text| text.contains("img_1") && text.contains("Mexico")), "{}", told[3]);
    assert_eq!(told[4]["content"].as_array().map(Vec::len), Some(3), "two crops and a word on them");
    assert!(told[7]["content"].as_str().is_some_and(|text| text.starts_with("Error: not run")));
    let (seeds, temperatures): (Vec<u64>, Vec<f64>) =
        asked.iter().map(|one| (one.body["seed"].as_u64().expect("a seed"), one.body["temperature"].as_f64().expect("one"))).unzip();
    assert!(seeds[0] == 7 && seeds[1] != 7 && seeds.iter().all(|seed| *seed < 1 << 53), "{seeds:?}");
    assert_eq!(temperatures, [0.8; 3]);
}

#[tokio::test]
async fn calls_in_the_text_are_answered_by_user_messages() {
    let server = Server::script(vec![Reply::say(LOOK), Reply::say("<reason>peso</reason><answer>Mexico</answer>")]).await;
    let trajectory = play(&server).await;
    assert_eq!(ended(&trajectory), (Ending::Answered, Some("Mexico"), 1, 2));
    let told = &server.asked()[1].body["messages"];
    assert_eq!(roles(&server.asked()[1]), ["system", "user", "assistant", "user"]);
    assert_eq!(told[2]["content"], LOOK);
    let parts = told[3]["content"].as_array().expect("crops and a text");
    assert!(parts.len() == 3 && parts[2]["text"].as_str().is_some_and(|text| text.contains("Mexico")), "{}", told[3]);
}

#[tokio::test]
async fn a_server_that_takes_no_tools_is_told_of_them_once_and_for_all() {
    let toolless = |asked: &Asked| match &asked.body {
        body if !body["tools"].is_null() => Reply::refuse(400, "m does not support tools"),
        body if body["messages"].as_array().is_some_and(|messages| messages.len() > 2) => Reply::say("<answer>Mexico</answer>"),
        _ => Reply::say(LOOK),
    };
    let server = Server::start(toolless).await;
    let (task, pictures) = task();
    let player = player(&server, RolloutConfig::default());
    for count in [3, 5] {
        let rollouts = player.play(&task, &pictures, &[1], Sampling::GREEDY).await.expect("plays");
        assert_eq!(ended(&rollouts.trajectories[0]), (Ending::Answered, Some("Mexico"), 1, 2));
        assert_eq!(server.count(), count, "it is offered tools by the protocol once");
    }
    let system = server.asked()[1].body["messages"][0]["content"].as_str().expect("a text").to_owned();
    for part in ["\"name\":\"image_search\"", "<tool_call>", "<answer>"] {
        assert!(system.contains(part), "{part} is not in {system}");
    }
    // One that refuses either way is asked no third time.
    let broken = Server::script(vec![Reply::refuse(400, "this tool of a model has no sight")]).await;
    assert_eq!(play(&broken).await.summary.ending, Ending::Failed(Failure::Infrastructure));
    assert_eq!(broken.count(), 2);
}

#[tokio::test]
async fn a_policy_that_was_taught_its_prompt_is_sent_nothing_else() {
    let server = Server::script(vec![Reply::say("<answer>Mexico</answer>")]).await;
    play_with(&server, RolloutConfig { offer_tools: false, ..RolloutConfig::default() }).await.expect("plays");
    let body = &server.asked()[0].body;
    assert!(body["tools"].is_null());
    assert_eq!(body["messages"][0], json!({"role": "system", "content": "Search wide, then answer."}));
}

#[tokio::test]
async fn every_way_to_end_has_its_name() {
    let cut = |words: &str| Reply::Message(json!({"content": words}), "length");
    let cut_call = Reply::Message(json!({"tool_calls": [{"function": {"name": "text_search", "arguments": "{\"inp"}}]}), "length");
    let withheld = Reply::Message(json!({"content": ""}), "content_filter");
    let failed = |failure| (Ending::Failed(failure), None);
    let mut many = vec![Reply::say(LOOK); 12];
    many.push(Reply::say("<answer>late</answer>"));
    for (script, (ending, answer)) in [
        (vec![Reply::say("I do not know.")], (Ending::NoAction, None)),
        (vec![Reply::Message(json!({"content": null, "refusal": "I will not"}), "stop")], (Ending::NoAction, None)),
        (vec![cut("<answer>Mexico</answer> and")], (Ending::TurnTruncated, Some("Mexico"))),
        (vec![cut("<answer>Mexico")], (Ending::TurnTruncated, None)),
        (vec![cut_call], (Ending::TurnTruncated, None)),
        (many, (Ending::TurnLimit, None)),
        (vec![Reply::say(LOOK), Reply::refuse(400, "maximum context length is 9 tokens")], (Ending::ContextFull, None)),
        (vec![Reply::say(LOOK), withheld], failed(Failure::Infrastructure)),
        (vec![Reply::refuse(401, "wrong key")], failed(Failure::Infrastructure)),
        (vec![Reply::refuse(400, "maximum context length is 9 tokens")], failed(Failure::Infrastructure)),
        (vec![Reply::Json(json!({"choices": [{"message": {"content": "<answer>Mexico</answer>"}}]}))], failed(Failure::Infrastructure)),
    ] {
        let server = Server::script(script.clone()).await;
        let trajectory = play(&server).await;
        assert_eq!((trajectory.summary.ending, trajectory.summary.answer.as_deref()), (ending, answer), "{script:?}");
    }
}

#[tokio::test]
async fn bad_calls_are_told_of_and_cost_a_round() {
    let broken = json!({"tool_calls": [{"id": "c", "function": {"name": "text_search", "arguments": "{\"input\": [\"Mex"}}]});
    let unknown = Reply::call(&[("fly", json!({}))]);
    let server = Server::script(vec![Reply::Message(broken, "tool_calls"), unknown, Reply::say("<answer>Mexico</answer>")]).await;
    let trajectory = play(&server).await;
    assert_eq!(ended(&trajectory), (Ending::Answered, Some("Mexico"), 2, 0));
    let told = &server.asked()[2].body["messages"];
    assert_eq!(told[2]["tool_calls"][0]["function"]["arguments"], "{}", "servers read it as JSON");
    assert!(told[3]["content"].as_str().is_some_and(|text| text.contains("arguments must be an object")), "{}", told[3]);
    assert!(told[5]["content"].as_str().is_some_and(|text| text.contains("unknown tool \"fly\"")), "{}", told[5]);
}

#[tokio::test]
async fn the_context_is_what_the_settings_say_and_a_prompt_that_does_not_fit_names_the_key() {
    let small = |max_context_tokens| RolloutConfig { max_context_tokens, ..RolloutConfig::default() };
    let server = Server::script(vec![counting(Reply::say(LOOK), 800, 40), Reply::say("<answer>Mexico</answer>")]).await;
    let ending = |rollouts: Rollouts| rollouts.trajectories[0].summary.ending;
    assert_eq!(ending(play_with(&server, small(830)).await.expect("plays")), Ending::ContextFull);
    assert_eq!((server.count(), &server.asked()[0].body["max_tokens"]), (1, &json!(830)), "a turn is no longer than the context");
    assert_eq!(ending(play_with(&server, small(800)).await.expect("plays")), Ending::Answered, "the script goes on");
    let server = Server::script(vec![counting(Reply::say(LOOK), 800, 40)]).await;
    assert_eq!(ending(play_with(&server, small(800)).await.expect("plays")), Ending::Failed(Failure::Infrastructure));
    let cut = Reply::Message(json!({"content": "<answer>Mexico</answer> and"}), "length");
    let server = Server::script(vec![cut]).await;
    assert_eq!(ending(play_with(&server, small(800)).await.expect("plays")), Ending::ContextFull, "the turn had all there was");
}

#[tokio::test]
async fn servers_that_are_busy_are_waited_for_and_those_that_hang_are_timeouts() {
    let busy = Reply::Status(503, "retry-after: 0.1\r\n".into(), "loading".into());
    let server = Server::script(vec![busy, Reply::say("<answer>Mexico</answer>")]).await;
    assert_eq!(play(&server).await.summary.answer.as_deref(), Some("Mexico"));
    let server = Server::script(vec![Reply::Slow(Duration::from_secs(60), Box::new(Reply::say("late")))]).await;
    let hasty = RolloutConfig { turn_timeout_s: 1, ..RolloutConfig::default() };
    let rollouts = play_with(&server, hasty).await.expect("plays");
    assert_eq!(rollouts.trajectories[0].summary.ending, Ending::Failed(Failure::Timeout));
}

#[tokio::test]
async fn without_tools_the_policy_can_only_answer() {
    let cut = Reply::Message(json!({"content": "<think>Peru or"}), "length");
    let server = Server::start(move |asked| match asked.body["seed"].as_u64() {
        Some(0) => Reply::say("<answer>Peru</answer>"),
        Some(1) => Reply::say("Peru"),
        Some(2) => cut.clone(),
        _ => Reply::refuse(401, ""),
    })
    .await;
    let (task, pictures) = task();
    let player = player(&server, RolloutConfig::default());
    let answers = player.closed_book(&task, &pictures, &[0, 1, 2, 3], Sampling::GREEDY).await.expect("plays");
    let ended: Vec<(Ending, Option<&str>)> =
        answers.iter().map(|answer| (answer.summary.ending, answer.summary.answer.as_deref())).collect();
    let failed = Ending::Failed(Failure::Infrastructure);
    assert_eq!(ended, [(Ending::Answered, Some("Peru")), (Ending::Answered, Some("Peru")), (Ending::TurnTruncated, None), (failed, None)]);
    assert_eq!(answers[0].tokens(), 110);
    let body = &server.asked()[0].body;
    assert!(body["tools"].is_null() && body["max_tokens"] == 32, "{body}");
    assert!(body["messages"][0]["content"].as_str().is_some_and(|text| text.contains("There are no tools")));
    let error = player.closed_book(&task, &[], &[0], Sampling::GREEDY).await.expect_err("no picture");
    assert_eq!(error.failure, Failure::Infrastructure);
    let top_k = Sampling { top_k: 5, ..Sampling::GREEDY };
    assert!(player.play(&task, &pictures, &[0], top_k).await.expect_err("no such word").message.contains("top_k"));
}
