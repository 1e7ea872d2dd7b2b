//! Scores against golden vectors and the table of spellings.

mod golden;
mod spellings;
