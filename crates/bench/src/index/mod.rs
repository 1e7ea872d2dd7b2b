//! A corpus of one's own: how long it takes to index, in how much memory, how fast it is searched, and whether the best are found.
//!
//! In: how many documents and pictures, a vision tower. Out: rows for texts and for pictures, each by itself: building, opening, queries
//! one after the other and some at once. Documents and picture files are generated (`generate.rs`) and stay in the folder that is named,
//! so that the next run finds them; what is exactly right is computed without the index (`exact.rs`).

mod exact;
mod generate;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hypereyes_corpus::vectors;
use hypereyes_corpus::{Corpus, Inputs, Sight, build};
use hypereyes_environment::{Hit, Query, Search};
use hypereyes_policy::device::Device;
use serde_json::{Map, Value, json};

use crate::{peak_bytes, resident_bytes, status_bytes};

/// What is measured.
#[derive(Clone, Debug)]
pub struct Load {
    /// Documents; 0 leaves texts out.
    pub documents: u64,
    /// Pictures; 0 leaves them out.
    pub pictures: usize,
    /// Sides of a picture in pixels.
    pub side: u32,
    /// Queries of each kind.
    pub queries: usize,
    /// Queries at once, the second time.
    pub at_once: usize,
    /// Where the tower computes.
    pub device: Device,
}

/// Hits that are compared with the best.
const TOP: usize = 3;

/// Measures in `folder`, with the tower of the model folder `model`. What was generated there before for the same seed is used again.
///
/// # Errors
/// A disk that is full, or a model that cannot be read.
pub fn measure(load: &Load, model: &Path, folder: &Path, seed: u64) -> Result<Vec<Map<String, Value>>> {
    let mut rows = vec![];
    let mut add = |row: Value| {
        if let Value::Object(row) = row {
            rows.push(row);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the async runtime")?;
    if load.documents > 0 {
        let of = generate::Documents::new(seed, load.documents);
        let file = folder.join(format!("documents-{seed}-{}.jsonl", load.documents));
        let (seconds, bytes) = timed(|| generate::documents(&of, &file))?;
        add(json!({"case": "documents written", "documents": load.documents, "seconds": seconds, "bytes": bytes}));
        let inputs = Inputs { documents: vec![file], pictures: None };
        let index = folder.join("texts.index");
        add(built(&inputs, &index, None, "texts built", load.documents)?);
        let (corpus, row) = opened(&index, "texts opened", || unreachable!("no pictures"))?;
        add(row);
        let asked = of.queries(load.queries);
        let queries: Vec<Query> = asked.iter().map(|asked| Query::Text(asked.words.clone())).collect();
        let (found, row) = runtime.block_on(searched(&corpus, &queries, load.at_once, "texts searched"))?;
        add(row);
        let numbers: Vec<Vec<u64>> = found.iter().map(|hits| hits.iter().take(TOP).filter_map(generate::number).collect()).collect();
        let (seconds, recall) = timed(|| Ok(exact::texts(&of, &asked, &numbers, TOP)))?;
        add(json!({"case": "texts compared with BM25 over all documents", "recall_at_3": recall, "seconds": seconds}));
    }
    if load.pictures > 0 {
        let of = generate::Pictures { seed, count: load.pictures, side: load.side };
        let below = folder.join(format!("pictures-{seed}-{}-{}", load.pictures, load.side));
        let (seconds, bytes) = timed(|| generate::pictures(&of, &below))?;
        add(json!({"case": "pictures written", "pictures": load.pictures, "side": load.side, "seconds": seconds, "bytes": bytes}));
        let sight = Sight::load(model, load.device)?;
        let inputs = Inputs { documents: vec![], pictures: Some(below) };
        let index = folder.join("pictures.index");
        add(built(&inputs, &index, Some(&sight), "pictures built", load.pictures as u64)?);
        let (corpus, row) = opened(&index, "pictures opened", || Ok(sight))?;
        add(row);
        let asked = of.queries(load.queries);
        let queries: Vec<Query> = asked.iter().map(|(_, picture)| Query::Picture(picture.clone())).collect();
        let (found, row) = runtime.block_on(searched(&corpus, &queries, load.at_once, "pictures searched"))?;
        add(row);
        let right = asked.iter().zip(&found).filter(|((at, _), hits)| hits.first().is_some_and(|hit| hit.title == of.title(*at))).count();
        add(apart(&corpus, &queries, right as f64 / asked.len().max(1) as f64, &folder.join("pictures.queries.f32"))?);
    }
    Ok(rows)
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let began = Instant::now();
    let done = work()?;
    Ok((began.elapsed().as_secs_f64(), done))
}

fn built(inputs: &Inputs, index: &Path, sight: Option<&Sight>, case: &str, count: u64) -> Result<Value> {
    if index.exists() {
        std::fs::remove_dir_all(index)?;
    }
    let watch = Watch::start();
    let (seconds, built) = timed(|| Ok(build(inputs, index, sight, &mut |_| {})?))?;
    let (peak, own) = watch.stop();
    anyhow::ensure!(built.documents + built.pictures == count, "{} were refused", built.refused.total());
    Ok(json!({
        "case": case, "build_s": seconds, "per_s": count as f64 / seconds, "peak_bytes": peak, "peak_own_bytes": own,
        "index_bytes": built.bytes,
    }))
}

fn opened(index: &Path, case: &str, sight: impl FnOnce() -> Result<Sight, hypereyes_corpus::Error>) -> Result<(Corpus, Value)> {
    let (seconds, corpus) = timed(|| Ok(Corpus::open(index, sight)?))?;
    Ok((corpus, json!({"case": case, "open_s": seconds, "resident_bytes": resident_bytes()})))
}

/// All queries one after the other, then some at once; what was found, the same both times.
async fn searched(corpus: &Corpus, queries: &[Query], at_once: usize, case: &str) -> Result<(Vec<Vec<Hit>>, Value)> {
    // The first ones bring files into memory.
    for query in queries.iter().take(20) {
        corpus.search(0, std::slice::from_ref(query)).await;
    }
    let watch = Watch::start();
    let (found, alone) = in_turns(corpus.clone(), queries.to_vec(), 1).await?;
    let (again, together) = in_turns(corpus.clone(), queries.to_vec(), at_once).await?;
    let (peak, own) = watch.stop();
    anyhow::ensure!(found == again, "the same queries found other hits when {at_once} were asked at once");
    let row = json!({
        "case": case, "queries": queries.len(),
        "p50_ms": quantile(&alone.times, 0.5), "p99_ms": quantile(&alone.times, 0.99), "per_s": alone.per_second,
        "at_once": at_once,
        "p50_at_once_ms": quantile(&together.times, 0.5), "p99_at_once_ms": quantile(&together.times, 0.99),
        "per_s_at_once": together.per_second,
        "peak_bytes": peak, "peak_own_bytes": own,
    });
    Ok((found, row))
}

/// Milliseconds of each, and how many were answered in a second.
struct Times {
    times: Vec<f64>,
    per_second: f64,
}

async fn in_turns(corpus: Corpus, queries: Vec<Query>, at_once: usize) -> Result<(Vec<Vec<Hit>>, Times)> {
    let (next, queries, began) = (Arc::new(AtomicUsize::new(0)), Arc::new(queries), Instant::now());
    let asker = || {
        let (corpus, next, queries) = (corpus.clone(), next.clone(), queries.clone());
        tokio::spawn(async move {
            let mut answers = vec![];
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(query) = queries.get(at) else { return anyhow::Ok(answers) };
                let began = Instant::now();
                let outcome = corpus.search(0, std::slice::from_ref(query)).await.pop();
                let hits = outcome.context("an outcome for each query")??;
                answers.push((at, hits, began.elapsed().as_secs_f64() * 1e3));
            }
        })
    };
    let askers: Vec<_> = (0..at_once).map(|_| asker()).collect();
    let mut answers = vec![];
    for asker in askers {
        answers.extend(asker.await??);
    }
    let per_second = answers.len() as f64 / began.elapsed().as_secs_f64();
    answers.sort_by_key(|(at, ..)| *at);
    let times = answers.iter().map(|(.., time)| *time).collect();
    Ok((answers.into_iter().map(|(_, hits, _)| hits).collect(), Times { times, per_second }))
}

/// What a picture's query is made of, and whether the best were found. The queries' vectors stay in a file, for `bench/vectors`.
fn apart(corpus: &Corpus, queries: &[Query], right: f64, keep: &Path) -> Result<Value> {
    let all = corpus.vectors().context("pictures are there")?;
    let (mut seen, mut tower, mut scan) = (vec![], vec![], vec![]);
    for query in queries {
        let Query::Picture(picture) = query else { continue };
        let began = Instant::now();
        seen.extend(corpus.see(&[&**picture])?.context("pictures are there")?);
        tower.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let mut kept = vectors::Writer::create(keep, all.width())?;
    seen.iter().try_for_each(|vector| kept.add(vector))?;
    kept.finish()?;
    let mut recall = vec![];
    for vector in &seen {
        let began = Instant::now();
        let found = all.nearest(std::slice::from_ref(vector), TOP);
        scan.push(began.elapsed().as_secs_f64() * 1e3);
        recall.push(exact::pictures(all, vector, &found[0], TOP));
    }
    Ok(json!({
        "case": "pictures compared with all vectors in 64 bits", "recall_at_3": recall.iter().sum::<f64>() / recall.len().max(1) as f64,
        "altered_found_first": right, "width": all.width(),
        "tower_p50_ms": quantile(&tower, 0.5), "tower_p99_ms": quantile(&tower, 0.99),
        "scan_p50_ms": quantile(&scan, 0.5), "scan_p99_ms": quantile(&scan, 0.99),
    }))
}

/// The value below which so much of the values lies; at least one value.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// Watches memory: all that is resident, files that are mapped included, and what is the process's own.
struct Watch {
    end: Arc<AtomicBool>,
    own: Arc<AtomicU64>,
    watching: std::thread::JoinHandle<()>,
}

impl Watch {
    /// Begins anew: the system forgets the highest so far where it can.
    fn start() -> Self {
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        let (end, own) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ended, most) = (end.clone(), own.clone());
        let watching = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                most.fetch_max(status_bytes("RssAnon:").unwrap_or(0), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { end, own, watching }
    }

    fn stop(self) -> (Option<u64>, u64) {
        self.end.store(true, Ordering::Relaxed);
        // It does nothing that could fail.
        let _ = self.watching.join();
        (peak_bytes(), self.own.load(Ordering::Relaxed))
    }
}

/// The shipped policy, unpacked below `folder`.
///
/// # Errors
/// A build without one.
pub fn shipped(folder: &Path) -> Result<PathBuf> {
    let policy = folder.join("policy");
    hypereyes_miniature::shipped::Shipped::Policy.unpack(&policy)?;
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_corpus_is_measured_and_its_best_are_found() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let load = Load { documents: 3000, pictures: 150, side: 64, queries: 60, at_once: 4, device: Device::Cpu };
        let model = shipped(folder.path()).expect("it is there");
        let rows = measure(&load, &model, folder.path(), 3).expect("measures");
        let of = |case: &str, key: &str| {
            let row = rows.iter().find(|row| row["case"].as_str().is_some_and(|name| name.starts_with(case)));
            row.and_then(|row| row[key].as_f64()).unwrap_or_else(|| panic!("{case} {key}: {rows:?}"))
        };
        assert!(of("texts compared", "recall_at_3") > 0.95, "{rows:?}");
        assert_eq!(of("pictures compared", "recall_at_3"), 1.0);
        assert!(of("pictures compared", "altered_found_first") > 0.5, "{rows:?}");
        assert!(of("texts searched", "p50_ms") <= of("texts searched", "p99_ms"));
        assert!(of("pictures built", "peak_bytes") > 0.0 && of("texts built", "per_s") > 0.0);
        // What was written is found again.
        let again = measure(&load, &model, folder.path(), 3).expect("measures");
        assert_eq!((again.len(), &again[0]["bytes"]), (rows.len(), &rows[0]["bytes"]));
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.99), quantile(&values[..1], 0.99)), (100.0, 198.0, 200.0));
    }
}
