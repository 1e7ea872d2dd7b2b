//! What both ends of the Model Context Protocol say over Streamable HTTP: revisions, headers, names and codes. Knows no search.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// The revision in which every request stands for itself.
pub const STATELESS: &str = "2026-07-28";
/// Those that begin with a handshake and may have sessions, newest first.
pub const HANDSHAKES: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];

/// Header of the revision.
pub const VERSION: &str = "mcp-protocol-version";
/// Header of the method, as the body has it.
pub const METHOD: &str = "mcp-method";
/// Header of the tool's name, as the body has it.
pub const NAME: &str = "mcp-name";
/// What begins the header of an argument that a tool wants in one, too.
pub const ARGUMENT: &str = "mcp-param-";
/// Header of a session's id.
pub const SESSION: &str = "mcp-session-id";

/// In `_meta` of a request: its revision.
pub const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// In `_meta` of a request: who asks.
pub const META_CLIENT: &str = "io.modelcontextprotocol/clientInfo";
/// In `_meta` of a request: what whoever asks can do.
pub const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// In `_meta` of a result: who answers.
pub const META_SERVER: &str = "io.modelcontextprotocol/serverInfo";

/// No JSON.
pub const PARSE: i64 = -32700;
/// No request.
pub const INVALID_REQUEST: i64 = -32600;
/// No such method.
pub const NO_METHOD: i64 = -32601;
/// Not the parameters of the method; also a tool that is not there.
pub const INVALID_PARAMS: i64 = -32602;
/// Headers say something else than the body.
pub const HEADER_MISMATCH: i64 = -32020;
/// The client cannot do what the server wants of it.
pub const NO_CAPABILITY: i64 = -32021;
/// A revision that the server does not speak; `data.supported` lists those that it does.
pub const UNSUPPORTED_VERSION: i64 = -32022;

/// What begins and ends a header's value that is no plain text.
const ENCODED: (&str, &str) = ("=?base64?", "?=");

/// Who we are.
pub fn us() -> Value {
    json!({"name": "hypereyes", "version": env!("CARGO_PKG_VERSION")})
}

/// A text as a header has it: as it is where it can be, in base64 otherwise.
pub fn encoded(text: &str) -> String {
    let is_plain = text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && text.trim() == text;
    let (begin, end) = ENCODED;
    if is_plain && !(text.starts_with(begin) && text.ends_with(end)) {
        text.to_owned()
    } else {
        format!("{begin}{}{end}", STANDARD.encode(text))
    }
}

/// The text of a header; none where its base64 is broken.
pub fn decoded(value: &str) -> Option<String> {
    let (begin, end) = ENCODED;
    let Some(inner) = value.strip_prefix(begin).and_then(|rest| rest.strip_suffix(end)) else { return Some(value.to_owned()) };
    String::from_utf8(STANDARD.decode(inner).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_goes_through_a_header_and_back() {
        assert_eq!(encoded("us-west1"), "us-west1");
        assert_eq!(encoded("Hello, 世界"), "=?base64?SGVsbG8sIOS4lueVjA==?=");
        assert_eq!(encoded("=?base64?literal?="), "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=");
        for text in ["", " padded ", "line1\nline2", "=?base64?", "=?base64?x?=", "plain text", "\u{7f}"] {
            assert_eq!(decoded(&encoded(text)).as_deref(), Some(text));
        }
        assert_eq!(decoded("=?base64?*?="), None);
    }
}
