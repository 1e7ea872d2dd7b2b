//! Messages as people write them: the forms that transformers and OpenAI's interface take.
//!
//! In: JSON. Out: messages as templates read them, and where their pictures are, in the order of their places; or which part is
//! not understood, by name.

use serde_json::{Map, Value, json};

const ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];
/// What a message may hold beside its role and content; templates read some of it.
const MORE: [&str; 6] = ["reasoning_content", "reasoning", "thinking", "tool_calls", "tool_call_id", "name"];
/// Other names of `reasoning_content`, as transformers knows them.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
/// Keys under which a part names its picture.
const PICTURE: [&str; 4] = ["image", "url", "path", "base64"];
/// Most messages of a dialogue.
const MAX_MESSAGES: usize = 4096;

/// A dialogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Dialogue {
    messages: Vec<Value>,
    pictures: Vec<String>,
    tools: Vec<Value>,
}

impl Dialogue {
    /// Reads a list of messages: `{"role", "content"}` with content a text or a list of parts, `{"type": "text", "text"}`,
    /// `{"type": "image", "image" | "url" | "path" | "base64"}` or `{"type": "image_url", "image_url": {"url"}}`.
    ///
    /// # Errors
    /// Which message, and what of it is not understood.
    pub fn parse(value: &Value) -> Result<Self, String> {
        let list = value.as_array().ok_or("messages is no list")?;
        if list.is_empty() || list.len() > MAX_MESSAGES {
            return Err(format!("messages has {} entries; 1 to {MAX_MESSAGES} are read", list.len()));
        }
        let mut dialogue = Self { messages: Vec::with_capacity(list.len()), pictures: vec![], tools: vec![] };
        for (at, message) in list.iter().enumerate() {
            let read = dialogue.message(message).map_err(|why| format!("message {}: {why}", at + 1))?;
            dialogue.messages.push(read);
        }
        Ok(dialogue)
    }

    /// The prompt of a task: a system text (none if empty), so many pictures, and a question.
    pub fn of_task(system: &str, question: &str, pictures: usize) -> Self {
        let mut content = vec![json!({"type": "image"}); pictures];
        content.push(json!({"type": "text", "text": question}));
        let system = (!system.is_empty()).then(|| json!({"role": "system", "content": system}));
        let messages = system.into_iter().chain([json!({"role": "user", "content": content})]).collect();
        Self { messages, pictures: vec![String::new(); pictures], tools: vec![] }
    }

    /// With tools offered to the policy, in the form that templates know (`{"type": "function", "function": {..}}`). A template that
    /// knows no tools renders the same as without.
    pub fn offering(self, tools: &[Value]) -> Self {
        Self { tools: tools.to_vec(), ..self }
    }

    /// The tools offered.
    pub fn tools(&self) -> &[Value] {
        &self.tools
    }

    /// Where the pictures are: a file, an address or base64, as the parts have it.
    pub fn pictures(&self) -> &[String] {
        &self.pictures
    }

    /// The messages as a template reads them.
    pub fn messages(&self) -> &[Value] {
        &self.messages
    }

    fn message(&mut self, value: &Value) -> Result<Value, String> {
        let map = value.as_object().ok_or("it is no object")?;
        let role = map.get("role").and_then(Value::as_str).ok_or("its role is missing or no text")?;
        if !ROLES.contains(&role) {
            return Err(format!("role {role:?} is not known; {} are", ROLES.join(", ")));
        }
        let mut message = Map::new();
        for (key, value) in map {
            // As transformers: what is null is not there.
            if value.is_null() {
                continue;
            }
            let read = match key.as_str() {
                "role" => value.clone(),
                "content" => self.content(value)?,
                key if MORE.contains(&key) => value.clone(),
                key => return Err(format!("{key} is not known; role, content, {} are", MORE.join(", "))),
            };
            message.insert(key.clone(), read);
        }
        if let Some(thought) = REASONING.iter().find_map(|key| map.get(*key).filter(|value| !value.is_null())) {
            message.insert("reasoning_content".into(), thought.clone());
            message.entry("thinking").or_insert_with(|| thought.clone());
        }
        if !message.contains_key("content") && !message.contains_key("tool_calls") {
            return Err("it has no content".into());
        }
        Ok(Value::Object(message))
    }

    fn content(&mut self, value: &Value) -> Result<Value, String> {
        match value {
            Value::String(_) => Ok(value.clone()),
            Value::Array(parts) => parts.iter().map(|part| self.part(part)).collect::<Result<Vec<_>, _>>().map(Value::Array),
            _ => Err("its content is neither a text nor a list of parts".into()),
        }
    }

    fn part(&mut self, value: &Value) -> Result<Value, String> {
        let map = value.as_object().ok_or("a part of its content is no object")?;
        // Tables of data sets give every part the keys of all, with null where there is nothing.
        let map: Map<String, Value> =
            map.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.clone(), value.clone())).collect();
        let kind = map.get("type").and_then(Value::as_str).ok_or("a part of its content has no type")?;
        let only = |known: &[&str]| match map.keys().find(|key| *key != "type" && !known.contains(&key.as_str())) {
            Some(key) => Err(format!("{key} of a part of type {kind} is not known; {} is", known.join(", "))),
            None => Ok(()),
        };
        match kind {
            "text" => {
                only(&["text"])?;
                let text = map.get("text").and_then(Value::as_str).ok_or("a part of type text has no text")?;
                Ok(json!({"type": "text", "text": text}))
            }
            "image" => {
                only(&PICTURE)?;
                let mut named = PICTURE.iter().filter_map(|key| Some((*key, map.get(*key)?)));
                let (Some((key, source)), None) = (named.next(), named.next()) else {
                    return Err(format!("a part of type image names its picture once, as {}", PICTURE.join(", ")));
                };
                let source = source.as_str().ok_or_else(|| format!("{key} of a part of type image is no text"))?;
                self.pictures.push(source.to_owned());
                Ok(json!({"type": "image", key: source}))
            }
            "image_url" => {
                only(&["image_url"])?;
                let place = &map.get("image_url").ok_or("a part of type image_url has no image_url")?;
                if let Some(key) = place.as_object().and_then(|map| map.keys().find(|key| !["url", "detail"].contains(&key.as_str()))) {
                    return Err(format!("{key} of image_url is not known; url is"));
                }
                let source = place.as_str().or_else(|| place["url"].as_str()).ok_or("image_url of a part has no url")?;
                self.pictures.push(source.to_owned());
                Ok(json!({"type": "image", "url": source}))
            }
            other => Err(format!("a part of type {other:?} is not known; text, image and image_url are")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_picture_is_read_in_order() {
        let value = json!([
            {"role": "system", "content": [{"type": "image", "path": "s.png"}, {"type": "text", "text": "look"}]},
            {"role": "user", "content": [
                {"type": "text", "text": "a"}, {"type": "image", "image": "a.png"},
                {"type": "image_url", "image_url": {"url": "b.png", "detail": "low"}},
                {"type": "image_url", "image_url": "c.png"}, {"type": "image", "base64": "AA"},
            ]},
            {"role": "assistant", "content": null, "tool_calls": []},
            {"role": "user", "content": [
                {"type": "text", "text": "b", "image": null, "image_url": null}, {"type": "image", "text": null, "image": "d.png", "url": null},
            ]},
            {"role": "assistant", "content": "x", "reasoning": "why"},
        ]);
        let dialogue = Dialogue::parse(&value).expect("known forms");
        assert_eq!(dialogue.pictures(), ["s.png", "a.png", "b.png", "c.png", "AA", "d.png"]);
        assert_eq!(dialogue.messages()[1]["content"][2], json!({"type": "image", "url": "b.png"}));
        assert_eq!(dialogue.messages()[2], json!({"role": "assistant", "tool_calls": []}));
        assert_eq!(dialogue.messages()[3]["content"], json!([{"type": "text", "text": "b"}, {"type": "image", "image": "d.png"}]));
        assert_eq!((&dialogue.messages()[4]["reasoning_content"], &dialogue.messages()[4]["thinking"]), (&json!("why"), &json!("why")));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let user = |content: Value| json!([{"role": "user", "content": content}]);
        for (value, part) in [
            (json!({}), "no list"),
            (json!([]), "0 entries"),
            (json!(["x"]), "message 1: it is no object"),
            (json!([{"content": "x"}]), "role"),
            (json!([{"role": "critic", "content": "x"}]), "\"critic\""),
            (json!([{"role": "user"}]), "no content"),
            (json!([{"role": "user", "content": "x", "weight": 0}]), "weight"),
            (user(json!(1)), "neither"),
            (user(json!([{"text": "x"}])), "no type"),
            (user(json!([{"type": "video", "video": "x.mp4"}])), "\"video\""),
            (user(json!([{"type": "text"}])), "no text"),
            (user(json!([{"type": "text", "text": "x", "image": "y"}])), "image of a part of type text"),
            (user(json!([{"type": "image"}])), "once"),
            (user(json!([{"type": "image", "image": "a", "url": "b"}])), "once"),
            (user(json!([{"type": "image", "image": {"bytes": 1}}])), "no text"),
            (user(json!([{"type": "image", "image": "a", "max_pixels": 9}])), "max_pixels"),
            (user(json!([{"type": "image_url", "image_url": {"uri": "a"}}])), "uri"),
            (user(json!([{"type": "image_url"}])), "no image_url"),
        ] {
            let error = Dialogue::parse(&value).expect_err(part);
            assert!(error.contains(part), "{error}, not {part}");
        }
    }
}
