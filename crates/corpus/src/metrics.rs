//! Names of this crate's metrics, their labels and descriptions. Knows no exporter.

use metrics::describe_counter;

/// Texts of hits and pages that were cut to what is given; label `what`: `hit`, `page`.
pub const CUT: &str = "hypereyes_corpus_texts_cut_total";

/// Registers the descriptions with the installed recorder; call once after installing it.
pub fn describe() {
    describe_counter!(CUT, "Texts of a corpus cut to what a hit or a page may have, by which");
}
