//! Runs nft: rare, for whole rulesets only. What nft says of a failure is passed on.

use nftables::schema::Nftables;
use std::io::{self, Write};
use std::process::{Command, Stdio};

/// Why nft did not do it.
#[derive(Debug, thiserror::Error)]
pub enum NftFailed {
    /// It could not be started.
    #[error("nft cannot be started ({0}); it comes with the package nftables")]
    Start(io::Error),
    /// It failed, with its own words.
    #[error("nft failed: {0}")]
    Failed(String),
    /// The ruleset could not be put into words.
    #[error("the ruleset cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

fn run(args: &[&str], input: &[u8]) -> Result<(), NftFailed> {
    let mut child = Command::new("nft")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(NftFailed::Start)?;
    // nft reads all of it before it says anything, so neither waits for the other. Where
    // it ends early, what it said is what matters.
    let written = child
        .stdin
        .take()
        .map_or(Ok(()), |mut stdin| stdin.write_all(input));
    let output = child.wait_with_output().map_err(NftFailed::Start)?;
    if output.status.success() && written.is_ok() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.split_whitespace().collect();
    Err(NftFailed::Failed(if said.is_empty() {
        output.status.to_string()
    } else {
        said.join(" ")
    }))
}

/// Applies a script as one transaction: all of it, or nothing.
pub fn apply_text(script: &str) -> Result<(), NftFailed> {
    run(&["-f", "-"], script.as_bytes())
}

/// Applies commands as one transaction: all of them, or none.
pub fn apply(commands: &Nftables<'_>) -> Result<(), NftFailed> {
    let json = serde_json::to_vec(commands)?;
    run(&["-j", "-f", "-"], &json)
}
