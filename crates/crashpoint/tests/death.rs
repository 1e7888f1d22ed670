//! A process ends at its point as by SIGKILL. This test program starts itself as the victim.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use raftgrid_crashpoint::{arm_from_environment, last_words, reach, Owner, Point, VARIABLE};

/// Where the victim writes; set for victims only.
const MARKS: &str = "CRASHPOINT_TEST_MARKS";

struct OnDrop<'a>(&'a Path);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        std::fs::write(self.0.join("dropped"), "").expect("writable");
    }
}

#[test]
#[ignore = "it is the victim of the test below"]
fn victim() {
    let Some(marks) = std::env::var_os(MARKS) else { return };
    let marks = Path::new(&marks);
    arm_from_environment(Owner::Controld).expect("a point of controld");
    let _guard = OnDrop(marks);
    for turn in 1..=3 {
        reach(Point::LogWritten);
        reach(Point::LogSynced);
        std::fs::write(marks.join(turn.to_string()), "").expect("writable");
    }
}

fn run(crash_at: Option<&str>, marks: &Path) -> Output {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "victim", "--ignored", "--nocapture"]).env(MARKS, marks).env_remove(VARIABLE);
    if let Some(words) = crash_at {
        command.env(VARIABLE, words);
    }
    command.output().expect("it runs")
}

#[test]
fn a_process_ends_at_the_nth_time_without_destructors_and_says_so() {
    let marks = tempfile::tempdir().expect("a folder");
    let output = run(Some("log.synced:2"), marks.path());
    assert_eq!(output.status.signal(), Some(9), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.lines().any(|line| line == last_words(Point::LogSynced)), "{said}");
    let left: Vec<bool> = ["1", "2", "dropped"].iter().map(|name| marks.path().join(name).exists()).collect();
    assert_eq!(left, [true, false, false], "it went on after its point, or its destructors ran");
}

#[test]
fn a_process_that_is_not_armed_or_armed_with_what_is_never_reached_lives() {
    for crash_at in [None, Some(""), Some("log.synced:4"), Some("state.written")] {
        let marks = tempfile::tempdir().expect("a folder");
        let output = run(crash_at, marks.path());
        assert!(output.status.success(), "{crash_at:?}: {output:?}");
        assert!(marks.path().join("3").exists() && marks.path().join("dropped").exists());
    }
}
