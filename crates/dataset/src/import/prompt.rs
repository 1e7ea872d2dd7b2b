//! What a row asks, as chats have it: a text, or messages with texts and pictures in them. In: a cell. Out: the question, how many pictures
//! it marks (`<image>`), those that stand in it, and the whole of it where it says more than the question does.

use hypereyes_domain::Metadata;
use hypereyes_tables::Cell;
use serde_json::Value;

use crate::encoded::PictureCell;

/// What stands for a picture in a text.
pub(crate) const MARK: &str = "<image>";

/// A prompt.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prompt {
    /// The text of what the user says; where there are several messages of the user, none is the question.
    pub user: Option<String>,
    /// Marks of pictures, over all messages.
    pub marks: usize,
    /// Pictures that stand in messages.
    pub pictures: Vec<PictureCell>,
    /// As it was, with marks where pictures stood.
    whole: Value,
    messages: usize,
    /// Whether the policy's own turns are in it: a dialogue.
    pub has_answers: bool,
}

impl Prompt {
    /// Reads a prompt.
    ///
    /// # Errors
    /// Why it is none.
    pub fn of(cell: Cell) -> Result<Self, String> {
        let messages = match cell {
            Cell::Text(text) => {
                let marks = text.matches(MARK).count();
                let whole = Value::String(text.clone());
                return Ok(Self { user: Some(text), marks, pictures: vec![], whole, messages: 1, has_answers: false });
            }
            Cell::List(messages) => messages,
            other => return Err(format!("is {}, neither a text nor messages", other.kind())),
        };
        let (mut users, mut pictures, mut whole) = (Vec::new(), Vec::new(), Vec::new());
        let (mut marks, mut has_answers) = (0, false);
        for (at, mut message) in messages.into_iter().enumerate() {
            let role = message.take("role").or_else(|| message.take("from"));
            let Some(Cell::Text(role)) = role else { return Err(format!("[{at}] has no role")) };
            let content = message.take("content").or_else(|| message.take("value"));
            let text =
                content.map_or(Ok(String::new()), |content| text(content, &mut pictures)).map_err(|why| format!("[{at}].content {why}"))?;
            marks += text.matches(MARK).count();
            has_answers |= matches!(role.as_str(), "assistant" | "gpt");
            let mut kept = Metadata::from_iter([("role".to_owned(), role.clone().into()), ("content".to_owned(), text.clone().into())]);
            if let Ok(Value::Object(more)) = message.into_json() {
                kept.extend(more.into_iter().filter(|(_, value)| !value.is_null()));
            }
            whole.push(Value::Object(kept));
            if matches!(role.as_str(), "user" | "human") {
                users.push(text);
            }
        }
        let messages = whole.len();
        let user = if users.len() == 1 { users.pop() } else { None };
        Ok(Self { user, marks, pictures, whole: whole.into(), messages, has_answers })
    }

    /// The whole of it, where that is more than `question` with the marks of all pictures before it.
    pub fn beyond(self, question: &str) -> Option<Value> {
        let rest = self.user.as_deref().map(|text| {
            let mut rest = text.trim();
            while let Some(behind) = rest.strip_prefix(MARK) {
                rest = behind.trim_start();
            }
            rest
        });
        (self.messages != 1 || rest != Some(question)).then_some(self.whole)
    }
}

/// The text of a message; pictures in it are marked.
fn text(content: Cell, pictures: &mut Vec<PictureCell>) -> Result<String, String> {
    let parts = match content {
        Cell::Text(text) => return Ok(text),
        Cell::List(parts) => parts,
        other => return Err(format!("is {}, neither a text nor parts", other.kind())),
    };
    let mut whole = String::new();
    for (at, mut part) in parts.into_iter().enumerate() {
        let kind = part.take("type");
        match (kind.as_ref().and_then(Cell::as_text), part.take("text")) {
            (Some("text") | None, Some(Cell::Text(text))) => whole.push_str(&text),
            (Some("image" | "image_url"), _) => {
                whole.push_str(MARK);
                let picture = PictureCell(part);
                if picture.within().is_some() {
                    pictures.push(picture);
                }
            }
            (Some(other), _) => return Err(format!("[{at}] is of the type {other:?}, which no task has")),
            (None, _) => return Err(format!("[{at}] is neither a text nor a picture")),
        }
    }
    Ok(whole)
}

/// A question as a policy reads it: without marks.
pub(crate) fn without_marks(text: &str) -> String {
    text.replace(MARK, "").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(json: &str) -> Result<Prompt, String> {
        Prompt::of(serde_json::from_str(json).expect("JSON"))
    }

    #[test]
    fn texts_and_messages_say_what_is_asked_and_how_many_pictures_there_are() {
        let plain = prompt(r#""<image>\n<image> Which one?""#).expect("a prompt");
        assert_eq!((plain.marks, without_marks(plain.user.as_deref().expect("said"))), (2, "Which one?".to_owned()));
        assert_eq!(plain.beyond("Which one?"), None);
        let parts = r#"[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " Who?"}]}]"#;
        let parts = prompt(parts).expect("a prompt");
        assert_eq!((parts.marks, parts.pictures.len(), parts.user.as_deref()), (1, 0, Some("<image> Who?")));
        let own = prompt(r#"[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}}]}]"#).expect("a prompt");
        assert_eq!((own.marks, own.pictures.len()), (1, 1));
    }

    #[test]
    fn what_says_more_than_its_question_is_kept_whole() {
        let system = prompt(r#"[{"role": "system", "content": "Tools."}, {"role": "user", "content": "<image>Who?"}]"#).expect("a prompt");
        assert_eq!(system.clone().beyond("Who?").expect("more")[0]["content"], "Tools.");
        let within = prompt(r#"[{"role": "user", "content": "Is <image> like <image>?"}]"#).expect("a prompt");
        assert_eq!(within.beyond("Is  like ?").expect("more")[0]["content"], "Is <image> like <image>?");
        let dialogue = r#"[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]"#;
        let dialogue = prompt(dialogue).expect("a prompt");
        assert_eq!((dialogue.has_answers, dialogue.user), (true, None));
    }

    #[test]
    fn what_is_no_prompt_says_where() {
        for (json, says) in [
            ("7", "is a whole number, neither a text nor messages"),
            (r#"[{"content": "a"}]"#, "[0] has no role"),
            (r#"[{"role": "user", "content": 7}]"#, "[0].content is a whole number"),
            (r#"[{"role": "user", "content": [{"type": "video"}]}]"#, "[0].content [0] is of the type \"video\""),
        ] {
            assert!(prompt(json).is_err_and(|why| why.contains(says)), "{json}");
        }
    }
}
