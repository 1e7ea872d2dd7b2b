//! A transcript turn by turn, in one walk over its tags (docs/spec.md#transcripts). In: response text with special tokens. Out: who speaks,
//! and what the assistant calls and answers.
//!
//! What a call asks for is not known here.

use super::python::strip;
use super::tags::{Tag, Tags};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Assistant,
    User,
    System,
}

impl Role {
    pub(super) const fn label(self) -> &'static str {
        match self {
            Role::Assistant => "assistant",
            Role::User => "user",
            Role::System => "system",
        }
    }

    /// The one whose turn a text begins with.
    fn before(text: &str) -> Option<Self> {
        [Role::Assistant, Role::User, Role::System].into_iter().find(|role| text.starts_with(role.label()))
    }
}

/// What a walk comes by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Event<'a> {
    /// A turn begins.
    Turn(Role),
    /// The assistant calls: the inside of a closed call.
    Call(&'a str),
    /// The assistant answers: the inside of the first closed answer of a turn.
    Answer(&'a str),
    /// The turn is over: all of its text.
    End(&'a str),
}

/// Shows `see` every event, until it has seen enough and says `None`. A text without a header goes on where an assistant was asked to
/// speak; one without any known role is one turn of an assistant.
pub(super) fn walk<'a>(text: &'a str, mut see: impl FnMut(Event<'a>) -> Option<()>) -> Option<()> {
    let mut tags = Tags::of(text);
    let asked = !strip(text).starts_with(Tag::Start.text());
    let Some(mut header) = (if asked { Some((Role::Assistant, 0)) } else { next(text, &mut tags) }) else {
        return turn(text, 0, &mut Tags::of(text), Role::Assistant, None, &mut see);
    };
    loop {
        let (role, from) = header;
        turn(text, from, &mut tags, role, Some(Tag::End), &mut see)?;
        match next(text, &mut tags) {
            Some(known) => header = known,
            None => return Some(()),
        }
    }
}

/// The next known role, and where its turn begins.
#[inline]
fn next(text: &str, tags: &mut Tags<'_>) -> Option<(Role, usize)> {
    tags.filter(|(_, tag)| *tag == Tag::Start).find_map(|(at, _)| {
        let from = at + Tag::Start.text().len();
        let role = Role::before(&text[from..])?;
        Some((role, from + role.label().len()))
    })
}

/// Goes through the turn that begins at `from`. Without its end it swallows what follows, headers included.
#[inline]
fn turn<'a>(
    text: &'a str,
    from: usize,
    tags: &mut Tags<'a>,
    role: Role,
    end: Option<Tag>,
    see: &mut impl FnMut(Event<'a>) -> Option<()>,
) -> Option<()> {
    see(Event::Turn(role))?;
    let assistant = role == Role::Assistant;
    // Where a call and an answer begin that are not closed yet.
    let (mut call, mut answer) = (None, None);
    let mut answered = false;
    for (at, tag) in tags {
        if Some(tag) == end {
            return see(Event::End(&text[from..at]));
        }
        let behind = at + tag.text().len();
        match tag {
            Tag::Call if assistant => call = call.or(Some(behind)),
            Tag::Answer if assistant => answer = answer.or(Some(behind)),
            Tag::CallEnd => {
                if let Some(from) = call.take() {
                    see(Event::Call(&text[from..at]))?;
                }
            }
            Tag::AnswerEnd if !answered => {
                if let Some(from) = answer {
                    answered = true;
                    see(Event::Answer(&text[from..at]))?;
                }
            }
            _ => {}
        }
    }
    see(Event::End(&text[from..]))
}
