//! The service is killed while it loads, promotes and retires: what comes back is the last acknowledged state, or the one that was
//! being made when it died, and nothing else.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{PATIENCE, model};
use hypereyes_chassis::ready::{await_announcement, clear};
use hypereyes_chassis::{ProcessConfig, Shutdown, TelemetryConfig};
use hypereyes_domain::TeacherId;
use hypereyes_proto::TeacherPeer;
use hypereyes_proto::teacher::Load;
use hypereyes_teacher_service::ledger::{Kept, Ledger, State};
use hypereyes_teacher_service::{Config, run};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Kills by signal, while orders come over the wire.
const SIGNALS: u64 = 200;
/// Deaths at a write boundary of the ledger.
const FAILPOINTS: u64 = 200;

/// Not a test: the service that is killed, when this file is started as one.
#[tokio::test(flavor = "multi_thread")]
async fn service() {
    let Ok(folder) = std::env::var("TEACHER_TO_KILL") else { return };
    let folder = Path::new(&folder);
    let config = Config {
        listen: "127.0.0.1:0".parse().expect("an address"),
        model: folder.join("m").display().to_string(),
        id: "first".into(),
        store: Some(folder.join("store")),
        process: ProcessConfig {
            announce: Some(folder.join("ready.json")),
            telemetry: TelemetryConfig { filter: "error".into(), ..TelemetryConfig::default() },
            ..ProcessConfig::default()
        },
        ..Config::default()
    };
    run(config, Shutdown::new()).await.expect("serves until it is killed");
}

struct Dying {
    process: Child,
    peer: TeacherPeer,
}

impl Dying {
    async fn start(folder: &Path) -> Self {
        let ready = folder.join("ready.json");
        clear(&ready).expect("removable");
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.args(["kills::service", "--exact"]).env("TEACHER_TO_KILL", folder);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        let said = await_announcement(&ready, tokio::time::Instant::now() + PATIENCE).await.expect("comes up");
        let client = hypereyes_proto::client::teacher(&said.addr.to_string()).expect("an address");
        Self { process, peer: TeacherPeer::new(client) }
    }
}

/// What a registry says, as far as it must survive.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    models: Vec<String>,
    revision: u64,
    active: String,
}

async fn seen(peer: &TeacherPeer, models: usize) -> Seen {
    let look = async {
        loop {
            let roster = peer.roster(PATIENCE).await.expect("lists");
            let mut held: Vec<String> =
                roster.models.iter().filter(|model| model.card.is_some()).map(|model| model.id.to_string()).collect();
            held.sort();
            let active = roster.active().expect("one is active");
            // Those that are not active come back one after the other.
            if held.len() >= models {
                return Seen { models: held, revision: active.revision, active: active.id.to_string() };
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.expect("everything comes back")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service_comes_back_to_what_it_said() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    model(&folder.path().join("m"), 1, &["Peru", "Lima"]);
    let mut random = StdRng::seed_from_u64(11);
    let mut expected = Seen { models: vec!["first".into()], revision: 1, active: "first".into() };
    let mut running = Dying::start(folder.path()).await;
    let mut number = 0;
    for kill in 0..SIGNALS {
        // Some orders that are acknowledged, and one in the middle of which it dies.
        for last in [false, false, true] {
            number += 1;
            let idle: Vec<&String> = expected.models.iter().filter(|id| **id != expected.active).collect();
            let mut next = expected.clone();
            let order = match (number % 3, idle.first()) {
                (1, Some(id)) => {
                    (next.revision, next.active) = (expected.revision + 1, (*id).clone());
                    ("promote", (*id).clone())
                }
                (2, Some(id)) if expected.models.len() > 2 => {
                    next.models.retain(|model| model != *id);
                    ("retire", (*id).clone())
                }
                _ if expected.models.len() < 6 => {
                    next.models.push(format!("m-{number:04}"));
                    next.models.sort();
                    ("load", format!("m-{number:04}"))
                }
                (_, Some(id)) => {
                    next.models.retain(|model| model != *id);
                    ("retire", (*id).clone())
                }
                _ => continue,
            };
            let (peer, source) = (running.peer.clone(), folder.path().join("m").display().to_string());
            let call = tokio::spawn(async move {
                let id = TeacherId::new(order.1);
                match order.0 {
                    "load" => peer.load(Load { source, id, digest: String::new(), background: false }, PATIENCE).await.map(drop),
                    "promote" => peer.promote(&id, PATIENCE).await.map(drop),
                    _ => peer.retire(&id, PATIENCE).await.map(drop),
                }
            });
            if !last {
                call.await.expect("no panic").expect("it is done");
                expected = next;
                continue;
            }
            tokio::time::sleep(Duration::from_micros(random.random_range(0..if order.0 == "load" { 80_000 } else { 8_000 }))).await;
            running.process.kill().expect("it can be killed");
            running.process.wait().expect("it ends");
            let acknowledged = call.await.expect("no panic").is_ok();
            // Models that are not active come back after it serves: what has to come back is in the ledger.
            let kept = written(&folder.path().join("store"));
            if acknowledged {
                assert_eq!(kept, next, "kill {kill}: it was acknowledged");
            } else {
                assert!(kept == next || kept == expected, "kill {kill}: neither before nor after {}: {kept:?}", order.0);
            }
            expected = kept;
            running = Dying::start(folder.path()).await;
            assert_eq!(seen(&running.peer, expected.models.len()).await, expected, "kill {kill}");
        }
    }
    running.process.kill().expect("it can be killed");
    running.process.wait().expect("it ends");
}

/// What the ledger of a service that has ended says.
fn written(store: &Path) -> Seen {
    let ledger = Ledger::open(Some(store)).expect("it opens after every death");
    let mut models: Vec<String> = ledger.state().models.iter().map(|model| model.id.to_string()).collect();
    models.sort();
    let last = ledger.state().history.last().expect("one is active");
    Seen { models, revision: last.revision, active: last.id.to_string() }
}

/// Dies before, in the middle of, or after a write: as the environment says.
fn deadly(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let point: u64 = std::env::var("DIE_AT").ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    let (write, way) = (point / 3, point % 3);
    let now = WRITES.fetch_add(1, Ordering::SeqCst) == write;
    if now && way == 0 {
        std::process::abort();
    }
    if now && way == 1 {
        // What a torn write leaves is beside the file, never in it.
        std::fs::write(path.with_extension("tmp"), &bytes[..bytes.len() / 2])?;
        std::process::abort();
    }
    hypereyes_chassis::atomic::write(path, bytes)?;
    if now {
        std::process::abort();
    }
    Ok(())
}

fn kept(number: u64) -> Kept {
    Kept { id: format!("m-{number}").as_str().into(), source: "/m".into(), digest: "d".into() }
}

/// Change number `at` of a fixed sequence.
fn change(ledger: &mut Ledger, at: u64) -> std::io::Result<()> {
    match at % 4 {
        0 => ledger.loaded(kept(at)),
        1 => ledger.promoted(&kept(at - 1).id, at).map(drop),
        2 => ledger.loaded(kept(at)),
        _ => ledger.retired(&kept(at - 1).id),
    }
}

/// Not a test: the ledger's owner that dies, when this file is started as one.
#[test]
fn owner() {
    let Ok(folder) = std::env::var("LEDGER_TO_KILL") else { return };
    let mut ledger = Ledger::open_with(Some(Path::new(&folder)), deadly).expect("opens");
    let from: u64 = std::env::var("FROM").expect("said").parse().expect("a number");
    for at in from..from + 6 {
        change(&mut ledger, at).expect("writes");
        // The acknowledgement.
        std::fs::write(Path::new(&folder).join("acknowledged"), at.to_string()).expect("writes");
    }
}

#[test]
fn every_write_boundary_leaves_the_last_acknowledged_state_or_the_next() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = std::env::current_exe().expect("this program");
    let state_after = |count: u64| -> State {
        let mut ledger = Ledger::open(None).expect("opens");
        (0..count).for_each(|at| change(&mut ledger, at).expect("keeps"));
        ledger.state().clone()
    };
    let mut done = 0;
    for kill in 0..FAILPOINTS {
        let point = kill % 18;
        let mut command = Command::new(&program);
        command.args(["kills::owner", "--exact"]).env("LEDGER_TO_KILL", folder.path());
        command.env("DIE_AT", point.to_string()).env("FROM", done.to_string());
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("runs");
        assert!(!status.success(), "kill {kill}: it died");
        let acknowledged = std::fs::read_to_string(folder.path().join("acknowledged")).ok().and_then(|text| text.parse::<u64>().ok());
        let least = acknowledged.map_or(0, |at| at + 1).max(done);
        let state = Ledger::open(Some(folder.path())).expect("it opens after every death").state().clone();
        let at = (least..=least + 1).find(|count| state_after(*count) == state);
        done = at.unwrap_or_else(|| panic!("kill {kill}: the state is neither that after {least} changes nor the next: {state:?}"));
    }
    assert!(done > FAILPOINTS, "the sequence went on: {done}");
}
