//! Commands that the documents show, run word for word as a person would paste them.

use std::{fs, os::unix::fs::symlink, time::Duration};

use anyhow::{Result, bail, ensure};
use tempfile::TempDir;

use crate::{command::Run, ground::repository};

const LIMIT: Duration = Duration::from_mins(5);

/// A block of a document: commands, and what they are said to print.
#[derive(Clone, Debug, Default)]
pub struct Block {
    commands: Vec<String>,
    shown: Vec<String>,
}

/// The console blocks below a heading, down to the next of its level or above.
pub fn blocks(document: &str, heading: &str) -> Result<Vec<Block>> {
    let text = fs::read_to_string(repository().join(document))?;
    let level = heading.split(' ').next().unwrap_or_default().len();
    let ends = |line: &str| {
        let marks = line.bytes().take_while(|byte| *byte == b'#').count();
        (1..=level).contains(&marks) && line.as_bytes().get(marks) == Some(&b' ')
    };
    let mut lines = text.lines().skip_while(|line| *line != heading).skip(1).peekable();
    let (mut blocks, mut block) = (Vec::new(), None);
    ensure!(lines.peek().is_some(), "{document} has no heading {heading}");
    for line in lines {
        match &mut block {
            None if line == "```console" => block = Some(Block::default()),
            None if ends(line) => break,
            None => {}
            Some(_) if line == "```" => blocks.extend(block.take()),
            Some(block) => block.add(line),
        }
    }
    ensure!(!blocks.is_empty(), "{document} shows no commands below {heading}");
    Ok(blocks)
}

/// A directory that looks like the checkout, for what the commands leave where they run.
pub fn scratch_checkout() -> Result<TempDir> {
    let scratch = tempfile::tempdir()?;
    for entry in fs::read_dir(repository())? {
        let entry = entry?;
        symlink(entry.path(), scratch.path().join(entry.file_name()))?;
    }
    Ok(scratch)
}

// === impl Block ===

impl Block {
    fn add(&mut self, line: &str) {
        match (line.strip_prefix("$ "), self.commands.last_mut()) {
            (Some(command), _) => self.commands.push(command.to_owned()),
            (None, Some(last)) if goes_on(last) => {
                last.push('\n');
                last.push_str(line);
            }
            (None, _) => self.shown.push(line.trim().to_owned()),
        }
    }

    /// Each command in a block of its own.
    pub fn singly(&self) -> Vec<Self> {
        let single = |command: &String| Self { commands: vec![command.clone()], shown: vec![] };
        self.commands.iter().map(single).collect()
    }

    /// With other text in every command.
    pub fn with(mut self, from: &str, to: &str) -> Self {
        self.commands.iter_mut().for_each(|command| *command = command.replace(from, to));
        self
    }

    /// Without the commands that `unwanted` finds.
    pub fn without(mut self, unwanted: impl Fn(&str) -> bool) -> Self {
        self.commands.retain(|command| !unwanted(command));
        self
    }

    /// Gives the commands to a shell. All must succeed, and print what the document shows.
    pub fn run(&self, shell: Run, directory: &TempDir) -> Result<()> {
        let go = format!("set -euo pipefail\ncd {}\n", directory.path().display());
        // What a command reads must not be the rest of the script.
        let commands = self.commands.iter().map(|command| format!("{{ {command}\n}} </dev/null\n"));
        let script = commands.fold(go, |script, command| script + &command);
        let printed = shell.input(script).limit(LIMIT).text()?;
        let missing = self.shown.iter().find(|line| !printed.contains(line.as_str()));
        if let Some(line) = missing {
            bail!("the commands did not print \"{line}\" but:\n{printed}");
        }
        Ok(())
    }
}

/// Whether a command's next line is part of it.
fn goes_on(command: &str) -> bool {
    command.ends_with('\\') || command.matches('\'').count() % 2 == 1
}
