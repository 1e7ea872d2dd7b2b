//! The tests of the report, in one binary.

mod format_1;
