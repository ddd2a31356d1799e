//! The whole interoperation matrix, or some of it: see `scripts/interop`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use mirror_tests::matrix::{Bench, Cell, Outcome, pairs, report, table};
use mirror_tests::{Alone, target_dir};
use serde_json::Value;

const USAGE: &str = "\
usage: scripts/interop [--all] [--only TEXT]... [--at-once N] [--json FILE] [--resume] [--list]
  (nothing)     a selection in which each pair of factors occurs, as in scripts/test
  --all         every cell
  --only TEXT   of these, cells whose name contains TEXT (several: all of the texts)
  --at-once N   cells played at the same time (default 10)
  --json FILE   where the outcomes go (default target/interop/matrix.json)
  --resume      cells that are good in that file are not played again
  --list        print the cells' names and play nothing
Exit codes: 0 every cell is good, 1 not so, 2 wrong use.";

struct Options {
    all: bool,
    list: bool,
    resume: bool,
    only: Vec<String>,
    at_once: usize,
    json: PathBuf,
}

fn options() -> Result<Options> {
    let mut options = Options {
        all: false,
        list: false,
        resume: false,
        only: Vec::new(),
        at_once: 10,
        json: target_dir().join("interop").join("matrix.json"),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .with_context(|| format!("{word} takes a value"))
        };
        match word.as_str() {
            "--all" => options.all = true,
            "--list" => options.list = true,
            "--resume" => options.resume = true,
            "--only" => options.only.push(value()?),
            "--json" => options.json = value()?.into(),
            "--at-once" => {
                let count = value()?.parse().ok().filter(|n| (1..=50).contains(n));
                options.at_once = count.context("--at-once takes 1 to 50")?;
            }
            _ => bail!("unknown: {word}"),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error:#}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool> {
    let mut cells = Cell::all();
    if !options.all {
        cells = pairs::covering(&cells);
    }
    cells.retain(|c| options.only.iter().all(|text| c.name().contains(text)));
    if options.list {
        for cell in cells {
            println!("{}", cell.name());
        }
        return Ok(true);
    }
    let mut outcomes = earlier(options)?;
    let left: Vec<Cell> = cells
        .iter()
        .copied()
        .filter(|c| !outcomes.contains_key(&c.name()))
        .collect();
    let begun = Instant::now();
    if !left.is_empty() {
        let test = Alone::begin("matrix");
        let mut bench = Bench::new(&test);
        bench.play(&left, options.at_once, |outcome| {
            let name = outcome.cell.name();
            eprintln!("{} of {}: {name}", outcomes.len() + 1, cells.len());
            outcomes.insert(name, outcome.clone());
            if let Err(error) = write(options, &outcomes) {
                eprintln!("{error:#}");
            }
        });
    }
    let shown: Vec<Outcome> = cells
        .iter()
        .filter_map(|c| outcomes.get(&c.name()).cloned())
        .collect();
    print!("{}", table(&shown));
    println!("{} s", begun.elapsed().as_secs());
    let (ours, theirs) = report::totals(&shown);
    let good = shown.len() == cells.len() && shown.iter().all(Outcome::is_good);
    Ok(good && ours <= report::allowed(theirs))
}

/// What is good in the file of an earlier run.
fn earlier(options: &Options) -> Result<BTreeMap<String, Outcome>> {
    if !options.resume || !options.json.exists() {
        return Ok(BTreeMap::new());
    }
    let text = std::fs::read_to_string(&options.json)?;
    let value: Value = serde_json::from_str(&text).context(options.json.display().to_string())?;
    let list = value["cells"].as_array().cloned().unwrap_or_default();
    let good = list.iter().filter_map(Outcome::good_from_json);
    Ok(good.map(|o| (o.cell.name(), o)).collect())
}

fn write(options: &Options, outcomes: &BTreeMap<String, Outcome>) -> Result<()> {
    let cells: Vec<Value> = outcomes.values().map(Outcome::to_json).collect();
    let text = serde_json::to_string_pretty(&serde_json::json!({ "cells": cells }))? + "\n";
    std::fs::write(&options.json, text).with_context(|| options.json.display().to_string())
}
