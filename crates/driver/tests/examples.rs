//! The examples do what they say.

#[allow(dead_code, reason = "its main is cargo's to call")]
#[path = "../examples/counter.rs"]
mod counter;

#[test]
fn the_counter_counts_on_when_its_leader_stops() {
    assert_eq!(counter::run().expect("two of three go on"), 6);
}
