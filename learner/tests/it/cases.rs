//! What strangers and broken peers do to a learner, from `tests/cases`: it goes on, and says why it took nothing.

use crate::harness;

use std::time::Duration;

use harness::{Harness, case, learner, lease, lines, picture, put, rollout, score, submit, taught, try_lease, until};
use hypereyes_pictures::{Picture, RgbImage};
use hypereyes_proto::v1::{self, ReceiptOutcome};
use serde_json::Value;
use tonic::Code;

fn tokens(value: &Value, harness: &Harness) -> Vec<u32> {
    let token = |token: &Value| match token.as_str() {
        Some("placeholder") => harness.model.image_token_id,
        Some("vocabulary") => harness.model.text.vocab_size as u32,
        _ => u32::try_from(token.as_u64().unwrap()).unwrap(),
    };
    value.as_array().unwrap().iter().map(token).collect()
}

fn number(value: &Value) -> f32 {
    value.as_str().unwrap().parse().unwrap()
}

fn noise(width: u32, height: u32, seed: u8) -> Picture {
    // Not to be packed well, so that its size is known.
    let at = |x: u32, y: u32, salt: u32| {
        blake3::hash(&[x.to_le_bytes(), y.to_le_bytes(), (salt + 7 * u32::from(seed)).to_le_bytes()].concat()).as_bytes()[0]
    };
    Picture::from_image(RgbImage::from_fn(width, height, |x, y| [at(x, y, 0), at(x, y, 1), at(x, y, 2)].into())).unwrap()
}

/// The reason that the ledger gives for a group.
fn dropped(harness: &Harness, group: &str) -> Option<(String, String)> {
    let line = harness.ledger().into_iter().find(|line| line["event"] == "dropped" && line["group"] == group)?;
    Some((line["reason"].as_str()?.to_owned(), line["detail"].as_str()?.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn case_poison_group() {
    let harness = learner(|config| config.task_tries = 0).await;
    let mut client = harness.client();
    for spoilt in case("poison-group/groups.json").as_array().unwrap() {
        let name = spoilt["name"].as_str().unwrap();
        let mut held = lease(&mut client, "a").await;
        if spoilt["task_pictures"] == true {
            while held.task.as_ref().unwrap().pictures.is_empty() {
                assert_eq!(submit(&mut client, harness.honest(&held, "a")).await.0, ReceiptOutcome::Accepted);
                held = lease(&mut client, "a").await;
            }
        }
        let list = |key: &str, usual: &[u32]| spoilt.get(key).map_or_else(|| usual.to_vec(), |value| tokens(value, &harness));
        let mut response = list("response", &[9, 10, 11]);
        if let Some(length) = spoilt["response_length"].as_u64() {
            response = vec![9; length as usize];
        }
        let mut bad = rollout(&list("prompt", &[5, 6, 7]), &response);
        if spoilt["task_pictures"] == true {
            bad.pictures = held.task.as_ref().unwrap().pictures.clone();
        }
        if let Some(size) = spoilt["crop"].as_array() {
            let crop = noise(size[0].as_u64().unwrap() as u32, size[1].as_u64().unwrap() as u32, 1);
            put(&mut client, std::slice::from_ref(&crop)).await.unwrap();
            bad.pictures = vec![crop.id.to_string()];
        }
        if spoilt.get("logprob").is_some() {
            bad.logprobs = vec![number(&spoilt["logprob"]); response.len()];
        }
        if let Some(version) = spoilt["version"].as_u64() {
            bad.versions[0].version = version;
        }
        let mut group = taught(&held, "a", vec![bad; 2]);
        if spoilt.get("taught").is_some() {
            let scores = &mut group.scored.as_mut().unwrap().scores;
            scores[0].route = v1::Route::Distill.into();
            let logprobs = vec![number(&spoilt["taught"]); response.len()];
            group.teacher[0] = v1::TeacherAnswer { given: true, teacher_id: "t".into(), logprobs, ..v1::TeacherAnswer::default() };
        }
        let (outcome, detail) = submit(&mut client, group).await;
        let right = if spoilt.get("version").is_some() { ReceiptOutcome::Stale } else { ReceiptOutcome::Invalid };
        assert_eq!(outcome, right, "{name}: {detail}");
        assert!(!detail.is_empty(), "{name}");
        let (reason, told) = dropped(&harness, &held.group_id).unwrap_or_else(|| panic!("{name}: the ledger has it"));
        assert!(["invalid", "future"].contains(&reason.as_str()) && !told.is_empty(), "{name}: {reason} {told}");
    }
    let before = harness.status().await.step;
    let held = lease(&mut client, "a").await;
    assert_eq!(submit(&mut client, harness.honest(&held, "a")).await.0, ReceiptOutcome::Accepted);
    until("the honest group is trained", || async { harness.status().await.step > before }).await;
    harness.end().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn case_group_shape() {
    let harness = learner(|config| config.task_tries = 0).await;
    let mut client = harness.client();
    for spoilt in case("group-shape/groups.json").as_array().unwrap() {
        let name = spoilt["name"].as_str().unwrap();
        let held = lease(&mut client, "a").await;
        let list = |key: &str, usual: &[u32]| spoilt.get(key).map_or_else(|| usual.to_vec(), |value| tokens(value, &harness));
        let count = |key: &str| spoilt[key].as_u64().map(|count| count as usize);
        let mut one = rollout(&list("prompt", &[5, 6, 7]), &list("response", &[9, 10, 11]));
        if let Some(length) = count("mask_length") {
            one.mask = Some(harness::mask(length));
        }
        if let Some(length) = count("logprobs_length") {
            one.logprobs.truncate(length);
        }
        if let Some(runs) = spoilt["versions"].as_array() {
            let run = |run: &Value| v1::VersionRun { version: run[0].as_u64().unwrap(), length: run[1].as_u64().unwrap() as u32 };
            one.versions = runs.iter().map(run).collect();
        }
        if let Some(searches) = spoilt["searches"].as_array() {
            let of = |at: usize| searches[at].as_u64().unwrap() as u32;
            one.rounds = vec![v1::Round { call: None, searches: of(0), failed_searches: of(1) }];
        }
        let mut group = taught(&held, "a", vec![one; count("rollouts").unwrap_or(2)]);
        let scored = group.scored.as_mut().unwrap();
        if let Some(rewards) = spoilt["rewards"].as_array() {
            scored.scores = rewards.iter().map(|reward| score(reward.as_f64().unwrap())).collect();
        }
        if let Some(scores) = count("scores") {
            scored.scores.truncate(scores);
        }
        if let Some(reference) = spoilt["reference"].as_array() {
            let of = |at: usize| reference[at].as_u64().unwrap() as u32;
            scored.reference = Some(v1::Reference { rounds: of(0), searches: of(1) });
        }
        if let Some(teachers) = count("teachers") {
            group.teacher.resize(teachers, v1::TeacherAnswer::default());
        }
        let (outcome, detail) = submit(&mut client, group).await;
        assert_eq!(outcome, ReceiptOutcome::Invalid, "{name}: {detail}");
        let told = dropped(&harness, &held.group_id).unwrap_or_else(|| panic!("{name}: the ledger has it"));
        assert!(told.0 == "invalid" && !told.1.is_empty() && !detail.is_empty(), "{name}: {told:?} {detail}");
    }
    // The bounds of what TRACE can give are taken, as are the task's own pictures in their places.
    let held = lease(&mut client, "a").await;
    let mut group = harness.honest(&held, "a");
    group.scored.as_mut().unwrap().scores = vec![score(1.2), score(-0.5)];
    assert_eq!(submit(&mut client, group).await.0, ReceiptOutcome::Accepted);
    // So is a group whose rollouts all failed outside of the policy: it teaches nothing and says nothing against its task.
    let held = lease(&mut client, "a").await;
    let mut group = harness.honest(&held, "a");
    for rollout in &mut group.scored.as_mut().unwrap().group.as_mut().unwrap().rollouts {
        rollout.mask = Some(v1::PackedBools { count: 3, bits: vec![0].into() });
        rollout.logprobs = vec![0.0; 3];
        rollout.answer = None;
        (rollout.ending, rollout.failure) = (v1::EndingKind::Failed.into(), v1::FailureKind::Infrastructure.into());
    }
    assert_eq!(submit(&mut client, group).await, (ReceiptOutcome::Accepted, String::new()));
    let mut held = lease(&mut client, "a").await;
    while held.task.as_ref().unwrap().pictures.is_empty() {
        assert_eq!(submit(&mut client, harness.honest(&held, "a")).await.0, ReceiptOutcome::Accepted);
        held = lease(&mut client, "a").await;
    }
    let (start, place, end) = (harness.model.vision_start_token_id, harness.model.image_token_id, harness.model.vision_end_token_id);
    let mut seeing = rollout(&[5, start, place, place, place, place, end, 6], &[9, 10]);
    seeing.pictures = held.task.as_ref().unwrap().pictures.clone();
    let before = harness.status().await.step;
    assert_eq!(submit(&mut client, taught(&held, "a", vec![seeing; 2])).await, (ReceiptOutcome::Accepted, String::new()));
    until("it is trained", || async { harness.status().await.step > before }).await;
    harness.end().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn case_evicted_picture() {
    let how = case("evicted-picture/pictures.json");
    let side = |value: &Value| value.as_u64().unwrap() as u32;
    let capacity = how["capacity"].as_u64().unwrap() as usize;
    let harness = learner(|config| (config.groups_per_step, config.group_size, config.pictures_bytes) = (2, 1, capacity)).await;
    let mut client = harness.client();
    let crop = noise(side(&how["crop"][0]), side(&how["crop"][1]), 1);
    let place = harness.model.image_token_id;
    let seeing = |pictures: &[&Picture]| {
        let prompt: Vec<u32> = std::iter::once(5).chain(pictures.iter().flat_map(|_| [place, place, place, place, 6])).collect();
        let mut rollout = rollout(&prompt, &[9, 10]);
        rollout.pictures = pictures.iter().map(|picture| picture.id.to_string()).collect();
        rollout
    };
    put(&mut client, std::slice::from_ref(&crop)).await.unwrap();
    let held = lease(&mut client, "a").await;
    assert_eq!(submit(&mut client, taught(&held, "a", vec![seeing(&[&crop])])).await.0, ReceiptOutcome::Accepted);
    // A flood from somebody else, picture by picture and all at once.
    let mut other = harness.client();
    let flood_side = side(&how["flood"]["side"]);
    let flood: Vec<Picture> =
        (0..how["flood"]["pictures"].as_u64().unwrap() as u8).map(|n| noise(flood_side, flood_side, 10 + n)).collect();
    assert!(flood.iter().map(|picture| picture.bytes.len()).sum::<usize>() > capacity, "it does not fit");
    for picture in &flood {
        put(&mut other, std::slice::from_ref(picture)).await.unwrap();
    }
    assert_eq!(put(&mut other, &flood).await.unwrap_err().code(), Code::InvalidArgument, "one call brings no more than there is room for");
    let held = lease(&mut client, "b").await;
    assert_eq!(submit(&mut client, harness::taught(&held, "b", vec![rollout(&[5], &[9])])).await.0, ReceiptOutcome::Accepted);
    until("both are trained", || async { harness.status().await.groups_trained == 2 }).await;
    harness.end().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_that_leave_no_room_are_trained_before_their_batch_is_full() {
    let one = noise(64, 64, 1);
    let harness =
        learner(|config| (config.groups_per_step, config.group_size, config.pictures_bytes) = (8, 1, one.bytes.len() * 3 / 2)).await;
    let mut client = harness.client();
    let place = harness.model.image_token_id;
    for number in 1..=3 {
        let crop = noise(64, 64, number);
        let held = lease(&mut client, "a").await;
        let mut seeing = rollout(&[5, place, place, place, place, 6], &[9]);
        seeing.pictures = vec![crop.id.to_string()];
        // Refused while the one before waits; that is then trained alone.
        until("there is room", || {
            let (mut client, crop) = (client.clone(), crop.clone());
            async move {
                match put(&mut client, &[crop]).await {
                    Ok(_) => true,
                    Err(status) => {
                        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                        false
                    }
                }
            }
        })
        .await;
        assert_eq!(submit(&mut client, taught(&held, "a", vec![seeing])).await.0, ReceiptOutcome::Accepted);
    }
    assert!(harness.status().await.groups_trained >= 2);
    harness.end().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn case_damaged_picture() {
    for damage in case("damaged-picture/damage.json").as_array().unwrap() {
        let name = damage["name"].as_str().unwrap();
        let harness = learner(|config| (config.groups_per_step, config.task_tries) = (2, 3)).await;
        let broken = picture(0);
        let path = harness.config.tasks.join(format!("pictures/{}.png", broken.id));
        match damage["keep"].as_f64() {
            Some(share) => std::fs::write(&path, &broken.bytes[..(broken.bytes.len() as f64 * share) as usize]).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let mut client = harness.client();
        // An honest actor: what it cannot see it gives back.
        let mut given_back = 0;
        while harness.status().await.epoch < 2 {
            let Some(held) = try_lease(&mut client, "a").await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let ids = held.task.as_ref().unwrap().pictures.clone();
            let seen = match client.get_pictures(v1::PicturesRequest { ids }).await {
                Ok(stream) => {
                    let mut stream = stream.into_inner();
                    loop {
                        match stream.message().await {
                            Ok(Some(_)) => {}
                            Ok(None) => break Ok(()),
                            Err(status) => break Err(status),
                        }
                    }
                }
                Err(status) => Err(status),
            };
            if let Err(status) = seen {
                assert_eq!(status.code(), Code::NotFound, "{name}: asking again is of no use: {status}");
                given_back += 1;
                let (group_id, actor_id) = (held.group_id, "a".to_owned());
                let failure = v1::FailureKind::Infrastructure.into();
                let given =
                    client.abandon(v1::AbandonRequest { group_id, actor_id, failure, detail: status.message().into() }).await.unwrap();
                assert!(given.into_inner().was_yours);
                continue;
            }
            assert_eq!(submit(&mut client, harness.honest(&held, "a")).await.0, ReceiptOutcome::Accepted, "{name}");
        }
        assert_eq!(given_back, 3, "{name}");
        assert_eq!(harness.status().await.tasks_set_aside, 1, "{name}");
        let aside = harness.ledger().into_iter().find(|line| line["event"] == "set_aside").expect("the ledger has it");
        assert!(aside["task"] == "t0" && aside["reason"].as_str().unwrap().contains(broken.id.as_str()), "{name}: {aside}");
        let metrics = lines(&harness.config.out.join("metrics.jsonl"));
        assert_eq!(metrics.last().unwrap()["tasks_set_aside"], 1, "{name}");
        harness.end().await.expect("an orderly end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_every_task_fails_the_run_ends_with_the_reason() {
    let harness = learner(|config| config.task_tries = 2).await;
    let mut client = harness.client();
    while !harness.ended.is_finished() {
        let request = v1::LeaseRequest { actor_id: "a".into(), known_version: None };
        let Ok(reply) = client.lease_task(request).await else { break };
        if let Some(v1::lease_reply::Outcome::Lease(held)) = reply.into_inner().outcome {
            let failure = v1::FailureKind::Timeout.into();
            let request = v1::AbandonRequest { group_id: held.group_id, actor_id: "a".into(), failure, detail: "it hangs".into() };
            client.abandon(request).await.unwrap();
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let error =
        tokio::time::timeout(harness::PATIENCE, harness.ended).await.expect("in time").expect("no panic").expect_err("nothing is left");
    assert!(error.to_string().contains("all 3 tasks were set aside") && error.to_string().contains("it hangs"), "{error:#}");
    assert_eq!(hypereyes_chassis::exit::code_of(error.as_ref()), hypereyes_chassis::exit::BAD_INPUT, "trying again is of no use");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_damaged_while_its_group_waits_costs_the_group_and_not_the_step() {
    let harness = learner(|config| (config.groups_per_step, config.group_size) = (3, 1)).await;
    let mut client = harness.client();
    let mut held = vec![];
    for _ in 0..3 {
        held.push(lease(&mut client, "a").await);
    }
    let seen = held.iter().position(|held| held.task.as_ref().unwrap().id == "t0").unwrap();
    let seen = held.swap_remove(seen);
    let place = harness.model.image_token_id;
    let mut seeing = rollout(&[5, place, place, place, place, 6], &[9]);
    seeing.pictures = seen.task.as_ref().unwrap().pictures.clone();
    let id = seeing.pictures[0].clone();
    assert_eq!(submit(&mut client, taught(&seen, "a", vec![seeing])).await.0, ReceiptOutcome::Accepted);
    std::fs::write(harness.config.tasks.join(format!("pictures/{id}.png")), b"GIF89a").unwrap();
    for held in &held {
        assert_eq!(submit(&mut client, harness.honest(held, "a")).await.0, ReceiptOutcome::Accepted);
    }
    until("the others are trained", || async { harness.status().await.groups_trained == 2 }).await;
    let (reason, detail) = dropped(&harness, &seen.group_id).expect("the ledger has it");
    assert!(reason == "picture" && detail.contains(&id), "{reason}: {detail}");
    assert_eq!((harness.status().await.step, harness.status().await.groups_dropped), (1, 1));
    harness.end().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn case_reward_away_in_export() {
    let how = case("reward-away-in-export/away.json");
    let codes: Vec<Code> = how["codes"].as_array().unwrap().iter().map(|code| Code::from_i32(code.as_i64().unwrap() as i32)).collect();
    let reward = harness::Reward::default();
    // Between import and training; one code after the other, and a list that breaks off.
    reward.away.lock().unwrap().insert("export", codes.clone());
    reward.breaks.store(usize::from(how["break_off"] == true), std::sync::atomic::Ordering::Release);
    let harness = harness::started(reward, |config| (config.groups_per_step, config.group_size) = (3, 1)).await;
    let mut client = harness.client();
    for number in 0..2u64 {
        for _ in 0..3 {
            let held = lease(&mut client, "a").await;
            assert_eq!(submit(&mut client, harness.honest(&held, "a")).await.0, ReceiptOutcome::Accepted);
            // The commit at the end of the first epoch, and what it is made of.
            let mut away = harness.reward.away.lock().unwrap();
            for rpc in ["import", "commit", "export"] {
                away.insert(rpc, if number == 0 { codes[..3].to_vec() } else { vec![] });
            }
        }
        until("the epoch is over", || async { harness.status().await.epoch > number }).await;
    }
    assert!(
        harness.reward.asked("export") > codes.len() && harness.reward.asked("commit") > 2,
        "{:?}",
        harness.reward.asked.lock().unwrap()
    );
    harness.end().await.expect("an orderly end");
    // A refusal is one.
    let reward = harness::Reward::default();
    reward.away.lock().unwrap().insert("export", vec![Code::PermissionDenied]);
    let refused = harness::started(reward, |_| {}).await;
    let error = tokio::time::timeout(harness::PATIENCE, refused.ended).await.expect("in time").expect("no panic").expect_err("refused");
    assert!(format!("{error:#}").contains("lists no references"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_speaks_for_another_and_who_comes_back_goes_on() {
    let harness = learner(|config| config.group_size = 2).await;
    let (mut own, mut stranger) = (harness.client(), harness.client());
    let held = lease(&mut own, "a").await;
    let asked = stranger.lease_task(v1::LeaseRequest { actor_id: "a".into(), known_version: None }).await;
    assert_eq!(asked.expect_err("the name is in use").code(), Code::AlreadyExists);
    assert_eq!(submit(&mut stranger, harness.honest(&held, "a")).await.0, ReceiptOutcome::Expired);
    let beat = |group: &str| v1::HeartbeatRequest { actor_id: "a".into(), group_ids: vec![group.to_owned()] };
    assert!(stranger.heartbeat(beat(&held.group_id)).await.unwrap().into_inner().still_yours.is_empty());
    let failure = v1::FailureKind::Infrastructure.into();
    let give = v1::AbandonRequest { group_id: held.group_id.clone(), actor_id: "a".into(), failure, detail: String::new() };
    assert!(!stranger.abandon(give.clone()).await.unwrap().into_inner().was_yours);
    assert_eq!(own.heartbeat(beat(&held.group_id)).await.unwrap().into_inner().still_yours, std::slice::from_ref(&held.group_id));
    // Under another name it is somebody like all others.
    assert!(lease(&mut stranger, "b").await.group_id != held.group_id);
    // Its connection gone, it comes back over another.
    drop(own);
    let back = harness.client();
    until("the old connection is known to be gone", || {
        let mut back = back.clone();
        let beat = beat(&held.group_id);
        async move { !back.heartbeat(beat).await.unwrap().into_inner().still_yours.is_empty() }
    })
    .await;
    assert_eq!(submit(&mut back.clone(), harness.honest(&held, "a")).await.0, ReceiptOutcome::Accepted);
    harness.end().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_connection_holds_open_has_a_bound() {
    let harness = learner(|_| {}).await;
    let client = harness.client();
    let mut open = vec![];
    let refused = loop {
        match client.clone().watch_policy_versions(v1::WatchPolicyVersionsRequest {}).await {
            Ok(stream) => open.push(stream),
            Err(status) => break status,
        }
        assert!(open.len() < 100, "watches have a bound");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let mut other = harness.client();
    other.watch_policy_versions(v1::WatchPolicyVersionsRequest {}).await.expect("others have places of their own");
    drop(open);
    until("places come back", || {
        let mut client = client.clone();
        async move { client.watch_policy_versions(v1::WatchPolicyVersionsRequest {}).await.is_ok() }
    })
    .await;
    harness.end().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_is_broken_off_and_its_groups_are_done_again() {
    // Thousands of short passes, so that there is something to break off.
    let harness = learner(|config| {
        (config.groups_per_step, config.group_size, config.micro_tokens, config.max_context_tokens) = (1, 256, 512, 2048);
    })
    .await;
    let mut client = harness.client();
    let held = lease(&mut client, "a").await;
    let long: Vec<u32> = (0..1000).map(|at| [5, 6, 7, 9, 10, 11][at % 6]).collect();
    let group = taught(&held, "a", vec![rollout(&long, &long); 256]);
    assert_eq!(submit(&mut client, group).await.0, ReceiptOutcome::Accepted);
    until("the step is under way", || async { harness.status().await.groups_outstanding == 0 }).await;
    let (config, task) = (harness.config.clone(), held.task.unwrap().id);
    harness.shutdown.trigger();
    tokio::time::timeout(Duration::from_secs(60), harness.ended).await.expect("in time").expect("no panic").expect("saved");
    let saved = hypereyes_learner::checkpoint::load(&config.out.join("checkpoint")).unwrap().expect("a checkpoint");
    if saved.step == 0 {
        assert!(saved.cursor.remaining.iter().any(|left| left.as_str() == task), "the broken-off group's task is done again");
    }
    assert_eq!(saved.cursor.remaining.len() as u64 + saved.step, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_for_people_that_cannot_be_written_end_nothing() {
    let harness = learner(|config| (config.group_size, config.checkpoint_every, config.record_every) = (1, 1, 1)).await;
    let mut client = harness.client();
    let blocked: Vec<_> = ["metrics.jsonl", "trajectories.jsonl"].iter().map(|name| harness.config.out.join(name)).collect();
    let checkpoint = harness.config.out.join("checkpoint");
    for number in 1..=3u64 {
        let held = lease(&mut client, "a").await;
        if number == 2 {
            let all: Vec<_> = blocked.iter().cloned().chain([checkpoint.join("manifest.json")]).collect();
            until("the first step is written", || async { all.iter().all(|path| path.exists()) }).await;
            blocked.iter().for_each(|path| {
                std::fs::remove_file(path).unwrap();
                std::fs::create_dir(path).unwrap();
            });
            std::fs::rename(&checkpoint, harness.folder.path().join("away")).unwrap();
            std::fs::write(&checkpoint, "a file in the way").unwrap();
        }
        assert_eq!(submit(&mut client, harness.honest(&held, "a")).await.0, ReceiptOutcome::Accepted);
        until("it is trained", || async { harness.status().await.groups_trained == number }).await;
    }
    blocked.iter().for_each(|path| std::fs::remove_dir(path).unwrap());
    std::fs::remove_file(&checkpoint).unwrap();
    let out = harness.config.out.clone();
    let (ended, _folder) = harness.stop().await;
    ended.expect("an orderly end");
    for path in &blocked {
        let steps: Vec<u64> = lines(path).iter().map(|line| line["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [2, 3], "{}", path.display());
    }
    assert_eq!(hypereyes_learner::checkpoint::load(&out.join("checkpoint")).unwrap().expect("written in the end").step, 3);
}
