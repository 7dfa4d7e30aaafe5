//! What the kernel's answers amount to. `receive` hands out the messages of the next datagram,
//! and says whether there was one.

use super::message::RawMessage;
use netlink_packet_core::{NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR};
use nix::errno::Errno;
use std::io;

/// Whether a batch of so many messages, whose begin has the number `first`, was applied; else
/// which message was refused first, and why. Any error means that nothing of it was applied;
/// the acknowledgement of its last message alone means that all of it was.
pub fn batch_outcome(
    first: u32,
    count: usize,
    mut receive: impl FnMut(&mut dyn FnMut(&RawMessage<'_>)) -> io::Result<bool>,
) -> Result<(), (Option<usize>, io::Error)> {
    let mut is_acknowledged = false;
    let mut refusal: Option<(Option<usize>, io::Error)> = None;
    loop {
        let received = receive(&mut |part| {
            // An answer to an earlier batch that was given up says nothing of this.
            let at = usize::try_from(part.sequence.wrapping_sub(first));
            let at = at.ok().filter(|at| *at <= count + 1);
            let Some(at) = at.filter(|_| part.kind == NLMSG_ERROR) else {
                return;
            };
            if part.code() == 0 {
                is_acknowledged |= at == count;
            } else if !matches!(refusal, Some((Some(_), _))) {
                // The batch's begin and end have numbers too.
                let message = at.checked_sub(1).filter(|message| *message < count);
                refusal = Some((message, part.error()));
            }
        });
        match received {
            Ok(true) => {}
            // More failed than there is room to say. What was said is read still.
            Err(error) if refusal.is_none() && !is_acknowledged => refusal = Some((None, error)),
            Ok(false) | Err(_) => break,
        }
    }
    match refusal {
        Some(refusal) => Err(refusal),
        None if is_acknowledged => Ok(()),
        None => Err((
            None,
            io::Error::other("the kernel did not acknowledge the change"),
        )),
    }
}

/// Hands each answer to the question with this number to `each`. Returns whether they are
/// whole, or what they tell of has changed meanwhile.
pub fn list_outcome(
    number: u32,
    mut receive: impl FnMut(&mut dyn FnMut(&RawMessage<'_>)) -> io::Result<bool>,
    mut each: impl FnMut(&RawMessage<'_>),
) -> io::Result<bool> {
    let (mut is_whole, mut end) = (true, None);
    // A dump goes on as its parts are read; the last says that it is.
    while end.is_none() {
        let received = receive(&mut |part| {
            if part.sequence != number || end.is_some() {
                return;
            }
            is_whole &= part.flags & NLM_F_DUMP_INTR == 0;
            if [NLMSG_DONE, NLMSG_ERROR].contains(&part.kind) {
                // The end of a dump has a code too: it may have stopped half-way.
                end = Some((part.code() != 0).then(|| part.error()));
            } else {
                each(part);
            }
        });
        if !received? {
            return Err(io::Error::other("the kernel's answer has no end"));
        }
    }
    match end.flatten() {
        None => Ok(is_whole),
        Some(error) if error.raw_os_error() == Some(Errno::EINTR as i32) => Ok(false),
        Some(error) => Err(error),
    }
}
