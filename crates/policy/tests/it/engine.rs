//! What the engine promises: its log-probs are the learner's, whoever shares the batch, however often a sequence waits for
//! a tool; prompts are read once; memory has a bound; what nobody waits for is not computed.

use std::sync::{Arc, LazyLock};

use hypereyes_domain::{Chunk, Failure, Generate, PictureId, PolicyVersion, Sampled, Sampling, Sequence, Stop};
use hypereyes_miniature::init::fresh;
use hypereyes_miniature::{InitConfig, TinyConfig};
use hypereyes_pictures::{Limits, PatchCache, PatchSource, Patches, Processor, Store};
use hypereyes_policy::backend::{Cpu, CpuTrain};
use hypereyes_policy::batch::Batch;
use hypereyes_policy::checkpoint::{self, HostWeights};
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::engine::{Engine, EngineConfig, EngineSequence, Placeholders};
use hypereyes_policy::models::{Model, Vlm};
use hypereyes_policy::ops::Kernels;
use hypereyes_policy::score::{self, Target};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

const PICTURE: u32 = 190;

/// Pictures of all engines here, cut beforehand.
static CUT: LazyLock<Arc<PatchCache>> = LazyLock::new(|| Arc::new(PatchCache::new(Processor::default(), 1 << 30)));

fn source() -> PatchSource {
    PatchSource::new(Arc::new(Store::new(1 << 20, Limits::default())), CUT.clone())
}

fn policy(seed: u64) -> (ModelConfig, HostWeights) {
    let config = TinyConfig::default().model(200, PICTURE, 191, 192);
    let weights = fresh(&config, &InitConfig::default(), seed);
    (config, weights)
}

fn engine(seed: u64, change: impl FnOnce(&mut EngineConfig)) -> Engine {
    let (config, weights) = policy(seed);
    // Prompts need several passes, and no token ends a turn.
    let mut sizes = EngineConfig { max_sequences: 12, max_context: 256, max_rows: 16, ..EngineConfig::default() };
    change(&mut sizes);
    Engine::start_from(config, &weights, sizes, PolicyVersion(0)).unwrap().seeing(source())
}

/// Tokens that differ from place to place.
fn text(count: u32, salt: u32) -> Vec<u32> {
    (0..count).map(|at| (at * 37 + salt * 11) % 180).collect()
}

/// Text around a picture of 4 by 6 patches: six placeholder tokens.
fn shown(salt: u32) -> Chunk {
    let values = (0..24 * 1536).map(|at| ((at * 31 + salt as usize * 7) % 101) as f32 / 50.0 - 1.0).collect();
    let tokens = [text(5, salt), vec![PICTURE; 6], text(20, salt + 1)].concat();
    let id = PictureId::new(format!("picture {salt}"));
    CUT.put(&id, Patches { grid: (4, 6), values });
    Chunk { tokens, pictures: vec![id] }
}

fn said(tokens: Vec<u32>) -> Chunk {
    Chunk { tokens, pictures: vec![] }
}

/// A sequence with all that was fed to it and sampled from it.
struct Story {
    sequence: EngineSequence,
    tokens: Vec<u32>,
    pictures: Vec<PictureId>,
    /// Place, log-prob and version of every sampled token.
    sampled: Vec<(usize, f32, u64)>,
}

impl Story {
    async fn begin(engine: &Engine, prompt: Chunk, seeds: Vec<u64>) -> Vec<Self> {
        let sequences = engine.start(prompt.clone(), seeds, Sampling::of(1.0, 1.0)).await.unwrap();
        let story = |sequence| Self { sequence, tokens: prompt.tokens.clone(), pictures: prompt.pictures.clone(), sampled: vec![] };
        sequences.into_iter().map(story).collect()
    }

    async fn round(&mut self, observation: Chunk, count: usize) {
        self.tokens.extend(&observation.tokens);
        self.pictures.extend(observation.pictures.iter().cloned());
        let Sampled { tokens, logprobs, versions, stop } = self.sequence.advance(observation, count).await.unwrap();
        assert_eq!((tokens.len(), stop), (count, Stop::Length));
        for ((token, logprob), version) in tokens.into_iter().zip(logprobs).zip(versions) {
            self.sampled.push((self.tokens.len(), logprob, version.0));
            self.tokens.push(token);
        }
    }

    /// Log-probs of the sampled tokens as learner and teacher compute them.
    fn again<B: Kernels>(&self, seed: u64) -> Vec<f32> {
        let (config, weights) = policy(seed);
        let device = Default::default();
        let model = checkpoint::from_host(Model::<B>::init(&config, 0, &device), &weights).unwrap();
        let mut batch = Batch::default();
        let pictures: Vec<Arc<Patches>> = self.pictures.iter().map(|id| CUT.get(id).expect("cut")).collect();
        batch.push(&config, &self.tokens, &pictures).unwrap();
        let targets: Vec<Target> = self.sampled.iter().map(|(at, _, _)| Target { row: at - 1, token: self.tokens[*at] }).collect();
        score::logprobs(&model, score::hidden(&model, &config, &batch, &device), &targets, 1.0).into_data().into_vec().unwrap()
    }
}

async fn all_rounds(stories: &mut [Story], observation: impl Fn(usize) -> Chunk, count: usize) {
    futures::future::join_all(stories.iter_mut().enumerate().map(|(at, story)| story.round(observation(at), count))).await;
}

#[track_caller]
fn close(ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len());
    let worst = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{} log-probs off by {worst:.1e}", ours.len());
    assert!(worst < 1e-5, "off by {worst}");
}

#[tokio::test]
async fn a_prompt_of_one_token_is_continued_alone_and_by_siblings() {
    let engine = engine(1, |_| {});
    for seeds in [vec![7], vec![7, 8, 9]] {
        let mut group = Story::begin(&engine, said(vec![5]), seeds).await;
        all_rounds(&mut group, |_| Chunk::default(), 6).await;
        all_rounds(&mut group, |at| said(text(3, at as u32)), 4).await;
        for story in &group {
            let sampled: Vec<f32> = story.sampled.iter().map(|(_, logprob, _)| *logprob).collect();
            close(&sampled, &story.again::<Cpu>(1));
        }
    }
}

#[tokio::test]
async fn without_a_picture_a_placeholder_may_be_text_as_any_other_token() {
    let plain = engine(1, |sizes| sizes.placeholders = Placeholders::Text);
    // The same weights, where that token is nothing special.
    let (mut config, weights) = policy(1);
    config.image_token_id = 199;
    let sizes = EngineConfig { placeholders: Placeholders::Text, ..EngineConfig::default() };
    let other = Engine::start_from(config, &weights, sizes, PolicyVersion(0)).unwrap();
    let mut told = [vec![], vec![]];
    for (engine, told) in [plain, other].into_iter().zip(&mut told) {
        let prompt = said(vec![5, PICTURE, 9, PICTURE]);
        for mut sequence in engine.start(prompt, (0..8).collect(), Sampling::of(5.0, 1.0)).await.unwrap() {
            let Sampled { tokens, logprobs, .. } = sequence.advance(Chunk::default(), 200).await.unwrap();
            told.push((tokens, logprobs));
        }
    }
    assert!(told[0] == told[1], "the same tokens with the same log-probs");
    assert!(told[0].iter().any(|(tokens, _)| tokens.contains(&PICTURE)), "it is sampled too");
}

#[tokio::test]
async fn sampled_log_probs_are_the_learners_over_forks_tool_rounds_pictures_and_a_weight_swap() {
    let engine = engine(1, |_| {});
    let mut group = Story::begin(&engine, shown(3), vec![7, 8, 9]).await;
    all_rounds(&mut group, |_| Chunk::default(), 9).await;
    all_rounds(&mut group, |at| if at == 1 { shown(5) } else { said(text(30 + at as u32, 2)) }, 5).await;
    all_rounds(&mut group, |at| said(text(3, at as u32)), 4).await;
    for story in &group {
        let sampled: Vec<f32> = story.sampled.iter().map(|(_, logprob, _)| *logprob).collect();
        assert_eq!(sampled.len(), 18);
        close(&sampled, &story.again::<Cpu>(1));
        close(&sampled, &story.again::<CpuTrain>(1));
    }
    assert_ne!(group[0].tokens, group[2].tokens, "siblings go their own ways");

    // New weights in the middle: what was sampled before stays what the old weights say, and every token says whose it is.
    engine.swap(policy(2).1, PolicyVersion(1)).await.unwrap();
    all_rounds(&mut group, |_| said(text(4, 9)), 3).await;
    for story in &group {
        assert!(story.sampled.iter().enumerate().all(|(at, (_, _, version))| *version == u64::from(at >= 18)));
        let before: Vec<f32> = story.sampled[..18].iter().map(|(_, logprob, _)| *logprob).collect();
        close(&before, &story.again::<Cpu>(1)[..18]);
    }
    // A sequence that begins after the swap has the new weights' log-probs.
    let mut late = Story::begin(&engine, shown(3), vec![7]).await;
    all_rounds(&mut late, |_| Chunk::default(), 9).await;
    let sampled: Vec<f32> = late[0].sampled.iter().map(|(_, logprob, _)| *logprob).collect();
    close(&sampled, &late[0].again::<Cpu>(2));
}

#[tokio::test]
async fn a_turn_that_a_limit_cut_goes_on_as_if_it_had_not_been_cut() {
    let engine = engine(1, |_| ());
    let mut stories = Story::begin(&engine, said(text(9, 1)), vec![5, 5]).await;
    for turn in 0..2 {
        let observation = if turn == 0 { Chunk::default() } else { said(text(3, 2)) };
        stories[0].round(observation.clone(), 6).await;
        stories[1].round(observation, 1).await;
        for count in [2, 3] {
            stories[1].round(Chunk::default(), count).await;
        }
        assert_eq!((&stories[0].tokens, &stories[0].sampled), (&stories[1].tokens, &stories[1].sampled));
    }
}

#[tokio::test]
async fn a_result_does_not_depend_on_who_shares_the_batch() {
    let engine = engine(3, |_| {});
    let mut alone = Story::begin(&engine, shown(1), vec![42]).await.remove(0);
    alone.round(Chunk::default(), 12).await;
    let mut group = Story::begin(&engine, shown(1), vec![40, 41, 42]).await;
    let mut others = Story::begin(&engine, said(text(60, 8)), vec![1, 2, 3, 4]).await;
    tokio::join!(all_rounds(&mut group, |_| Chunk::default(), 12), all_rounds(&mut others, |_| said(text(9, 1)), 30));
    assert_eq!(alone.tokens, group[2].tokens);
    let logprobs = |story: &Story| story.sampled.iter().map(|(_, logprob, _)| *logprob).collect::<Vec<_>>();
    close(&logprobs(&alone), &logprobs(&group[2]));
}

#[tokio::test]
async fn groups_wait_for_cache_and_what_can_never_fit_is_refused() {
    // Four layers of 128 keys and values over 256 positions: 1 MiB per sequence.
    let engine = engine(1, |sizes| (sizes.max_sequences, sizes.cache_bytes) = (100, 5 << 20));
    let refused = engine.start(said(text(4, 1)), vec![1; 5], Sampling::GREEDY).await.unwrap_err();
    assert!(refused.message.contains("this engine holds 1 to 4"), "{}", refused.message);
    let first = engine.start(said(text(4, 1)), vec![1, 2, 3], Sampling::GREEDY).await.unwrap();
    let mut second = Box::pin(engine.start(said(text(4, 2)), vec![4, 5], Sampling::GREEDY));
    let waits = tokio::time::timeout(std::time::Duration::from_millis(200), &mut second).await;
    assert!(waits.is_err(), "three of five slots are held, and two siblings need a prompt beside them");
    drop(first);
    let second = second.await.unwrap();
    assert_eq!(second.len(), 2);
    // Two siblings and their prompt leave room for two that have no sibling and need no more than a slot each.
    let single = engine.start(said(text(4, 3)), vec![1], Sampling::GREEDY).await.unwrap();
    let another = engine.start(said(text(4, 4)), vec![1], Sampling::GREEDY).await.unwrap();
    let mut third = std::pin::pin!(engine.start(said(text(4, 5)), vec![1], Sampling::GREEDY));
    assert!(tokio::time::timeout(std::time::Duration::from_millis(200), &mut third).await.is_err(), "all five are held");
    drop((single, another));
    assert_eq!(third.await.unwrap().len(), 1);

    let (config, weights) = policy(1);
    let none = EngineConfig { cache_bytes: 1 << 19, max_context: 256, ..EngineConfig::default() };
    let error = Engine::start_from(config, &weights, none, PolicyVersion(0)).unwrap_err().to_string();
    assert!(error.contains("cache_bytes = 524288 holds 0"), "{error}");
}

fn counted(snapshotter: &Snapshotter) -> impl Fn(&str, Option<&str>) -> u64 {
    let seen = snapshotter.snapshot().into_vec();
    move |name, kind| {
        let same = |key: &metrics::Key| key.name() == name && kind.is_none_or(|kind| key.labels().any(|label| label.value() == kind));
        let values = seen.iter().filter(|(key, ..)| same(key.key())).map(|(.., value)| match value {
            DebugValue::Counter(count) => *count,
            _ => 0,
        });
        values.sum()
    }
}

/// The only test here that reads counters: they belong to the whole process, so it runs the others' kinds of work itself,
/// in a process of its own.
#[test]
fn a_group_of_eight_reads_its_prompt_once_and_an_abandoned_turn_is_not_finished() {
    if std::env::var_os("ENGINE_COUNTERS").is_none() {
        let me = std::env::current_exe().unwrap();
        let name = "engine::a_group_of_eight_reads_its_prompt_once_and_an_abandoned_turn_is_not_finished";
        let run = std::process::Command::new(me).args(["--exact", name, "--nocapture"]).env("ENGINE_COUNTERS", "1").output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        return;
    }
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let engine = engine(1, |sizes| sizes.max_context = 16_384);
        let mut group = Story::begin(&engine, said(text(300, 1)), (0..8).collect()).await;
        all_rounds(&mut group, |_| Chunk::default(), 20).await;
        let count = counted(&snapshotter);
        // The last token of the prompt is fed by each sibling: it is what their first token is sampled from.
        assert_eq!(count("hypereyes_engine_rows_total", Some("prompt")), 299);
        assert_eq!(count("hypereyes_engine_forked_tokens_total", None), 8 * 299);
        assert_eq!(count("hypereyes_engine_rows_total", Some("turn")), 8 * 20);
        drop(group);

        let mut left = Story::begin(&engine, said(text(10, 1)), vec![1]).await.remove(0);
        let turn = left.sequence.advance(Chunk::default(), 16_000);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(50), turn).await.is_err(), "16,000 tokens take longer");
        // The engine is free for others at once, and the sequence can go on.
        left.sequence.advance(said(text(3, 3)), 2).await.unwrap();
        let count = counted(&snapshotter);
        assert_eq!(count("hypereyes_engine_aborted_turns_total", None), 1);
        let sampled = count("hypereyes_engine_sampled_tokens_total", None);
        assert!(sampled < 15_000, "{sampled} tokens were sampled for nobody");

        let refused = left.sequence.advance(said(vec![PICTURE]), 2).await.unwrap_err();
        assert_eq!(refused.failure, Failure::Policy);
        assert!(refused.message.contains("placeholder has no picture"), "{}", refused.message);
    });
}

#[tokio::test]
async fn a_picture_of_half_tokens_or_of_other_values_is_refused_and_the_engine_goes_on() {
    let engine = engine(1, |_| {});
    let (config, _) = policy(1);
    // No patches at all, half a token, values that are too few, a size that no memory holds.
    for (grid, values) in [((0, 0), 0), ((0, 4), 0), ((3, 2), 6 * 1536), ((4, 6), 100), ((1 << 40, 1 << 40), 1536)] {
        let id = PictureId::new(format!("broken {grid:?} {values}"));
        let picture = CUT.put(&id, Patches { grid, values: vec![0.5; values] });
        let prompt = Chunk { tokens: [text(5, 1), vec![PICTURE; 6]].concat(), pictures: vec![id] };
        let error = engine.start(prompt.clone(), vec![1], Sampling::GREEDY).await.unwrap_err();
        assert!(error.failure == Failure::Policy && error.message.contains("a picture of"), "{grid:?}: {}", error.message);
        let error = Batch::default().push(&config, &prompt.tokens, &[picture]).unwrap_err().to_string();
        assert!(error.contains("a picture of"), "{grid:?}: {error}");
    }
    // A picture that nobody has is not the policy's fault; without a source nobody has any.
    let nowhere = Chunk { tokens: [text(5, 1), vec![PICTURE; 6]].concat(), pictures: vec!["nowhere".into()] };
    let error = engine.start(nowhere.clone(), vec![1], Sampling::GREEDY).await.unwrap_err();
    assert!(error.failure == Failure::Infrastructure && error.message.contains("such as nowhere"), "{}", error.message);
    let (config, weights) = policy(1);
    let blind = Engine::start_from(config, &weights, EngineConfig::default(), PolicyVersion(0)).unwrap();
    let error = blind.start(nowhere, vec![1], Sampling::GREEDY).await.unwrap_err();
    assert!(error.failure == Failure::Infrastructure && error.message.contains("given none"), "{}", error.message);
    assert_eq!(engine.start(shown(1), vec![1], Sampling::GREEDY).await.unwrap().len(), 1);
}

#[test]
fn what_is_asked_of_tokens_that_are_not_there_is_refused() {
    let (config, weights) = policy(1);
    let model = hypereyes_policy::frozen::freeze(&config, &weights, Default::default(), 1).unwrap();
    let good = score::Sample { tokens: text(10, 1), asked: vec![1, 9], trunk: 10, ..score::Sample::default() };
    assert!(model.score(std::slice::from_ref(&good), hypereyes_policy::frozen::ScoreOptions::PLAIN).is_ok());
    for (asked, trunk, tokens, reason) in [
        (vec![0], 0, text(10, 1), "token 0 is asked about"),
        (vec![3, 10], 0, text(10, 1), "token 10 is asked about"),
        (vec![1], 11, text(10, 1), "a trunk of 11"),
        (vec![1], 0, vec![1, 200], "token 200 at 1 is outside the vocabulary of 200"),
    ] {
        let wrong = score::Sample { tokens, asked, trunk, ..score::Sample::default() };
        // Also among good ones, siblings included.
        for samples in [vec![wrong.clone()], vec![good.clone(), good.clone(), wrong.clone()]] {
            let error = model.score(&samples, hypereyes_policy::frozen::ScoreOptions::PLAIN).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        assert!(score::lay_out(&config, &[wrong]).unwrap_err().to_string().contains(reason));
    }
}
