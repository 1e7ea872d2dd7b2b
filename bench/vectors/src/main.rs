//! Nearest vectors: looking at all of them, as the product does, beside a graph (`hnsw_rs`).
//!
//! In: a file of rows and one of queries, 32-bit floats, as `hypereyes bench index --folder DIR` leaves them; or a width and a count, for
//! rows without any order, which are looked at one and all. Out: a line of JSON for each way: building, loading, p50 and p99 of a query, recall@3.
//!
//! ```text
//! cargo run --release -- DIR/pictures.index/pictures.f32 DIR/pictures.queries.f32 128
//! cargo run --release -- 100000 200 2048
//! ```

#[path = "../../../crates/corpus/src/vectors.rs"]
#[allow(dead_code)]
mod vectors;

use std::path::Path;
use std::time::Instant;

use hnsw_rs::hnswio::HnswIo;
use hnsw_rs::prelude::{AnnT, DistL2, Hnsw};
use vectors::Vectors;

/// Neighbours in the graph, and candidates while it is built: what is usual.
const NEIGHBOURS: usize = 16;
const CANDIDATES: usize = 200;
/// Hits that are compared.
const TOP: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [rows, queries, width] = arguments.as_slice() else {
        eprintln!("usage: hypereyes-vectors ROWS QUERIES WIDTH, where ROWS and QUERIES are files or numbers");
        std::process::exit(2);
    };
    let width: usize = width.parse().expect("WIDTH is a number");
    let is_drawn = rows.parse::<usize>().is_ok();
    let (rows, queries) = (read(rows, width, 1), read(queries, width, 2));
    let asked: Vec<Vec<f32>> = (0..queries.len()).map(|at| queries.row(at).to_vec()).collect();
    let (best, times) = each(&asked, |query| rows.nearest(std::slice::from_ref(query), TOP)[0].iter().map(|(at, _)| *at).collect());
    println!(r#"{{"way": "all", "rows": {}, "width": {width}, {times}, "recall_at_3": 1.0}}"#, rows.len());
    if is_drawn {
        // Rows without any order say nothing of a graph.
        return;
    }
    for parallel in [false, true] {
        let graph = Hnsw::<f32, DistL2>::new(NEIGHBOURS, rows.len(), 16, CANDIDATES, DistL2 {});
        let all: Vec<Vec<f32>> = (0..rows.len()).map(|at| rows.row(at).to_vec()).collect();
        let before = memory();
        let began = Instant::now();
        if parallel {
            graph.parallel_insert(&all.iter().enumerate().map(|(at, row)| (row, at)).collect::<Vec<_>>());
        } else {
            all.iter().enumerate().for_each(|(at, row)| graph.insert((row, at)));
        }
        let built = began.elapsed().as_secs_f64();
        let bytes = memory().saturating_sub(before);
        drop(all);
        let folder = std::env::temp_dir().join(format!("hypereyes-vectors-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("made");
        let name = graph.file_dump(&folder, "graph").expect("written");
        drop(graph);
        let began = Instant::now();
        let mut files = HnswIo::new(&folder, &name);
        let mut graph = files.load_hnsw::<f32, DistL2>().expect("reads");
        let loaded = began.elapsed().as_secs_f64();
        graph.set_searching_mode(true);
        for looked_at in [16, 64, 256] {
            let find = |query: &Vec<f32>| graph.search(query, TOP, looked_at).iter().map(|found| found.d_id).collect();
            let (found, times) = each(&asked, find);
            println!(
                r#"{{"way": "graph", "parallel": {parallel}, "looked_at": {looked_at}, "build_s": {built:.2}, "load_s": {loaded:.3}, "bytes": {bytes}, "disk_bytes": {}, {times}, "recall_at_3": {:.4}}}"#,
                disk(&folder),
                recall(&rows, &asked, &best, &found)
            );
        }
        drop(graph);
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}

/// What each query gives, and how long it took.
fn each(asked: &[Vec<f32>], find: impl Fn(&Vec<f32>) -> Vec<usize>) -> (Vec<Vec<usize>>, String) {
    asked.iter().take(20).for_each(|query| drop(find(query)));
    let mut times = vec![];
    let found = asked
        .iter()
        .map(|query| {
            let began = Instant::now();
            let found = find(query);
            times.push(began.elapsed().as_secs_f64() * 1e3);
            found
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let quantile = |part: f64| times[((times.len() as f64 * part).ceil() as usize).clamp(1, times.len()) - 1];
    (found, format!(r#""p50_ms": {:.3}, "p99_ms": {:.3}"#, quantile(0.5), quantile(0.99)))
}

/// Of equals each is as good as the others.
fn recall(rows: &Vectors, asked: &[Vec<f32>], best: &[Vec<usize>], found: &[Vec<usize>]) -> f64 {
    let product =
        |query: &[f32], at: usize| query.iter().zip(rows.row(at)).map(|(one, other)| f64::from(*one) * f64::from(*other)).sum::<f64>();
    let part = |((query, best), found): ((&Vec<f32>, &Vec<usize>), &Vec<usize>)| {
        let least = best.iter().map(|at| product(query, *at)).fold(f64::INFINITY, f64::min);
        found.iter().filter(|at| product(query, **at) >= least - 1e-6).count() as f64 / best.len() as f64
    };
    asked.iter().zip(best).zip(found).map(part).sum::<f64>() / asked.len() as f64
}

fn read(from: &str, width: usize, seed: u64) -> Vectors {
    match from.parse::<usize>() {
        Ok(count) => drawn(count, width, seed),
        Err(_) => {
            let path = Path::new(from);
            let bytes = std::fs::metadata(path).expect("the file is there").len() as usize;
            Vectors::read(path, width, bytes / 4 / width).expect("rows of that width")
        }
    }
}

/// Rows without any order, of length 1.
fn drawn(count: usize, width: usize, seed: u64) -> Vectors {
    let mut state = seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut values = Vec::with_capacity(count * width);
    for _ in 0..count {
        let row: Vec<f32> = (0..width).map(|_| next()).collect();
        let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
        values.extend(row.iter().map(|value| value / length));
    }
    Vectors::new(width, values)
}

fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}

fn disk(folder: &Path) -> u64 {
    std::fs::read_dir(folder).expect("is there").filter_map(|entry| entry.ok()?.metadata().ok()).map(|about| about.len()).sum()
}
