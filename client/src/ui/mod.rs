//! What a person sees.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`message`] | lines on standard error |
//! | [`progress`] | the line at a terminal while the port is waited for |
//! | [`complete`] | what a shell completes |

pub mod complete;
pub mod message;
pub mod progress;
