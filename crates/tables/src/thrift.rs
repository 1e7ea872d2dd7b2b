//! What a parquet file says of itself at its end, looked over before it is believed. In: the file. Out: whether its lists can be as long as
//! they claim: the library that reads them sets memory aside for what they claim, and a file of some bytes could ask for all there is.
//!
//! It is Thrift's compact form: fields of structs, each with a type, and nothing that is not nested in them. One field is known by its
//! meaning: how many columns are within each column, because the library calls itself for each level of these.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use crate::parquet::MAGIC;

/// Bytes of what a file says of itself, at most: a million columns of row groups.
const MOST_FOOTER: u64 = 512 << 20;
/// How deep its structs are nested, at most; a real one has six levels. The same for columns: a list of structs has three.
const MOST_DEPTH: usize = 64;
/// Where a file has its columns, in the order in which a tree is walked: the field, and how deep their structs stand then.
const SCHEMA: (i16, usize) = (2, 2);
/// Where a column says how many are within it.
const WITHIN: i16 = 5;

/// Looks over the end of a file, and leaves the file at its start.
pub(crate) fn check_footer(file: &mut File) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let bytes = file.metadata().map_err(failed)?.len();
    // The magic at both ends, and the length.
    if bytes < 12 {
        return Err(format!("it has {bytes} bytes, which is less than any such file has"));
    }
    let mut tail = [0; 8];
    file.seek(SeekFrom::End(-8)).and_then(|_| file.read_exact(&mut tail)).map_err(failed)?;
    if &tail[4..] != MAGIC {
        return Err("it ends without the mark that such files end with: it was cut short, or its writer was not closed".into());
    }
    let length = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    if length > bytes - 12 {
        return Err(format!("what it says of itself has {length} bytes, and the file {bytes}"));
    }
    if length > MOST_FOOTER {
        return Err(format!("what it says of itself has {length} bytes, at most {MOST_FOOTER} are read"));
    }
    let mut footer = vec![0; usize::try_from(length).unwrap_or(0)];
    let at = i64::try_from(length).unwrap_or(0) + 8;
    file.seek(SeekFrom::End(-at)).and_then(|_| file.read_exact(&mut footer)).map_err(failed)?;
    check(&footer).map_err(|why| format!("what it says of itself cannot be: {why}"))?;
    file.rewind().map_err(failed)
}

/// Whether a struct, and everything in it, is within its bytes.
fn check(bytes: &[u8]) -> Result<(), String> {
    let mut walk = Walk { left: bytes, field: 0, within: vec![] };
    walk.structure(0)?;
    match nesting(&walk.within) {
        levels if levels > MOST_DEPTH => Err(format!("its columns are nested {levels} deep, at most {MOST_DEPTH} are read")),
        _ => Ok(()),
    }
}

/// How deep columns are nested; of each is said how many are within it, and these follow it.
fn nesting(within: &[i32]) -> usize {
    let (mut open, mut deepest) = (Vec::new(), 0);
    for count in within {
        while open.last().is_some_and(|left| *left <= 0) {
            open.pop();
        }
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        open.push(*count);
        deepest = deepest.max(open.len());
    }
    deepest
}

struct Walk<'a> {
    left: &'a [u8],
    /// The field of the outermost struct that is walked.
    field: i16,
    /// Of each column, how many are within it.
    within: Vec<i32>,
}

impl Walk<'_> {
    fn byte(&mut self) -> Result<u8, String> {
        let (first, rest) = self.left.split_first().ok_or("it breaks off")?;
        self.left = rest;
        Ok(*first)
    }

    fn pass(&mut self, bytes: u64) -> Result<(), String> {
        let rest = usize::try_from(bytes).ok().and_then(|bytes| self.left.get(bytes..));
        self.left = rest.ok_or_else(|| format!("a text has {bytes} bytes where {} are left", self.left.len()))?;
        Ok(())
    }

    /// A number of seven bits a byte.
    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for at in 0..10 {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(7 * at).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number has no end".into())
    }

    /// A number with a sign.
    fn zigzag(&mut self) -> Result<i64, String> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// The fields of a struct, up to the one that ends it.
    fn structure(&mut self, depth: usize) -> Result<(), String> {
        let is_column = (self.field, depth) == SCHEMA;
        let (mut field, mut within) = (0i16, 0);
        loop {
            let head = self.byte()?;
            if head == 0 {
                break;
            }
            // Its number, where that is not told by how far it is from the one before; cut to its type, as the library does.
            field = if head >> 4 == 0 { self.zigzag()? as i16 } else { field.wrapping_add(i16::from(head >> 4)) };
            if depth == 0 {
                self.field = field;
            }
            match head & 0x0f {
                // Yes and no have no content.
                1 | 2 => {}
                4..=6 if is_column && field == WITHIN => within = self.zigzag()? as i32,
                kind => self.value(kind, depth)?,
            }
        }
        if is_column {
            // Those within it follow it; none stands in its struct.
            self.within.push(within);
        }
        Ok(())
    }

    fn value(&mut self, kind: u8, depth: usize) -> Result<(), String> {
        if depth > MOST_DEPTH {
            return Err(format!("it is nested more than {MOST_DEPTH} deep"));
        }
        match kind {
            1..=3 => self.pass(1),
            4..=6 => self.varint().map(|_| ()),
            7 => self.pass(8),
            8 => {
                let bytes = self.varint()?;
                self.pass(bytes)
            }
            9 | 10 => self.list(depth),
            11 => self.map(depth),
            12 => self.structure(depth + 1),
            13 => self.pass(16),
            other => Err(format!("there is no type {other}")),
        }
    }

    fn list(&mut self, depth: usize) -> Result<(), String> {
        let head = self.byte()?;
        let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
        self.fits(count)?;
        for _ in 0..count {
            self.value(head & 0x0f, depth + 1)?;
        }
        Ok(())
    }

    fn map(&mut self, depth: usize) -> Result<(), String> {
        let count = self.varint()?;
        self.fits(count)?;
        if count == 0 {
            return Ok(());
        }
        let kinds = self.byte()?;
        for _ in 0..count {
            self.value(kinds >> 4, depth + 1)?;
            self.value(kinds & 0x0f, depth + 1)?;
        }
        Ok(())
    }

    /// Every entry has a byte at least.
    fn fits(&self, count: u64) -> Result<(), String> {
        match count <= self.left.len() as u64 {
            true => Ok(()),
            false => Err(format!("a list has {count} entries where {} bytes are left", self.left.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_texts_that_claim_more_than_there_is_are_refused() {
        // Field 1, a list of structs: two that are empty. Then the end.
        assert_eq!(check(&[0x19, 0x2c, 0, 0, 0]), Ok(()));
        let said = |bytes: &[u8]| check(bytes).expect_err("a lie");
        // The same with a count of 2^31 - 1.
        assert!(said(&[0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0, 0]).starts_with("a list has 2147483647 entries where 2 bytes"));
        assert!(said(&[0x18, 0x05, b'a']).starts_with("a text has 5 bytes where 1 are left"));
        assert_eq!(said(&[0x15]), "it breaks off");
        for nested in [0x1c, 0x19] {
            assert_eq!(said(&[nested; 200]), "it is nested more than 64 deep");
        }
        assert_eq!(said(&[0x1e, 0]), "there is no type 14");
        assert_eq!(said(&[0x16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), "a number has no end");
    }

    #[test]
    fn columns_that_are_nested_deeper_than_anybody_reads_are_refused() {
        // Field 2, a list of 101 structs, each but the last with 1 in its field 5.
        let chain = [&[0x29_u8, 0xfc, 101][..], &[0x55, 2, 0].repeat(100), &[0, 0]].concat();
        assert_eq!(check(&chain), Err("its columns are nested 101 deep, at most 64 are read".into()));
        // The first has all the others within it.
        let flat = [&[0x29_u8, 0xfc, 101][..], &[0x55, 0xc8, 1, 0], &[0; 100], &[0]].concat();
        assert_eq!(check(&flat), Ok(()));
        // Elsewhere the same numbers mean something else.
        let elsewhere = [&[0x39_u8, 0xfc, 101][..], &[0x55, 2, 0].repeat(100), &[0, 0]].concat();
        assert_eq!(check(&elsewhere), Ok(()));
        assert_eq!(nesting(&[2, 1, 0, 3, 0, 0, 0]), 3);
    }
}
