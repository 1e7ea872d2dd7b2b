//! What changes references, and what is remembered of it. In: nothing. Out: the words that journal, store and wire share.

use hypereyes_domain::{ActorId, GroupId, Reference, Task, TaskId};
use hypereyes_proto::limits::MAX_ID_BYTES;
use hypereyes_scoring::ReferenceMode;
use serde::{Deserialize, Serialize};

/// What a task asks, as a fingerprint: its question and its canonical right answer. Aliases and pictures may come and go.
///
/// A task id names a question for as long as its reference does: another question under the same id is another task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Print(pub u64);

impl Print {
    /// Of a task.
    pub fn of(task: &Task) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in [task.question.trim(), task.answer().trim()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let hash = hasher.finalize();
        Self(u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight bytes")))
    }

    /// The id under which the reference of a task is kept whose own id names another question.
    pub fn apart(self, id: &TaskId) -> TaskId {
        let print = format!("#{:016x}", self.0);
        let mut own = id.as_str();
        while own.len() + print.len() > MAX_ID_BYTES {
            own = own.char_indices().next_back().map_or("", |(at, _)| &own[..at]);
        }
        TaskId::new(format!("{own}{print}"))
    }
}

/// The rollout that showed a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Its group.
    pub group: GroupId,
    /// Its place in the group, from 0.
    pub rollout: u32,
    /// Who rolled it out.
    pub actor: ActorId,
}

/// Why a committed reference changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A candidate began to count at the end of an epoch.
    Commit,
    /// A success counted at once (mode `immediate`).
    Observation,
    /// It came from elsewhere: a task set, a checkpoint, another replica.
    Import,
    /// Somebody went back to an earlier snapshot: the one command that may loosen.
    Restore,
    /// A store of an earlier version held a reference that nobody can have reached; it is what it was before.
    Repair,
}

impl Cause {
    /// The label used in metrics and on the wire.
    pub fn label(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Observation => "observation",
            Self::Import => "import",
            Self::Restore => "restore",
            Self::Repair => "repair",
        }
    }
}

/// One change of one committed reference. Changes are numbered from 1, as are epochs that changed nothing; snapshot `s` is
/// what the first `s` of them made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its number.
    pub number: u64,
    /// Whose reference.
    pub task: TaskId,
    /// Why.
    pub cause: Cause,
    /// Epoch that the new reference counts from.
    pub epoch: u64,
    /// What it was.
    pub from: Option<Reference>,
    /// What it became; nothing only where a snapshot was restored in which the task had none.
    pub to: Option<Reference>,
    /// Who showed it; nothing where it was imported or restored.
    pub by: Option<Provenance>,
    /// Milliseconds since 1970 on this machine's clock: for people, never compared.
    pub at_ms: u64,
}

/// A command to change references.
#[derive(Clone, Debug)]
pub enum StoreCommand {
    /// A success was seen.
    Observe {
        /// When it counts.
        mode: ReferenceMode,
        /// Whose.
        task: TaskId,
        /// What it asks.
        print: Print,
        /// What it cost.
        seen: Reference,
        /// Who showed it.
        by: Provenance,
    },
    /// A task with a reference that came without its question asks this one.
    Claim {
        /// Whose.
        task: TaskId,
        /// What it asks.
        print: Print,
    },
    /// An epoch ended.
    Commit {
        /// Number of the epoch that begins.
        epoch: u64,
    },
    /// References came from elsewhere.
    Import {
        /// Epoch that they belong to.
        epoch: u64,
        /// The references.
        references: Vec<(TaskId, Reference)>,
    },
    /// Back to a snapshot.
    Restore {
        /// Its number.
        snapshot: u64,
    },
}

/// What became of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// False when nothing changed: the epoch had been committed before, nothing was tighter.
    pub applied: bool,
    /// Epoch afterwards.
    pub epoch: u64,
    /// Changes ever made, afterwards: the id of the snapshot.
    pub snapshot: u64,
    /// Tasks that got their first reference.
    pub adopted: u64,
    /// Tasks whose reference became tighter.
    pub tightened: u64,
    /// Tasks whose reference became looser or was taken away; only a restore does that.
    pub loosened: u64,
}
