//! One of two servers is killed in the middle of turns: nothing is lost or doubled, and it is back with weights that it has never seen
//! before it is asked anything.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::join_all;
use hypereyes_domain::Failure;
use hypereyes_engines::command::{EngineCommand, EngineProcess};
use hypereyes_standin::Dialect;
use tokio::time::Instant;

use super::{ENVIRONMENT, GAP, patient};
use crate::fleet::{Play, Rollout, alone, ending, push, version};
use crate::kills::{STANDIN, held};
use crate::stage::{Forward, Gaps, Stage};
use crate::support::{Client, Policy};

/// Rollouts at once, turns of each and tokens of a turn.
const ROLLOUTS: u64 = 8;
const TURNS: u64 = 3;
const TOKENS: usize = 64;
/// Longest wait for a server to start, and for it to take part.
const START: Duration = Duration::from_secs(400);
/// Longest wait for a wave of turns.
const WAVE: Duration = Duration::from_secs(240);
/// Where turns are asked for.
const GENERATE: &str = "/inference/v1/generate";

/// A vLLM server that is started by this test.
struct Own {
    process: EngineProcess,
    log: PathBuf,
}

impl Own {
    fn start(environment: &str, policy: &Policy, number: usize) -> Self {
        let log = policy.folder.path().join(format!("vllm-{number}.log"));
        let serve = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/peers/vllm/serve");
        // Not in a folder of ours: the server's own packages look around where they are started.
        let words = ["env", "-C", "/tmp", "CONTEXT=2048", serve.to_str().expect("a path"), environment, "{model}", "{port}"];
        let words = words.map(str::to_owned);
        let process = EngineCommand::new(&words, &policy.start(), &log).expect("a free port").held_by(STANDIN).start();
        Self { process, log }
    }

    /// The paths of what it has answered with 200 over all of its lives, in order, as its log has them.
    fn answered(&self) -> Vec<String> {
        let log = fs::read_to_string(&self.log).expect("written");
        let path = |line: &str| Some(line.split_once("\"POST ")?.1.split_once(" HTTP/1.1\" 200")?.0.split('?').next()?.to_owned());
        log.lines().filter_map(path).collect()
    }

    /// How many of those were turns.
    fn turns(&self) -> usize {
        self.answered().iter().filter(|path| *path == GENERATE).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: starts two real vLLM; bench/peers/vllm/check ENVIRONMENT"]
async fn a_killed_server_is_replaced_and_comes_back_with_the_newest_weights() {
    let Ok(environment) = std::env::var(ENVIRONMENT) else {
        return hypereyes_tests::skip(&format!("{ENVIRONMENT} names no environment to start vLLM from"));
    };
    let (_alone, mut counts) = alone().await;
    let stage = Stage::new();
    let policy = &stage.policy;
    let servers = [Own::start(&environment, policy, 0), Own::start(&environment, policy, 1)];
    for server in &servers {
        let log = || fs::read_to_string(&server.log).unwrap_or_default();
        server.process.ready(START).await.unwrap_or_else(|error| panic!("{error}: {}", log()));
    }
    let urls = [servers[0].process.url(), servers[1].process.url()];
    let engine = ending(policy, &patient(&urls, &policy.folder.path().join("policies")), vec![]);
    engine.ready().await.expect("they take part");
    let (first, second) = (policy.scaled(1.02), policy.scaled(1.04));
    push(&engine, &first, 1).await.expect("taken");
    let play = Play::new(policy);
    let wave = async |from: u64| {
        let rolling = join_all((from..from + ROLLOUTS).map(|seed| play.roll_out(&engine, seed, TURNS, TOKENS)));
        tokio::time::timeout(WAVE, rolling).await.expect("in time")
    };

    // As it is when nobody dies.
    let began = Instant::now();
    let undisturbed = wave(0).await;
    let took = began.elapsed();
    assert!(undisturbed.iter().all(|rollout| rollout.error.is_none() && rollout.turns.len() as u64 == TURNS));
    let (answered, repeats) = (counts.all().get("ok").copied().unwrap_or(0), counts.of("repeats", ""));

    let killing = async {
        tokio::time::sleep(took.mul_f64(0.4)).await;
        let process = held(servers[0].process.process().expect("it runs"));
        std::process::Command::new("kill").args(["-9", &process]).status().expect("kill runs");
        Instant::now()
    };
    let (disturbed, killed) = tokio::join!(wave(0), killing);
    let mut gaps = Gaps::default();
    let mut failed = vec![];
    for (one, other) in undisturbed.iter().zip(&disturbed) {
        for (one, other) in one.turns.iter().zip(&other.turns) {
            assert_eq!(one.sampled.tokens, other.sampled.tokens, "a turn that is asked again is the same turn");
            gaps.add(Gaps::between(&one.sampled.logprobs, &other.sampled.logprobs));
        }
        failed.extend(&other.error);
    }
    assert!(failed.iter().all(|error| [Failure::Infrastructure, Failure::Timeout].contains(&error.failure)), "{failed:?}");
    let turns: usize = disturbed.iter().map(|rollout| rollout.turns.len()).sum();
    let (again, outcomes) = (counts.of("repeats", "") - repeats, counts.all().clone());
    println!(
        "{turns} turns around a kill, {} rollouts failed, {again} attempts repeated, {outcomes:?}; to the same turns without it {gaps}",
        failed.len()
    );
    assert!(again + failed.len() as u64 > 0, "nobody was at it");
    assert_eq!(outcomes["ok"] - answered, turns as u64, "none twice");

    // Other weights come while it is away.
    let before = servers[0].answered().len();
    push(&engine, &second, 2).await.expect("the other takes them");
    let until = killed + START;
    while counts.of("admissions", "") < 3 {
        assert!(Instant::now() < until, "it does not come back: {:?}", servers[0].answered().split_off(before));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("{:.0} s after the kill it takes part again, and {} restarts", killed.elapsed().as_secs_f64(), servers[0].process.restarts());
    let since = servers[0].answered().split_off(before);
    let at = |path: &str| since.iter().position(|own| own == path).unwrap_or_else(|| panic!("{path} is not among {since:?}"));
    assert!(at("/pause") < at("/collective_rpc") && at("/collective_rpc") < at("/resume") && at("/resume") < at(GENERATE), "{since:?}");
    let info = Client::new(urls[0], Dialect::Vllm).get("/weight_info").await;
    assert_eq!(info["weight_version"].as_str().and_then(version), Some(2), "{info}");

    // And both are asked.
    let asked = servers.each_ref().map(Own::turns);
    let rollouts: Vec<Rollout> = wave(ROLLOUTS).await;
    let shares: Vec<usize> = servers.iter().zip(asked).map(|(server, asked)| server.turns() - asked).collect();
    let forward = Forward::of(policy, &second);
    let mut gaps = Gaps::default();
    for rollout in &rollouts {
        assert!(rollout.error.is_none() && rollout.turns.len() as u64 == TURNS, "{:?}", rollout.error);
        for (at, turn) in (0..).zip(&rollout.turns) {
            assert!(turn.sampled.versions.iter().all(|version| version.0 == 2));
            gaps.add(forward.of_turn(turn, &play.seen(at)));
        }
    }
    println!("{shares:?} turns at the two afterwards; to our pass {gaps}");
    assert!(shares.iter().all(|turns| *turns > 0), "{shares:?}");
    assert!(gaps.mean() < GAP, "{gaps}");
    drop(engine);
    for server in servers {
        server.process.stop().await;
    }
}
