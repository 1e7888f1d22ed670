//! What nodes have, by name, and how a constraint compares it with what it names. Pure; used by `predicates` and by what checks specs.

use std::borrow::Cow;

use raftgrid_proto::v1::{Constraint, Node, Operator};

/// The machine version from which on operators other than "equal", and attributes other than `cloud_provider`, `region` and labels, mean
/// something.
pub(crate) const ATTRIBUTES_SINCE: u64 = 3;

/// Attributes that say something of each GPU of a node.
const OF_GPUS: [&str; 2] = ["gpu_model", "gpu_memory_bytes"];

/// The attribute of the node; None: it has none of that name. A label hides a built-in attribute of the same name, but for `cloud_provider`
/// and `region`: labels were there first.
pub fn attribute<'a>(version: u64, node: &'a Node, key: &str) -> Option<Cow<'a, str>> {
    match key {
        "cloud_provider" => return Some(Cow::Borrowed(&node.cloud_provider)),
        "region" => return Some(Cow::Borrowed(&node.region)),
        _ => {}
    }
    if let Some(label) = node.labels.iter().find(|label| label.key == key) {
        return Some(Cow::Borrowed(&label.value));
    }
    if version < ATTRIBUTES_SINCE {
        return None;
    }
    let capacity = node.get_capacity();
    let stated = |text: &'a str| (!text.is_empty()).then_some(Cow::Borrowed(text));
    let number = |number: u64| (number != 0).then(|| Cow::Owned(number.to_string()));
    match key {
        "node" => Some(Cow::Borrowed(&node.node_id)),
        "arch" => stated(&node.arch),
        "os" => stated(&node.os),
        "cpu_milli" => number(capacity.cpu_milli),
        "memory_bytes" => number(capacity.memory_bytes),
        "gpus" => Some(Cow::Owned(capacity.gpus.to_string())),
        "slots" => Some(Cow::Owned(capacity.slots.to_string())),
        _ => None,
    }
}

/// Whether the node satisfies the constraint; if not, what it has (None: no such attribute).
pub(crate) fn holds(version: u64, node: &Node, constraint: &Constraint) -> Result<(), Option<String>> {
    let key = constraint.key.as_str();
    let labelled = || node.labels.iter().any(|label| label.key == key);
    if version >= ATTRIBUTES_SINCE && OF_GPUS.contains(&key) && !labelled() && !node.gpus.is_empty() {
        return node.gpus.iter().try_for_each(|gpu| {
            let found = if key == "gpu_model" { gpu.model.clone() } else { gpu.memory_bytes.to_string() };
            if compares(version, constraint, Some(&found)) {
                Ok(())
            } else {
                Err(Some(found))
            }
        });
    }
    let found = attribute(version, node, key);
    if compares(version, constraint, found.as_deref()) {
        return Ok(());
    }
    Err(found.map(Cow::into_owned))
}

fn compares(version: u64, constraint: &Constraint, found: Option<&str>) -> bool {
    let operator = if version < ATTRIBUTES_SINCE { Operator::OP_EQUAL } else { constraint.operator };
    let wanted = constraint.value.as_str();
    match operator {
        Operator::OP_EQUAL => found == Some(wanted),
        Operator::OP_NOT_EQUAL => found != Some(wanted),
        Operator::OP_IN => found.is_some_and(|found| constraint.values.iter().any(|value| value == found)),
        Operator::OP_AT_LEAST => ordered(found, wanted).is_some_and(|(found, wanted)| found >= wanted),
        Operator::OP_AT_MOST => ordered(found, wanted).is_some_and(|(found, wanted)| found <= wanted),
        Operator::OP_EXISTS => found.is_some(),
        Operator::OP_NOT_EXISTS => found.is_none(),
    }
}

/// Both as numbers. What is no number satisfies no comparison of numbers.
fn ordered(found: Option<&str>, wanted: &str) -> Option<(Number, Number)> {
    Some((number(found?)?, number(wanted)?))
}

/// Whole numbers exactly, others as binary floats. The order between the two kinds is that of the floats.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    Whole(i128),
    Real(f64),
}

impl Number {
    fn real(self) -> f64 {
        match self {
            Self::Whole(whole) => whole as f64,
            Self::Real(real) => real,
        }
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.partial_cmp(other) == Some(std::cmp::Ordering::Equal)
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => Some(a.cmp(b)),
            (a, b) => a.real().partial_cmp(&b.real()),
        }
    }
}

/// Digits with or without a point; None for anything else, infinities too.
pub(crate) fn number(text: &str) -> Option<Number> {
    let text = text.trim();
    if let Ok(whole) = text.parse::<i128>() {
        return Some(Number::Whole(whole));
    }
    text.parse::<f64>().ok().filter(|real| real.is_finite()).map(Number::Real)
}

/// What a constraint wants, as people read it.
pub(crate) fn wanted(constraint: &Constraint) -> String {
    let value = &constraint.value;
    match constraint.operator {
        Operator::OP_EQUAL => value.clone(),
        Operator::OP_NOT_EQUAL => format!("anything but {value}"),
        Operator::OP_IN => format!("one of {}", constraint.values.join(", ")),
        Operator::OP_AT_LEAST => format!("at least {value}"),
        Operator::OP_AT_MOST => format!("at most {value}"),
        Operator::OP_EXISTS => "any".to_owned(),
        Operator::OP_NOT_EXISTS => "none".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use protobuf::RepeatedField;
    use raftgrid_proto::v1::{Gpu, Label};

    use super::*;

    fn node() -> Node {
        let mut node = Node { node_id: "a".into(), region: "eu".into(), arch: "x86_64".into(), ..Node::default() };
        let label = |key: &str, value: &str| Label { key: key.into(), value: value.into(), ..Label::default() };
        node.labels = RepeatedField::from_vec(vec![label("rack", "7"), label("speed", "2.5")]);
        node.mut_capacity().memory_bytes = 9_007_199_254_740_993;
        let gpu = |memory_bytes| Gpu { model: "T4".into(), memory_bytes, ..Gpu::default() };
        node.gpus = RepeatedField::from_vec(vec![gpu(16), gpu(24)]);
        node
    }

    fn constraint(key: &str, operator: Operator, values: &[&str]) -> Constraint {
        let mut constraint = Constraint { key: key.into(), operator, ..Constraint::default() };
        match (operator, values) {
            (Operator::OP_IN, values) => constraint.values = values.iter().map(|value| (*value).to_owned()).collect(),
            (_, [value]) => constraint.value = (*value).to_owned(),
            _ => {}
        }
        constraint
    }

    #[test]
    fn each_operator_compares_as_it_says() {
        use Operator as O;
        let cases: &[(&str, Operator, &[&str], bool)] = &[
            ("region", O::OP_EQUAL, &["eu"], true),
            ("region", O::OP_NOT_EQUAL, &["eu"], false),
            ("region", O::OP_NOT_EQUAL, &["us"], true),
            ("zone", O::OP_NOT_EQUAL, &["1"], true),
            ("arch", O::OP_IN, &["aarch64", "x86_64"], true),
            ("arch", O::OP_IN, &["aarch64"], false),
            ("rack", O::OP_AT_LEAST, &["7"], true),
            ("rack", O::OP_AT_LEAST, &["10"], false),
            ("rack", O::OP_AT_MOST, &["10"], true),
            ("speed", O::OP_AT_LEAST, &["2.25"], true),
            ("speed", O::OP_AT_MOST, &["2"], false),
            ("region", O::OP_AT_LEAST, &["1"], false),
            ("memory_bytes", O::OP_AT_LEAST, &["9007199254740993"], true),
            ("memory_bytes", O::OP_AT_LEAST, &["9007199254740994"], false),
            ("rack", O::OP_EXISTS, &[], true),
            ("zone", O::OP_EXISTS, &[], false),
            ("zone", O::OP_NOT_EXISTS, &[], true),
            ("os", O::OP_NOT_EXISTS, &[], true),
            ("node", O::OP_EQUAL, &["a"], true),
            ("gpu_model", O::OP_EQUAL, &["T4"], true),
            ("gpu_memory_bytes", O::OP_AT_LEAST, &["16"], true),
            ("gpu_memory_bytes", O::OP_AT_LEAST, &["24"], false),
        ];
        for (key, operator, values, holds_so) in cases {
            let constraint = constraint(key, *operator, values);
            assert_eq!(holds(3, &node(), &constraint).is_ok(), *holds_so, "{key} {operator:?} {values:?}");
        }
    }

    #[test]
    fn below_version_3_there_are_labels_provider_and_region_only() {
        for key in ["arch", "node", "gpu_model", "memory_bytes"] {
            let found = attribute(3, &node(), key).map(Cow::into_owned);
            let wanted = constraint(key, Operator::OP_EQUAL, &[found.as_deref().unwrap_or("T4")]);
            assert!(holds(3, &node(), &wanted).is_ok(), "{key}");
            assert_eq!(holds(2, &node(), &wanted), Err(None), "{key}");
        }
        assert!(holds(2, &node(), &constraint("region", Operator::OP_EQUAL, &["eu"])).is_ok());
    }

    #[test]
    fn a_label_hides_a_built_in_attribute() {
        let mut node = node();
        node.labels.push(Label { key: "arch".into(), value: "mine".into(), ..Label::default() });
        assert!(holds(3, &node, &constraint("arch", Operator::OP_EQUAL, &["mine"])).is_ok());
    }
}
