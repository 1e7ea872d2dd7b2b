//! What scoring costs on one core: groups of eight by answers and costs, and the released reward from their transcripts.
//!
//! The peers on the same inputs: `bench/peers/trace.py` and `bench/peers/released.py`.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use hypereyes_domain::{RolloutGroup, RolloutSummary};
use hypereyes_scoring::compat::{Sample, reward_func};
use hypereyes_scoring::load::{self, Draws, group, task};
use hypereyes_scoring::{AliasJudge, ContainsJudge, TraceConfig, score_group};
use serde_json::Value;

/// Judge, bonus, reward and route: of groups that are in the nearest caches, as one is that was just read, and of more than fit.
fn groups(criterion: &mut Criterion) {
    let (mut draws, task, config) = (Draws::new(0), task(0), TraceConfig::default());
    let groups: Vec<RolloutGroup<RolloutSummary>> = (0..2048).map(|lease| group(&mut draws, lease, &task)).collect();
    let mut bench = criterion.benchmark_group("scoring");
    for count in [64, 2048] {
        bench.throughput(Throughput::Elements(count as u64));
        bench.bench_function(format!("{count} groups"), |bencher| {
            bencher.iter(|| {
                for group in &groups[..count] {
                    black_box(score_group(&config, &AliasJudge, &task, &group.rollouts, task.reference));
                }
            });
        });
    }
}

/// The released reward of the golden groups of eight, as they are and with observations as long as those of a real search; and of
/// drawn ones, all different and 3 kB a transcript: as many as fit the nearest caches (32 groups) and as do not (512, 14 MB).
fn transcripts(criterion: &mut Criterion) {
    let vectors: Value = serde_json::from_str(include_str!("../tests/data/reward_vectors.json")).expect("the vectors are JSON");
    let cases = vectors["reward_func"].as_array().expect("a list");
    let read = |case: &Value| serde_json::from_value::<Vec<Sample>>(case["samples"].clone()).expect("samples");
    let short: Vec<Vec<Sample>> = cases.iter().map(read).filter(|group| group.len() == 8).collect();
    let page = format!("<tool_response>{}", "A page that was found. ".repeat(100));
    let lengthen = |sample: &Sample| Sample { response: sample.response.replace("<tool_response>", &page), ..sample.clone() };
    let long = short.iter().map(|group| group.iter().map(lengthen).collect()).collect();
    let mut draws = Draws::new(0);
    let many: Vec<Vec<Sample>> = (0..512).map(|_| load::transcripts(&mut draws)).collect();
    let few = many[..32].to_vec();
    let mut bench = criterion.benchmark_group("scoring");
    for (name, groups) in [("transcripts", short), ("long transcripts", long), ("32 drawn", few), ("512 drawn", many)] {
        bench.throughput(Throughput::Elements(groups.len() as u64));
        bench.bench_function(name, |bencher| {
            bencher.iter(|| {
                for group in &groups {
                    black_box(reward_func(group, &ContainsJudge));
                }
            });
        });
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    groups(&mut criterion);
    transcripts(&mut criterion);
    criterion.final_summary();
}
