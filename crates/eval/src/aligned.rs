//! Text in columns, for people. In: cells. Out: lines, the first column to the left and the others to the right; the same as Markdown
//! and as CSV.

/// Lines of aligned cells; every row has as many as the first.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| match at {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// A table of Markdown, whose head is the first row.
pub fn markdown(rows: &[Vec<String>]) -> String {
    // Names are other people's: what would end a cell or a line is made harmless.
    let cell = |text: &String| text.replace('\\', "\\\\").replace('|', "\\|").replace(['\n', '\r'], " ");
    let line = |row: &Vec<String>| format!("| {} |\n", row.iter().map(cell).collect::<Vec<_>>().join(" | "));
    let Some((head, body)) = rows.split_first() else { return String::new() };
    let rule = format!("|---|{}\n", "---:|".repeat(head.len().saturating_sub(1)));
    [line(head), rule].into_iter().chain(body.iter().map(line)).collect()
}

/// Lines of comma-separated values (RFC 4180, lines end as everywhere here).
pub fn csv(rows: &[Vec<String>]) -> String {
    let cell = |text: &String| {
        let is_plain = !text.contains(['"', ',', '\n', '\r']);
        if is_plain { text.clone() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
    };
    rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join(",") + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<String>> {
        [["name", "n", "x"], ["a|b", "10", "1.5"], ["c, \"d\"", "2", "-"]].map(|row| row.map(str::to_owned).to_vec()).to_vec()
    }

    #[test]
    fn cells_stand_below_each_other() {
        assert_eq!(aligned(&rows()), "name     n    x\na|b     10  1.5\nc, \"d\"   2    -\n");
        assert_eq!((aligned(&[]), markdown(&[])), (String::new(), String::new()));
    }

    #[test]
    fn what_would_end_a_cell_does_not() {
        assert_eq!(markdown(&rows()), "| name | n | x |\n|---|---:|---:|\n| a\\|b | 10 | 1.5 |\n| c, \"d\" | 2 | - |\n");
        assert_eq!(csv(&rows()), "name,n,x\na|b,10,1.5\n\"c, \"\"d\"\"\",2,-\n");
    }
}
