//! Runs nft: rare, for whole rulesets only. What nft says of a failure is passed on.

use super::ruleset::{Standing, TABLE};
use nftables::schema::Nftables;
use serde_json::Value;
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
    /// It answered with something else than its JSON.
    #[error("nft gave a listing that cannot be read: {0}")]
    Listing(String),
}

fn run(args: &[&str], input: &[u8]) -> Result<Vec<u8>, NftFailed> {
    let mut child = Command::new("nft")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
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
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.split_whitespace().collect();
    Err(NftFailed::Failed(if said.is_empty() {
        output.status.to_string()
    } else {
        said.join(" ")
    }))
}

/// Applies commands as one transaction: all of them, or none.
pub fn apply(commands: &Nftables<'_>) -> Result<(), NftFailed> {
    let json = serde_json::to_vec(commands).map_err(|e| NftFailed::Listing(e.to_string()))?;
    run(&["-j", "-f", "-"], &json).map(|_| ())
}

fn list(args: &[&str]) -> Result<Vec<Value>, NftFailed> {
    let json = run(args, &[])?;
    let bad = |why: &str| NftFailed::Listing(why.into());
    let value: Value = serde_json::from_slice(&json).map_err(|e| bad(&e.to_string()))?;
    match value.get("nftables") {
        Some(Value::Array(objects)) => Ok(objects.clone()),
        _ => Err(bad("it has no list")),
    }
}

/// Whether the table is there.
pub fn is_up() -> Result<bool, NftFailed> {
    let tables = list(&["-j", "list", "tables"])?;
    let ours = |o: &Value| o["table"]["family"] == "inet" && o["table"]["name"] == TABLE;
    Ok(tables.iter().any(ours))
}

/// What stands in the table; `None` where there is no table.
pub fn standing() -> Result<Option<Standing>, NftFailed> {
    if !is_up()? {
        return Ok(None);
    }
    let mut standing = Standing::default();
    for object in list(&["-j", "list", "table", "inet", TABLE])? {
        if let Some(name) = object["chain"]["name"].as_str() {
            standing.chains.push(name.into());
        }
        if let Some(name) = object["set"]["name"].as_str() {
            standing.sets.push(name.into());
            for element in object["set"]["elem"].as_array().into_iter().flatten() {
                standing
                    .elements
                    .push((name.to_owned(), element["elem"].clone()));
            }
        }
    }
    Ok(Some(standing))
}

/// Removes the table. Returns whether there was one.
pub fn teardown() -> Result<bool, NftFailed> {
    if !is_up()? {
        return Ok(false);
    }
    run(&["delete", "table", "inet", TABLE], &[]).map(|_| true)
}
