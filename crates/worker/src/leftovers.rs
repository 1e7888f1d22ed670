//! Processes that a predecessor left. Each attempt has a note with its run token, written before the process is started; the token
//! stands in the environment of everything that descends from it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{kill_process, kill_process_group, Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::clock::boottime_ms;
use crate::limits::{LEFTOVERS_DIE_MS, RUN_DIE_MS, STARTING_LOOKS};

/// The variable that marks a task's processes.
pub(crate) const RUN_VARIABLE: &str = "RAFTGRID_RUN";

/// What is noted about one attempt.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Value of `RUN_VARIABLE`.
    pub(crate) run: String,
    /// Leader of the process group; 0 before it is started.
    pub(crate) pid: i32,
    /// Its start time in clock ticks since boot, so that a process that took over the number is not meant.
    pub(crate) start_ticks: u64,
}

fn note_path(folder: &Path, attempt: &str) -> PathBuf {
    folder.join(format!("{attempt}.json"))
}

/// Writes (or replaces) the note of an attempt.
pub(crate) fn write(folder: &Path, attempt: &str, note: &Note) -> std::io::Result<()> {
    let path = note_path(folder, attempt);
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec(note).map_err(std::io::Error::other)?)?;
    fs::rename(new, path)
}

/// The attempt's group is gone.
pub(crate) fn remove(folder: &Path, attempt: &str) {
    // If this fails the next start looks for processes that are not there.
    let _ = fs::remove_file(note_path(folder, attempt));
}

/// Start time of a process in clock ticks since boot; None: there is no such process.
pub(crate) fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the fields behind the last one are counted from 3 (proc(5)), starttime is 22.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// Kills all that is noted in `folder` and waits until it is dead. Returns how many were found; fails if one will not die.
pub(crate) fn kill_all(folder: &Path) -> std::io::Result<usize> {
    let mut notes = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // A torn note of a crash of the machine: then its processes are gone too.
        let note = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok());
        notes.push((path, note));
    }
    let runs: Vec<&Note> = notes.iter().filter_map(|(_, note)| note.as_ref()).collect();
    let deadline = boottime_ms() + LEFTOVERS_DIE_MS;
    let mut found = 0;
    loop {
        let Look { alive, starting } = kill_once(&runs);
        found = found.max(alive);
        let late = boottime_ms() > deadline;
        if alive == 0 && (starting == 0 || late) {
            break;
        }
        if late {
            let text =
                format!("failed to kill {alive} processes that an earlier worker left; end them, then start again");
            return Err(std::io::Error::other(text));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    for (path, _) in &notes {
        fs::remove_file(path)?;
    }
    Ok(found)
}

/// Kills the processes of a run that are outside its group, and waits until they are dead. False: one does not die in time; then its note
/// must stay for the next start of a worker here, which does not begin before it is dead.
pub(crate) fn kill_run(run: &str) -> bool {
    let note = Note { run: run.to_owned(), pid: 0, start_ticks: 0 };
    let deadline = boottime_ms() + RUN_DIE_MS;
    let mut looks = 0;
    loop {
        let Look { alive, starting } = kill_once(&[&note]);
        looks += 1;
        // Processes of others start all the time: they are looked at again, but not waited for.
        if alive == 0 && (starting == 0 || looks >= STARTING_LOOKS) {
            return true;
        }
        if boottime_ms() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What one look at all processes found.
struct Look {
    /// Processes of these runs; each was killed.
    alive: usize,
    /// Processes in the middle of an exec, which show neither environment nor arguments for an instant: whose they are is told by the
    /// next look.
    starting: usize,
}

/// One look at all processes: kills those of these runs and counts them.
fn kill_once(runs: &[&Note]) -> Look {
    let mut look = Look { alive: 0, starting: 0 };
    for note in runs {
        if let Some(pid) = Pid::from_raw(note.pid).filter(|_| start_ticks(note.pid) == Some(note.start_ticks)) {
            // The group too: members that dropped their environment are in it.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
    if runs.is_empty() {
        return look;
    }
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // A zombie has no environment any more: it does not count.
        let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
        if environment.is_empty() && is_starting(&entry.path()) {
            look.starting += 1;
            continue;
        }
        let prefix = format!("{RUN_VARIABLE}=");
        let run = environment.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(prefix.as_bytes()));
        let ours = run.is_some_and(|run| runs.iter().any(|note| note.run.as_bytes() == run));
        if let Some(pid) = Pid::from_raw(pid).filter(|_| ours && pid != own) {
            look.alive += 1;
            // Gone meanwhile: the next look sees it.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    look
}

/// Whether a process without an environment is one whose exec is not complete: it has a program and not even an empty argument. (A
/// kernel thread has no program, a program that was started without an environment has arguments.)
fn is_starting(process: &Path) -> bool {
    fs::read_link(process.join("exe")).is_ok() && fs::read(process.join("cmdline")).is_ok_and(|line| line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_of_a_process_is_read_and_of_none_is_not() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        assert!(start_ticks(own).is_some_and(|ticks| ticks > 0));
        assert_eq!(start_ticks(-1), None);
    }

    #[test]
    fn a_process_that_took_over_a_number_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut bystander = std::process::Command::new("sleep").arg("60").spawn().expect("sleep exists");
        let pid = i32::try_from(bystander.id()).expect("a pid");
        let other_time = start_ticks(pid).expect("it runs") + 1;
        write(folder.path(), "7", &Note { run: "of-another".to_owned(), pid, start_ticks: other_time })
            .expect("writable");
        assert_eq!(kill_all(folder.path()).expect("nothing to kill"), 0);
        assert!(bystander.try_wait().expect("ours").is_none(), "still running");
        bystander.kill().expect("ours");
        bystander.wait().expect("ours");
    }

    #[test]
    fn a_noted_run_is_killed_even_outside_its_group() {
        use std::os::unix::process::CommandExt;
        let folder = tempfile::tempdir().expect("a folder");
        let run = format!("test-{}", std::process::id());
        let mut left = std::process::Command::new("sleep")
            .arg("60")
            .env(RUN_VARIABLE, &run)
            .process_group(0)
            .spawn()
            .expect("sleep exists");
        write(folder.path(), "7", &Note { run, pid: 0, start_ticks: 0 }).expect("writable");
        assert_eq!(kill_all(folder.path()).expect("it dies"), 1);
        assert!(!left.wait().expect("ours").success());
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 0);
    }
}
