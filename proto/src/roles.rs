//! Who may call what.
//!
//! In: the path of an RPC. Out: the roles that may call it, for servers that know their peers' names. What is not in the
//! table may be called by nobody; a test holds it against the services' descriptors.

use std::collections::HashMap;
use std::sync::LazyLock;

/// What a process is to the others, as its certificate says: `spiffe://hypereyes/<namespace>/sa/<role>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Rolls out.
    Actor,
    /// A rank of the training job.
    Learner,
    /// Scores, and keeps references.
    Reward,
    /// Measures versions while they are trained.
    Evaluator,
    /// Gives log-probs; one that stands in front of others calls them.
    Teacher,
    /// A person, or what acts for one.
    Operator,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Actor, Self::Learner, Self::Reward, Self::Evaluator, Self::Teacher, Self::Operator];

    /// Its name in certificates.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Actor => "actor",
            Self::Learner => "learner",
            Self::Reward => "reward",
            Self::Evaluator => "evaluator",
            Self::Teacher => "teacher",
            Self::Operator => "operator",
        }
    }
}

use Role::{Actor, Evaluator, Learner, Operator, Teacher};

/// Every RPC, and who may call it.
pub const TABLE: &[(&str, &[Role])] = &[
    ("/hypereyes.v1.Learner/LeaseTask", &[Actor]),
    ("/hypereyes.v1.Learner/Submit", &[Actor]),
    ("/hypereyes.v1.Learner/Heartbeat", &[Actor]),
    ("/hypereyes.v1.Learner/Abandon", &[Actor]),
    ("/hypereyes.v1.Learner/GetPolicyVersion", &[Actor, Evaluator, Operator]),
    ("/hypereyes.v1.Learner/WatchPolicyVersions", &[Actor, Evaluator, Operator]),
    ("/hypereyes.v1.Learner/FetchWeights", &[Actor, Evaluator]),
    ("/hypereyes.v1.Learner/GetPictures", &[Actor]),
    ("/hypereyes.v1.Learner/PutPictures", &[Actor]),
    ("/hypereyes.v1.Learner/Status", &[Actor, Evaluator, Operator]),
    // Ends the run for everybody.
    ("/hypereyes.v1.Learner/Stop", &[Operator]),
    // The other ranks.
    ("/hypereyes.v1.Learner/Meet", &[Learner]),
    ("/hypereyes.v1.Reward/ScoreGroup", &[Actor]),
    ("/hypereyes.v1.Reward/ScoreStream", &[Actor]),
    ("/hypereyes.v1.Reward/GetReference", &[Actor, Operator]),
    // An epoch is the learner's to end.
    ("/hypereyes.v1.Reward/CommitEpoch", &[Learner]),
    ("/hypereyes.v1.Reward/ExportReferences", &[Learner, Operator]),
    ("/hypereyes.v1.Reward/ImportReferences", &[Learner, Operator]),
    ("/hypereyes.v1.Reward/GetHistory", &[Operator]),
    // The only way to loosen a reference: for whoever goes back to a checkpoint.
    ("/hypereyes.v1.Reward/RestoreReferences", &[Learner]),
    ("/hypereyes.v1.Teacher/ScoreTokens", &[Actor, Teacher, Operator]),
    ("/hypereyes.v1.Teacher/PutPictures", &[Actor, Teacher, Operator]),
    ("/hypereyes.v1.Teacher/ListModels", &[Teacher, Operator]),
    ("/hypereyes.v1.Teacher/LoadModel", &[Operator]),
    ("/hypereyes.v1.Teacher/PromoteModel", &[Operator]),
    ("/hypereyes.v1.Teacher/RetireModel", &[Operator]),
];

/// Names of the roles that may call the RPC at `path`; `None` when there is no such RPC. What a server's guard asks.
pub fn callers(path: &str) -> Option<&'static [&'static str]> {
    static NAMES: LazyLock<HashMap<&str, Vec<&str>>> =
        LazyLock::new(|| TABLE.iter().map(|(path, roles)| (*path, roles.iter().map(|role| role.name()).collect())).collect());
    NAMES.get(path).map(Vec::as_slice)
}
