//! What two parts must agree on. In: the settings of both, and the shape of a model where it is known. Out: findings that name both
//! keys and the number that would do. The services of a cluster are looked at with the same functions.

use hypereyes_chassis::Findings;
use hypereyes_engines::EngineConfig;
use hypereyes_environment::VISIT;
use hypereyes_policy::config::ModelConfig;

use super::leaves::{differences, is_in};
use crate::config::Config;
use hypereyes_scoring::Distilled;

/// The deadline of an actor's call to have a group scored, in milliseconds.
const SCORING_MS: u64 = 120_000;

/// Learner, actors and teacher of one run.
pub struct Loop<'a> {
    /// The learner.
    pub learner: &'a hypereyes_learner::Config,
    /// Every actor.
    pub actor: &'a hypereyes_actor::Config,
    /// The service that scores failed rollouts with a model of its own.
    pub teacher: Option<&'a hypereyes_teacher_service::Config>,
    /// The table that says how long an episode may be.
    pub rollout: &'a str,
    /// The policy's shape.
    pub model: Option<&'a ModelConfig>,
}

/// What the services of a run know of each other.
pub fn of_loop(services: &Loop<'_>) -> Findings {
    let mut found = Findings::default();
    let Loop { learner, actor, teacher, rollout, model } = services;
    let (engine, episodes) = (&actor.engine, &actor.rollout);
    let siblings = learner.group_size as usize;
    match engine.holds_group("actor.engine", siblings, *model) {
        Err(message) => found.refuse("learner.group_size", message),
        // Turns that have no place at a server wait there for one.
        Ok(()) if engine.is_remote() => {}
        Ok(()) => {
            let slots = model.map_or(engine.max_sequences, |model| engine.slots(model));
            let at_once = slots / (siblings + 1).max(1);
            if actor.groups_in_flight > 2 * at_once.max(1) {
                let message = format!(
                    "is {}, but the engine holds {at_once} groups of learner.group_size = {siblings} at a time: the others wait, and fail after \
                     {rollout}.turn_timeout_s = {} s; give at most {}, or more actor.engine.cache_bytes and max_sequences",
                    actor.groups_in_flight,
                    episodes.turn_timeout_s,
                    2 * at_once.max(1)
                );
                found.warn("actor.groups_in_flight", message);
            }
        }
    }
    let (wants, has) = (episodes.max_context_tokens, engine.max_context);
    if wants > has {
        let message = format!(
            "is {wants}, but actor.engine.max_context holds {has} tokens: set actor.engine.max_context = {wants}, or give at most {has}"
        );
        found.refuse(format!("{rollout}.max_context_tokens"), message);
    }
    if let Some(teacher) = teacher {
        let longest = wants.min(has);
        if teacher.max_batch_tokens < longest {
            let message = format!(
                "is {}, but an episode may have {rollout}.max_context_tokens = {wants} tokens: the teacher refuses the long ones, which are then \
                 trained without its word; set teacher_service.max_batch_tokens = {longest}",
                teacher.max_batch_tokens
            );
            found.warn("teacher_service.max_batch_tokens", message);
        }
    }
    if learner.max_context_tokens < wants {
        let message = format!(
            "is {}, but an episode may have {rollout}.max_context_tokens = {wants} tokens, and longer ones would not be taken: set it to {wants}",
            learner.max_context_tokens
        );
        found.refuse("learner.max_context_tokens", message);
    }
    let lease_ms = learner.lease_s.saturating_mul(1000);
    if actor.heartbeat_ms >= lease_ms && learner.lease_s > 0 {
        let message = format!(
            "is {}, but a lease lives for learner.lease_s = {} s without a heartbeat: every lease would be lost; give at most {}, or set \
             learner.lease_s = {}",
            actor.heartbeat_ms,
            learner.lease_s,
            lease_ms / 2,
            (actor.heartbeat_ms.saturating_mul(2)).div_ceil(1000)
        );
        found.refuse("actor.heartbeat_ms", message);
    }
    if engine.is_remote() && learner.deterministic {
        let message = format!(
            "is true, but actor.engine.kind = {:?}: the bits are the same only where servers draw by seeds, whatever else they work on; \
             start SGLang with --enable-deterministic-inference, vLLM with VLLM_BATCH_INVARIANT=1",
            engine.kind
        );
        found.warn("learner.deterministic", message);
    }
    if engine.is_remote() && engine.reload_timeout_s > episodes.turn_timeout_s {
        let message = format!(
            "is {} s, but turns wait for as long while a server takes other weights, and after {rollout}.turn_timeout_s = {} s their \
             rollouts are masked; give at most that, or more there",
            engine.reload_timeout_s, episodes.turn_timeout_s
        );
        found.warn("actor.engine.reload_timeout_s", message);
    }
    if actor.search.deadline_s > episodes.turn_timeout_s as f64 {
        let message = format!(
            "is {} s, but a tool round ends after {rollout}.turn_timeout_s = {} s and masks its rollout: searches that are late are never \
             said to have failed",
            actor.search.deadline_s, episodes.turn_timeout_s
        );
        let table = rollout.strip_suffix("rollout").unwrap_or_default();
        found.warn(format!("{table}search.deadline_s"), message);
    }
    found
}

/// What episodes ask of searches, and what those can give.
pub fn of_search(config: &Config) -> Findings {
    let mut found = Findings::default();
    let (env, search) = (&config.rollout.env, &config.search);
    if env.tools.iter().any(|tool| tool == VISIT) && !search.reads_pages() {
        let message = format!(
            "names {VISIT}, but nobody in search.text reads pages ({:?}), and search.page names nobody: leave it out, or give a back end that does (docs/search.md)",
            search.text.backend
        );
        found.refuse("rollout.env.tools", message);
    }
    if let Some(unscored) = search.unscored().filter(|_| env.text_min_relevance > 0.0) {
        let message = format!(
            "is {}, but hits of {unscored} have no relevance, which counts as 0: none would ever be shown; set it to 0",
            env.text_min_relevance
        );
        found.refuse("rollout.env.text_min_relevance", message);
    }
    found
}

/// The engine of this process: the episodes of an evaluation, and its rollouts of one task.
pub fn of_engine(config: &Config, model: Option<&ModelConfig>) -> Findings {
    let mut found = Findings::default();
    if config.engine.speaks_text() {
        // How long a dialogue may be there, the server says. The defaults are those of the shipped policy, which does not think.
        let small = [
            ("max_turn_tokens", config.rollout.max_turn_tokens, 512, 1524),
            ("max_context_tokens", config.rollout.max_context_tokens, 4096, 38_000),
            ("max_closed_book_tokens", config.rollout.max_closed_book_tokens, 256, 1524),
        ];
        for (key, is, least, usual) in small.into_iter().filter(|(_, is, least, _)| is < least) {
            let message = format!(
                "is {is}, below {least}, which suits the shipped policy: what a larger model says is cut there, and counts as wrong; set {usual}"
            );
            found.warn(format!("rollout.{key}"), message);
        }
        return found;
    }
    let (wants, has) = (config.rollout.max_context_tokens, config.engine.max_context);
    if wants > has {
        let message =
            format!("is {wants}, but engine.max_context holds {has} tokens: set engine.max_context = {wants}, or give at most {has}");
        found.refuse("rollout.max_context_tokens", message);
    }
    if let Err(message) = config.engine.holds_group("engine", config.eval.samples, model) {
        found.refuse("eval.samples", message);
    }
    found
}

/// Whoever measures while the policy is trained: it needs servers of its own where servers sample, since actors put other versions into
/// theirs.
pub fn of_evaluator(config: &Config) -> Findings {
    let mut found = Findings::default();
    let (every, engine, own) = (config.eval.every, &config.engine, &config.evaluator.engine.url);
    let key = "evaluator.engine.url";
    if !own.is_empty() && !engine.is_remote() {
        found.refuse(key, format!("is set, but engine.kind is {:?}: the evaluator samples in its own process; leave it out", engine.kind));
        return found;
    }
    if let Some(shared) = own.iter().find(|own| engine.url.iter().any(|url| url.trim_end_matches('/') == own.trim_end_matches('/'))) {
        found.refuse(key, format!("is {shared}, which engine.url gives to an actor: the evaluator needs a server of its own"));
    }
    if every == 0 {
        let of_measuring = |key: &str| ["evaluator", "eval.every_tasks", "eval.best"].iter().any(|table| is_in(key, table));
        for said in differences(&Config::default(), config).into_iter().filter(|said| of_measuring(&said.key)) {
            found.warn(said.key, format!("is {}, but eval.every = 0: nobody measures while the policy is trained", said.is));
        }
        return found;
    }
    if engine.is_remote() && !engine.speaks_text() && engine.command.is_empty() {
        if own.is_empty() {
            let message = format!(
                "is {every}, but the servers in engine.url are the actors': name another one in {key}, or set eval.every = 0 and measure what \
                 was saved with `hypereyes eval`"
            );
            found.refuse("eval.every", message);
        } else {
            let alone = EngineConfig { url: own.clone(), ..engine.clone() };
            found.told("evaluator.engine", alone.check());
        }
    }
    if !engine.command.is_empty() && !own.is_empty() {
        found.refuse(key, "is set, but engine.command starts a server for the evaluator as for every actor: leave it out");
    }
    let steps = config.learner.steps;
    if every >= steps && steps > 0 {
        found.warn("eval.every", format!("is {every}, but learner.steps = {steps}: nothing is measured on the way"));
    }
    found
}

/// What only `up` knows: how it starts services and how long it waits for them.
pub fn of_up(config: &Config) -> Findings {
    let mut found = Findings::default();
    let (up, learner, actor) = (&config.up, &config.learner, &config.actor);
    if config.engine.speaks_text() {
        found.refuse("engine.kind", "is openai, but `up` measures the policy that it trains, and a chat endpoint has its own; give local");
    }
    if up.stall_timeout_s > 0 && up.stall_timeout_s <= learner.lease_s {
        let message = format!(
            "is {}, but the task of an actor that died is free only after learner.lease_s = {} s: set up.stall_timeout_s = {} or more",
            up.stall_timeout_s,
            learner.lease_s,
            learner.lease_s.saturating_mul(2)
        );
        found.refuse("up.stall_timeout_s", message);
    }
    let (actors, servers) = (config.actors(), config.engine.url.len());
    if actors < up.actors {
        let message =
            format!("is {}, but engine.url names {servers} servers, which an actor drives alone: {actors} are started", up.actors);
        found.warn("up.actors", message);
    }
    if let Some((key, name)) = config.search.layerless() {
        let message = format!(
            "is {name}, which is told nothing of layers, and the tasks that `up` makes are of counterfactual layers of the world: it finds \
             what is so in another one, unless its address stands for one layer and synth.layers for no other"
        );
        found.warn(format!("search.{key}.backend"), message);
    }
    if actor.grace_ms > up.grace_s.saturating_mul(1000) {
        let message = format!("is {}, but actors are killed after up.grace_s = {} s", actor.grace_ms, up.grace_s);
        found.warn("actor.grace_ms", message);
    }
    // Encoded and decoded, with room for one that is used while another comes.
    let [width, height] = config.synth.canvas.map(|side| side as usize);
    let least = width.saturating_mul(height).saturating_mul(12);
    let stores = [
        ("actor.pictures_bytes", actor.pictures_bytes),
        ("evaluator.pictures_bytes", config.evaluator.pictures_bytes),
        ("teacher_service.pictures_bytes", config.teacher_service.pictures_bytes),
    ];
    for (key, bytes) in stores.into_iter().filter(|(_, bytes)| *bytes > 0 && *bytes < least) {
        found.refuse(key, format!("is {bytes}, but a picture of synth.canvas = [{width}, {height}] would not stay: give at least {least}"));
    }
    let reward = &config.reward_service;
    if reward.judge.rule().is_none() && reward.judge_model.deadline_ms >= SCORING_MS {
        let message = format!(
            "is {}, but an actor gives a scoring call up after {SCORING_MS} ms and asks again: give less",
            reward.judge_model.deadline_ms
        );
        found.refuse("reward_service.judge_model.deadline_ms", message);
    }
    if !up.distill && config.reward_service.distilled != Distilled::default() {
        found.refuse("reward_service.distilled", "says who is taught, but up.distill = false: there is no teacher; leave one of them out");
    }
    if !up.distill && !config.teacher.as_os_str().is_empty() {
        found.warn("teacher", format!("is {}, but up.distill = false: nobody is taught", config.teacher.display()));
    }
    if config.up.tasks.as_os_str().is_empty() && config.synth.tasks > 0 && config.synth.tasks < learner.groups_per_step {
        let message = format!(
            "is {}, but synth.tasks = {} tasks are all there are: every step trains that many",
            learner.groups_per_step, config.synth.tasks
        );
        found.warn("learner.groups_per_step", message);
    }
    if up.distill && learner.objective.opd_coef == 0.0 {
        found.warn("learner.objective.opd_coef", "is 0: a teacher is started and its word counts nothing; up.distill = false spares it");
    }
    let speak = [
        ("learner.process.tls", true, learner.process.tls.is_some()),
        ("actor.process.tls", true, actor.process.tls.is_some()),
        ("reward_service.process.tls", true, config.reward_service.process.tls.is_some()),
        ("teacher_service.process.tls", up.distill, config.teacher_service.process.tls.is_some()),
        ("evaluator.process.tls", config.eval.every > 0, config.evaluator.process.tls.is_some()),
    ];
    let speak: Vec<(&str, bool)> = speak.into_iter().filter(|it| it.1).map(|(key, _, with)| (key, with)).collect();
    if let (Some((with, _)), Some((without, _))) = (speak.iter().find(|it| it.1), speak.iter().find(|it| !it.1)) {
        found.refuse(*with, format!("is set and {without} is not: services that speak differently never meet; set all or none"));
    }
    // Every service binds these in a process of its own.
    let ports = up.ports;
    let at = |port: u16| Some(std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, port)));
    found.ports(&[
        ("up.ports.learner", at(ports.learner)),
        ("up.ports.reward", at(ports.reward)),
        ("up.ports.teacher", at(ports.teacher)),
        ("learner.process.health_listen", learner.process.health_listen),
        ("reward_service.process.health_listen", config.reward_service.process.health_listen),
        ("teacher_service.process.health_listen", config.teacher_service.process.health_listen),
        ("actor.process.health_listen", actor.process.health_listen),
        ("evaluator.process.health_listen", config.evaluator.process.health_listen),
    ]);
    for (key, address, copies, of) in [
        ("actor.process.health_listen", actor.process.health_listen, actors, "up.actors"),
        ("learner.process.health_listen", learner.process.health_listen, up.ranks, "up.ranks"),
    ] {
        if address.is_some_and(|address| address.port() != 0) && copies > 1 {
            let address = address.map(|address| address.to_string()).unwrap_or_default();
            found.refuse(key, format!("is {address}, and {of} = {copies} processes would take it: give port 0, or set {of} = 1"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_episodes_ask_of_searches_must_be_there() {
        let mut config = Config::default();
        config.rollout.env.tools.push(VISIT.to_owned());
        assert!(of_search(&config).refused().is_empty(), "the world reads pages");
        config.search.text.backend = "serper".into();
        config.rollout.env.text_min_relevance = 0.6;
        let refused: Vec<String> = of_search(&config).refused().iter().map(|finding| finding.key.clone()).collect();
        assert_eq!(refused, ["rollout.env.tools", "rollout.env.text_min_relevance"]);
        config.search.text.fallbacks = vec![hypereyes_search::BackEndConfig { backend: "tavily".into(), ..Default::default() }];
        config.rollout.env.text_min_relevance = 0.0;
        assert!(of_search(&config).refused().is_empty(), "a fallback reads pages");
    }

    #[test]
    fn a_cache_a_budget_and_a_rate_of_the_whole_run_are_no_matter_of_each_actor() {
        let mut config = Config::default();
        config.search.text = hypereyes_search::BackEndConfig { backend: "serper".into(), per_second: 5.0, ..Default::default() };
        config.search.cache.path = Some("search.redb".into());
        config.search.budget.requests = 9;
        config.up.actors = 3;
        let found = of_up(&config);
        let warned: Vec<String> = found.warned().iter().map(ToString::to_string).collect();
        assert!(!found.is_refused() && warned.len() == 1, "{found:?}");
        assert!(warned[0].contains("search.text.backend") && warned[0].contains("nothing of layers"), "{warned:?}");
        config.search.text.backend = "http".into();
        config.search.text.url = "http://x".into();
        assert!(of_up(&config).warned().is_empty(), "our shape has a path for each layer");
    }

    fn of_services(
        change: fn(&mut hypereyes_learner::Config, &mut hypereyes_actor::Config, &mut hypereyes_teacher_service::Config),
    ) -> Findings {
        let config = Config::default();
        let mut actor = hypereyes_actor::Config { rollout: config.rollout.clone(), ..config.actor };
        let (mut learner, mut teacher) = (config.learner, config.teacher_service);
        change(&mut learner, &mut actor, &mut teacher);
        of_loop(&Loop { learner: &learner, actor: &actor, teacher: Some(&teacher), rollout: "rollout", model: None })
    }

    #[test]
    fn each_pair_is_refused_with_both_keys_and_the_number_that_would_do() {
        assert_eq!(of_services(|_, _, _| {}), Findings::default());
        let cases: [(&str, &[&str], Findings); 4] = [
            (
                "learner.group_size",
                &["actor.engine.max_sequences = 41", "at most 32"],
                of_services(|learner, _, _| learner.group_size = 40),
            ),
            (
                "rollout.max_context_tokens",
                &["actor.engine.max_context = 2000", "at most 768"],
                of_services(|_, actor, _| actor.rollout.max_context_tokens = 2000),
            ),
            (
                "actor.heartbeat_ms",
                &["learner.lease_s = 2 s", "learner.lease_s = 6"],
                of_services(|learner, actor, _| {
                    (learner.lease_s, actor.heartbeat_ms) = (2, 3000);
                }),
            ),
            ("up.stall_timeout_s", &["learner.lease_s = 20", "= 40"], {
                let mut config = Config::default();
                config.up.stall_timeout_s = 20;
                of_up(&config)
            }),
        ];
        for (key, parts, found) in cases {
            let [finding] = found.refused() else { panic!("{key}: {found:?}") };
            assert_eq!(finding.key, key);
            for part in parts {
                assert!(finding.message.contains(part), "{finding}");
            }
        }
    }

    #[test]
    fn what_works_badly_is_warned_of() {
        let warned = |found: Findings| found.warned().iter().map(ToString::to_string).collect::<Vec<_>>();
        let teacher = warned(of_services(|_, _, teacher| teacher.max_batch_tokens = 700));
        assert!(teacher.len() == 1 && teacher[0].contains("max_batch_tokens = 768"), "{teacher:?}");
        let crowded = warned(of_services(|_, actor, _| actor.groups_in_flight = 9));
        assert!(crowded.len() == 1 && crowded[0].contains("holds 3 groups") && crowded[0].contains("at most 6"), "{crowded:?}");
        let drawn = warned(of_services(|learner, actor, _| (actor.engine.kind, learner.deterministic) = ("sglang".into(), true)));
        assert!(drawn.len() == 1 && drawn[0].contains("--enable-deterministic-inference"), "{drawn:?}");
        let slow = warned(of_services(|_, actor, _| (actor.engine.kind, actor.engine.reload_timeout_s) = ("vllm".into(), 900)));
        assert!(slow.len() == 1 && slow[0].contains("turn_timeout_s = 600 s"), "{slow:?}");
        assert_eq!(warned(of_services(|_, actor, _| actor.engine.kind = "vllm".into())), Vec::<String>::new());
    }

    #[test]
    fn an_evaluator_never_takes_a_server_of_an_actor() {
        let of = |change: fn(&mut Config)| {
            let mut config = Config::default();
            config.engine.kind = "vllm".into();
            (config.engine.url, config.engine.policy_folder) = (vec!["http://a:1".into(), "http://b:1".into()], "/shared".into());
            config.eval.every = 10;
            change(&mut config);
            let found = of_evaluator(&config);
            found.refused().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let named = |found: Vec<String>, parts: [&str; 2]| {
            let [line] = &found[..] else { panic!("{found:?}") };
            assert!(line.starts_with(parts[0]) && line.contains(parts[1]), "{line}");
        };
        named(of(|_| {}), ["eval.every is 10", "evaluator.engine.url"]);
        named(of(|config| config.evaluator.engine.url = vec!["http://b:1/".into()]), ["evaluator.engine.url is http://b:1/", "engine.url"]);
        named(of(|config| config.evaluator.engine.url = vec!["c:1".into()]), ["evaluator.engine.url is no address", "http://"]);
        assert!(of(|config| config.evaluator.engine.url = vec!["http://c:1".into()]).is_empty());
        assert!(of(|config| config.eval.every = 0).is_empty());
        let command = |config: &mut Config| {
            config.engine.url.clear();
            config.engine.command = ["vllm", "serve", "{model}", "--port", "{port}"].map(str::to_owned).to_vec();
        };
        let mut started = Config::default();
        (started.engine.kind, started.engine.policy_folder, started.eval.every) = ("vllm".into(), "/shared".into(), 10);
        command(&mut started);
        assert!(!of_evaluator(&started).is_refused(), "it starts one for itself");
        let mut here = Config::default();
        here.evaluator.engine.url = vec!["http://c:1".into()];
        assert!(of_evaluator(&here).result().expect_err("nobody is called").to_string().starts_with("evaluator.engine.url is set"));
        here.evaluator.engine.url.clear();
        (here.eval.every, here.learner.steps) = (80, 80);
        assert!(of_evaluator(&here).warned()[0].to_string().contains("nothing is measured on the way"));
        let mut off = Config::default();
        (off.eval.every_tasks, off.evaluator.threads) = (5, 4);
        let inert: Vec<String> = of_evaluator(&off).warned().iter().map(|finding| finding.key.clone()).collect();
        assert_eq!(inert, ["eval.every_tasks", "evaluator.threads"]);
    }

    #[test]
    fn a_cache_that_cannot_hold_a_group_is_told_by_the_models_shape() {
        let shape = hypereyes_miniature::TinyConfig::default().model(1000, 1, 2, 3);
        let mut config = Config::default();
        // Keys and values of 4 layers of 4 heads of 32, in f32.
        let slot = 2 * 4 * 4 * 32 * 768 * 4;
        config.actor.engine.cache_bytes = slot * 8;
        let actor = hypereyes_actor::Config { rollout: config.rollout.clone(), ..config.actor.clone() };
        let of = |model| of_loop(&Loop { learner: &config.learner, actor: &actor, teacher: None, rollout: "rollout", model });
        assert!(!of(None).is_refused());
        let found = of(Some(&shape));
        let line = found.result().expect_err("eight siblings and a prompt need nine").to_string();
        assert!(line.contains(&format!("actor.engine.cache_bytes = {}", slot * 9)) && line.contains("at most 7"), "{line}");
        config.engine.cache_bytes = slot;
        config.eval.samples = 2;
        assert!(of_engine(&config, Some(&shape)).result().expect_err("two and a prompt").to_string().starts_with("eval.samples is 2"));
    }

    #[test]
    fn services_of_one_machine_get_ports_of_their_own_and_speak_alike() {
        let of = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            of_up(&config).refused().iter().map(|finding| finding.key.clone()).collect::<Vec<_>>()
        };
        assert!(of(|_| {}).is_empty());
        assert_eq!(of(|config| (config.up.ports.learner, config.up.ports.reward) = (7001, 7001)), ["up.ports.reward"]);
        assert_eq!(of(|config| config.actor.process.health_listen = "127.0.0.1:8086".parse().ok()), ["actor.process.health_listen"]);
        assert_eq!(of(|config| config.learner.process.tls = Some(hypereyes_chassis::TlsConfig::default())), ["learner.process.tls"]);
    }
}
