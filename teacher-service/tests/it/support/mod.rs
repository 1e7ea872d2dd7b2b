//! Tiny models made on the spot, and a service over them on a loopback port.
#![allow(dead_code)]

use std::path::Path;
use std::time::Duration;

use hypereyes_chassis::ready::await_announcement;
use hypereyes_chassis::{ProcessConfig, Shutdown, TelemetryConfig};
use hypereyes_domain::{Question, ScoreSequence, TeacherVersion};
use hypereyes_miniature::tokenizer::{self, TinyWords};
use hypereyes_miniature::{InitConfig, TinyConfig, init};
use hypereyes_pictures::{Picture, RgbImage};
use hypereyes_policy::checkpoint::{self, HostWeights, StoredDtype};
use hypereyes_policy::config::ModelConfig;
use hypereyes_proto::client::TeacherClient;
use hypereyes_proto::teacher::Load;
use hypereyes_proto::{CallError, TeacherPeer, convert, v1};
use hypereyes_teacher_service::{Config, run};
use tokio::task::JoinHandle;

/// Longest wait for anything in these tests.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Shape and weights of a tiny model of these words.
pub fn parts(folder: &Path, seed: u64, terms: &[&str]) -> (ModelConfig, HostWeights) {
    let terms: Vec<String> = terms.iter().map(|term| (*term).to_owned()).collect();
    let words = TinyWords { terms: &terms, relations: &["capital".to_owned()], phrases: &[] };
    let summary = tokenizer::write(folder, words).expect("sound words");
    let tiny = TinyConfig { width: 64, layers: 2, heads: 4, inner: 96, vision_width: 32, vision_depth: 2 };
    let config = tiny.model(summary.vocab_size, summary.image, summary.vision_start, summary.vision_end);
    let weights = init::fresh(&config, &InitConfig::default(), seed);
    (config, weights)
}

/// Writes a tiny model.
pub fn model(folder: &Path, seed: u64, terms: &[&str]) {
    let (config, weights) = parts(folder, seed, terms);
    write(folder, &config, &weights);
}

/// Puts weights and config beside a tokenizer as they are, such as no save would write included.
pub fn write(folder: &Path, config: &ModelConfig, weights: &HostWeights) {
    std::fs::write(folder.join("config.json"), config.to_json(StoredDtype::F32).to_string()).expect("writes");
    let bytes = checkpoint::serialise(weights, StoredDtype::F32).expect("sound shapes");
    std::fs::write(folder.join("model.safetensors"), bytes).expect("writes");
}

/// A service.
pub struct Running {
    pub folder: tempfile::TempDir,
    pub address: String,
    pub client: TeacherClient,
    pub peer: TeacherPeer,
    shutdown: Shutdown,
    task: JoinHandle<anyhow::Result<()>>,
}

/// Log-probs per sequence, with the name of who gave them.
pub type Scored = (TeacherVersion, Vec<Vec<f32>>);

impl Running {
    /// A service of a tiny model `a`.
    pub async fn start(config: Config) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        model(&folder.path().join("a"), 1, &["Peru", "Lima"]);
        let first = folder.path().join("a").display().to_string();
        Self::serve(folder, Config { model: first, ..config }).await
    }

    /// A service of the configured model.
    pub async fn serve(folder: tempfile::TempDir, config: Config) -> Self {
        let announce = folder.path().join("ready.json");
        let config = Config {
            listen: "127.0.0.1:0".parse().expect("an address"),
            id: "a".into(),
            // Other services and servers of these tests are on this machine.
            hosts: if config.hosts.is_empty() { vec!["127.0.0.1".into()] } else { config.hosts.clone() },
            process: ProcessConfig {
                announce: Some(announce.clone()),
                telemetry: TelemetryConfig { filter: "error".into(), ..TelemetryConfig::default() },
                ..ProcessConfig::default()
            },
            ..config
        };
        let shutdown = Shutdown::new();
        let task = tokio::spawn(run(config, shutdown.clone()));
        let said = await_announcement(&announce, tokio::time::Instant::now() + PATIENCE).await.expect("the service comes up");
        let address = said.addr.to_string();
        let client = hypereyes_proto::client::teacher(&address).expect("an address");
        Self { folder, address, peer: TeacherPeer::new(client.clone()), client, shutdown, task }
    }

    /// Ends it in order.
    pub async fn stop(self) {
        drop((self.client, self.peer));
        self.shutdown.trigger();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it stops in time").expect("no panic").expect("an orderly end");
    }

    /// Asks for log-probs as they come over the wire.
    pub async fn ask(&self, question: Question) -> Result<Scored, tonic::Status> {
        let sequences = question.sequences.clone();
        let top = question.top;
        let mut client = self.client.clone();
        let reply = client.score_tokens(v1::ScoreTokensRequest::from(question));
        let reply = tokio::time::timeout(PATIENCE, reply).await.expect("in time")?.into_inner();
        let (version, answers) = convert::answered(&sequences, top, reply).expect("the reply fits the questions");
        Ok((version, answers.into_iter().map(|answer| answer.logprobs).collect()))
    }

    /// Asks for a group, of the active model or one by name.
    pub async fn score(&self, sequences: &[ScoreSequence], teacher: Option<&str>) -> Result<Scored, tonic::Status> {
        let question = Question::new("t@1".into(), sequences.to_vec());
        self.ask(Question { teacher: teacher.map(Into::into), ..question }).await
    }

    /// Puts pictures.
    pub async fn put(&self, pictures: &[Picture]) -> v1::PutPicturesReply {
        let messages: Vec<v1::Picture> =
            pictures.iter().map(|picture| v1::Picture { id: picture.id.as_str().into(), data: picture.bytes.clone() }).collect();
        self.client.clone().put_pictures(tokio_stream::iter(messages)).await.expect("puts").into_inner()
    }

    /// Loads a model from below the folder, or from elsewhere.
    pub async fn load(&self, id: &str, source: &str) -> Result<hypereyes_domain::ModelInfo, CallError> {
        let source = if source.contains("://") { source.to_owned() } else { self.folder.path().join(source).display().to_string() };
        self.peer.load(Load { source, id: id.into(), digest: String::new(), background: false }, PATIENCE).await
    }
}

/// A picture that differs with its seed.
pub fn picture(seed: u32, width: u32, height: u32) -> Picture {
    let pixel = |x: u32, y: u32| [(x * 3 + seed * 50) as u8, (y * 5) as u8, ((x ^ y) * seed) as u8].into();
    Picture::from_image(RgbImage::from_fn(width, height, pixel)).expect("encodes")
}

/// A sequence without pictures.
pub fn plain(seed: u32) -> ScoreSequence {
    ScoreSequence { prompt: vec![1, 2, 3], response: vec![4, 5 + seed % 3, 6], mask: vec![true, false, true], pictures: vec![] }
}
