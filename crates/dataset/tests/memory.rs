//! What large sets cost: the memory of an import, which its size must not change, and the time in which a set opens. A process of its own,
//! so that nobody else's memory is counted.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hypereyes_dataset::Tasks;
use hypereyes_dataset::import::{Keys, Request, Source, import};
use hypereyes_pictures::{Limits, RgbImage};
use hypereyes_tables::{Cell, Shape, Writer};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

/// By how much the memory at the largest and at the smallest file may differ.
const APART: u64 = 50 << 20;
/// Side of a picture, which has nothing that can be compressed.
const SIDE: u32 = 640;
/// Pictures that show something else; they come again with other comments, as other files.
const DISTINCT: usize = 16;

/// Memory that is this process's own, without files that are mapped.
fn own() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux says");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
}

/// The most memory of this process while `work` runs.
fn most<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let (most, end) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (seen, ended) = (most.clone(), end.clone());
    let watching = std::thread::spawn(move || {
        while !ended.load(Ordering::Relaxed) {
            seen.fetch_max(own(), Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    let done = work();
    end.store(true, Ordering::Relaxed);
    watching.join().expect("watched");
    (done, most.load(Ordering::Relaxed))
}

fn noise(random: &mut StdRng) -> Vec<u8> {
    let mut pixels = vec![0; (SIDE * SIDE * 3) as usize];
    random.fill_bytes(&mut pixels);
    let image = RgbImage::from_raw(SIDE, SIDE, pixels).expect("all pixels");
    let mut out = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut out, 90).encode_image(&image).expect("encodes");
    out
}

/// The same picture with a comment: another file.
fn commented(jpeg: &[u8], number: u64) -> Vec<u8> {
    [&jpeg[..2], &[0xff, 0xfe, 0, 10], &number.to_be_bytes(), &jpeg[2..]].concat()
}

/// A file in verl's columns of about so many bytes, and how many rows it has.
fn parquet(path: &Path, bytes: u64) -> u64 {
    let mut random = StdRng::seed_from_u64(7);
    let pictures: Vec<Vec<u8>> = (0..DISTINCT).map(|_| noise(&mut random)).collect();
    let message = Shape::Struct(vec![("role", Shape::Text), ("content", Shape::Text)]);
    let picture = Shape::Struct(vec![("bytes", Shape::Bytes), ("path", Shape::Text)]);
    let columns = [
        ("data_source", Shape::Text),
        ("prompt", Shape::List(Box::new(message))),
        ("images", Shape::List(Box::new(picture))),
        ("reward_model", Shape::Struct(vec![("ground_truth", Shape::Text)])),
        ("extra_info", Shape::Struct(vec![("index", Shape::Int)])),
    ];
    let mut writer = Writer::create(path, &columns).expect("begins");
    let object = |fields: Vec<(&str, Cell)>| Cell::Struct(fields.into_iter().map(|(name, cell)| (name.to_owned(), cell)).collect());
    let (mut rows, mut written) = (0, 0);
    while written < bytes {
        let picture = commented(&pictures[rows as usize % DISTINCT], rows);
        written += picture.len() as u64;
        let content = Cell::Text(format!("<image>Which one is number {rows}?"));
        let row = vec![
            ("data_source", Cell::Text("noise".into())),
            ("prompt", Cell::List(vec![object(vec![("role", Cell::Text("user".into())), ("content", content)])])),
            ("images", Cell::List(vec![object(vec![("bytes", Cell::Bytes(picture))])])),
            ("reward_model", object(vec![("ground_truth", Cell::Text(format!("answer {rows}")))])),
            ("extra_info", object(vec![("index", Cell::Int(rows as i64))])),
        ];
        writer.push(object(row)).expect("writes");
        rows += 1;
    }
    assert_eq!(writer.finish().expect("ends").1, rows);
    rows
}

/// `HYPEREYES_GB=1,4,8` are the sizes, and `HYPEREYES_SCRATCH` where there is room for twice the largest.
#[test]
#[ignore = "slow: minutes, and 16 GB of disk; cargo test --release -p hypereyes-dataset --test memory -- --ignored --nocapture memory_of"]
fn memory_of_an_import_does_not_grow_with_the_file() {
    let sizes = std::env::var("HYPEREYES_GB").unwrap_or_else(|_| "1,4,8".into());
    let scratch = std::env::var_os("HYPEREYES_SCRATCH").map_or_else(std::env::temp_dir, Into::into);
    let mut seen = Vec::new();
    for size in sizes.split(',') {
        let gigabytes: f64 = size.trim().parse().expect("HYPEREYES_GB is numbers");
        let folder = tempfile::tempdir_in(&scratch).expect("a temporary folder");
        let (path, out) = (folder.path().join("rows.parquet"), folder.path().join("set"));
        let rows = parquet(&path, (gigabytes * 1e9) as u64);
        let sources = vec![Source { path: path.clone(), from: 0, to: None }];
        let limits = Limits::default();
        let request = Request { sources, format: None, keys: Keys::default(), anywhere: false, fetch: None, held_out: None, limits };
        let began = Instant::now();
        let (summary, memory) = most(|| import(&request, &out, &mut |_| {}).expect("imports"));
        assert_eq!((summary.tasks, summary.pictures, summary.refused_total), (rows, rows, 0), "{:?}", summary.refused);
        let on_disk = std::fs::metadata(&path).expect("is there").len();
        println!("{:.2} GB, {rows} rows: {} MiB at most, {:.1} s", on_disk as f64 / 1e9, memory >> 20, began.elapsed().as_secs_f64());
        seen.push(memory);
    }
    let (least, most) = (seen.iter().min().expect("some"), seen.iter().max().expect("some"));
    assert!(most - least < APART, "{} to {} MiB", least >> 20, most >> 20);
}

#[test]
#[ignore = "slow: measures; cargo test --release -p hypereyes-dataset --test memory -- --ignored --nocapture a_hundred"]
fn a_hundred_thousand_tasks_open_in_under_a_second_and_are_not_held() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut lines = String::new();
    for at in 0..100_000 {
        let row = serde_json::json!({
            "id": format!("set/part/{at:06}"), "kind": "news", "question": format!("Which of the {at} on the picture was founded first, and by whom?"),
            "answers": ["Leica", "Leica Camera", "Ernst Leitz"], "pictures": [format!("{:064x}", at), format!("{:064x}", at + 1)],
            "reference": {"rounds": 2, "searches": 5},
            "metadata": {"data_source": "x", "extra_info": {"index": at, "split": "train", "text": "y".repeat(600)}},
        });
        lines.push_str(&row.to_string());
        lines.push('\n');
    }
    let bytes = lines.len();
    std::fs::write(folder.path().join("tasks.jsonl"), lines).expect("written");
    let (before, began) = (own(), Instant::now());
    let (tasks, memory) = most(|| Tasks::open(folder.path()).expect("opens"));
    let memory = memory.saturating_sub(before);
    let seconds = began.elapsed().as_secs_f64();
    println!("{} tasks of {} MB: {seconds:.3} s, {} MiB", tasks.len(), bytes / 1_000_000, memory >> 20);
    assert_eq!(tasks.get(99_999).expect("reads").id.as_str(), "set/part/099999");
    assert!(seconds < 1.0 && memory < 32 << 20, "{seconds} s, {memory} bytes");
}
