//! Whether demonstrations can be read by the policy that is to learn from them. They are token ids: under another tokenizer each means
//! another word, and a cold start would learn noise without a word.
//!
//! In: a data set, the model folder that is to be trained. Out: a finding, or what could not be told. Sets say which tokenizer made them;
//! those of before they did are read back and compared with their questions.

use hypereyes_chassis::Findings;
use hypereyes_chat::Chat;
use hypereyes_dataset::DataSet;

/// Findings about a set and the vocabulary (by digest) and chat of the model that would train on it; `from` is where the set lies and
/// `to` what would train.
pub fn findings(set: &DataSet, chat: &Chat, vocabulary: &str, from: &str, to: &str) -> Findings {
    let mut found = Findings::default();
    let other = "was made with another tokenizer than";
    let mend = "make the set with the world that the policy's tokenizer is of, or train a fresh policy for it (without --model)";
    match &set.tokenizer {
        Some(own) if own != vocabulary => found.refuse("--data", format!("{from} {other} {to}: {mend}")),
        Some(_) => {}
        None => match strange(set, chat) {
            0 if set.demonstrations.is_empty() => {}
            0 => {
                let message = format!(
                    "{from} does not say which tokenizer made it; all {} demonstrations read as their questions with the one of {to}",
                    set.demonstrations.len()
                );
                found.warn("--data", message);
            }
            count => {
                let of = set.demonstrations.len();
                found.refuse(
                    "--data",
                    format!("{from} {other} {to}: {count} of {of} demonstrations do not read as their questions; {mend}"),
                );
            }
        },
    }
    found
}

/// Demonstrations whose prompt does not say the question of their task, or whose response does not say its answer.
fn strange(set: &DataSet, chat: &Chat) -> usize {
    let questions: std::collections::HashMap<_, _> = set.tasks.iter().map(|task| (&task.id, task.question.as_str())).collect();
    let reads = |tokens: &[u32], text: &str| chat.decode(tokens).contains(text.replace("<image>", "").trim());
    let fits = |one: &&hypereyes_dataset::Demonstration| {
        let trajectory = &one.trajectory;
        let question = questions.get(&one.task).is_none_or(|question| reads(&trajectory.prompt, question));
        question && trajectory.summary.answer.as_deref().is_none_or(|answer| reads(&trajectory.response, answer))
    };
    set.demonstrations.iter().filter(|one| !fits(one)).count()
}
