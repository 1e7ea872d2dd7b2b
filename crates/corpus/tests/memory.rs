//! A corpus is not kept in memory while it is indexed. A process of its own, so that nobody else's memory is counted.

use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hypereyes_corpus::{Inputs, build};

/// Bytes of texts for each thread that indexes, of which there are eight at most.
const TEXTS: usize = 96 << 20;
/// What may be in memory of texts and of their index at any moment: for each of these threads, and besides.
const EACH: u64 = 48 << 20;
const BESIDES: u64 = 64 << 20;
/// Texts that differ; they come again under other titles.
const DISTINCT: u64 = 10_000;

/// Memory that is this process's own, without files that are mapped.
fn own() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux says");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
}

#[test]
fn memory_does_not_grow_with_the_corpus() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("rows.jsonl");
    let mut out = BufWriter::new(std::fs::File::create(&path).expect("made"));
    let makers = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
    let (of_texts, bound) = (TEXTS * makers, EACH * makers as u64 + BESIDES);
    // Passages of a hundred words, of which some are in many and some in few.
    let passage = |at: u64| {
        let words: Vec<String> = (0..100).map(|word| format!("word{}", (at * 31 + word * word * 7) % (word * 50 + 3))).collect();
        words.join(" ")
    };
    let passages: Vec<String> = (0..DISTINCT).map(passage).collect();
    let (mut written, mut at) = (0, 0_u64);
    while written < of_texts {
        let text = &passages[(at % DISTINCT) as usize];
        written += text.len();
        at += 1;
        writeln!(out, "{{\"title\": \"passage {at}\", \"text\": \"{text}\"}}").expect("written");
    }
    out.flush().expect("written");
    let (before, most, end) = (own(), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (seen, ended) = (most.clone(), end.clone());
    let watching = std::thread::spawn(move || {
        while !ended.load(Ordering::Relaxed) {
            seen.fetch_max(own(), Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let inputs = Inputs { documents: vec![path], pictures: None };
    let built = build(&inputs, &folder.path().join("index"), None, &mut |_| {}).expect("builds");
    end.store(true, Ordering::Relaxed);
    watching.join().expect("watched");
    assert_eq!((built.documents, built.refused.total()), (at, 0));
    let grown = most.load(Ordering::Relaxed).saturating_sub(before);
    assert!(grown < bound, "{} MiB for {} MiB of texts", grown >> 20, of_texts >> 20);
}
