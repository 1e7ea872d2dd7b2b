//! A chat template, and what it puts around the texts of a rollout.
//!
//! In: a model folder, or a template's text. Out: rendered dialogues; and the fixed strings around an observation. It knows no
//! tokens.
//!
//! A dialogue is rendered as a whole, because a template may do anything with it: leave thoughts out of earlier turns, trim
//! texts, number pictures. What follows the tokens that a policy sampled can only be appended: for that the template is rendered
//! once with marks in the places of the texts, and cut at the marks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use minijinja::{Value, context};
use serde_json::json;

use crate::{ChatError, jinja, places, special};

const SYSTEM_MARK: &str = "@hypereyes-system-text@";
const QUESTION_MARK: &str = "@hypereyes-question-text@";
const SAID_MARK: &str = "@hypereyes-said-text@";

/// A template with what it may use.
#[derive(Clone, Debug)]
pub struct Template {
    text: String,
    path: Option<PathBuf>,
    /// `eos_token` and so on.
    tokens: BTreeMap<String, String>,
}

impl Template {
    /// The template of a model folder and what there is to say of it.
    ///
    /// # Errors
    /// [`ChatError`] when there is none, or its place cannot be read. Whether it can be rendered shows when it is.
    pub fn load(folder: &Path) -> Result<(Self, Vec<String>), ChatError> {
        Self::load_for(folder, |_| Ok(()))
    }

    /// The first template of a model folder that `fits`, and what there is to say of it. Folders hold leftovers of other tools:
    /// transformers would take the first one whatever it is, which nobody can want of one that shows no question.
    ///
    /// # Errors
    /// As [`Template::load`]; what `fits` says of the first template when it has something against all of them.
    pub(crate) fn load_for(folder: &Path, fits: impl Fn(&Self) -> Result<(), ChatError>) -> Result<(Self, Vec<String>), ChatError> {
        let found = places::template(folder)?;
        let tokens = places::named_tokens(folder)?;
        let name = |path: &Path| path.strip_prefix(folder).unwrap_or(path).display().to_string();
        let mut remarks = vec![];
        let of = |(path, text): &(PathBuf, String)| Self { text: text.clone(), path: Some(path.clone()), tokens: tokens.clone() };
        let places: Vec<(PathBuf, String)> = std::iter::once((found.path, found.text)).chain(found.others).collect();
        let against: Vec<ChatError> = places.iter().map_while(|place| fits(&of(place)).err()).collect();
        let Some(taken) = places.get(against.len()) else {
            return Err(against.into_iter().next().unwrap_or(ChatError::Template { reason: "there is none".into() }));
        };
        for error in &against {
            remarks.push(format!("{error}; the chat template of {} is taken", name(&taken.0)));
        }
        let others: Vec<String> = places.iter().skip(against.len() + 1).map(|(path, _)| name(path)).collect();
        if !others.is_empty() {
            let (path, others) = (taken.0.display(), others.join(" and "));
            remarks.push(format!("the chat template is that of {path}, as transformers has it; another one in {others} is not used"));
        }
        if jinja::reads_the_clock(&taken.1) {
            remarks.push(format!("the chat template of {} reads the clock: prompts change with the date", taken.0.display()));
        }
        Ok((of(taken), remarks))
    }

    /// A template that is not in a folder.
    pub fn new(text: &str) -> Self {
        Self { text: text.to_owned(), path: None, tokens: BTreeMap::new() }
    }

    /// The dialogue as text, up to where the policy goes on. `messages` is a list of them in JSON.
    ///
    /// # Errors
    /// [`ChatError::Template`] with the template's own words where it refuses the dialogue.
    pub fn render(&self, messages: &serde_json::Value) -> Result<String, ChatError> {
        self.render_offering(messages, &serde_json::Value::Null)
    }

    /// The same with tools, a list of them in JSON, that the policy may call; none where the list is empty or null.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn render_offering(&self, messages: &serde_json::Value, tools: &serde_json::Value) -> Result<String, ChatError> {
        let offered = tools.as_array().filter(|tools| !tools.is_empty());
        let tokens = self.tokens.iter().map(|(name, token)| (name.clone(), Value::from(token.as_str())));
        let given = [
            ("messages", Value::from_serialize(messages)),
            ("tools", offered.map_or(Value::from(()), Value::from_serialize)),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(true)),
        ];
        let all: BTreeMap<String, Value> = tokens.chain(given.map(|(name, value)| (name.to_owned(), value))).collect();
        jinja::render(&self.text, context! { ..Value::from(all) }).map_err(|reason| self.fault(reason))
    }

    fn fault(&self, reason: String) -> ChatError {
        let place = self.path.as_ref().map_or(String::new(), |path| format!("{}: ", path.display()));
        ChatError::Template { reason: format!("{place}{reason}") }
    }
}

/// The fixed parts of a prompt with one user message: `opening` system `before` pictures `between` question `closing`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Up to the system text; empty in a frame without one.
    pub opening: String,
    /// From the system text to the pictures.
    pub before: String,
    /// From the pictures to the question; empty in Qwen's templates.
    pub between: String,
    /// After the question, up to where the policy goes on.
    pub closing: String,
}

impl Frame {
    /// Renders `template` with marks and cuts it, with or without a system message.
    pub fn cut(template: &str, with_system: bool) -> Result<Self, ChatError> {
        Self::of_prompt(&Template::new(template), with_system)
    }

    /// The parts of a prompt: a template that cannot be cut like this is not for rollouts.
    pub(crate) fn of_prompt(template: &Template, with_system: bool) -> Result<Self, ChatError> {
        let system = json!({"role": "system", "content": SYSTEM_MARK});
        let first: Vec<serde_json::Value> = if with_system { vec![system] } else { vec![] };
        let rendered = |pictures| template.render(&first.iter().cloned().chain([user(pictures)]).collect());
        Self::of(template, rendered, if with_system { SYSTEM_MARK } else { "" })
    }

    /// The parts of an observation: `opening` is what a dialogue holds up to the policy's words, `before` what follows them.
    pub(crate) fn of_observation(template: &Template) -> Result<Self, ChatError> {
        let asked = json!({"role": "user", "content": [{"type": "text", "text": "?"}]});
        let said = json!({"role": "assistant", "content": SAID_MARK});
        let rendered = |pictures| template.render(&json!([asked, said, user(pictures)]));
        Self::of(template, rendered, SAID_MARK)
    }

    fn of(template: &Template, rendered: impl Fn(usize) -> Result<String, ChatError>, first: &str) -> Result<Self, ChatError> {
        let split = |text: &str, mark: &str| -> Result<(String, String), ChatError> {
            let parts = text.split_once(mark).map(|(before, after)| (before.to_owned(), after.to_owned()));
            parts.ok_or_else(|| template.fault(format!("it does not render {mark} in the place where hypereyes needs it")))
        };
        let whole = rendered(1)?;
        let (opening, rest) = if first.is_empty() { (String::new(), whole) } else { split(&whole, first)? };
        let picture = picture_mark();
        let (before, rest) = split(&rest, &picture)?;
        let (between, closing) = split(&rest, QUESTION_MARK)?;
        let frame = Self { opening, before, between, closing };
        for pictures in [0, 2] {
            let joined =
                [&frame.opening, first, &frame.before, &picture.repeat(pictures), &frame.between, QUESTION_MARK, &frame.closing].concat();
            if rendered(pictures)? != joined {
                return Err(template.fault(format!("with {pictures} pictures it renders something else than pictures side by side")));
            }
        }
        Ok(frame)
    }
}

fn user(pictures: usize) -> serde_json::Value {
    let mut content = vec![json!({"type": "image"}); pictures];
    content.push(json!({"type": "text", "text": QUESTION_MARK}));
    json!({"role": "user", "content": content})
}

fn picture_mark() -> String {
    [special::VISION_START, special::IMAGE_PAD, special::VISION_END].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_in_python_flavoured_jinja_is_cut() {
        let template = "{%- if messages[0].role.startswith('sys') %}\n    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}\n{%- endif %}\n\
            {%- for m in messages if m.role != 'system' %}{{ '<|im_start|>' ~ m.role ~ '\\n' }}\n{%- for c in m.content %}\
            {%- if c.type == 'image' or 'image' in c %}<|vision_start|><|image_pad|><|vision_end|>{%- else %}{{ c.text }}{%- endif %}{%- endfor %}\
            {{- '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";
        let frame = Frame::cut(template, true).expect("a sound template");
        assert_eq!(frame.opening, "<|im_start|>system\n");
        assert_eq!(frame.before, "<|im_end|>\n<|im_start|>user\n");
        assert_eq!(frame.between, "");
        assert_eq!(frame.closing, "<|im_end|>\n<|im_start|>assistant\n");
        assert_eq!(Frame::cut(template, false).expect("a sound template").before, "<|im_start|>user\n");
    }

    #[test]
    fn namespaces_loops_and_switches_of_published_templates_work() {
        let template = "{%- if tools %}\n    {{- tools | tojson }}\n{%- else %}\n    {%- if messages[0].role == 'system' %}\n        {{- '<|im_start|>system\\n' }}\n\
            {%- if messages[0].content is string %}\n            {{- messages[0].content }}\n        {%- endif %}\n        {{- '<|im_end|>\\n' }}\n    {%- endif %}\n\
            {%- endif %}\n{%- set count = namespace(value=0) %}\n{%- for message in messages %}\n    {%- if message.role == \"user\" %}\n\
            {{- '<|im_start|>' + message.role + '\\n' }}\n        {%- for content in message.content %}\n\
            {%- if content.type == 'image' or 'image' in content or 'image_url' in content %}\n                {%- set count.value = count.value + 1 %}\n\
            {%- if add_vision_id %}Picture {{ count.value }}: {% endif -%}\n                <|vision_start|><|image_pad|><|vision_end|>\n\
            {%- elif 'text' in content %}\n                {{- content.text }}\n            {%- endif %}\n        {%- endfor %}\n\
            {{- '<|im_end|>\\n' }}\n    {%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n";
        let frame = Frame::cut(template, true).expect("a sound template");
        let parts = [frame.opening.as_str(), &frame.before, &frame.between, &frame.closing];
        let want = ["<|im_start|>system\n", "<|im_end|>\n<|im_start|>user\n", "", "<|im_end|>\n<|im_start|>assistant\n"];
        assert_eq!(parts, want);
    }

    #[test]
    fn tools_are_offered_where_the_template_has_a_place_for_them() {
        let tools = json!([{"type": "function", "function": {"name": "text_search", "parameters": {"type": "object"}}}]);
        let messages = json!([{"role": "user", "content": "q"}]);
        let knows = "{%- if tools %}<tools>{% for tool in tools %}{{ '\\n' }}{{ tool | tojson }}{% endfor %}{{ '\\n' }}</tools>{% endif %}{{ messages[0].content }}";
        let rendered = Template::new(knows).render_offering(&messages, &tools).expect("a sound template");
        let schema = r#"{"type": "function", "function": {"name": "text_search", "parameters": {"type": "object"}}}"#;
        assert_eq!(rendered, format!("<tools>\n{schema}\n</tools>q"));
        for none in [json!([]), json!(null)] {
            assert_eq!(Template::new(knows).render_offering(&messages, &none).expect("a sound template"), "q");
        }
        let deaf = "{{ messages[0].content }}";
        assert_eq!(Template::new(deaf).render_offering(&messages, &tools).expect("a sound template"), "q");
    }

    #[test]
    fn a_template_that_drops_pictures_or_raises_is_refused_with_its_reason() {
        let deaf = "{% for m in messages %}{{ m.role }}{% endfor %}";
        assert!(Frame::cut(deaf, true).expect_err("no marks").to_string().contains(SYSTEM_MARK));
        let raising = "{{ raise_exception('no pictures here') }}";
        assert!(Frame::cut(raising, false).expect_err("raises").to_string().contains("no pictures here"));
    }
}
