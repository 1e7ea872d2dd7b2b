//! What the manifests tell each room is what the room can read: every settings file of every overlay goes through the loader
//! that the room itself uses, with the environment that its container gets.

use hypereyes::cli::ENV_PREFIX;
use hypereyes_actor::Actor;
use hypereyes_chassis::{Room, config};
use hypereyes_learner::Learner;
use hypereyes_reward_service::RewardService;
use hypereyes_teacher_service::TeacherService;
use hypereyes_tests::k8s::{Render, Workload, folder, read};

#[test]
fn every_room_reads_its_settings() {
    let mut seen = 0;
    for render in read(&folder().join("rendered")) {
        for workload in render.workloads() {
            match workload.kind_of_room() {
                "actor" => drop(load::<Actor>(&render, &workload)),
                "learner" => load::<Learner>(&render, &workload).check().expect("settings that can be meant"),
                "reward" => drop(load::<RewardService>(&render, &workload)),
                "teacher" => drop(load::<TeacherService>(&render, &workload)),
                kind => panic!("{}: {}: there is no room {kind}", render.name, workload.name),
            }
            seen += 1;
        }
    }
    assert!(seen > 25, "{seen} rooms");
}

fn load<R: Room>(render: &Render, workload: &Workload) -> R::Config {
    let whose = format!("{}: {}", render.name, workload.name);
    // A variable that nobody hears is a slip that nobody else would notice. Some are for commands that are run in the pod.
    let prefixes = [format!("{}__", R::ENV), format!("{ENV_PREFIX}__")];
    let heard = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()));
    let strange = workload.env().into_iter().find(|(name, _)| name.starts_with("HYPEREYES") && !heard(name));
    config::load_from(hypereyes::config::Config::default(), None, ENV_PREFIX, workload.env(), &[])
        .unwrap_or_else(|error| panic!("{whose}: {error}"));
    assert!(strange.is_none(), "{whose}: {strange:?} is not for this room");
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), workload.file(render)).expect("it can be written");
    config::load_from(R::Config::default(), Some(file.path()), R::ENV, workload.env(), &[])
        .unwrap_or_else(|error| panic!("{whose}: {error}"))
}
