//! The service as its callers see it: over a real connection on the loopback, with tiny models made on the spot.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hypereyes_chassis::ready::await_announcement;
use hypereyes_chassis::{Shutdown, TelemetryConfig};
use hypereyes_chat::{Chat, TinyWords, tiny};
use hypereyes_domain::{Chunk, Failure, Generate, PolicyVersion, Sampled, Sampling, Sequence as _};
use hypereyes_pictures::{Picture, RgbImage};
use hypereyes_policy::checkpoint::{self, StoredDtype};
use hypereyes_policy::config::TinyConfig;
use hypereyes_policy::engine::{Engine, EngineConfig};
use hypereyes_policy::init;
use hypereyes_proto::client::TeacherClient;
use hypereyes_proto::{ScoreSequence, convert, failure, v1};
use hypereyes_teacher_service::{Config, run};
use tokio::task::JoinHandle;
use tonic::Code;

/// Longest wait for anything in these tests.
const PATIENCE: Duration = Duration::from_secs(60);

fn model(folder: &Path, seed: u64, terms: &[&str]) {
    let terms: Vec<String> = terms.iter().map(|term| (*term).to_owned()).collect();
    let words = TinyWords { terms: &terms, relations: &["capital".to_owned()] };
    let summary = tiny::write(folder, words).expect("sound words");
    let tiny = TinyConfig { width: 64, layers: 2, heads: 4, inner: 96, vision_width: 32, vision_depth: 2 };
    let config = tiny.model(summary.vocab_size, summary.image, summary.vision_start, summary.vision_end);
    let weights = init::fresh(&config, &init::InitConfig::default(), seed);
    checkpoint::save(folder, &config, &weights, StoredDtype::F32).expect("writes");
}

struct Running {
    folder: tempfile::TempDir,
    client: TeacherClient,
    shutdown: Shutdown,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    async fn start(config: Config) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        model(&folder.path().join("a"), 1, &["Peru", "Lima"]);
        let announce = folder.path().join("ready.json");
        let config = Config {
            listen: "127.0.0.1:0".parse().expect("an address"),
            announce: Some(announce.clone()),
            model: folder.path().join("a"),
            id: "a".into(),
            telemetry: TelemetryConfig { filter: "error".into(), ..TelemetryConfig::default() },
            ..config
        };
        let shutdown = Shutdown::new();
        let task = tokio::spawn(run(config, shutdown.clone()));
        let said = await_announcement(&announce, tokio::time::Instant::now() + PATIENCE).await.expect("the service comes up");
        let client = hypereyes_proto::client::teacher(&said.addr.to_string()).expect("an address");
        Self { folder, client, shutdown, task }
    }

    async fn stop(self) {
        drop(self.client);
        self.shutdown.trigger();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it stops in time").expect("no panic").expect("an orderly end");
    }

    async fn score(&self, sequences: &[ScoreSequence], teacher: Option<&str>) -> Result<(String, Vec<Vec<f32>>), tonic::Status> {
        let request = v1::ScoreTokensRequest {
            group_id: "t@1".into(),
            sequences: sequences.iter().cloned().map(Into::into).collect(),
            teacher_id: teacher.map(str::to_owned),
        };
        let reply = tokio::time::timeout(PATIENCE, self.client.clone().score_tokens(request)).await.expect("in time")?.into_inner();
        let id = reply.teacher_id.clone();
        let answers = convert::teacher_answers(sequences, reply).expect("the reply fits the questions");
        Ok((id, answers.into_iter().map(|answer| answer.logprobs).collect()))
    }

    async fn put(&self, pictures: &[Picture]) -> v1::PutPicturesReply {
        let messages: Vec<v1::Picture> =
            pictures.iter().map(|picture| v1::Picture { id: picture.id.as_str().into(), data: picture.bytes.clone() }).collect();
        self.client.clone().put_pictures(tokio_stream::iter(messages)).await.expect("puts").into_inner()
    }
}

fn picture(seed: u32, width: u32, height: u32) -> Picture {
    let image = RgbImage::from_fn(width, height, |x, y| hypereyes_pixel(x, y, seed).into());
    Picture::from_image(image).expect("encodes")
}

fn hypereyes_pixel(x: u32, y: u32, seed: u32) -> [u8; 3] {
    [(x * 3 + seed * 50) as u8, (y * 5) as u8, ((x ^ y) * seed) as u8]
}

/// Two turns of three siblings on a prompt with a picture, an observation with another between them, as the engine samples
/// them; with the engine's own log-probs.
async fn rollouts(folder: &Path, pictures: &[Picture]) -> Vec<(ScoreSequence, Vec<f32>)> {
    let chat = Chat::load(folder).expect("a sound folder");
    let config = EngineConfig { end_token: chat.end_token(), ..EngineConfig::default() };
    let engine = Engine::load(folder, config, PolicyVersion(0)).expect("loads");
    let patches: Vec<_> = pictures.iter().map(|picture| Arc::new(chat.processor().patches(&picture.image))).collect();
    let prompt = chat.prompt("Search wide.", "What is the capital?", &[patches[0].grid]);
    let chunk = Chunk { tokens: prompt.clone(), pictures: vec![patches[0].clone()] };
    let sampling = Sampling::of(1.0, 1.0);
    let mut all = Vec::new();
    for mut sequence in engine.start(chunk, (1..=12).collect(), sampling).await.expect("starts") {
        // An untrained policy samples anything, a picture's placeholder as well: such a sequence has no meaning.
        let sound = |turn: &Sampled| !turn.tokens.contains(&chat.image_pad());
        let Some(first) = sequence.advance(Chunk::default(), 12).await.ok().filter(sound) else { continue };
        let observed = chat.observation("Peru: Lima", &[patches[1].grid]);
        let chunk = Chunk { tokens: observed.clone(), pictures: vec![patches[1].clone()] };
        let Some(second) = sequence.advance(chunk, 9).await.ok().filter(sound) else { continue };
        let response = [&first.tokens[..], &observed, &second.tokens].concat();
        let mask = [vec![true; first.tokens.len()], vec![false; observed.len()], vec![true; second.tokens.len()]].concat();
        let logprobs = [first.logprobs, vec![0.0; observed.len()], second.logprobs].concat();
        let ids = pictures.iter().map(|picture| picture.id.clone()).collect();
        all.push((ScoreSequence { prompt: prompt.clone(), response, mask, pictures: ids }, logprobs));
        all.truncate(3);
    }
    assert_eq!(all.len(), 3, "some of twelve sequences are sound");
    all
}

fn close(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_teacher_says_what_the_engine_said_of_the_same_weights() {
    let service = Running::start(Config::default()).await;
    let pictures = [picture(1, 96, 64), picture(2, 40, 70)];
    let (sequences, sampled): (Vec<_>, Vec<_>) = rollouts(&service.folder.path().join("a"), &pictures).await.into_iter().unzip();

    let status = service.score(&sequences, None).await.expect_err("it holds no pictures yet");
    let (_, _, missing) = failure::from_status(&status);
    assert_eq!(missing, [pictures[0].id.clone(), pictures[1].id.clone()], "each once, in order");
    let put = service.put(&[pictures[0].clone(), pictures[1].clone(), pictures[0].clone()]).await;
    assert_eq!((put.stored, put.known), (2, 1));

    let (id, answers) = service.score(&sequences, None).await.expect("scores");
    assert_eq!(id, "a");
    for (answer, sampled) in answers.iter().zip(&sampled) {
        let worst = close(answer, sampled);
        assert!(worst < 1e-4, "off by {worst}");
        assert!(answer.iter().any(|value| *value < -0.1), "an untrained policy is not sure");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_share_a_pass_get_what_they_would_get_alone() {
    // Passes of at most 200 tokens: calls are both joined and split.
    let service = Running::start(Config { max_batch_tokens: 200, ..Config::default() }).await;
    let pictures = [picture(1, 64, 64), picture(2, 64, 64)];
    service.put(&pictures).await;
    let sequences: Vec<ScoreSequence> =
        rollouts(&service.folder.path().join("a"), &pictures).await.into_iter().map(|(sequence, _)| sequence).collect();
    let masked = ScoreSequence { mask: vec![false; sequences[0].mask.len()], ..sequences[0].clone() };
    let mut alone = Vec::new();
    for sequence in &sequences {
        alone.push(service.score(std::slice::from_ref(sequence), Some("a")).await.expect("scores").1.remove(0));
    }
    let calls = (0..12).map(|round| {
        let mut asked = sequences.clone();
        asked.rotate_left(round % 3);
        asked.push(masked.clone());
        let service = &service;
        async move { (round, service.score(&asked, None).await.expect("scores").1) }
    });
    for (round, answers) in join_all(calls).await {
        for (at, answer) in answers[..3].iter().enumerate() {
            let worst = close(answer, &alone[(at + round) % 3]);
            assert!(worst < 1e-4, "round {round}: off by {worst}");
        }
        assert!(answers[3].iter().all(|value| *value == 0.0), "nothing was asked of it");
    }
    service.stop().await;
}

async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, done) in &mut waiting {
            if done.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *done = Some(value);
            }
        }
        if waiting.iter().all(|(_, done)| done.is_some()) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    waiting.into_iter().map(|(_, done)| done.expect("all are done")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_swapped_while_serving() {
    let mut service = Running::start(Config::default()).await;
    let folder = service.folder.path().to_owned();
    model(&folder.join("b"), 2, &["Peru", "Lima"]);
    model(&folder.join("foreign"), 3, &["Chile", "Santiago"]);
    let sequence = ScoreSequence { prompt: vec![1, 2, 3], response: vec![4, 5, 6], mask: vec![true, false, true], pictures: vec![] };
    let asked = std::slice::from_ref(&sequence);
    let before = service.score(asked, None).await.expect("scores");

    let load = |id: &str, name: &str| v1::LoadModelRequest { path: folder.join(name).display().to_string(), id: id.into() };
    let loaded = service.client.load_model(load("b", "b")).await.expect("loads").into_inner();
    assert_eq!(loaded.state(), v1::ModelState::Ready);
    assert_eq!(service.score(asked, None).await.expect("scores").0, "a", "loading changes nothing");
    let named = service.score(asked, Some("b")).await.expect("scores");

    let promoted = service.client.promote_model(v1::PromoteModelRequest { id: "b".into() }).await.expect("promotes").into_inner();
    assert_eq!((promoted.active.as_str(), promoted.previous.as_str()), ("b", "a"));
    let after = service.score(asked, None).await.expect("scores");
    assert_eq!(after, named);
    assert!(close(&after.1[0], &before.1[0]) > 1e-3, "another model says something else");

    let active = service.client.retire_model(v1::RetireModelRequest { id: "b".into() }).await.expect_err("it is active");
    assert_eq!(active.code(), Code::FailedPrecondition);
    let retired = service.client.retire_model(v1::RetireModelRequest { id: "a".into() }).await.expect("retires").into_inner();
    assert_eq!(retired.state(), v1::ModelState::Retired);
    assert_eq!(service.score(asked, Some("a")).await.expect_err("it is gone").code(), Code::NotFound);

    let taken = service.client.load_model(load("b", "b")).await.expect_err("the name is taken");
    assert_eq!(taken.code(), Code::AlreadyExists);
    service.client.load_model(load("nothing", "nothing")).await.expect_err("there is no such folder");
    service.client.load_model(load("c", "foreign")).await.expect("loads");
    let foreign = service.client.promote_model(v1::PromoteModelRequest { id: "c".into() }).await.expect_err("another vocabulary");
    assert!(foreign.message().contains("vocabulary"), "{foreign}");
    let list = service.client.list_models(v1::ListModelsRequest {}).await.expect("lists").into_inner().models;
    let states: Vec<_> = list.iter().map(|info| (info.id.as_str(), info.state())).collect();
    let expected =
        [("a", v1::ModelState::Retired), ("b", v1::ModelState::Active), ("nothing", v1::ModelState::Failed), ("c", v1::ModelState::Ready)];
    assert_eq!(states, expected);
    assert!(list[2].detail.contains("config.json"), "{}", list[2].detail);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_scored_is_refused_by_name_and_the_service_goes_on() {
    let service = Running::start(Config { max_batch_tokens: 64, ..Config::default() }).await;
    let good = ScoreSequence { prompt: vec![1, 2, 3], response: vec![4, 5], mask: vec![true, true], pictures: vec![] };
    let image = picture(1, 64, 64);
    service.put(std::slice::from_ref(&image)).await;
    let pictureless = ScoreSequence { pictures: vec![image.id.clone()], ..good.clone() };
    let cases = [
        ("vocabulary", ScoreSequence { response: vec![4, 1_000_000], ..good.clone() }),
        ("raise max_batch_tokens", ScoreSequence { prompt: vec![1; 70], ..good.clone() }),
        ("prompt is empty", ScoreSequence { prompt: vec![], ..good.clone() }),
        ("placeholders", pictureless),
    ];
    for (part, bad) in cases {
        let status = service.score(&[good.clone(), bad], None).await.expect_err(part);
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(part) && status.message().contains("sequence 1"), "{status}");
        assert_eq!(failure::from_status(&status).0, Failure::Infrastructure, "never the policy's fault");
    }
    let wrong = v1::Picture { id: "0".repeat(64), data: image.bytes.clone() };
    let refused = service.client.clone().put_pictures(tokio_stream::iter([wrong])).await.expect_err("that is not its hash");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let text = v1::Picture { id: "0".repeat(64), data: "text".into() };
    assert!(service.client.clone().put_pictures(tokio_stream::iter([text])).await.is_err());
    let mut hurried =
        tonic::Request::new(v1::ScoreTokensRequest { group_id: "t@1".into(), sequences: vec![good.clone().into()], teacher_id: None });
    hurried.metadata_mut().insert("grpc-timeout", "1n".parse().expect("a header"));
    let late = service.client.clone().score_tokens(hurried).await.expect_err("a nanosecond is not enough");
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late}");
    assert_eq!(service.score(&[good], None).await.expect("scores").1.len(), 1);
    service.stop().await;
}
