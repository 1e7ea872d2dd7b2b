//! The peers, spoken to in domain types. In: requests of this actor. Out: answers that were checked, or a [`CallError`]. Every
//! call has a deadline of its own. The only file here that knows protobuf messages and `Status`.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use bytes::Bytes;
use hypereyes_chassis::{BadInput, Security};
use hypereyes_domain::{
    ActorId, Answer, Failure, GroupId, Leased, PictureId, PolicyVersion, Question, Receipt, RolloutGroup, ScoreSequence, ScoredGroup, Task,
    TeacherLogprobs,
};
use hypereyes_proto::call::{INCARNATION, within};
use hypereyes_proto::client::{LearnerClient, RewardClient};
use hypereyes_proto::convert::{self, ids};
use hypereyes_proto::limits::MAX_PICTURE_BYTES;
use hypereyes_proto::{Parcel, Submitter, TeacherPeer, client, v1};
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Status};

pub use hypereyes_proto::CallError;

/// Longest wait for a small answer.
const SMALL: Duration = Duration::from_secs(10);
/// Longest wait for an answer to a group or for pictures.
const LARGE: Duration = Duration::from_secs(120);

/// The learner's answer to a heartbeat.
#[derive(Clone, Debug, PartialEq)]
pub struct Beat {
    /// Of the groups asked about, those that are still ours.
    pub still: HashSet<GroupId>,
    /// The run is over.
    pub finished: bool,
}

/// The reward service's reply on a group, not yet held against it.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores(v1::ScoredReply);

impl Scores {
    /// The group with its scores.
    ///
    /// # Errors
    /// [`CallError`] where they do not fit it.
    pub fn join(self, group: RolloutGroup) -> Result<ScoredGroup, CallError> {
        convert::join(group, self.0).map_err(|invalid| CallError::nonsense("score_group", invalid))
    }
}

/// Clients of all peers. Cheap to clone; they connect when first used and again whenever the connection is gone.
#[derive(Clone, Debug)]
pub struct Peers {
    actor: ActorId,
    /// Shown to the learner with every call in the actor's name: nobody else speaks for it.
    secret: MetadataValue<Ascii>,
    learner: LearnerClient,
    submitter: Submitter,
    reward: RewardClient,
    teacher: Option<TeacherPeer>,
    /// The teacher's likeliest tokens to ask for.
    teacher_top: usize,
}

impl Peers {
    /// Clients for these addresses, in plaintext. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// As [`secure`](Self::secure).
    pub fn new(actor: &str, learner: &str, reward: &str, teacher: Option<&str>) -> Result<Self, BadInput> {
        Self::secure(&Security::plaintext(), actor, learner, reward, teacher)
    }

    /// Clients for these addresses that speak as `security` says. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When one is no address, or the actor's name is none.
    pub fn secure(security: &Security, actor: &str, learner: &str, reward: &str, teacher: Option<&str>) -> Result<Self, BadInput> {
        let clients = client::secure(security);
        let bad = |error: &dyn std::fmt::Display| BadInput::new(error.to_string());
        Ok(Self {
            actor: ids::actor("id", actor.to_owned()).map_err(|error| bad(&error))?,
            secret: secret(),
            submitter: clients.channel(learner).map_err(|error| bad(&error))?.into(),
            learner: clients.learner(learner).map_err(|error| bad(&error))?,
            reward: clients.reward(reward).map_err(|error| bad(&error))?,
            teacher: teacher.map(|address| clients.teacher(address)).transpose().map_err(|error| bad(&error))?.map(TeacherPeer::new),
            teacher_top: 0,
        })
    }

    /// The same, asking the teacher for this many likeliest tokens as well.
    #[must_use]
    pub fn with_teacher_top(self, teacher_top: usize) -> Self {
        Self { teacher_top, ..self }
    }

    /// The name that the peers know this actor by.
    pub fn actor(&self) -> &ActorId {
        &self.actor
    }

    /// The learner's client, for the weight transport.
    pub fn learner(&self) -> LearnerClient {
        self.learner.clone()
    }

    /// Whether there is a teacher.
    pub fn has_teacher(&self) -> bool {
        self.teacher.is_some()
    }

    /// A request in the actor's name.
    fn own<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(INCARNATION, self.secret.clone());
        request
    }

    /// Asks for work.
    pub async fn lease(&self, known: Option<PolicyVersion>) -> Result<Leased, CallError> {
        const OP: &str = "lease";
        let request = v1::LeaseRequest { actor_id: self.actor.as_str().to_owned(), known_version: known.map(|version| version.0) };
        let reply = within(OP, SMALL, self.learner.clone().lease_task(self.own(request))).await?;
        Leased::try_from(reply).map_err(|invalid| CallError::nonsense(OP, invalid))
    }

    /// Says that this actor lives and works on `groups`.
    pub async fn heartbeat(&self, groups: &[GroupId]) -> Result<Beat, CallError> {
        const OP: &str = "heartbeat";
        let group_ids = groups.iter().map(|id| id.as_str().to_owned()).collect();
        let request = v1::HeartbeatRequest { actor_id: self.actor.as_str().to_owned(), group_ids };
        let reply = within(OP, SMALL, self.learner.clone().heartbeat(self.own(request))).await?;
        Ok(Beat { still: reply.still_yours.into_iter().map(GroupId::new).collect(), finished: reply.finished })
    }

    /// Gives a lease back.
    pub async fn abandon(&self, group: &GroupId, failure: Failure, detail: &str) -> Result<(), CallError> {
        let request = v1::AbandonRequest {
            group_id: group.as_str().to_owned(),
            actor_id: self.actor.as_str().to_owned(),
            failure: v1::FailureKind::from(failure).into(),
            detail: detail[..detail.floor_char_boundary(hypereyes_proto::limits::MAX_DETAIL_BYTES)].to_owned(),
        };
        within("abandon", SMALL, self.learner.clone().abandon(self.own(request))).await.map(|_| ())
    }

    /// Fetches pictures of a task; the bytes are not looked into.
    pub async fn get_pictures(&self, wanted: &[PictureId]) -> Result<Vec<Bytes>, CallError> {
        const OP: &str = "get_pictures";
        let request = v1::PicturesRequest { ids: wanted.iter().map(|id| id.as_str().to_owned()).collect() };
        let mut learner = self.learner.clone();
        let receive = async move {
            let mut stream = learner.get_pictures(request).await?.into_inner();
            let mut pictures = Vec::with_capacity(wanted.len());
            while let Some(picture) = stream.message().await? {
                if pictures.len() == wanted.len() || picture.data.len() > MAX_PICTURE_BYTES {
                    return Err(Status::invalid_argument("more or larger pictures came than were asked for"));
                }
                pictures.push(picture.data);
            }
            Ok(pictures)
        };
        timeout(LARGE, receive).await.map_err(|_| CallError::late(OP, LARGE))?.map_err(|status| CallError::of(OP, &status))
    }

    /// Puts pictures that rollouts saw where the learner finds them.
    pub async fn put_to_learner(&self, pictures: Vec<(PictureId, Bytes)>) -> Result<(), CallError> {
        let stream = tokio_stream::iter(messages(pictures));
        within("put_to_learner", LARGE, self.learner.clone().put_pictures(stream)).await.map(|_| ())
    }

    /// Hands a group in.
    pub async fn submit(&self, parcel: &Parcel) -> Result<Receipt, CallError> {
        const OP: &str = "submit";
        let receipt = within(OP, LARGE, self.submitter.submit(self.own(parcel.bytes().clone()))).await?;
        let outcome =
            Receipt::try_from(receipt.outcome()).map_err(|invalid| CallError::nonsense(OP, format!("the receipt's {invalid}")))?;
        if outcome == Receipt::Invalid {
            tracing::warn!(group = %parcel.group(), detail = receipt.detail, "the learner finds a group invalid");
        }
        Ok(outcome)
    }

    /// Has a group scored. Answers and costs are all that a score depends on, so tokens stay here: they are a hundred times as
    /// many bytes.
    pub async fn score(&self, group: &RolloutGroup, task: &Task) -> Result<Scores, CallError> {
        const OP: &str = "score_group";
        let request = v1::ScoreGroupRequest { group: Some(group.summaries().into()), task: Some(task.clone().into()) };
        within(OP, LARGE, self.reward.clone().score_group(request)).await.map(Scores)
    }

    /// Asks the teacher about rollouts, within `patience`, which the teacher is told.
    pub async fn teach(&self, scored: &ScoredGroup, rollouts: &[usize], patience: Duration) -> Result<Vec<TeacherLogprobs>, CallError> {
        let sequences = rollouts.iter().map(|at| ScoreSequence::from(&scored.group.rollouts[*at])).collect();
        let question = Question { top: self.teacher_top, ..Question::new(scored.group.id.clone(), sequences) };
        let (teacher, answers) = self.the_teacher()?.ask(&question, patience).await?;
        let spread = |(at, answer): (&usize, Answer)| answer.spread(&scored.group.rollouts[*at].mask, teacher.clone());
        Ok(rollouts.iter().zip(answers).map(spread).collect())
    }

    /// Puts pictures where the teacher finds them.
    pub async fn put_to_teacher(&self, pictures: Vec<(PictureId, Bytes)>, patience: Duration) -> Result<(), CallError> {
        self.the_teacher()?.put(pictures, patience).await
    }

    fn the_teacher(&self) -> Result<&TeacherPeer, CallError> {
        self.teacher.as_ref().ok_or_else(|| CallError::nonsense("score_tokens", "no teacher is configured"))
    }
}

/// 256 bits that nobody guesses: hashes under keys that the system drew.
fn secret() -> MetadataValue<Ascii> {
    let keys = RandomState::new();
    let text: String = (0..4u64).map(|part| format!("{:016x}", keys.hash_one(part))).collect();
    let mut secret = MetadataValue::try_from(text).expect("hex digits are ASCII");
    secret.set_sensitive(true);
    secret
}

fn messages(pictures: Vec<(PictureId, Bytes)>) -> Vec<v1::Picture> {
    pictures.into_iter().map(|(id, data)| v1::Picture { id: id.as_str().to_owned(), data }).collect()
}
