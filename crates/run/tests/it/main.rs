//! The tests of run folders, in one binary.

mod format_1;
