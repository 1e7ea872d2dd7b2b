//! Two processes, each with an exporter of its own, and one trace: what a caller does and what its peer does for it belong together.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hypereyes_chassis::{Security, Server, ServerConfig, Shutdown, TelemetryConfig, telemetry, trace};
use hypereyes_proto::{TeacherPeer, client, roles, server};
use serde_json::Value;
use tonic::service::Routes;
use tracing::Instrument as _;

use crate::roles::Fake;

/// Tells the child what it is: the folder in which it says where it is and what it saw.
const CHILD: &str = "ONE_TRACE_CHILD";
const SOON: Duration = Duration::from_secs(60);

fn export_to(path: &Path) {
    let config = TelemetryConfig { filter: "warn".into(), otlp_file: path.to_owned(), ..TelemetryConfig::default() };
    telemetry::init(&config).expect("sound settings");
}

/// Serves until its parent lets go of it.
async fn child(folder: &Path) {
    export_to(&folder.join("child.jsonl"));
    let bound = Server::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
    std::fs::write(folder.join("partial"), bound.addr().to_string()).expect("written");
    std::fs::rename(folder.join("partial"), folder.join("address")).expect("renamed");
    let (shutdown, bound) = (Shutdown::new(), bound.secure(&Security::plaintext(), roles::callers));
    let over = shutdown.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        over.trigger();
    });
    bound.serve(Routes::new(server::teacher(Fake)), shutdown, &ServerConfig::default()).await.expect("serves");
    trace::flush();
}

/// The spans of a file of OTLP requests.
fn spans(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("a file");
    let requests = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    requests.flat_map(|request| request["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("spans").clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_and_what_its_peer_does_for_it_are_one_trace_in_two_processes() {
    if let Some(folder) = std::env::var_os(CHILD) {
        return child(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    let name = "one_trace::a_call_and_what_its_peer_does_for_it_are_one_trace_in_two_processes";
    let command = command.args(["--exact", name, "--nocapture"]).env(CHILD, folder.path()).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut peer = command.spawn().expect("starts");
    let up = async {
        loop {
            if let Ok(address) = std::fs::read_to_string(folder.path().join("address")) {
                return address;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let address = tokio::time::timeout(SOON, up).await.expect("it comes up");

    let own = folder.path().join("own.jsonl");
    export_to(&own);
    let teacher = TeacherPeer::new(client::teacher(&address).expect("an address"));
    let span = tracing::info_span!(target: "hypereyes_test", "teach", group = "t@1");
    // What it answers is of no matter here.
    let _ = teacher.roster(SOON).instrument(span).await;
    // Outside of any span nothing is handed over.
    let _ = teacher.roster(SOON).await;
    trace::flush();
    drop(peer.stdin.take());
    assert!(peer.wait().expect("it ends").success());

    let asked = spans(&own).into_iter().find(|span| span["name"] == "teach").expect("the caller's span");
    let served = spans(&folder.path().join("child.jsonl"));
    let served: Vec<&Value> = served.iter().filter(|span| span["name"] == "hypereyes.v1.Teacher/ListModels").collect();
    assert_eq!(served.len(), 1, "a call outside of a trace is in none: {served:?}");
    assert_eq!((&served[0]["traceId"], &served[0]["parentSpanId"]), (&asked["traceId"], &asked["spanId"]));
    assert!(asked["traceId"].as_str().is_some_and(|id| id.len() == 32) && asked["parentSpanId"].is_null());
    let group = asked["attributes"].as_array().expect("attributes").iter().find(|one| one["key"] == "group").expect("the group");
    assert_eq!(group["value"]["stringValue"], "t@1");
}
