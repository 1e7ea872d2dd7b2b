//! The only names of special tokens in the workspace. Nothing comes in; out go the names of the Qwen chat layout (docs/spec.md#tokens).

/// Opens a message; the role follows.
pub const IM_START: &str = "<|im_start|>";
/// Ends a message; the end token of a turn.
pub const IM_END: &str = "<|im_end|>";
/// Ends a document; pads.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// Before the tokens of a picture.
pub const VISION_START: &str = "<|vision_start|>";
/// After the tokens of a picture.
pub const VISION_END: &str = "<|vision_end|>";
/// Stands for one merged cell of a picture.
pub const IMAGE_PAD: &str = "<|image_pad|>";
/// Stands for a cell of a video; present because a Qwen3-VL configuration names its id.
pub const VIDEO_PAD: &str = "<|video_pad|>";

/// Every control token that the tiny tokenizer defines, in the order of their ids.
pub const ALL: [&str; 7] = [END_OF_TEXT, IM_START, IM_END, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD];

/// Tags of the action grammar (docs/spec.md#grammar). They are plain words to a tokenizer: text may hold them.
pub const TAGS: [&str; 8] =
    ["<tool_call>", "</tool_call>", "<reason>", "</reason>", "<answer>", "</answer>", "<tool_response>", "</tool_response>"];
