//! What servers must be before anybody is rolled out on them.

use hypereyes_domain::Sampling;
use hypereyes_policy::Error;

use crate::fake::{Bed, Fake, Kind, PATIENCE};

async fn refused(bed: &Bed) -> Error {
    let engine = bed.open();
    engine.ready().await.expect_err("not as it is")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_can_never_take_part_is_named_with_what_would_do() {
    type Spoil = fn(&Fake);
    let cases: [(Kind, &[&str], Spoil); 5] = [
        (Kind::Vllm, &["403", "--enable-scale-out"], |fake| fake.fail("/inference/v1/generate", 99, 403)),
        (Kind::Vllm, &["404", "VLLM_SERVER_DEV_MODE=1"], |fake| fake.fail("/weight_info", 99, 404)),
        (Kind::Vllm, &["sequences of 100 tokens", "max_context is 256"], |fake| fake.state().context = 100),
        (Kind::Sglang, &["asked about a picture", "expands pictures otherwise"], |fake| fake.state().surplus = 1),
        (Kind::Vllm, &["does not say which weights sampled"], |fake| {
            fake.spoil(|reply| reply["choices"][0]["weight_versions"] = serde_json::Value::Null);
        }),
    ];
    for (kind, parts, spoil) in cases {
        let bed = Bed::of(kind, 1).await;
        spoil(&bed.fakes[0]);
        let error = refused(&bed).await;
        let text = error.to_string();
        assert!(matches!(error, Error::Input(_)) && text.contains(&bed.fakes[0].url()), "{text}");
        assert!(parts.iter().all(|part| text.contains(part)) && !text.contains('\n'), "{text}");
    }
    let mut bed = Bed::of(Kind::Vllm, 1).await;
    bed.config.model = "another".into();
    assert!(refused(&bed).await.to_string().contains("serves policy, but model is \"another\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_waited_for_and_the_others_do() {
    let mut bed = Bed::of(Kind::Sglang, 1).await;
    bed.config.url.push("http://127.0.0.1:1".into());
    bed.config.start_timeout_s = 2;
    let engine = bed.open();
    engine.ready().await.expect("one takes part");
    drop(engine);
    bed.config.url.remove(0);
    bed.config.policy_folder = bed.folder.path().join("others");
    let error = refused(&bed).await;
    assert!(matches!(&error, Error::Device(text) if text.contains("start_timeout_s = 2") && text.contains("127.0.0.1:1")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn log_probs_are_looked_at_before_anything_is_trained_on() {
    let warm = Sampling::of(0.8, 1.0);
    let narrow = Sampling::of(1.0, 0.7);
    for kind in Kind::BOTH {
        for (convention, at_another_temperature, with_a_nucleus) in
            [("plain", false, true), ("tempered", true, true), ("truncated", true, false)]
        {
            let bed = Bed::of(kind, 1).await;
            bed.fakes[0].state().convention = convention;
            let engine = bed.open();
            assert!(engine.gives_logprobs(Sampling::of(1.0, 1.0)).is_err(), "nobody has looked");
            engine.ready().await.expect("ready");
            assert_eq!(engine.gives_logprobs(Sampling::of(1.0, 1.0)), Ok(()));
            let given = [warm, narrow].map(|sampling| engine.gives_logprobs(sampling).is_ok());
            assert_eq!(given, [at_another_temperature, with_a_nucleus], "{convention}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_that_comes_again_finds_its_weights_where_they_are() {
    let bed = Bed::of(Kind::Vllm, 1).await;
    drop(bed.ready().await);
    bed.fakes[0].state().paused = true;
    bed.ready().await;
    assert!(!bed.fakes[0].state().paused, "whoever stopped it did not come to let it go on");
    // It was asked for what it holds, and for the few tokens of a probe.
    let again = bed.open();
    drop(again);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgets_a_question_is_asked_again_when_an_answer_is_due() {
    let mut bed = Bed::of(Kind::Sglang, 1).await;
    (bed.config.request_timeout_s, bed.config.start_timeout_s) = (1, 600);
    bed.fakes[0].state().forgets = 1;
    let engine = bed.open();
    tokio::time::timeout(PATIENCE, engine.ready()).await.expect("not as late as a server may introduce itself").expect("ready");
}
