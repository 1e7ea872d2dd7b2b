//! Keys that `up` decides itself: said by somebody, they would be dropped without a word. In: resolved settings. Out: a finding for
//! each that is not as it comes, with the key that does what was meant.

use hypereyes_chassis::Findings;

use super::leaves::{differences, is_in};
use crate::config::Config;
use crate::services::range_of;

/// Where searching is set.
const SEARCH: &str = "searches of every part are set in `search`: set it there";

/// Where who samples is set.
const ENGINE: &str = "who samples is set in `engine`, for actors too: set it there; sizes stay here";

/// Where the engine of the evaluator is set.
const SAME: &str = "the evaluator samples as `engine` says: set it there; only `url` is its own";

/// Keys and tables that `up` fills in, and where their values come from.
pub const FILLED_IN: &[(&str, &str)] = &[
    ("actor.rollout", "episodes of training are those of `rollout`: set it there"),
    ("actor.search", SEARCH),
    ("actor.engine.kind", ENGINE),
    ("actor.engine.url", ENGINE),
    ("actor.engine.command", ENGINE),
    ("actor.engine.log", ENGINE),
    ("actor.engine.model", ENGINE),
    ("actor.engine.policy_folder", ENGINE),
    ("actor.engine.api_key_env", ENGINE),
    ("actor.engine.request_timeout_s", ENGINE),
    ("actor.engine.reload_timeout_s", ENGINE),
    ("actor.engine.start_timeout_s", ENGINE),
    ("actor.engine.health_interval_s", ENGINE),
    ("actor.id", "actors are called actor-0, actor-1 and so on"),
    ("actor.learner", "services are found by the ports in up.ports"),
    ("actor.reward", "services are found by the ports in up.ports"),
    ("actor.teacher", "services are found by the ports in up.ports; up.distill says whether there is a teacher"),
    ("actor.policy", "actors sample with `policy`: set it there"),
    ("actor.world", "actors search `world`: set it there"),
    ("actor.process.metrics_listen", "every service serves its metrics at a free port; services/*.json of the run says where"),
    ("actor.process.announce", "services are announced in the run folder"),
    ("evaluator.engine.kind", SAME),
    ("evaluator.engine.command", SAME),
    ("evaluator.engine.log", SAME),
    ("evaluator.engine.model", SAME),
    ("evaluator.engine.policy_folder", SAME),
    ("evaluator.engine.api_key_env", SAME),
    ("evaluator.engine.request_timeout_s", SAME),
    ("evaluator.engine.reload_timeout_s", SAME),
    ("evaluator.engine.start_timeout_s", SAME),
    ("evaluator.engine.health_interval_s", SAME),
    ("evaluator.engine.max_sequences", SAME),
    ("evaluator.engine.max_context", SAME),
    ("evaluator.engine.cache_bytes", SAME),
    ("evaluator.engine.device", SAME),
    ("evaluator.engine.max_rows", SAME),
    ("evaluator.engine.patches_bytes", SAME),
    ("evaluator.eval", "how much and how often is set in `eval`: set it there"),
    ("evaluator.sampling", "evaluation samples with `sampling.eval`: set it there"),
    ("evaluator.judge", "the judge is reward_service.judge: set it there"),
    ("evaluator.judge_model", "the judge is reward_service.judge_model: set it there"),
    ("evaluator.rollout", "episodes of evaluation are those of `rollout`: set it there"),
    ("evaluator.search", SEARCH),
    ("evaluator.learner", "services are found by the ports in up.ports"),
    ("evaluator.policy", "training starts from `policy`: set it there"),
    ("evaluator.world", "the evaluator searches `world`: set it there"),
    ("evaluator.tasks", "set up.held_out to a folder, or leave it out: tasks are made from `synth` and `seed`"),
    ("evaluator.out", "everything is written below run_dir"),
    ("evaluator.last", "the last policy is measured once it is trained"),
    ("evaluator.process.metrics_listen", "every service serves its metrics at a free port; services/*.json of the run says where"),
    ("evaluator.process.announce", "services are announced in the run folder"),
    ("learner.listen", "set up.ports.learner"),
    ("learner.process.metrics_listen", "every service serves its metrics at a free port; services/*.json of the run says where"),
    ("learner.process.announce", "services are announced in the run folder"),
    ("learner.reward", "services are found by the ports in up.ports"),
    ("learner.policy", "training starts from `policy`: set it there"),
    ("learner.tasks", "set up.tasks to a folder, or leave it out: tasks are made from `synth` and `seed`"),
    ("learner.out", "everything is written below run_dir"),
    ("learner.seed", "set `seed`"),
    ("learner.sampling", "training samples with `sampling.train`: set it there"),
    ("learner.max_context_tokens", "set rollout.max_context_tokens"),
    ("learner.ranks.rank", "ranks are numbered; set up.ranks"),
    ("learner.ranks.world", "set up.ranks"),
    ("learner.ranks.leader", "services are found by the ports in up.ports"),
    ("reward_service.listen", "set up.ports.reward"),
    ("reward_service.process.metrics_listen", "every service serves its metrics at a free port; services/*.json of the run says where"),
    ("reward_service.process.announce", "services are announced in the run folder"),
    ("reward_service.store", "references are kept below run_dir"),
    ("teacher_service.listen", "set up.ports.teacher"),
    ("teacher_service.process.metrics_listen", "every service serves its metrics at a free port; services/*.json of the run says where"),
    ("teacher_service.process.announce", "services are announced in the run folder"),
    ("teacher_service.model", "the teacher is the folder in `teacher`: set it there; others are loaded with `hypereyes teacher load`"),
    ("teacher_service.store", "the registry is kept below run_dir"),
];

/// Findings for `up`.
pub fn findings(config: &Config) -> Findings {
    let mut found = Findings::default();
    for said in differences(&Config::default(), config) {
        if let Some((_, instead)) = FILLED_IN.iter().find(|(key, _)| is_in(&said.key, key)) {
            found.refuse(said.key, format!("is {}, but `up` does not use it: {instead}", said.is));
        }
    }
    found.extend(replaced(config));
    found
}

/// Values that `up` replaces because of others: what is said and would be replaced is refused as well.
fn replaced(config: &Config) -> Findings {
    let (mut found, usual) = (Findings::default(), Config::default());
    let (said, trace) = (config.learner.reward_range, &config.reward_service.trace);
    let [least, most] = range_of(trace, said);
    if said != usual.learner.reward_range && said != [least, most] {
        let message =
            format!("is {said:?}, but rewards of these reward_service.trace constants lie within [{least}, {most}]: give that, or more");
        found.refuse("learner.reward_range", message);
    }
    let coefficient = config.learner.objective.opd_coef;
    if !config.up.distill && coefficient != usual.learner.objective.opd_coef && coefficient != 0.0 {
        let message =
            format!("is {coefficient}, but up.distill = false: there is no teacher whose word could count; leave one of them out");
        found.refuse("learner.objective.opd_coef", message);
    }
    found
}

/// Findings about the actors' table of searching, for commands that search in this process.
pub fn search(config: &Config) -> Findings {
    let mut found = Findings::default();
    for said in differences(&Config::default(), config).into_iter().filter(|said| is_in(&said.key, "actor.search")) {
        found.refuse(said.key, format!("is {}, but it is not used: {SEARCH}", said.is));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut Config);

    #[test]
    fn what_up_decides_itself_is_refused_by_name_with_what_to_set() {
        assert!(!findings(&Config::default()).is_refused());
        let cases: [(&str, &str, Change); 12] = [
            ("actor.engine.kind", "`engine`", |config| config.actor.engine.kind = "vllm".into()),
            ("actor.search.deadline_s", "`search`", |config| config.actor.search.deadline_s = 9.0),
            ("actor.rollout.max_turn_tokens", "`rollout`", |config| config.actor.rollout.max_turn_tokens = 9),
            ("learner.tasks", "`synth`", |config| config.learner.tasks = "/data/tasks".into()),
            ("learner.seed", "`seed`", |config| config.learner.seed = 4),
            ("learner.policy", "`policy`", |config| config.learner.policy = "/data/policy".into()),
            ("learner.ranks.world", "up.ranks", |config| config.learner.ranks.world = 2),
            ("learner.listen", "up.ports.learner", |config| config.learner.listen.set_port(9)),
            ("teacher_service.model", "`teacher`", |config| config.teacher_service.model = "sglang+http://x:1?tokenizer=/t".into()),
            ("learner.reward_range", "[-0.5, 1.2]", |config| config.learner.reward_range = [-0.1, 1.0]),
            ("learner.objective.opd_coef", "up.distill", |config| {
                (config.up.distill, config.learner.objective.opd_coef) = (false, 0.3);
            }),
            ("learner.sampling.temperature", "`sampling.train`", |config| config.learner.sampling.temperature = 0.5),
        ];
        for (key, instead, say) in cases {
            let mut config = Config::default();
            say(&mut config);
            let found = findings(&config);
            let keys: Vec<&str> = found.refused().iter().map(|finding| finding.key.as_str()).collect();
            assert_eq!(keys, [key]);
            assert!(found.refused()[0].message.contains(instead), "{}", found.refused()[0]);
        }
    }
}
