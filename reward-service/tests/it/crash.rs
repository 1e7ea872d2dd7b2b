//! The store dies at every write boundary, a thousand times and more, and is damaged on disk: what was acknowledged is
//! there, nothing loosens, and damage is said.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use hypereyes_domain::{Reference, TaskId};
use hypereyes_reward_service::change::{Print, Provenance, StoreCommand};
use hypereyes_reward_service::store::{Store, StoreError};
use hypereyes_scoring::{Known, ReferenceMode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use redb::StorageBackend;
use redb::backends::{FileBackend, InMemoryBackend};

/// Kills that the test makes.
const KILLS: u64 = 1000;

/// A file whose process dies at the `at`-th write, sync or change of length, in the middle of it or right before.
#[derive(Debug)]
struct Deadly {
    file: FileBackend,
    at: u64,
    done: AtomicU64,
}

type Done<T> = std::io::Result<T>;

impl Deadly {
    /// Whether this operation is the last one.
    fn last(&self) -> bool {
        self.done.fetch_add(1, Ordering::SeqCst) + 1 == self.at
    }
}

impl StorageBackend for Deadly {
    fn len(&self) -> Done<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Done<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Done<()> {
        if self.last() {
            std::process::abort();
        }
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Done<()> {
        if self.last() {
            std::process::abort();
        }
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Done<()> {
        if self.last() {
            if self.at.is_multiple_of(2) {
                // Torn: the first half has reached the file.
                self.file.write(offset, &data[..data.len() / 2])?;
            }
            std::process::abort();
        }
        self.file.write(offset, data)
    }
}

fn witness() -> Provenance {
    Provenance { group: "g@1".into(), rollout: 0, actor: "a".into() }
}

fn command(random: &mut StdRng, epoch: &mut u64) -> StoreCommand {
    let of = random.random_range(0..40);
    let (task, print) = (TaskId::new(format!("t{of}")), Print(of));
    let seen = Reference { rounds: random.random_range(1..2000), searches: random.random_range(0..9) };
    match random.random_range(0..10) {
        0 => {
            *epoch += 1;
            StoreCommand::Commit { epoch: *epoch }
        }
        1 => StoreCommand::Import { epoch: 0, references: vec![(task, seen)] },
        2 => StoreCommand::Observe { mode: ReferenceMode::Immediate, task, print, seen, by: witness() },
        _ => StoreCommand::Observe { mode: ReferenceMode::Epoch, task, print, seen, by: witness() },
    }
}

/// What the child does until it dies: commands, each told to the parent once it is acknowledged.
fn child(path: &Path, at: u64, seed: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
    let store = Store::on(Deadly { file: FileBackend::new(file).unwrap(), at, done: AtomicU64::new(0) }, path.to_owned()).unwrap();
    let mut random = StdRng::seed_from_u64(seed);
    let mut epoch = store.read().unwrap().1;
    let mut said = std::io::stdout().lock();
    loop {
        let commands: Vec<StoreCommand> = (0..random.random_range(1..4)).map(|_| command(&mut random, &mut epoch)).collect();
        let written = store.write(&commands).unwrap();
        for (task, known) in &written.known {
            let pair = |known: Option<Reference>| known.map_or((0, 0), |reference| (reference.rounds, reference.searches));
            let ((a, b), (c, d)) = (pair(known.committed()), pair(known.pending()));
            writeln!(said, "ack {task} {a} {b} {c} {d} {}", written.epoch).unwrap();
        }
        said.flush().unwrap();
    }
}

fn known(parts: &[u32]) -> Known {
    let mut known = Known::default();
    known.observe(ReferenceMode::Immediate, Reference { rounds: parts[0], searches: parts[1] });
    known.observe(ReferenceMode::Epoch, Reference { rounds: parts[2], searches: parts[3] });
    known
}

/// Whether `now` knows all that `then` knew, and nothing of it looser.
fn holds(now: &Known, then: &Known) -> bool {
    let best = |known: &Known| known.committed().into_iter().chain(known.pending()).min();
    let committed = then.committed().is_none_or(|then| now.committed().is_some_and(|now| now <= then));
    committed && best(then).is_none_or(|then| best(now).is_some_and(|now| now <= then))
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_loosens_over_a_thousand_kills_at_write_boundaries() {
    if let Ok(order) = std::env::var("CRASH_STORE") {
        let parts: Vec<&str> = order.split('|').collect();
        return child(Path::new(parts[0]), parts[1].parse().unwrap(), parts[2].parse().unwrap());
    }
    let folder = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(11);
    let (mut before, mut epoch_before) = (BTreeMap::<TaskId, Known>::new(), 0);
    let (mut kills, mut acknowledged) = (0, 0);
    while kills < KILLS {
        // A store does not live through more than some dozens of kills, so that opening and checking stays quick.
        let path = folder.path().join(format!("store-{}.redb", kills / 100));
        if kills % 100 == 0 {
            (before, epoch_before) = (BTreeMap::new(), 0);
        }
        let order = format!("{}|{}|{kills}", path.display(), random.random_range(1..120));
        let name = "crash::nothing_acknowledged_is_lost_and_nothing_loosens_over_a_thousand_kills_at_write_boundaries";
        let mut command = Command::new(std::env::current_exe().unwrap());
        let command = command.args(["--exact", name, "--nocapture"]).env("CRASH_STORE", &order).stderr(Stdio::null());
        let output = command.output().unwrap();
        assert!(!output.status.success(), "{order}: the child lives until it is killed");
        kills += 1;
        let said = String::from_utf8_lossy(&output.stdout);
        // The last line may be cut off by the kill, which is after its acknowledgement and before it was told.
        let whole = said.rfind('\n').map_or("", |end| &said[..end]);
        let (all, epoch, _) = Store::open_file(&path).unwrap_or_else(|error| panic!("{order}: {error}")).read().unwrap();
        for line in whole.lines().filter_map(|line| line.strip_prefix("ack ")) {
            let parts: Vec<&str> = line.split(' ').collect();
            let numbers: Vec<u32> = parts[1..5].iter().map(|part| part.parse().unwrap()).collect();
            let told = known(&numbers);
            let now = all.get(&TaskId::new(parts[0])).copied().unwrap_or_default();
            assert!(holds(&now, &told), "{order}: {} was told as {told:?} and is {now:?}", parts[0]);
            assert!(epoch >= parts[5].parse().unwrap(), "{order}: an epoch is lost");
            acknowledged += 1;
        }
        assert!(epoch >= epoch_before);
        for (task, then) in &before {
            assert!(all.get(task).is_some_and(|now| holds(now, then)), "{order}: {task} loosened");
        }
        (before, epoch_before) = (all, epoch);
    }
    println!("{kills} kills, {acknowledged} acknowledgements, none lost");
    assert!(acknowledged > KILLS, "children lived long enough to be told something: {acknowledged}");
}

/// A store that was written before questions were kept: it has everything but them, and gets them as tasks are scored.
#[test]
fn a_store_of_an_earlier_version_is_read_and_gets_its_questions() {
    const PRINTS: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("prints");
    let folder = tempfile::tempdir().unwrap();
    let observe = |print, rounds| StoreCommand::Observe {
        mode: ReferenceMode::Immediate,
        task: "t".into(),
        print: Print(print),
        seen: Reference { rounds, searches: 1 },
        by: witness(),
    };
    let store = Store::open(folder.path()).unwrap();
    store.write(&[observe(1, 3)]).unwrap();
    let want = store.read().unwrap();
    drop(store);
    let database = redb::Database::open(folder.path().join("references.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    assert!(transaction.delete_table(PRINTS).unwrap());
    transaction.commit().unwrap();
    drop(database);

    let store = Store::open(folder.path()).unwrap();
    assert_eq!((store.read().unwrap(), store.prints().unwrap().len()), (want, 0));
    // The first that comes has the id; what another question shows is none of its.
    let claims = [
        StoreCommand::Claim { task: "t".into(), print: Print(2) },
        StoreCommand::Claim { task: "t".into(), print: Print(3) },
        observe(3, 1),
        observe(2, 2),
    ];
    store.write(&claims).unwrap();
    assert_eq!(store.prints().unwrap().into_values().collect::<Vec<_>>(), [Print(2)]);
    assert_eq!(store.read().unwrap().0[&TaskId::new("t")].committed(), Some(Reference { rounds: 2, searches: 1 }));
    drop(store);
    assert_eq!(Store::open(folder.path()).unwrap().prints().unwrap().len(), 1, "also after a restart");
}

#[test]
fn truncated_and_flipped_stores_are_said_to_be_damaged_or_hold_what_was_written() {
    let memory = |bytes: &[u8]| {
        let backend = InMemoryBackend::new();
        backend.set_len(bytes.len() as u64).unwrap();
        backend.write(0, bytes).unwrap();
        backend
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("references.redb");
    let store = Store::open(folder.path()).unwrap();
    let (mut random, mut epoch) = (StdRng::seed_from_u64(5), 0);
    for _ in 0..60 {
        let commands = [command(&mut random, &mut epoch), command(&mut random, &mut epoch)];
        store.write(&commands).unwrap();
    }
    let want = store.read().unwrap();
    drop(store);
    let sound = std::fs::read(&path).unwrap();
    let (mut damaged, mut harmless) = (0, 0);
    for round in 0..600 {
        let mut bytes = sound.clone();
        if round % 3 == 0 {
            bytes.truncate(random.random_range(0..bytes.len()));
        } else {
            // Most of a young file is empty: flip where something is.
            let used: usize = loop {
                let at = random.random_range(0..bytes.len());
                if bytes[at] != 0 || random.random_range(0..200) == 0 {
                    break at;
                }
            };
            bytes[used] ^= 1 << random.random_range(0..8);
        }
        let empty = bytes.is_empty();
        match Store::on(memory(&bytes), PathBuf::from("damaged.redb")).and_then(|store| store.read()) {
            Ok(found) => {
                assert!(empty || found == want, "round {round}: something else than was written");
                harmless += 1;
            }
            Err(StoreError::Damaged { .. }) => damaged += 1,
            Err(other) => panic!("round {round}: {other}"),
        }
    }
    assert!(damaged > 300, "{damaged} said, {harmless} without effect");
}
