//! Reads a segment, which may be one that is being written.

use super::codec::{NoRecord, RECORD_LEN, decode, decode_header};
use super::directory::{BadFile, StateDirectory, damaged};
use super::record::{LogRecord, SegmentHeader};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

const LEN: u64 = RECORD_LEN as u64;

/// How a segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SegmentEnd {
    /// With unused room after the last record.
    Blank,
    /// With a record that was not written to its end.
    Torn,
    /// With the record that says where the log goes on.
    Continued,
}

/// A segment, open for reading.
#[derive(Debug)]
pub(super) struct SegmentReader {
    file: BufReader<File>,
    /// The bytes that were read last.
    bytes: Vec<u8>,
    pub header: SegmentHeader,
    /// The index of the next record.
    pub index: u32,
}

impl SegmentReader {
    /// Opens a segment, and reads its header.
    pub fn open(directory: &StateDirectory, number: u32) -> Result<Self, BadFile> {
        let mut file = BufReader::with_capacity(1 << 16, directory.open(number)?);
        let mut bytes = Vec::new();
        file.by_ref().take(LEN).read_to_end(&mut bytes)?;
        let header = decode_header(&bytes);
        let header = header.map_err(|_| damaged(number, "its header is damaged"))?;
        if header.number != number {
            return Err(damaged(number, "it is another file of the log"));
        }
        Ok(Self {
            file,
            bytes,
            header,
            index: 1,
        })
    }

    /// Reads the next record. Where there is none, the next call does not try again:
    /// [`SegmentReader::seek`].
    pub fn next(&mut self) -> io::Result<Result<LogRecord, NoRecord>> {
        self.bytes.clear();
        self.file.by_ref().take(LEN).read_to_end(&mut self.bytes)?;
        let record = decode(&self.bytes, self.header.position(self.index));
        self.index += u32::from(record.is_ok());
        Ok(record)
    }

    /// Goes to the record of this index, and forgets what was read ahead.
    pub fn seek(&mut self, index: u32) -> io::Result<()> {
        let offset = u64::from(index) * LEN;
        self.file.seek(SeekFrom::Start(offset))?;
        self.index = index;
        Ok(())
    }

    /// Hands each of the next `count` records to `each`: the state.
    pub fn read_state(&mut self, mut each: impl FnMut(LogRecord)) -> Result<(), BadFile> {
        for _ in 0..self.header.state {
            each(self.next()?.map_err(|_| self.damaged("is damaged"))?);
        }
        Ok(())
    }

    /// Hands each record from here on to `each`, with its index. After the end all bytes must be
    /// zero, else the file is damaged; records that were handed on before are valid all the same.
    pub fn read_rest(
        &mut self,
        mut each: impl FnMut(u32, LogRecord),
    ) -> Result<SegmentEnd, BadFile> {
        let end = loop {
            match self.next()? {
                Ok(LogRecord::Continued(_)) => break SegmentEnd::Continued,
                Ok(record) => each(self.index - 1, record),
                Err(NoRecord::Blank) => break SegmentEnd::Blank,
                Err(NoRecord::Torn) => break SegmentEnd::Torn,
                Err(NoRecord::Damaged) => return Err(self.damaged("is damaged")),
            }
        };
        loop {
            let rest = self.file.fill_buf()?;
            if rest.iter().any(|byte| *byte != 0) {
                return Err(self.damaged("is no end"));
            }
            match rest.len() {
                0 => return Ok(end),
                len => self.file.consume(len),
            }
        }
    }

    fn damaged(&self, how: &str) -> BadFile {
        damaged(self.header.number, &format!("record {} {how}", self.index))
    }
}
