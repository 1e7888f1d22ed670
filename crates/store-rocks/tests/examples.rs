//! The examples do what they say.

#[allow(dead_code, reason = "its main is cargo's to call")]
#[path = "../examples/counter.rs"]
mod counter;

#[test]
fn the_counter_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    assert_eq!(counter::run(dir.path(), &[1, 2, 3]).expect("it counts"), 6);
    assert_eq!(counter::run(dir.path(), &[4]).expect("it counts on"), 10);
}
