//! One dialogue with a chat endpoint. In: texts of the environment. Out: the policy's turns as text, and a trajectory without tokens.
//!
//! Every turn sends all before it again; how the server makes tokens of that is its own business. Tools go out as `tools`; a server that
//! refuses those is told of them in the system text from then on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hypereyes_domain::{
    Ending, Failure, GenerateError, PictureId, RolloutSummary, Round, Sampling, Spoken, Stop, Task, Trajectory, turn_seed,
};
use hypereyes_openai::{Complaint, Completion, Finish, Miss, Usage};
use hypereyes_pictures::Picture;
use serde_json::Value;

use super::{ChatPlayer, failure_of, messages};
use crate::turns::{Dialogue, Said};

/// Messages so far, and what was counted.
pub(super) struct ChatDialogue<'a> {
    player: &'a ChatPlayer,
    messages: Vec<Value>,
    /// Whether tools are in the system text.
    as_text: bool,
    seed: u64,
    sampling: Sampling,
    /// Ids of the calls of the last turn, where the server read them.
    calls: Vec<String>,
    pictures: Vec<PictureId>,
    rounds: Vec<Round>,
    spoken: Spoken,
}

impl<'a> ChatDialogue<'a> {
    /// A dialogue that begins with the task's `question`, a message.
    pub(super) fn new(player: &'a ChatPlayer, task: &Task, question: &Value, seed: u64, sampling: Sampling) -> Self {
        let mut this = Self {
            player,
            messages: vec![],
            as_text: player.tools_as_text.load(Ordering::Relaxed),
            seed,
            sampling,
            calls: vec![],
            pictures: task.pictures.clone(),
            rounds: vec![],
            spoken: Spoken::default(),
        };
        let system = this.system();
        this.messages.extend((!system.is_empty()).then(|| messages::system(&system)));
        this.messages.push(question.clone());
        this
    }

    /// A policy that is offered no tools was taught them, and its prompt.
    fn system(&self) -> String {
        let (text, tools) = (self.player.config.system_text(), &self.player.tools);
        match (tools.is_empty(), self.as_text) {
            (true, _) => text,
            (false, false) => messages::with_tools(&text),
            (false, true) => messages::with_tools_as_text(&text, tools),
        }
    }

    async fn complete(&mut self, most: usize) -> Result<(Completion, Usage), Miss> {
        let turn = self.spoken.turns.len() as u64;
        let (player, sampling, seed) = (self.player, self.sampling, turn_seed(self.seed, turn));
        let tools: &[Value] = if self.as_text { &[] } else { &player.tools };
        let asked = player.complete(&self.messages, tools, most, sampling, seed).await;
        let refused = matches!(&asked, Err(missed) if missed.complaint == Some(Complaint::Tools));
        if !refused || tools.is_empty() || turn > 0 {
            return asked;
        }
        // Whether it is the tools shows when it answers without.
        self.as_text = true;
        self.messages[0] = messages::system(&self.system());
        let answered = player.complete(&self.messages, &[], most, sampling, seed).await?;
        if !player.tools_as_text.swap(true, Ordering::Relaxed) {
            let why = asked.err().map(|missed| missed.message).unwrap_or_default();
            tracing::warn!(why, "the chat endpoint takes no tools: they are described in the system text from now on");
        }
        Ok(answered)
    }
}

impl Dialogue for ChatDialogue<'_> {
    fn tokens(&self) -> usize {
        usize::try_from(self.spoken.tokens).unwrap_or(usize::MAX)
    }

    async fn turn(&mut self, most: usize) -> Result<Said, GenerateError> {
        let turn = self.spoken.turns.len() as u64;
        let (completion, usage) = match self.complete(most).await {
            Ok(completed) => completed,
            // The question was short enough, the dialogue no longer is.
            Err(missed) if missed.complaint == Some(Complaint::Context) && turn > 0 => {
                tracing::warn!(message = %missed, "the chat endpoint's context is full before rollout.max_context_tokens: the episode ends, and counts");
                return Ok(Said { text: String::new(), tokens: 0, stop: Stop::ContextFull });
            }
            Err(missed) => return Err(failure_of(&missed)),
        };
        let most = self.player.config.max_context_tokens;
        if turn == 0 && usage.prompt >= most as u64 {
            let message =
                format!("the prompt has {} tokens at the server, and rollout.max_context_tokens is {most}: raise it", usage.prompt);
            return Err(GenerateError { failure: Failure::Infrastructure, message });
        }
        // How long an observation was shows only now: what was said after it is beyond the limit that every policy has.
        if usage.prompt >= most as u64 {
            return Ok(Said { text: String::new(), tokens: 0, stop: Stop::ContextFull });
        }
        self.spoken.count(usage.prompt, usage.completion, usage.reasoning);
        let (message, calls) = messages::assistant(&completion, turn);
        self.messages.push(message);
        self.calls = calls;
        let text = messages::grammar(&completion);
        self.spoken.turns.push(text.clone());
        let stop = if completion.finish == Finish::Length { Stop::Length } else { Stop::EndToken };
        Ok(Said { text, tokens: usize::try_from(usage.completion).unwrap_or(usize::MAX), stop })
    }

    fn executed(&mut self, round: Round) {
        self.rounds.push(round);
    }

    /// How many tokens it has shows with the next turn.
    fn observed(&mut self, text: &str, shown: Vec<Picture>, _most: usize) -> Result<Option<Vec<Arc<Picture>>>, String> {
        self.messages.extend(messages::observation(text, &shown, &self.calls)?);
        self.pictures.extend(shown.iter().map(|picture| picture.id.clone()));
        Ok(Some(shown.into_iter().map(Arc::new).collect()))
    }

    fn finish(self, ending: Ending, answer: Option<String>) -> Trajectory {
        super::trajectory(self.pictures, RolloutSummary { rounds: self.rounds, ending, answer }, self.spoken)
    }
}
