//! What a chat template puts around system text, pictures and question.
//!
//! In: a Jinja template as shipped with a model. Out: four fixed strings. It knows no tokens.
//!
//! The template is rendered once, with marks in the places of the variable texts, and cut at the marks. So a prompt costs
//! no rendering, cannot fail, and text from outside can neither become a control token nor template code.
//!
//! The template itself is code of the model's maker and is trusted as far as the model folder is: fuel bounds its time and
//! a limit its recursion, but a template that doubles a string or prints a namespace that holds itself can still end the
//! process when the model is loaded.

use minijinja::{Environment, ErrorKind, Value, context};
use serde_json::json;

use crate::{ChatError, special};

const SYSTEM_MARK: &str = "@hypereyes-system-text@";
const QUESTION_MARK: &str = "@hypereyes-question-text@";

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
        let rendered = render(template, with_system, 1)?;
        let (opening, rest) = if with_system { split(&rendered, SYSTEM_MARK)? } else { ("", rendered.as_str()) };
        let picture = picture_mark();
        let (before, rest) = split(rest, &picture)?;
        let (between, closing) = split(rest, QUESTION_MARK)?;
        let frame = Self { opening: opening.into(), before: before.into(), between: between.into(), closing: closing.into() };
        for pictures in [0, 2] {
            if render(template, with_system, pictures)? != frame.joined(with_system, &picture.repeat(pictures)) {
                return Err(fault(format!("with {pictures} pictures it renders something else than pictures side by side")));
            }
        }
        Ok(frame)
    }

    fn joined(&self, with_system: bool, pictures: &str) -> String {
        let system = if with_system { SYSTEM_MARK } else { "" };
        [&self.opening, system, &self.before, pictures, &self.between, QUESTION_MARK, &self.closing].concat()
    }
}

fn picture_mark() -> String {
    [special::VISION_START, special::IMAGE_PAD, special::VISION_END].concat()
}

fn split<'a>(text: &'a str, mark: &str) -> Result<(&'a str, &'a str), ChatError> {
    text.split_once(mark).ok_or_else(|| fault(format!("it does not render {mark} in the place where hypereyes needs it")))
}

fn render(template: &str, with_system: bool, pictures: usize) -> Result<String, ChatError> {
    let mut environment = Environment::new();
    // As the reference implementation of chat templates sets them.
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_recursion_limit(64);
    environment.set_fuel(Some(1_000_000));
    environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    let mut content = vec![json!({"type": "image"}); pictures];
    content.push(json!({"type": "text", "text": QUESTION_MARK}));
    let user = json!({"role": "user", "content": content});
    let messages = if with_system { json!([{"role": "system", "content": SYSTEM_MARK}, user]) } else { json!([user]) };
    environment.render_str(template, context! { messages, add_generation_prompt => true }).map_err(|error| fault(format!("{error:#}")))
}

fn fault(reason: String) -> ChatError {
    ChatError::Template { reason }
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
    fn a_template_that_drops_pictures_or_raises_is_refused_with_its_reason() {
        let deaf = "{% for m in messages %}{{ m.role }}{% endfor %}";
        assert!(Frame::cut(deaf, true).expect_err("no marks").to_string().contains(SYSTEM_MARK));
        let raising = "{{ raise_exception('no pictures here') }}";
        assert!(Frame::cut(raising, false).expect_err("raises").to_string().contains("no pictures here"));
    }
}
