//! Calls of the reward service; every one is repeated until it is answered, refused, or the patience is at its end, and every try
//! has a deadline of its own. The only file here that knows protobuf types and `Status`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use hypereyes_chassis::{BackoffConfig, RetryError, Security, retry};
use hypereyes_domain::{Reference, TaskId};
use hypereyes_proto::call::within;
use hypereyes_proto::client::RewardClient;
use hypereyes_proto::convert::ids;
use hypereyes_proto::limits::MAX_REFERENCES_PER_BATCH;
use hypereyes_proto::{CallError, client, v1};
use tokio::time::{Instant, timeout};

/// How long the reward service may be away before the run gives up on it: a restart takes seconds.
const PATIENCE: Duration = Duration::from_secs(300);
/// Longest wait for one answer: a commit writes all references to disk.
const ANSWER: Duration = Duration::from_secs(60);
/// References in one message.
const REFERENCES_PER_BATCH: usize = 1024;
/// References that are taken in: above any task set that is read.
const MOST_REFERENCES: usize = 4_000_000;

/// The references as the keeper has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeptReferences {
    /// By task.
    pub references: BTreeMap<TaskId, Reference>,
    /// Id of the keeper's snapshot; a checkpoint keeps it.
    pub snapshot: u64,
    /// How many a commit tightened.
    pub tightened: u64,
}

/// The learner's view of the reward service, which keeps the TRACE references.
pub struct ReferenceKeeper {
    client: RewardClient,
    patience: Duration,
}

impl ReferenceKeeper {
    /// A keeper at `address`, spoken to as `security` says; nothing is sent yet.
    pub fn new(security: &Security, address: &str) -> Result<Self> {
        Ok(Self { client: client::secure(security).reward(address)?, patience: PATIENCE })
    }

    /// The same with other patience.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Tells the keeper what is known at the beginning of epoch number `epoch`, counted from 0 (it only ever tightens), and
    /// returns what it knows then.
    pub async fn import(&self, known: &BTreeMap<TaskId, Reference>, epoch: u64) -> Result<KeptReferences> {
        let all: Vec<v1::TaskReference> = known
            .iter()
            .map(|(task, reference)| v1::TaskReference { task_id: task.to_string(), reference: Some((*reference).into()) })
            .collect();
        let mut batches: Vec<_> =
            all.chunks(REFERENCES_PER_BATCH).map(|chunk| v1::ReferenceBatch { epoch, references: chunk.to_vec() }).collect();
        if batches.is_empty() {
            batches.push(v1::ReferenceBatch { epoch, references: vec![] });
        }
        let reply = self.persist("import_references", || {
            let (mut client, batches) = (self.client.clone(), batches.clone());
            async move { within("import_references", ANSWER, client.import_references(tokio_stream::iter(batches))).await }
        });
        let snapshot = reply.await.context("the reward service did not take the references")?.snapshot;
        Ok(KeptReferences { references: self.export().await?, snapshot, tightened: 0 })
    }

    /// Goes back to a snapshot of an earlier moment of this run.
    pub async fn restore(&self, snapshot: u64) -> Result<()> {
        let request = v1::RestoreReferencesRequest { snapshot };
        let reply = self.persist("restore_references", || {
            let mut client = self.client.clone();
            async move { within("restore_references", ANSWER, client.restore_references(request)).await }
        });
        reply.await.context("the reward service did not restore the checkpoint's references")?;
        Ok(())
    }

    /// Makes the candidates of an epoch the references. `known` is what they were when the epoch began: a keeper that lost
    /// its memory meanwhile learns it first. Repeating it changes nothing.
    pub async fn commit(&self, epoch: u64, known: &BTreeMap<TaskId, Reference>) -> Result<KeptReferences> {
        self.import(known, epoch).await?;
        // Epochs are committed under their number counted from 1: 0 is what the service starts with.
        let request = v1::CommitEpochRequest { epoch: epoch + 1 };
        let reply = self.persist("commit_epoch", || {
            let mut client = self.client.clone();
            async move { within("commit_epoch", ANSWER, client.commit_epoch(request)).await }
        });
        let reply = reply.await.context("the reward service did not commit the epoch")?;
        Ok(KeptReferences { references: self.export().await?, snapshot: reply.snapshot, tightened: reply.tightened })
    }

    /// All committed references. A list that breaks off is asked for again from its beginning.
    pub async fn export(&self) -> Result<BTreeMap<TaskId, Reference>> {
        let listed = self.persist("export_references", || {
            let client = self.client.clone();
            async move {
                let all = timeout(ANSWER, list(client)).await;
                all.unwrap_or_else(|_| Err(CallError::late("export_references", ANSWER)))
            }
        });
        listed.await.context("the reward service lists no references")
    }

    /// Calls until there is an answer or a refusal: all else may pass.
    async fn persist<T, F>(&self, op: &'static str, call: impl FnMut() -> F) -> Result<T, RetryError<CallError>>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        retry(op, Instant::now() + self.patience, &BackoffConfig::default(), call).await
    }
}

async fn list(mut client: RewardClient) -> Result<BTreeMap<TaskId, Reference>, CallError> {
    const OP: &str = "export_references";
    let failed = |status| CallError::of(OP, &status);
    let mut stream = client.export_references(v1::ExportReferencesRequest {}).await.map_err(failed)?.into_inner();
    let mut references = BTreeMap::new();
    while let Some(batch) = stream.message().await.map_err(failed)? {
        if batch.references.len() > MAX_REFERENCES_PER_BATCH || references.len() + batch.references.len() > MOST_REFERENCES {
            return Err(CallError::nonsense(OP, "more references come than any task set has"));
        }
        for entry in batch.references {
            let Some(reference) = entry.reference else { continue };
            let task = ids::task("task_id", entry.task_id).map_err(|invalid| CallError::nonsense(OP, invalid))?;
            let reference = Reference::try_from(reference).map_err(|invalid| CallError::nonsense(OP, format!("{task}: {invalid}")))?;
            references.insert(task, reference);
        }
    }
    Ok(references)
}
