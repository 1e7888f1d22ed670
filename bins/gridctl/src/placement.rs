//! The flags of `gridctl task submit` that say where a task may run, how much it takes, and before whom it goes.

use raftgrid_proto::v1::{Constraint, GangSpec, Label, Operator, Preference, TaskSpec};
use structopt::StructOpt;

use crate::failure::{Failure, Result};

#[derive(Clone, Debug, Default, StructOpt)]
pub(crate) struct Placement {
    /// Queue of the task [default: the default queue]
    #[structopt(long, value_name = "NAME")]
    pub(crate) queue: Option<String>,
    /// 0 to 100; higher goes first [default: that of the queue]
    #[structopt(long, value_name = "N")]
    pub(crate) priority: Option<i32>,
    /// Tasks at once that it counts for on its node
    #[structopt(long = "task-slots", value_name = "N")]
    pub(crate) slots: Option<u32>,
    /// Thousandths of a core
    #[structopt(long, value_name = "N")]
    pub(crate) cpu_milli: Option<u64>,
    /// Bytes of memory
    #[structopt(long, value_name = "N")]
    pub(crate) memory_bytes: Option<u64>,
    /// GPUs
    #[structopt(long, value_name = "N")]
    pub(crate) gpus: Option<u32>,
    /// Only on such a node: region=eu, arch!=arm64, gpu_memory_bytes>=17179869184, zone=a|b, ssd, !spot
    #[structopt(long, value_name = "CONSTRAINT", number_of_values = 1)]
    pub(crate) require: Vec<String>,
    /// Rather on such a node; written as --require
    #[structopt(long, value_name = "CONSTRAINT", number_of_values = 1)]
    pub(crate) prefer: Vec<String>,
    /// Spread the tasks of its labels over this attribute, such as region or node
    #[structopt(long, value_name = "ATTRIBUTE")]
    pub(crate) spread: Option<String>,
    /// A label of the task, KEY=VALUE
    #[structopt(long, value_name = "LABEL", number_of_values = 1)]
    pub(crate) label: Vec<String>,
    /// Work that goes first may take its place
    #[structopt(long)]
    pub(crate) preemptible: bool,
    /// Refuse it if no registered node could ever run it
    #[structopt(long)]
    pub(crate) fail_fast: bool,
    /// A job of so many members that are placed together or not at all: MEMBERS, or MIN:MAX; needs --id
    #[structopt(long, value_name = "MEMBERS")]
    pub(crate) gang: Option<String>,
}

impl Placement {
    /// As a spec; None: nothing was said.
    pub(crate) fn spec(&self) -> Result<Option<TaskSpec>> {
        let mut spec = TaskSpec::new();
        spec.set_queue(self.queue.clone().unwrap_or_default());
        spec.set_priority(self.priority.unwrap_or_default());
        spec.set_spread_over(self.spread.clone().unwrap_or_default());
        spec.set_preemptible(self.preemptible);
        if self.slots.is_some() || self.cpu_milli.is_some() || self.memory_bytes.is_some() || self.gpus.is_some() {
            let resources = spec.mut_resources();
            resources.set_slots(self.slots.unwrap_or_default());
            resources.set_cpu_milli(self.cpu_milli.unwrap_or_default());
            resources.set_memory_bytes(self.memory_bytes.unwrap_or_default());
            resources.set_gpus(self.gpus.unwrap_or_default());
        }
        for text in &self.require {
            spec.mut_constraints().push(constraint("--require", text)?);
        }
        for text in &self.prefer {
            let mut preference = Preference::new();
            preference.set_wanted(constraint("--prefer", text)?);
            preference.set_weight(1);
            spec.mut_preferences().push(preference);
        }
        for text in &self.label {
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| Failure::usage(format!("--label {text} is not KEY=VALUE"), "--label app=web"))?;
            spec.mut_labels().push(Label { key: key.to_owned(), value: value.to_owned(), ..Label::default() });
        }
        Ok((spec != TaskSpec::new()).then_some(spec))
    }

    /// The gang that was asked for.
    pub(crate) fn gang(&self) -> Result<Option<GangSpec>> {
        let Some(text) = &self.gang else { return Ok(None) };
        let number = |text: &str| {
            text.parse::<u32>()
                .map_err(|_| Failure::usage(format!("--gang {text} is not a number"), "--gang 4, or 2:4"))
        };
        let (min, max) = match text.split_once(':') {
            Some((min, max)) => (number(min)?, number(max)?),
            None => (number(text)?, number(text)?),
        };
        Ok(Some(GangSpec { min_members: min, max_members: max, ..GangSpec::default() }))
    }
}

/// `KEY`, `!KEY`, `KEY=VALUE`, `KEY=A|B`, `KEY!=VALUE`, `KEY>=N`, `KEY<=N`.
fn constraint(flag: &str, text: &str) -> Result<Constraint> {
    let operators = [
        ("!=", Operator::OP_NOT_EQUAL),
        (">=", Operator::OP_AT_LEAST),
        ("<=", Operator::OP_AT_MOST),
        ("=", Operator::OP_EQUAL),
    ];
    let split = operators.iter().find_map(|(sign, operator)| {
        let (key, value) = text.split_once(sign)?;
        Some((key, *operator, value))
    });
    let (key, operator, value) = match (split, text.strip_prefix('!')) {
        (Some(split), _) => split,
        (None, Some(key)) => (key, Operator::OP_NOT_EXISTS, ""),
        (None, None) => (text, Operator::OP_EXISTS, ""),
    };
    if key.trim().is_empty() {
        let why = format!("{flag} {text} names no attribute");
        return Err(Failure::usage(why, format!("{flag} region=eu")));
    }
    let mut constraint = Constraint { key: key.trim().to_owned(), operator, ..Constraint::default() };
    if operator == Operator::OP_EQUAL && value.contains('|') {
        constraint.operator = Operator::OP_IN;
        constraint.values = value.split('|').map(|value| value.trim().to_owned()).collect();
    } else {
        constraint.value = value.trim().to_owned();
    }
    Ok(constraint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constraint_is_read_as_it_is_written() {
        let read = |text: &str| {
            let constraint = constraint("--require", text).expect("well formed");
            (constraint.key, constraint.operator, constraint.value, constraint.values.into_vec())
        };
        let is = |key: &str, operator, value: &str| (key.to_owned(), operator, value.to_owned(), Vec::new());
        assert_eq!(read("region=eu"), is("region", Operator::OP_EQUAL, "eu"));
        assert_eq!(read("arch!=arm64"), is("arch", Operator::OP_NOT_EQUAL, "arm64"));
        assert_eq!(read("rack >= 7"), is("rack", Operator::OP_AT_LEAST, "7"));
        assert_eq!(read("rack<=7"), is("rack", Operator::OP_AT_MOST, "7"));
        assert_eq!(read("ssd"), is("ssd", Operator::OP_EXISTS, ""));
        assert_eq!(read("!spot"), is("spot", Operator::OP_NOT_EXISTS, ""));
        assert_eq!(read("zone=a|b").3, ["a", "b"]);
        assert!(constraint("--require", "=x").unwrap_err().to_string().contains("names no attribute"));
    }

    #[test]
    fn a_gang_has_a_least_and_a_greatest_number_of_members() {
        let gang = |text: &str| Placement { gang: Some(text.to_owned()), ..Placement::default() }.gang();
        let members = |text: &str| gang(text).expect("well formed").map(|gang| (gang.min_members, gang.max_members));
        assert_eq!(members("4"), Some((4, 4)));
        assert_eq!(members("2:4"), Some((2, 4)));
        assert!(gang("four").is_err());
        assert_eq!(Placement::default().spec().expect("nothing said"), None);
    }
}
