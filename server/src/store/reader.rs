//! Reads a file of records from beginning to end.

use super::codec::{NoRecord, Position, RECORD_LEN, decode, decode_header};
use super::directory::BadFile;
use super::record::{FileHeader, FileKind, LogRecord};
use std::fs::File;
use std::io::{self, BufReader, Read};

/// How a file ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileEnd {
    /// With unused room after the last record.
    Blank,
    /// With a record that was not written to its end.
    Torn,
    /// With the record that closes a file.
    Complete,
}

/// What is known of a file that was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileSummary {
    pub header: FileHeader,
    /// The number of records, with the header and without a torn one.
    pub records: u32,
    pub end: FileEnd,
}

/// Hands each record to `each`, but for the header and the closing record. After the end all
/// bytes must be zero, else the file is damaged; records that were handed on before are valid
/// all the same.
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

/// Fills the buffer, or as much of it as the file has bytes. Returns how many.
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
