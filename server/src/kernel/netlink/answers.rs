//! What the kernel's answers amount to.

use super::read::{self, Attributes};
use nix::errno::Errno;
use std::io;

/// `NLMSG_ERROR`, which also acknowledges.
const ERROR: u16 = 2;
/// `NLMSG_DONE`, the end of a dump.
const DONE: u16 = 3;
/// `NLM_F_DUMP_INTR`: what is listed has changed meanwhile.
const DUMP_INTERRUPTED: u16 = 0x10;

/// The answers to a batch. Any error means that nothing of it was applied; the
/// acknowledgement of its last message alone means that all of it was.
#[derive(Debug)]
pub struct BatchAnswers {
    first: u32,
    count: usize,
    is_acknowledged: bool,
    refusal: Option<(Option<usize>, io::Error)>,
}

impl BatchAnswers {
    /// None yet, to a batch of so many messages whose begin has the number `first`.
    pub fn new(first: u32, count: usize) -> Self {
        Self {
            first,
            count,
            is_acknowledged: false,
            refusal: None,
        }
    }

    /// Takes the answers in a datagram.
    pub fn read(&mut self, datagram: &[u8]) {
        for part in read::parts(datagram).filter(|part| part.kind == ERROR) {
            // An answer to an earlier batch that was given up says nothing of this.
            let at = usize::try_from(part.sequence.wrapping_sub(self.first));
            let Some(at) = at.ok().filter(|at| *at <= self.count + 1) else {
                continue;
            };
            if part.code() == 0 {
                self.is_acknowledged |= at == self.count;
            } else if !matches!(self.refusal, Some((Some(_), _))) {
                // The batch's begin and end have numbers too.
                let message = at.checked_sub(1).filter(|message| *message < self.count);
                self.refusal = Some((message, io::Error::from_raw_os_error(-part.code())));
            }
        }
    }

    /// Whether nothing was said yet.
    pub fn is_silent(&self) -> bool {
        self.refusal.is_none() && !self.is_acknowledged
    }

    /// The answers cannot be had.
    pub fn fail(&mut self, error: io::Error) {
        self.refusal = Some((None, error));
    }

    /// Whether the batch was applied; else which message was refused first, and why.
    pub fn outcome(self) -> Result<(), (Option<usize>, io::Error)> {
        match self.refusal {
            Some(refusal) => Err(refusal),
            None if self.is_acknowledged => Ok(()),
            None => {
                let what = "the kernel did not acknowledge the change";
                Err((None, io::Error::other(what)))
            }
        }
    }
}

/// The answers to a question.
#[derive(Debug)]
pub struct ListAnswers {
    number: u32,
    is_whole: bool,
}

impl ListAnswers {
    /// None yet, to the question with this number.
    pub fn new(number: u32) -> Self {
        let is_whole = true;
        Self { number, is_whole }
    }

    /// Takes the answers in a datagram. At their end: whether they are whole, or what they
    /// were changed meanwhile.
    pub fn read(
        &mut self,
        datagram: &[u8],
        mut each: impl FnMut(Attributes<'_>),
    ) -> Option<io::Result<bool>> {
        for part in read::parts(datagram).filter(|part| part.sequence == self.number) {
            self.is_whole &= part.flags & DUMP_INTERRUPTED == 0;
            if part.kind != DONE && part.kind != ERROR {
                // Behind netfilter's own header.
                each(Attributes::new(part.body.get(4..).unwrap_or_default()));
                continue;
            }
            // The end of a dump has a code too: it may have stopped half-way.
            return Some(match part.code() {
                0 => Ok(self.is_whole),
                code if -code == Errno::EINTR as i32 => Ok(false),
                code => Err(io::Error::from_raw_os_error(-code)),
            });
        }
        None
    }
}
