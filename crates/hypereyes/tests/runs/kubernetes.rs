//! The manifests run this system: the rendered `dev-cpu` overlay, its real settings, probes and volumes, with the real binary in every
//! pod, each in a network of its own. What is simulated and what is not is in `tests/kubesim`. Skipped, with the reason, where
//! namespaces are not permitted.
//!
//! `HYPEREYES_LONG=1` takes the times that the system was measured with: 30 s of partition, more steps between events.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Machine;
use crate::authority::{Asked, Authority};
use crate::cores::{Apart, Stranger, renice};
use crate::support::lines;
use hypereyes_kubesim::{Cluster, Options, Permit, Verdict};
use hypereyes_run::audit;
use serde_json::Value;

/// Longest wait for anything: two busy cores run a whole cluster here.
pub const DEADLINE: Duration = Duration::from_secs(600);
/// The actors' pods.
pub const ACTORS: &str = "app.kubernetes.io/name=actor";

fn long() -> bool {
    std::env::var_os("HYPEREYES_LONG").is_some()
}

/// A rendered overlay.
pub fn rendered(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../k8s/rendered/{name}.yaml"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The manifests with a setting of the learner changed.
fn with_steps(manifests: &str, steps: u64) -> String {
    assert!(manifests.contains("steps = 80\n"), "the setting is there");
    manifests.replace("steps = 80\n", &format!("steps = {steps}\n"))
}

/// A cluster that trains.
pub struct Run {
    /// The cluster.
    pub cluster: Cluster,
    out: PathBuf,
}

impl Run {
    /// A cluster whose pods come up; `None` where there can be none.
    async fn start(manifests: &str, hpa_period: Duration) -> Option<Self> {
        let options = Options {
            binaries: [("hypereyes".to_owned(), env!("CARGO_BIN_EXE_hypereyes").into())].into(),
            probe_period: Some(Duration::from_millis(500)),
            hpa_period,
            ..Options::default()
        };
        Self::with(manifests, options).await
    }

    /// Likewise, as the options say.
    pub async fn with(manifests: &str, options: Options) -> Option<Self> {
        if let Err(reason) = Permit::check() {
            hypereyes_tests::skip(&reason);
            return None;
        }
        let cluster = Cluster::start(manifests, options).await.expect("the manifests can be run");
        let out = cluster.claim("hypereyes", "learner").join("run-1");
        Some(Self { cluster, out })
    }

    /// Waits for pods.
    pub async fn ready(&self, selector: &str) {
        let ready = self.cluster.wait_ready(selector, DEADLINE).await;
        if let Err(error) = ready {
            panic!("{error:#}\n{}", self.last_words().await);
        }
    }

    /// The end of every pod's log.
    async fn last_words(&self) -> String {
        let pods = self.cluster.pods().await.unwrap_or_default();
        let end = |log: String| {
            log.lines().rev().take(12).map(str::to_owned).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
        };
        pods.iter().map(|pod| format!("--- {}\n{}\n", pod.name, end(self.cluster.logs(&pod.name).unwrap_or_default()))).collect()
    }

    fn steps(&self) -> Vec<Value> {
        lines(&self.out.join("metrics.jsonl"))
    }

    /// The last step made.
    pub fn step(&self) -> u64 {
        self.steps().last().and_then(|step| step["step"].as_u64()).unwrap_or(0)
    }

    /// Waits until a step has been made.
    pub async fn reach(&self, step: u64) -> Duration {
        let began = Instant::now();
        while self.step() < step {
            assert!(began.elapsed() < DEADLINE, "step {} of {step}\n{}", self.step(), self.last_words().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        began.elapsed()
    }

    /// Steps on; medians of those made: seconds of a step, and microseconds of a step per token (batches differ).
    async fn pace(&self, steps: u64) -> (f64, f64) {
        self.reach(self.step() + steps).await;
        let made = self.steps();
        let made = &made[made.len() - steps as usize..];
        let median = |of: &dyn Fn(&Value) -> f64| {
            let mut values: Vec<f64> = made.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let seconds = |step: &Value| step["step_seconds"].as_f64().expect("a step says its time");
        let tokens = |step: &Value| step["tokens"].as_f64().expect("a step says its tokens");
        (median(&seconds), median(&|step| 1e6 * seconds(step) / tokens(step)))
    }

    /// Names of actors.
    pub async fn actors(&self) -> Vec<String> {
        self.cluster.names(ACTORS).await.expect("selects")
    }

    /// The learner's name.
    pub async fn learner(&self) -> String {
        self.cluster.names("app.kubernetes.io/name=learner").await.expect("selects").remove(0)
    }

    /// What the learner's ledger says of every group.
    pub fn audited(&self) -> audit::Audit {
        let audit = audit::audit(&self.out.join("groups.jsonl")).expect("the ledger can be read");
        assert_eq!((audit.contradictions, audit.summary.trained_twice), (0, 0), "{:?}", audit.listed);
        audit
    }

    /// `hypereyes teacher`, as the runbook has it.
    async fn teacher(&self, arguments: &[&str]) -> String {
        let words: Vec<&str> = ["hypereyes", "teacher"].iter().chain(arguments).copied().collect();
        let output = self.cluster.exec("teacher-0", &words).await.expect("runs");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{words:?}: {said}");
        said
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_laptop_overlay_trains_to_its_end_under_everything_that_happens_to_a_cluster() {
    let _machine = Machine::alone();
    let manifests = with_steps(&rendered("dev-cpu"), 1_000_000);
    let Some(run) = Run::start(&manifests, Duration::from_secs(1)).await else { return };
    let some = if long() { 40 } else { 3 };
    run.ready("app.kubernetes.io/part-of=hypereyes").await;
    run.reach(2).await;
    let learner = run.learner().await;
    let unmoved = async || {
        let snapshot = run.cluster.snapshot().await.expect("looks");
        let pod = snapshot.pod(&learner).expect("it is there");
        (pod.uid.clone(), pod.restarts)
    };
    let before = unmoved().await;

    // Actors come and go; the learner does not notice.
    let apart = long().then(Apart::start);
    for actors in [1, 6, 1] {
        run.cluster.scale("actor", actors).await.expect("scales");
        run.ready(ACTORS).await;
        run.reach(run.step() + 1).await;
        let (seconds, micros) = run.pace(some).await;
        eprintln!("{actors} actors: a step of {seconds:.2} s, {micros:.0} us per token");
    }
    if apart.is_some() {
        // What the machine's cores share shows beside a stranger that computes what an actor computes, and calls nobody.
        let stranger = Stranger::start();
        run.reach(run.step() + 1).await;
        let (seconds, micros) = run.pace(some).await;
        eprintln!("1 actor and a stranger: a step of {seconds:.2} s, {micros:.0} us per token");
        drop(stranger);
    }
    drop(apart);
    assert_eq!(unmoved().await, before, "the learner was never restarted");
    run.audited();

    // A rolling update of actors: groups in flight are finished or given back, none has to expire.
    run.cluster.scale("actor", 2).await.expect("scales");
    run.ready(ACTORS).await;
    let (old, expired) = (run.actors().await, expired(&run));
    run.cluster
        .apply(&manifests.replace(
            "- name: HYPEREYES_ACTOR__ID
",
            "- name: ROLLED
          value: \"1\"
        - name: HYPEREYES_ACTOR__ID
",
        ))
        .await
        .expect("applies");
    let fresh = |snapshot: &hypereyes_kubesim::Snapshot| {
        let names: Vec<&String> = snapshot.select(ACTORS).into_iter().filter(|pod| pod.active()).map(|pod| &pod.name).collect();
        (names.len() == 2 && names.iter().all(|name| !old.contains(name))).then_some(())
    };
    run.cluster.wait("new actors", DEADLINE, fresh).await.expect("rolls");
    run.ready(ACTORS).await;
    run.reach(run.step() + 1).await;
    assert_eq!(self::expired(&run), expired, "nothing was lost to a timeout");
    run.audited();

    // The learner's pod is killed; its successor goes on from the volume.
    let step = run.step();
    run.cluster.kill_pod(&learner).await.expect("kills");
    let resumed = |snapshot: &hypereyes_kubesim::Snapshot| {
        let pods = snapshot.select("app.kubernetes.io/name=learner");
        pods.into_iter().find(|pod| pod.active() && pod.ready && pod.uid != before.0).map(|pod| pod.name.clone())
    };
    let heir = run.cluster.wait("another learner", DEADLINE, resumed).await.expect("it is replaced");
    run.reach(step.saturating_sub(20) + 2).await;
    run.reach(run.step() + 2).await;
    run.audited();

    // Actors and learner lose each other.
    let actors = run.actors().await;
    let actors: Vec<&str> = actors.iter().map(String::as_str).collect();
    run.cluster.partition(&actors, &[&heir]).await.expect("cuts");
    tokio::time::sleep(Duration::from_secs(if long() { 30 } else { 6 })).await;
    run.cluster.heal().await.expect("heals");
    let healed = run.reach(run.step() + 1).await;
    eprintln!("steps go on {:.1} s after the network is back", healed.as_secs_f64());
    run.audited();

    // Blue to green, by the runbook.
    let both = format!("{manifests}\n---\n{}", rendered("teacher-green"));
    run.cluster.apply(&both).await.expect("applies");
    run.ready("app.kubernetes.io/instance=green").await;
    run.teacher(&["load", "green", "grpc://teacher-green:7002"]).await;
    let checked = run.teacher(&["check", "green", "--tasks", "2", "--max-kl", "10"]).await;
    assert!(checked.contains("green") && checked.contains("blue"), "{checked}");
    run.teacher(&["promote", "green"]).await;
    let listed = run.teacher(&["list"]).await;
    assert!(listed.contains("epoch 2"), "{listed}");
    let taught = async {
        while !run.steps().iter().any(|step| step["teachers"].get("green#2").is_some()) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(DEADLINE, taught).await.expect("green teaches");
    run.teacher(&["retire", "blue"]).await;

    // Told to stop, the learner leaves a checkpoint and is not taken for done.
    let heir = run.learner().await;
    run.cluster.delete_pod(&heir).await.expect("evicts");
    let next = |snapshot: &hypereyes_kubesim::Snapshot| {
        snapshot.select("app.kubernetes.io/name=learner").into_iter().find(|pod| pod.active() && pod.ready && pod.name != heir).map(drop)
    };
    run.cluster.wait("a learner after the eviction", DEADLINE, next).await.expect("the Job goes on");
    run.audited();
}

/// Leases that ran out.
fn expired(run: &Run) -> usize {
    lines(&run.out.join("groups.jsonl")).iter().filter(|line| line["reason"] == "expired" || line["event"] == "expired").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_run_completes_its_job() {
    let _machine = Machine::alone();
    let Some(run) = Run::start(&with_steps(&rendered("dev-cpu"), 3), Duration::from_secs(15)).await else { return };
    let verdict = run.cluster.wait_job("learner", DEADLINE).await;
    let verdict = match verdict {
        Ok(verdict) => verdict,
        Err(error) => panic!("{error:#}\n{}", run.last_words().await),
    };
    assert_eq!(verdict, Verdict::Complete);
    assert!(run.out.join("policy/model.safetensors").exists(), "the trained policy is on the volume");
    let audit = run.audited();
    assert!(audit.summary.trained >= 24, "{:?}", audit.summary);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_end_the_job_for_good() {
    let _machine = Machine::alone();
    let manifests = rendered("dev-cpu").replace("steps = 80\n", "stepps = 80\n");
    let Some(run) = Run::start(&manifests, Duration::from_secs(15)).await else { return };
    let verdict = run.cluster.wait_job("learner", DEADLINE).await.expect("it ends");
    assert!(matches!(&verdict, Verdict::Failed { reason, .. } if reason == "PodFailurePolicy"), "{verdict:?}");
    let learner = run.cluster.pods().await.expect("looks").into_iter().find(|pod| pod.name.starts_with("learner")).expect("it was there");
    assert!(run.cluster.logs(&learner.name).expect("reads").contains("did you mean steps?"));
}

/// The Secrets that cert-manager would make of the manifests' Certificates.
fn secrets(manifests: &str, authority: &Authority) -> String {
    let objects: Vec<Value> = serde_saphyr::from_multiple(manifests).expect("YAML");
    let words = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|word| Some(word.as_str()?.to_owned())).collect()
    };
    let mut made = String::new();
    for object in objects.iter().filter(|object| object["kind"] == "Certificate" && object["spec"]["isCA"] != true) {
        let (hosts, names) = (words(&object["spec"]["dnsNames"]), words(&object["spec"]["uris"]));
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let issued = authority.issue(&Asked { hosts: &hosts, names: &names, valid: true });
        let secret = serde_json::json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": object["spec"]["secretName"], "namespace": "hypereyes"},
            "stringData": {"tls.crt": issued.certificate, "tls.key": issued.key, "ca.crt": authority.pem},
        });
        made += &format!("\n---\n{secret}");
    }
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_a_run_is_by_mutual_tls_and_certificates_are_renewed_meanwhile() {
    let _machine = Machine::alone();
    let (manifests, authority) = (with_steps(&rendered("mtls"), 1_000_000), Authority::new("cluster"));
    let Some(run) = Run::start(&format!("{manifests}{}", secrets(&manifests, &authority)), Duration::from_secs(15)).await else { return };
    run.ready("app.kubernetes.io/part-of=hypereyes").await;
    run.reach(2).await;
    assert!(run.teacher(&["list"]).await.contains("blue"), "the operator's certificate is in the pod of the front");
    let actors = run.actors().await;
    let stranger = run.cluster.exec(&actors[0], &["hypereyes", "teacher", "list", "--at", "teacher:7002"]).await.expect("runs");
    assert!(!stranger.status.success(), "nobody is heard without a certificate");
    // New certificates for everybody, by the same authority.
    run.cluster.apply(&format!("{manifests}{}", secrets(&manifests, &authority))).await.expect("applies");
    tokio::time::sleep(Duration::from_secs(5)).await;
    run.reach(run.step() + 2).await;
    // An actor that comes now connects anew to everybody.
    run.cluster.kill_pod(&actors[0]).await.expect("kills");
    run.ready(ACTORS).await;
    run.reach(run.step() + 2).await;
    for pod in run.actors().await.iter().chain([&run.learner().await, &"reward-0".to_owned()]) {
        let page = run.cluster.metrics(pod).await.expect("is scraped");
        let reloads =
            |outcome: &str| page.lines().find(|line| line.starts_with("hypereyes_tls_reloads_total") && line.contains(outcome)).is_some();
        assert!(!reloads("refused"), "{pod}: {page}");
        let refused: Vec<&str> = page.lines().filter(|line| line.starts_with("hypereyes_tls_refused_total")).collect();
        assert!(refused.is_empty(), "{pod}: {refused:?}");
    }
    run.audited();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: five minutes on two cores; `cargo test --release -p hypereyes --test runs -- --ignored the_fleet`, or `just slow`"]
async fn the_fleet_follows_the_learners_hunger_up_and_down_without_swinging() {
    let _machine = Machine::alone();
    let scaler =
        rendered("single-gpu").split("\n---\n").find(|text| text.contains("kind: HorizontalPodAutoscaler")).expect("one").to_owned();
    let scaler = scaler.replace("maxReplicas: 2", "maxReplicas: 4").replace("minReplicas: 2", "minReplicas: 1");
    let manifests = format!("{}\n---\n{scaler}", with_steps(&rendered("dev-cpu"), 1_000_000).replace("replicas: 2", "replicas: 1"));
    let Some(run) = Run::start(&manifests, Duration::from_secs(1)).await else { return };
    run.ready("app.kubernetes.io/part-of=hypereyes").await;
    run.reach(2).await;
    // One side of the job gets what the other leaves of the cores: a learner beside slow actors is hungry, a slow one is fed.
    let fleet = async |what: &str, seconds: u64, (slow, fast): (&str, &str)| {
        let (began, mut said, mut seen) = (Instant::now(), Instant::now(), vec![]);
        while began.elapsed() < Duration::from_secs(seconds) {
            renice(slow, "19");
            renice(fast, "0");
            let page = run.cluster.metrics(&run.learner().await).await.unwrap_or_default();
            let hunger = page.lines().find_map(|line| line.strip_prefix("hypereyes_learner_starved_ratio ")?.parse::<f64>().ok());
            let actors = run.actors().await.len();
            let looked = said.elapsed() > Duration::from_secs(15);
            if looked || seen.last() != Some(&actors) {
                said = Instant::now();
                if seen.last() != Some(&actors) {
                    seen.push(actors);
                }
                eprintln!("{what}: {:>4.0} s, {actors} actors, starved {:.2}", began.elapsed().as_secs_f64(), hunger.unwrap_or(f64::NAN));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        seen
    };
    let up = fleet("hungry", 60, ("service actor", "service learner")).await;
    assert!(up.is_sorted() && up.last() > up.first(), "up, and never down: {up:?}");
    let down = fleet("fed", 200, ("service learner", "service actor")).await;
    assert!(down.iter().rev().is_sorted() && down.last() < down.first(), "down, and never up: {down:?}");
    run.audited();
}
