//! Weights over a real connection on the loopback: what arrives is what was published, or nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hypereyes_chassis::BackoffConfig;
use hypereyes_domain::{Chunk, Failure, Generate, GenerateError, PolicyVersion, Sampled, Sampling, Sequence, SetWeights, SetWeightsError};
use hypereyes_policy::checkpoint::{self, Generation, HostTensor, HostWeights, PolicyFolder, Snapshot, StoredDtype};
use hypereyes_policy::config::SmallShape;
use hypereyes_policy::init;
use hypereyes_proto::client::LearnerClient;
use hypereyes_proto::v1::learner_server::Learner;
use hypereyes_proto::v1::weights_part::Part;
use hypereyes_proto::{client, server, v1};
use hypereyes_weights::grpc::{self, VersionStream, WeightsStream};
use hypereyes_weights::{Announcements, CHUNK_BYTES, Held, Published, Publisher, Shapes, WeightsError, fetch, newest, watch};
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// Changes a part on its way, or drops it; [`cut`] breaks the stream off.
type Saboteur = Box<dyn Fn(v1::WeightsPart) -> Option<v1::WeightsPart> + Send + Sync>;

fn cut() -> v1::WeightsPart {
    v1::WeightsPart { part: Some(Part::Chunk(v1::WeightsChunk { offset: u64::MAX, ..Default::default() })) }
}

struct Serving {
    publisher: Publisher,
    saboteur: Arc<Mutex<Option<Arc<Saboteur>>>>,
}

#[tonic::async_trait]
impl Learner for Serving {
    type WatchPolicyVersionsStream = VersionStream;
    type FetchWeightsStream = WeightsStream;
    type GetPicturesStream = tokio_stream::Empty<Result<v1::Picture, Status>>;

    async fn get_policy_version(&self, _: Request<v1::GetPolicyVersionRequest>) -> Result<Response<v1::PolicyVersion>, Status> {
        Ok(Response::new(grpc::get_policy_version(&self.publisher)))
    }

    async fn watch_policy_versions(&self, _: Request<v1::WatchPolicyVersionsRequest>) -> Result<Response<VersionStream>, Status> {
        Ok(Response::new(grpc::watch_policy_versions(&self.publisher)))
    }

    async fn fetch_weights(&self, request: Request<v1::FetchWeightsRequest>) -> Result<Response<WeightsStream>, Status> {
        let stream = grpc::fetch_weights(&self.publisher, request.into_inner())?;
        let saboteur = self.saboteur.lock().expect("no test panics with it").clone();
        Ok(Response::new(match saboteur {
            None => stream,
            Some(change) => Box::pin(stream.filter_map(move |part| match part.map(|part| change(part)).transpose() {
                Some(Ok(part)) if part == cut() => Some(Err(Status::unavailable("the cable was pulled"))),
                other => other,
            })),
        }))
    }

    async fn lease_task(&self, _: Request<v1::LeaseRequest>) -> Result<Response<v1::LeaseReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn submit(&self, _: Request<v1::TaughtGroup>) -> Result<Response<v1::Receipt>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn heartbeat(&self, _: Request<v1::HeartbeatRequest>) -> Result<Response<v1::HeartbeatReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn abandon(&self, _: Request<v1::AbandonRequest>) -> Result<Response<v1::AbandonReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn get_pictures(&self, _: Request<v1::PicturesRequest>) -> Result<Response<Self::GetPicturesStream>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn put_pictures(&self, _: Request<Streaming<v1::Picture>>) -> Result<Response<v1::PutPicturesReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::LearnerStatus>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn meet(&self, _: Request<v1::MeetRequest>) -> Result<Response<v1::MeetReply>, Status> {
        Err(Status::unimplemented("weights do not meet ranks"))
    }

    async fn stop(&self, _: Request<v1::StopRequest>) -> Result<Response<v1::StopReply>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Two and a half chunks, so that borders lie inside a tensor.
fn weights(seed: u32) -> HostWeights {
    let tensor = |shape: &[usize]| {
        let count: usize = shape.iter().product();
        let values = (0..count as u32).map(|at| f32::from_bits(0x3f00_0000 | (at.wrapping_mul(2_654_435_761) ^ seed) >> 9)).collect();
        HostTensor { shape: shape.to_vec(), values }
    };
    HostWeights::from([("embed".to_owned(), tensor(&[700, 900])), ("norm".to_owned(), tensor(&[17])), ("scale".to_owned(), tensor(&[]))])
}

struct Start {
    client: LearnerClient,
    publisher: Publisher,
    saboteur: Arc<Mutex<Option<Arc<Saboteur>>>>,
}

async fn start() -> Start {
    let publisher = Publisher::new(Snapshot::new(&weights(0), PolicyVersion(0)), 2, 5);
    let saboteur = Arc::new(Mutex::new(None));
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let address = incoming.local_addr().expect("it is bound").to_string();
    let serving = Serving { publisher: publisher.clone(), saboteur: saboteur.clone() };
    tokio::spawn(tonic::transport::Server::builder().add_service(server::learner(serving)).serve_with_incoming(incoming));
    Start { client: client::learner(&address).expect("a good address"), publisher, saboteur }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

#[tokio::test]
async fn fetched_weights_are_the_published_ones_bit_by_bit() {
    let Start { mut client, publisher, .. } = start().await;
    let known = Shapes::of(&Snapshot::new(&weights(0), PolicyVersion(0)));
    let first = fetch(&mut client, PolicyVersion(0), Some(&known), None, soon()).await.expect("fetches");
    assert_eq!(first.snapshot, Snapshot::new(&weights(0), PolicyVersion(0)));
    assert_eq!(first.snapshot.weights().expect("numbers"), weights(0));
    publisher.publish(Snapshot::new(&weights(7), PolicyVersion(1)));
    let named = newest(&mut client, soon()).await.expect("answers");
    let second = fetch(&mut client, named.version, None, None, soon()).await.expect("fetches");
    assert_eq!((&second.snapshot, second.snapshot.digest), (&Snapshot::new(&weights(7), named.version), named.digest));
    let newest = fetch(&mut client, PolicyVersion(0), None, None, soon()).await.expect("fetches");
    assert_eq!(newest.snapshot.version, PolicyVersion(1), "0 asks for the newest");
}

#[tokio::test]
async fn watchers_hear_of_the_present_and_of_every_last_version() {
    let Start { mut client, publisher, .. } = start().await;
    let mut versions = watch(&mut client, soon()).await.expect("listens");
    let first = versions.next().await.expect("goes on").expect("a version");
    assert_eq!(first, Published::of(publisher.newest().as_ref(), 5));
    for version in 1..=4 {
        publisher.publish(Snapshot::new(&weights(version), PolicyVersion(version.into())));
    }
    let last = async {
        loop {
            let heard = versions.next().await.expect("goes on").expect("a version");
            if heard.version == PolicyVersion(4) {
                return heard;
            }
        }
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(20), last).await.expect("in time").digest, publisher.newest().digest);
}

#[tokio::test]
async fn broken_streams_are_refused_and_give_nothing() {
    let Start { mut client, saboteur, .. } = start().await;
    let on_chunk = |at: u64, change: fn(&mut v1::WeightsChunk)| -> Saboteur {
        Box::new(move |mut part| {
            if let Some(Part::Chunk(chunk)) = &mut part.part
                && chunk.offset == at
            {
                change(chunk);
            }
            Some(part)
        })
    };
    let on_header = |change: fn(&mut v1::WeightsHeader)| -> Saboteur {
        Box::new(move |mut part| {
            if let Some(Part::Header(header)) = &mut part.part {
                change(header);
            }
            Some(part)
        })
    };
    let flip = |chunk: &mut v1::WeightsChunk| {
        let mut data = chunk.data.to_vec();
        data[12_345] ^= 1;
        chunk.data = data.into();
    };
    let cases: Vec<(&str, Saboteur)> = vec![
        ("digest", on_chunk(1 << 20, flip)),
        ("digest", on_header(|header| header.digest = "0".repeat(64))),
        ("chunk", on_chunk(1 << 20, |chunk| chunk.offset += 4)),
        ("chunk", on_chunk(0, |chunk| chunk.data = Default::default())),
        ("chunk", on_chunk(2 << 20, |chunk| chunk.data = vec![0; 1 << 20].into())),
        ("chunk", on_chunk(2 << 20, |chunk| chunk.data = chunk.data.slice(..chunk.data.len() - 4))),
        (
            "short",
            on_chunk(2 << 20, |chunk| {
                chunk.data = chunk.data.slice(..chunk.data.len() - 4);
                chunk.length -= 4;
            }),
        ),
        ("chunk", Box::new(|part| (!matches!(&part.part, Some(Part::Chunk(chunk)) if chunk.offset == 0)).then_some(part))),
        ("header", Box::new(|part| (!matches!(&part.part, Some(Part::Header(_)))).then_some(part))),
        ("header", on_header(|header| header.total_bytes = u64::MAX)),
        ("header", on_header(|header| header.digest = "no digest".into())),
        ("header", on_header(|header| header.tensors[0].dtype = v1::WeightDtype::Bf16.into())),
        ("header", on_header(|header| header.tensors[0].dtype = v1::WeightDtype::Unspecified.into())),
        ("header", on_header(|header| header.base_digest = "0".repeat(64))),
        ("shape", on_header(|header| header.tensors[0].name = "other".into())),
        ("chunk", Box::new(|_| Some(v1::WeightsPart::default()))),
        ("short", Box::new(|_| None)),
    ];
    let known = Shapes::of(&Snapshot::new(&weights(0), PolicyVersion(0)));
    for (label, change) in cases {
        *saboteur.lock().expect("no test panics with it") = Some(Arc::new(change));
        let error = fetch(&mut client, PolicyVersion(0), Some(&known), None, soon()).await.expect_err(label);
        assert_eq!(error.label(), label, "{error}");
    }
    *saboteur.lock().expect("no test panics with it") = None;
    assert!(fetch(&mut client, PolicyVersion(0), Some(&known), None, soon()).await.is_ok(), "the connection is as good as before");
}

#[tokio::test]
async fn versions_that_are_gone_and_peers_that_are_slow_are_errors_of_their_own() {
    let Start { mut client, publisher, .. } = start().await;
    let gone = fetch(&mut client, PolicyVersion(99), None, None, soon()).await.expect_err("never published");
    assert!(matches!(&gone, WeightsError::Call { message, .. } if message.contains("99")), "{gone}");
    publisher.publish(Snapshot::new(&weights(1), PolicyVersion(1)));
    let late = fetch(&mut client, PolicyVersion(1), None, None, Instant::now()).await.expect_err("no time at all");
    assert!(matches!(late, WeightsError::Deadline { .. }), "{late}");
}

/// As after a small step: every value moves a little; in bf16 few of them change.
fn stepped(weights: &HostWeights) -> HostWeights {
    let mut weights = weights.clone();
    weights.values_mut().flat_map(|tensor| &mut tensor.values).enumerate().for_each(|(at, value)| *value += 1e-6 * (1.0 + (at % 7) as f32));
    weights
}

#[tokio::test]
async fn who_says_what_it_holds_gets_the_difference_and_the_same_values() {
    let Start { mut client, publisher, .. } = start().await;
    for dtype in [StoredDtype::F32, StoredDtype::Bf16] {
        let (old, new) = (weights(0), stepped(&weights(0)));
        publisher.publish(Snapshot::stored(&old, PolicyVersion(1), dtype));
        let first = fetch(&mut client, PolicyVersion(1), None, None, soon()).await.expect("fetches");
        assert_eq!(first.wire_bytes as usize, first.snapshot.payload.len(), "nothing is held: all of it comes");
        publisher.publish(Snapshot::stored(&new, PolicyVersion(2), dtype));
        let whole = fetch(&mut client, PolicyVersion(2), None, None, soon()).await.expect("fetches");
        let difference = fetch(&mut client, PolicyVersion(2), None, Some(&first.snapshot), soon()).await.expect("fetches");
        assert_eq!(difference.snapshot, whole.snapshot);
        let share = whole.snapshot.payload.len() as f64 / difference.wire_bytes as f64;
        println!("{dtype:?}: {} of {} bytes, {share:.1} times less", difference.wire_bytes, whole.snapshot.payload.len());
        assert!(share > if dtype == StoredDtype::Bf16 { 10.0 } else { 1.3 });
        let same = fetch(&mut client, PolicyVersion(2), None, Some(&whole.snapshot), soon()).await.expect("fetches");
        assert_eq!((same.wire_bytes, &same.snapshot), (0, &whole.snapshot));
        // A policy's folder as a base, in the type that was announced.
        let announced = newest(&mut client, soon()).await.expect("answers").dtype.expect("it is said");
        let own = Snapshot::new(&old, PolicyVersion(0)).written_as(announced).expect("sound");
        let first = fetch(&mut client, PolicyVersion(2), None, Some(&own), soon()).await.expect("fetches");
        assert_eq!((announced, first.wire_bytes, first.snapshot), (dtype, difference.wire_bytes, difference.snapshot.clone()));
        // A base that the learner has forgotten, or never had, costs only time.
        let other = Snapshot { digest: blake3::hash(b"other"), ..Snapshot::new(&weights(5), PolicyVersion(2)) };
        assert_eq!(fetch(&mut client, PolicyVersion(2), None, Some(&other), soon()).await.expect("fetches").snapshot, whole.snapshot);
    }
}

#[tokio::test]
async fn a_stream_that_breaks_at_any_chunk_is_gone_on_with_and_versions_never_mix() {
    let Start { mut client, publisher, saboteur } = start().await;
    let base = fetch(&mut client, PolicyVersion(0), None, None, soon()).await.expect("fetches");
    publisher.publish(Snapshot::new(&stepped(&weights(0)), PolicyVersion(1)));
    for held in [None, Some(base.snapshot)] {
        for at in 0..3u64 {
            // Once, before this chunk.
            let broken = std::sync::atomic::AtomicBool::new(false);
            let change: Saboteur = Box::new(move |part| match &part.part {
                Some(Part::Chunk(chunk)) if chunk.offset == at << 20 && !broken.swap(true, SeqCst) => Some(cut()),
                _ => Some(part),
            });
            *saboteur.lock().expect("no test panics with it") = Some(Arc::new(change));
            let got = fetch(&mut client, PolicyVersion(1), None, held.as_ref(), soon()).await.expect("goes on");
            assert_eq!(got.snapshot, Snapshot::new(&stepped(&weights(0)), PolicyVersion(1)), "chunk {at}");
        }
    }
    // The version is replaced while a stream is broken: what came of it is not mixed with the other.
    let replaced = std::sync::atomic::AtomicBool::new(false);
    let learner = publisher.clone();
    let change: Saboteur = Box::new(move |part| match &part.part {
        Some(Part::Chunk(chunk)) if chunk.offset == 1 << 20 && !replaced.swap(true, SeqCst) => {
            learner.publish(Snapshot::new(&weights(9), PolicyVersion(1)));
            Some(cut())
        }
        _ => Some(part),
    });
    *saboteur.lock().expect("no test panics with it") = Some(Arc::new(change));
    let error = fetch(&mut client, PolicyVersion(1), None, None, soon()).await.expect_err("another payload");
    assert!(error.to_string().contains("another payload"), "{error}");
}

/// A model of two and a half chunks, with the folder that training starts from.
fn start_folder(folder: &Path) -> HostWeights {
    let shape = SmallShape { width: 64, layers: 4, heads: 4, inner: 300, vision_width: 64, vision_depth: 2 };
    let mut config = shape.model(3000, 2997, 2998, 2999);
    config.tie_word_embeddings = true;
    let weights = init::fresh(&config, &Default::default(), 3);
    checkpoint::save(folder, None, &config, &weights, StoredDtype::F32).expect("it can be written");
    weights
}

#[tokio::test]
async fn a_transfer_cut_at_any_chunk_leaves_the_generation_before_or_becomes_the_next_one() {
    let Start { mut client, publisher, saboteur } = start().await;
    let place = tempfile::tempdir().expect("a temporary folder");
    let (from, root) = (place.path().join("start"), place.path().join("root"));
    let old = start_folder(&from);
    let mut held = Snapshot::stored(&old, PolicyVersion(0), StoredDtype::F32);
    publisher.publish(held.clone());
    PolicyFolder::open(&root, &from).expect("it opens").write(&held).expect("it is written");
    let chunks = held.payload.len().div_ceil(CHUNK_BYTES) as u64;
    assert!(chunks >= 3, "{} bytes", held.payload.len());
    for at in 0..chunks {
        let version = PolicyVersion(at + 1);
        let next = Snapshot::stored(&stepped(&held.weights().expect("numbers")), version, StoredDtype::F32);
        publisher.publish(next.clone());
        // Cut for good, then once.
        for most in [usize::MAX, 1] {
            let left = std::sync::atomic::AtomicUsize::new(most);
            let cutting = move || left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
            let change: Saboteur = Box::new(move |part| match &part.part {
                Some(Part::Chunk(chunk)) if chunk.offset == at * CHUNK_BYTES as u64 && cutting() => Some(cut()),
                _ => Some(part),
            });
            *saboteur.lock().expect("no test panics with it") = Some(Arc::new(change));
            let fetched = fetch(&mut client, version, None, Some(&held), soon()).await;
            let mut folder = PolicyFolder::open(&root, &from).expect("it opens");
            let before = folder.newest().map(|newest| (newest.version, newest.digest));
            assert_eq!(before, Some((PolicyVersion(at), held.digest)), "chunk {at}");
            if most == 1 {
                let fetched = fetched.expect("it is gone on with").snapshot;
                let written = folder.write(&fetched).expect("it is written");
                let found = Generation::open(&written.path).expect("it is whole");
                let published = newest(&mut client, soon()).await.expect("answers");
                assert_eq!((found.version, found.digest), (published.version, published.digest), "chunk {at}");
                folder.retain(&[]).expect("it can be removed");
                held = fetched;
            } else {
                assert!(fetched.is_err(), "chunk {at}");
            }
        }
    }
}

/// An engine that samples nothing, and takes weights or does not.
#[derive(Clone, Default)]
struct Holder(Arc<Mutex<(Vec<u64>, bool)>>);

enum Never {}

impl Sequence for Never {
    async fn advance(&mut self, _: Chunk, _: usize) -> Result<Sampled, GenerateError> {
        match *self {}
    }
}

impl Generate for Holder {
    type Sequence = Never;

    async fn start(&self, _: Chunk, _: Vec<u64>, _: Sampling) -> Result<Vec<Never>, GenerateError> {
        Ok(vec![])
    }
}

impl SetWeights<Snapshot> for Holder {
    async fn set_weights(&self, snapshot: Snapshot, version: PolicyVersion) -> Result<(), SetWeightsError> {
        assert_eq!(snapshot.version, version);
        let mut own = self.0.lock().expect("no test panics with it");
        if own.1 {
            return Err(SetWeightsError { failure: Failure::Infrastructure, message: "as scripted".into() });
        }
        own.0.push(version.0);
        Ok(())
    }
}

#[tokio::test]
async fn an_engine_holds_what_is_asked_for_and_keeps_it_when_that_fails() {
    let Start { client, publisher, .. } = start().await;
    let engine = Holder::default();
    let installed = || engine.0.lock().expect("no test panics with it").0.clone();
    let base = Snapshot::new(&weights(0), PolicyVersion(0));
    let mut held = Held::new(client.clone(), engine.clone(), base, Duration::from_secs(20));
    let mut announcements = Announcements::new(client, &BackoffConfig::default());
    let first = announcements.next().await.expect("it is there");
    held.hold(first).await.expect("it is held");
    assert_eq!((held.now(), installed()), (first, vec![]), "it began with these weights");
    for version in 1..=2 {
        publisher.publish(Snapshot::new(&weights(version), PolicyVersion(version.into())));
    }
    let newest = Published::of(publisher.newest().as_ref(), 5);
    held.hold_older(PolicyVersion(1), newest).await.expect("two are published");
    assert_eq!((held.now().version, held.now().incarnation, installed()), (PolicyVersion(1), 5, vec![1]));
    assert_eq!(held.weights().map(|snapshot| snapshot.digest), Some(Snapshot::new(&weights(1), PolicyVersion(1)).digest));
    let gone = held.hold_older(PolicyVersion(0), Published { version: PolicyVersion(2), ..newest });
    gone.await.expect("0 asks for the newest");
    assert_eq!(installed(), [1, 2]);
    publisher.publish(Snapshot::new(&weights(3), PolicyVersion(3)));
    let newest = Published::of(publisher.newest().as_ref(), 5);
    let gone = held.hold_older(PolicyVersion(1), newest).await.expect_err("two are published");
    assert!(gone.is_final().is_none() && gone.label() == "fetch", "{gone}");
    engine.0.lock().expect("no test panics with it").1 = true;
    let refused = held.hold(newest).await.expect_err("as scripted");
    assert!(refused.is_final().is_none() && refused.label() == "swap" && refused.to_string().contains("as scripted"), "{refused}");
    assert_eq!((held.now().version, installed()), (PolicyVersion(2), vec![1, 2]));
    engine.0.lock().expect("no test panics with it").1 = false;
    held.hold(newest).await.expect("it takes them now");
    assert_eq!((held.now(), installed()), (newest, vec![1, 2, 3]));
    publisher.publish(Snapshot::new(&HostWeights::from([("other".to_owned(), weights(0)["norm"].clone())]), PolicyVersion(4)));
    let misfit = held.hold(Published::of(publisher.newest().as_ref(), 5)).await.expect_err("another policy");
    assert!(misfit.is_final().is_some_and(|reason| reason.starts_with("policy: the learner trains another model")), "{misfit}");
}

/// A learner that goes with all its connections once this is dropped, as a process does.
struct Incarnation(Option<Runtime>);

impl Incarnation {
    /// At an address, with a version 0; `None` where the address is not free.
    fn serve(address: SocketAddr, number: u32) -> Option<(Self, SocketAddr)> {
        let runtime = Runtime::new().expect("threads");
        let bound = {
            let _within = runtime.enter();
            TcpIncoming::bind(address).ok()
        };
        // A runtime is not dropped where something may wait for it.
        let this = Self(Some(runtime));
        let incoming = bound?;
        let address = incoming.local_addr().expect("it is bound");
        let publisher = Publisher::new(Snapshot::new(&weights(0), PolicyVersion(0)), 2, number);
        let serving = Serving { publisher, saboteur: Arc::default() };
        let server = tonic::transport::Server::builder().add_service(server::learner(serving)).serve_with_incoming(incoming);
        this.0.as_ref().expect("until it is dropped").spawn(server);
        Some((this, address))
    }
}

impl Drop for Incarnation {
    fn drop(&mut self) {
        self.0.take().expect("once").shutdown_background();
    }
}

#[tokio::test]
async fn announcements_go_on_with_the_next_learner_at_the_same_address() {
    let (first, address) = Incarnation::serve("127.0.0.1:0".parse().expect("an address"), 5).expect("a free port");
    let client = client::learner(&address.to_string()).expect("a good address");
    let mut announcements = Announcements::new(client, &BackoffConfig::default());
    assert_eq!(announcements.next().await.expect("it is there").incarnation, 5);
    announcements.again();
    assert_eq!(announcements.next().await.expect("begun anew").incarnation, 5);
    let next = async {
        loop {
            if let Ok(published) = announcements.next().await {
                announcements.served();
                return published.incarnation;
            }
        }
    };
    let another = async {
        drop(first);
        // Its port is free a moment later.
        loop {
            if let Some((second, _)) = Incarnation::serve(address, 6) {
                return second;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (heard, _second) = tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(next, another) }).await.expect("in time");
    assert_eq!(heard, 6);
}
