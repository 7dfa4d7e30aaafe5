//! Reads a file of records from its beginning to its end.

use super::codec::{NoRecord, Position, RECORD_LEN, decode, decode_header};
use super::directory::BadFile;
use super::record::{FileHeader, FileKind, LogRecord};
use std::fs::File;
use std::io::{self, BufReader, Read};

/// What a file ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileEnd {
    /// Nothing was written after the last record.
    Blank,
    /// A record that was not written to its end.
    Torn,
    /// The record that nothing follows.
    Complete,
}

/// What a file was found to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileSummary {
    pub header: FileHeader,
    /// Records with the header, and without one that is torn.
    pub records: u32,
    pub end: FileEnd,
}

/// Hands on every record but the header and the last of a complete file, and says what was
/// found. After the end there is nothing but zero bytes, else the file is damaged; what was
/// handed on until then holds all the same.
pub(super) fn read_file(
    file: File,
    kind: FileKind,
    number: u32,
    mut each: impl FnMut(LogRecord),
) -> Result<FileSummary, BadFile> {
    let mut reader = BufReader::with_capacity(RECORD_LEN * 1024, file);
    let mut bytes = [0; RECORD_LEN];
    let len = fill(&mut reader, &mut bytes)?;
    let header = decode_header(&bytes[..len]).map_err(|_| damaged("its header is damaged"))?;
    if (header.kind, header.number) != (kind, number) {
        return Err(damaged("it is another file of the log"));
    }
    let mut index = 1;
    let end = loop {
        let len = fill(&mut reader, &mut bytes)?;
        let position = Position {
            index,
            ..header.position()
        };
        match decode(&bytes[..len], position) {
            Ok(LogRecord::Continued) if kind == FileKind::Segment => break FileEnd::Complete,
            Ok(LogRecord::End) if kind == FileKind::Snapshot => break FileEnd::Complete,
            Ok(record) => each(record),
            Err(NoRecord::Blank) => break FileEnd::Blank,
            Err(NoRecord::Torn) => break FileEnd::Torn,
            Err(NoRecord::Damaged) => {
                return Err(BadFile::Damaged(format!("record {index} is damaged")));
            }
        }
        index += 1;
    };
    let records = index + u32::from(end == FileEnd::Complete);
    if !is_blank(&mut reader)? {
        return Err(BadFile::Damaged(format!("record {index} is no end")));
    }
    Ok(FileSummary {
        header,
        records,
        end,
    })
}

fn damaged(what: &str) -> BadFile {
    BadFile::Damaged(what.into())
}

/// Reads as many bytes as there are, up to a record.
fn fill(reader: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < bytes.len() {
        match reader.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(some) => len += some,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// Whether only zero bytes are left.
fn is_blank(reader: &mut impl Read) -> io::Result<bool> {
    const BLANK: [u8; 4096] = [0; 4096];
    let mut bytes = BLANK;
    loop {
        match fill(reader, &mut bytes)? {
            0 => return Ok(true),
            len if bytes[..len] != BLANK[..len] => return Ok(false),
            _ => {}
        }
    }
}
