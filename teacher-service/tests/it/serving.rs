//! The service as its callers see it: over a real connection on the loopback, with tiny models made on the spot.

use std::path::Path;
use std::sync::Arc;

use crate::support::{PATIENCE, Running, model, picture, plain};
use futures::future::join_all;
use hypereyes_chat::Chat;
use hypereyes_domain::{
    Chunk, Failure, Generate, ModelState, PolicyVersion, Question, Sampled, Sampling, ScoreSequence, Sequence as _, TeacherVersion,
};
use hypereyes_pictures::{Limits, PatchCache, PatchSource, Picture, Store};
use hypereyes_policy::checkpoint;
use hypereyes_policy::device::Device;
use hypereyes_policy::engine::{Engine, EngineConfig};
use hypereyes_policy::score::Sample;
use hypereyes_proto::{failure, v1};
use hypereyes_teacher_service::Config;
use tonic::Code;

/// Two turns of three siblings on a prompt with a picture, an observation with another between them, as the engine samples
/// them; with the engine's own log-probs of the sampled tokens.
pub async fn rollouts(folder: &Path, pictures: &[Picture]) -> Vec<(ScoreSequence, Vec<f32>)> {
    let chat = Chat::load(folder).expect("a sound folder");
    let config = EngineConfig { end_tokens: vec![chat.end_token()], ..EngineConfig::default() };
    let engine = Engine::load(folder, config, PolicyVersion(0)).expect("loads");
    let store = Arc::new(Store::new(1 << 20, Limits::default()));
    pictures.iter().for_each(|picture| drop(store.insert(picture.clone()).expect("fits")));
    let engine = engine.seeing(PatchSource::new(store, Arc::new(PatchCache::new(chat.processor().clone(), 1 << 20))));
    let grids: Vec<_> = pictures.iter().map(|picture| chat.processor().grid(picture.image.dimensions())).collect();
    let prompt = chat.prompt("Search wide.", "What is the capital?", &[grids[0]]).expect("a prompt");
    let chunk = Chunk { tokens: prompt.clone(), pictures: vec![pictures[0].id.clone()] };
    let sampling = Sampling::of(1.0, 1.0);
    let mut all = Vec::new();
    for mut sequence in engine.start(chunk, (1..=12).collect(), sampling).await.expect("starts") {
        // An untrained policy samples anything, a picture's placeholder as well: such a sequence has no meaning.
        let sound = |turn: &Sampled| !turn.tokens.contains(&chat.image_pad());
        let Some(first) = sequence.advance(Chunk::default(), 12).await.ok().filter(sound) else { continue };
        let observed = chat.observation("Peru: Lima", &[grids[1]]);
        let chunk = Chunk { tokens: observed.clone(), pictures: vec![pictures[1].id.clone()] };
        let Some(second) = sequence.advance(chunk, 9).await.ok().filter(sound) else { continue };
        let response = [&first.tokens[..], &observed, &second.tokens].concat();
        let mask = [vec![true; first.tokens.len()], vec![false; observed.len()], vec![true; second.tokens.len()]].concat();
        let logprobs = [first.logprobs, second.logprobs].concat();
        let ids = pictures.iter().map(|picture| picture.id.clone()).collect();
        all.push((ScoreSequence { prompt: prompt.clone(), response, mask, pictures: ids }, logprobs));
        all.truncate(3);
    }
    assert_eq!(all.len(), 3, "some of twelve sequences are sound");
    all
}

fn far(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The same sequences through the learner's own forward pass: whole, with a tape.
fn learners_word(folder: &Path, sequences: &[ScoreSequence], pictures: &[Picture]) -> Vec<Vec<f32>> {
    let (config, weights) = checkpoint::read(folder).expect("reads");
    let chat = Chat::load(folder).expect("a sound folder");
    let sample = |sequence: &ScoreSequence| Sample {
        tokens: [&sequence.prompt[..], &sequence.response].concat(),
        pictures: pictures.iter().map(|picture| Arc::new(chat.processor().patches(&picture.image))).collect(),
        asked: (0..sequence.mask.len()).filter(|at| sequence.mask[*at]).map(|at| sequence.prompt.len() + at).collect(),
        trunk: 0,
    };
    let placement = hypereyes_trainer::Placement { device: Device::Cpu, micro_tokens: 4096 };
    let mut trainer = hypereyes_trainer::Trainer::new(config, weights, Default::default(), placement).expect("fits");
    let mut all = vec![];
    let samples: Vec<Sample> = sequences.iter().map(sample).collect();
    let keep = |_: std::ops::Range<usize>, logprobs: &[Vec<f32>]| {
        all.extend(logprobs.to_vec());
        logprobs.iter().map(|list| vec![0.0; list.len()]).collect()
    };
    trainer.accumulate(&samples, 1.0, keep).expect("fits");
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn the_teacher_says_what_engine_and_learner_say_of_the_same_weights() {
    let service = Running::start(Config::default()).await;
    let folder = service.folder.path().join("a");
    let pictures = [picture(1, 96, 64), picture(2, 40, 70)];
    let (sequences, sampled): (Vec<_>, Vec<_>) = rollouts(&folder, &pictures).await.into_iter().unzip();

    let status = service.score(&sequences, None).await.expect_err("it holds no pictures yet");
    let (_, _, missing) = failure::from_status(&status);
    assert_eq!(missing, [pictures[0].id.clone(), pictures[1].id.clone()], "each once, in order");
    let put = service.put(&[pictures[0].clone(), pictures[1].clone(), pictures[0].clone()]).await;
    assert_eq!((put.stored, put.known), (2, 1));

    let (version, answers) = service.score(&sequences, None).await.expect("scores");
    assert_eq!(version, TeacherVersion::new("a", 1));
    let trained = tokio::task::spawn_blocking({
        let (sequences, pictures) = (sequences.clone(), pictures.clone());
        move || learners_word(&folder, &sequences, &pictures)
    });
    for ((answer, sampled), trained) in answers.iter().zip(&sampled).zip(trained.await.expect("no panic")) {
        assert!(far(answer, sampled) < 1e-5, "off the engine by {}", far(answer, sampled));
        assert!(far(answer, &trained) < 1e-5, "off the learner by {}", far(answer, &trained));
        assert!(answer.iter().any(|value| *value < -0.1), "an untrained policy is not sure");
    }

    // Sighted: the same tokens with another picture of the same size are other log-probs.
    let other = picture(9, 96, 64);
    service.put(std::slice::from_ref(&other)).await;
    let swapped: Vec<_> = sequences
        .iter()
        .map(|sequence| ScoreSequence { pictures: vec![other.id.clone(), pictures[1].id.clone()], ..sequence.clone() })
        .collect();
    let question = |sequences: &[ScoreSequence]| Question::new("other@1".into(), sequences.to_vec());
    let (_, blind) = service.ask(question(&swapped)).await.expect("scores");
    assert!(blind.iter().zip(&answers).all(|(one, other)| far(one, other) > 1e-4), "it sees");
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
            let off = far(answer, &alone[(at + round) % 3]);
            assert!(off < 1e-5, "round {round}: off by {off}");
        }
        assert!(answers[3].is_empty(), "nothing was asked of it");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_likeliest_tokens_and_other_temperatures_can_be_asked_for() {
    let service = Running::start(Config::default()).await;
    let ask = async |temperature: f32, top: usize| {
        let question = Question { temperature, top, ..Question::new("t@1".into(), vec![plain(0), plain(1)]) };
        service.peer.ask(&question, PATIENCE).await.expect("answers").1
    };
    let (bare, named, hot) = (ask(1.0, 0).await, ask(1.0, 4).await, ask(2.0, 4).await);
    for ((bare, named), hot) in bare.iter().zip(&named).zip(&hot) {
        assert_eq!((named.top.len(), bare.top.len()), (8, 0), "four at each of two tokens");
        assert!(far(&bare.logprobs, &named.logprobs) < 1e-5, "asking for more changes nothing");
        for four in named.top.chunks(4).chain(hot.top.chunks(4)) {
            assert!(four.windows(2).all(|pair| pair[0].1 >= pair[1].1), "the likeliest first: {four:?}");
        }
        assert!(hot.top[0].1 < named.top[0].1, "a higher temperature is less sure");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_swapped_while_serving() {
    let service = Running::start(Config { keep_groups_s: 10, ..Config::default() }).await;
    let folder = service.folder.path().to_owned();
    model(&folder.join("b"), 2, &["Peru", "Lima"]);
    let asked = [plain(0)];
    let before = service.score(&asked, None).await.expect("scores");

    let loaded = service.load("b", "b").await.expect("loads");
    assert_eq!(loaded.state, ModelState::Ready);
    let card = loaded.card.expect("it is verified");
    assert!(card.sighted && card.digest.len() == 64 && card.parameters > 1000 && card.bytes == 4 * card.parameters, "{card:?}");
    assert_eq!(service.score(&asked, None).await.expect("scores").0, TeacherVersion::new("a", 1), "loading changes nothing");
    let named = service.score(&asked, Some("b")).await.expect("scores");
    assert_eq!(named.0, TeacherVersion::new("b", 0));

    let promoted = service.peer.promote(&"b".into(), PATIENCE).await.expect("promotes");
    assert_eq!((promoted.revision, promoted.previous), (2, Some("a".into())));
    assert_eq!(service.score(&asked, None).await.expect("scores"), before, "a group keeps to its teacher");
    let other = |group: &str| Question::new(group.into(), asked.to_vec());
    let after = service.ask(other("t@2")).await.expect("scores");
    assert_eq!((&after.0, &after.1), (&TeacherVersion::new("b", 2), &named.1));
    assert!(far(&after.1[0], &before.1[0]) > 1e-3, "another model says something else");
    let first = service.ask(Question { revision: Some(1), ..other("t@3") }).await.expect("an earlier epoch can be asked for");
    assert_eq!(first.0, TeacherVersion::new("a", 1));

    let active = service.peer.retire(&"b".into(), PATIENCE).await.expect_err("it is active");
    assert!(active.refused && active.message.contains("promote another"), "{active}");
    let retired = service.peer.retire(&"a".into(), PATIENCE).await.expect("retires");
    assert_eq!((retired.state, retired.pinned), (ModelState::Retiring, 2));
    assert_eq!(service.score(&asked, None).await.expect("scores"), before, "its groups are still served");
    assert_eq!(service.score(&asked, Some("a")).await.expect_err("it is gone").code(), Code::NotFound);
    let gone = async {
        while service.peer.roster(PATIENCE).await.expect("lists").models[0].state != ModelState::Retired {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("it leaves with its last group");
    assert_eq!(service.score(&asked, None).await.expect("scores").0, TeacherVersion::new("b", 2));
    let late = service.ask(Question { revision: Some(1), ..other("t@4") }).await.expect_err("its model is gone");
    assert_eq!(late.code(), Code::NotFound, "{late}");

    let taken = service.load("b", "b").await.expect_err("the name is taken");
    assert!(taken.message.contains("another name"), "{taken}");
    let back = service.load("a", "a").await.expect("a name that is free again can be used again");
    assert_eq!(back.state, ModelState::Ready);
    assert_eq!(service.peer.promote(&"a".into(), PATIENCE).await.expect("rolls back").revision, 3);
    let roster = service.peer.roster(PATIENCE).await.expect("lists");
    assert_eq!(roster.active(), Some(TeacherVersion::new("a", 3)));
    let history: Vec<_> = roster.history.iter().map(|promotion| (promotion.revision, promotion.id.as_str())).collect();
    assert_eq!(history, [(1, "a"), (2, "b"), (3, "a")]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_scored_is_refused_by_name_and_the_service_goes_on() {
    let service = Running::start(Config { max_batch_tokens: 64, ..Config::default() }).await;
    let good = ScoreSequence { mask: vec![true; 3], ..plain(0) };
    let image = picture(1, 64, 64);
    service.put(std::slice::from_ref(&image)).await;
    let pictureless = ScoreSequence { pictures: vec![image.id.clone()], ..good.clone() };
    let cases = [
        ("vocabulary", ScoreSequence { response: vec![4, 1_000_000, 1], ..good.clone() }),
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
    let mut hurried = tonic::Request::new(v1::ScoreTokensRequest::from(Question::new("t@1".into(), vec![good.clone()])));
    hurried.metadata_mut().insert("grpc-timeout", "1n".parse().expect("a header"));
    let late = service.client.clone().score_tokens(hurried).await.expect_err("a nanosecond is not enough");
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late}");
    assert_eq!(service.score(&[good], None).await.expect("scores").1.len(), 1);
    service.stop().await;
}
