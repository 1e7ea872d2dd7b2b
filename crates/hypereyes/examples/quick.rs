use std::sync::Arc;
use hypereyes_chat::Chat;
use hypereyes_eval::*;
use hypereyes_policy::engine::*;
use hypereyes_rollout::*;
use hypereyes_search::*;
use hypereyes_synth::DataSet;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let (model, data, n, t) = (std::path::PathBuf::from(&args[1]), std::path::PathBuf::from(&args[2]), args[3].parse::<usize>().unwrap(), args[4].parse::<f32>().unwrap());
    let rt = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    rt.block_on(async {
        let chat = Arc::new(Chat::load(&model).unwrap());
        let world = Arc::new(World::embedded().unwrap());
        let config = RolloutConfig { max_turn_tokens: 128, max_context_tokens: 768, temperature: 1.0, top_p: 1.0,
            env: EnvConfig { crop_pictures: false, image_hits: 1, text_hits: 1, ..EnvConfig::default() }, ..RolloutConfig::default() };
        let setup = Setup { chat: chat.clone(), search: Arc::new(EmbeddedSearch::new(world)), config };
        let engine = Engine::load(&model, EngineConfig { max_sequences: 64, end_token: chat.end_token(), ..Default::default() }, Default::default()).unwrap();
        let set = DataSet::load(&data, &Default::default()).unwrap();
        let tasks = TaskSet { tasks: set.tasks.into_iter().take(n).collect(), pictures: set.pictures.into_iter().map(|(id, p)| (id, Arc::new(p.image.clone()))).collect() };
        let judge = hypereyes_scoring::AliasJudge;
        let ev = EvalConfig { temperature: t, top_p: if t > 0.9 { 1.0 } else { 0.7 }, concurrency: 48, ..Default::default() };
        let began = std::time::Instant::now();
        let mut shown = 0;
        let report = evaluate(&setup, &engine, &judge, &tasks, &ev, |_| {}, |task, tr, v| { if shown < 6 { shown += 1; eprintln!("{} {:?} want {:?}\n{}\n", task.question, v, task.answers, chat.decode(&tr.response)); } }).await;
        println!("{}\n{:.1}s", serde_json::to_string_pretty(&report).unwrap(), began.elapsed().as_secs_f64());
    });
}
