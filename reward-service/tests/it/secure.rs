//! The whole service over mutual TLS: its own callers get through, others and wrong files do not.

use std::time::Duration;

use hypereyes_chassis::ready::await_announcement;
use hypereyes_chassis::{ProcessConfig, Security, ServiceProcess, Shutdown, TelemetryConfig, TlsConfig, exit};
use hypereyes_proto::{client, v1};
use hypereyes_reward_service::{Config, RewardService};
use tonic::Code;

use crate::authority::{Authority, place};

/// Longest wait for anything in these tests.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_commits_and_an_actor_does_not() {
    let (folder, ours) = (tempfile::tempdir().expect("a temporary folder"), Authority::new("ours"));
    let files = |role: &str| {
        let folder = folder.path().join(role);
        std::fs::create_dir_all(&folder).expect("a folder");
        place(&folder, &ours.role(role), &[&ours])
    };
    let announce = folder.path().join("ready.json");
    let listen = "127.0.0.1:0".parse().expect("an address");
    let config = Config {
        listen,
        process: ProcessConfig {
            tls: Some(files("reward")),
            health_listen: Some(listen),
            announce: Some(announce.clone()),
            telemetry: TelemetryConfig { filter: "error".into(), ..TelemetryConfig::default() },
            ..ProcessConfig::default()
        },
        ..Config::default()
    };
    let shutdown = Shutdown::new();
    let service = tokio::spawn(RewardService::run(config.clone(), shutdown.clone()));
    let said = await_announcement(&announce, tokio::time::Instant::now() + PATIENCE).await.expect("it comes up");
    let commit = async |role: &str| {
        let clients = client::secure(&Security::new(Some(&files(role))).expect("sound files"));
        let mut reward = clients.reward(&said.addr.to_string()).expect("an address");
        let called = reward.commit_epoch(v1::CommitEpochRequest { epoch: 1 });
        tokio::time::timeout(PATIENCE, called).await.expect("in time")
    };
    assert_eq!(commit("learner").await.expect("it may").into_inner().epoch, 1);
    let denied = commit("actor").await.expect_err("it may not");
    assert!(denied.code() == Code::PermissionDenied && denied.message().contains("learner"), "{denied:?}");
    shutdown.trigger();
    tokio::time::timeout(PATIENCE, service).await.expect("in time").expect("no panic").expect("an orderly end");

    let mut wrong = config;
    wrong.process.tls = Some(TlsConfig { key: "/nowhere/tls.key".into(), ..files("reward") });
    let error = RewardService::run(wrong, Shutdown::new()).await.expect_err("no key");
    assert_eq!(exit::service_code_of(error.as_ref()), exit::SERVICE_BAD_INPUT);
    assert!(error.to_string().contains("/nowhere/tls.key"), "{error}");
}
