//! The loss statements of data directories, and what a crash left without one.

use crate::cli::exit::{ExitCode, Failure};
use crate::node::directory::wal_dir;
use crate::node::meta;
use crate::node::statement::{DIRECTORY, Statement, What};
use standfast_wal::kept::{DIVERGENT, Kept};
use standfast_wal::{ClusterId, Disk, History};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// One statement and where it comes from.
#[derive(Debug)]
pub struct Found {
    pub dir: PathBuf,
    /// The statement's file, or that with the records from which it was made again.
    pub file: PathBuf,
    pub statement: Statement,
}

/// The statements of these data directories, oldest first.
pub fn read(dirs: &[PathBuf]) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    for dir in dirs {
        let (_, current) = owner(dir)?;
        let mut here = written(dir)?;
        for (file, kept) in kept(dir)? {
            if !here.iter().any(|one| tells_of(&one.statement, &kept)) {
                let modified = std::fs::metadata(&file).and_then(|meta| meta.modified())?;
                let age = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
                let wall = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
                here.push(Found {
                    dir: dir.clone(),
                    file,
                    statement: Statement::of_kept(wall, &kept, Some(current)),
                });
            }
        }
        let is_cut = has_lost_its_end(dir)?;
        for one in here.iter_mut().filter(|_| is_cut) {
            one.statement.end_was_damaged = true;
        }
        found.append(&mut here);
    }
    found.sort_by_key(|one| one.statement.when_ns);
    Ok(found)
}

/// The cluster that a data directory belongs to, and the history that its node is in.
pub fn owner(dir: &Path) -> Result<(ClusterId, History), Failure> {
    let refuse = |what: String| {
        let text = format!("{}: {what}", dir.display());
        Failure::new(ExitCode::Usage, text).hint("--from takes the data directory of a node")
    };
    match meta::load(dir) {
        Ok(Some(meta)) => Ok((meta.core.cluster, meta.core.config.history)),
        Ok(None) => Err(refuse("no data directory of a node".to_owned())),
        Err(error) => Err(refuse(error.to_string())),
    }
}

fn files(dir: &Path, extension: &str) -> Result<Vec<PathBuf>, Failure> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn written(dir: &Path) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    for file in files(&dir.join(DIRECTORY), "json")? {
        let text = std::fs::read_to_string(&file)?;
        let statement = serde_json::from_str(&text).map_err(|error| {
            let text = format!("{}: no loss statement: {error}", file.display());
            Failure::new(ExitCode::Damaged, text)
        })?;
        found.push(Found {
            dir: dir.to_owned(),
            file,
            statement,
        });
    }
    Ok(found)
}

/// The records that cuts kept aside.
pub fn kept(dir: &Path) -> Result<Vec<(PathBuf, Kept)>, Failure> {
    let wal = wal_dir(dir);
    let mut found = Vec::new();
    for file in files(&wal.join(DIVERGENT), "cut")? {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{DIVERGENT}/{name}");
        let kept = Disk::open(&wal)
            .map_err(|error| error.to_string())
            .and_then(|disk| Kept::read(&disk, &name).map_err(|error| error.to_string()));
        let kept = kept.map_err(|error| {
            Failure::new(ExitCode::Damaged, format!("{}: {error}", file.display()))
        })?;
        found.push((file, kept));
    }
    Ok(found)
}

/// A damaged end was cut by order (`--cut-damaged-end`): acknowledged commands may have been in it.
fn has_lost_its_end(dir: &Path) -> Result<bool, Failure> {
    let kept = files(&wal_dir(dir).join(DIVERGENT), "raw")?;
    let mut names = kept.iter().filter_map(|path| path.file_name()?.to_str());
    Ok(names.any(|name| name.starts_with(standfast_wal::CUT_BY_ORDER)))
}

/// Whether the statement lists what was kept.
pub fn tells_of(statement: &Statement, kept: &Kept) -> bool {
    let after = kept.after.position.lsn.0;
    let last = kept.records.last().map_or(after, |last| last.last_lsn().0);
    statement.what == What::Cut
        && statement.log_kept_through == after
        && statement.last_lsn >= last
        && statement.history == kept.history.to_string()
}
