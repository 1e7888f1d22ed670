//! What a member of a gang is told of the others: the variables that torch and MPI programs read.

use crate::environment::Variables;

/// Where the processes of a gang meet, unless the member that they meet at has this port in use.
const PORT_FIRST: u16 = 29_500;
const PORTS: u64 = 400;

/// One member's place, as the scheduler has given it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) rank: u32,
    pub(crate) world_size: u32,
    /// Host of rank 0.
    pub(crate) master_address: String,
    /// Rises with each placement of the gang.
    pub(crate) generation: u64,
}

/// Adds RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, LOCAL_RANK and NODE_RANK. Each member is one process of one node: LOCAL_RANK is 0.
pub(crate) fn add(variables: &mut Variables, place: &Place) {
    // The same for all members, and another one after each placement: the last one's socket may still be closing.
    let port = PORT_FIRST + u16::try_from(place.generation % PORTS).unwrap_or(0);
    let own = [
        ("RANK", place.rank.to_string()),
        ("WORLD_SIZE", place.world_size.to_string()),
        ("LOCAL_RANK", "0".to_owned()),
        ("NODE_RANK", place.rank.to_string()),
        ("GROUP_RANK", place.rank.to_string()),
        ("MASTER_ADDR", place.master_address.clone()),
        ("MASTER_PORT", port.to_string()),
    ];
    variables.extend(own.map(|(key, value)| (key.to_owned(), value)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_members_meet_at_one_port_and_a_new_placement_has_another() {
        let place = |rank, generation| Place { rank, world_size: 4, master_address: "host-a".to_owned(), generation };
        let told = |place: &Place| {
            let mut variables = Variables::from([("RANK".to_owned(), "of the worker's shell".to_owned())]);
            add(&mut variables, place);
            variables
        };
        let (first, second, again) =
            (told(&place(0, 1 << 40)), told(&place(3, 1 << 40)), told(&place(3, (1 << 40) + 1)));
        assert_eq!((first["RANK"].as_str(), second["RANK"].as_str(), second["WORLD_SIZE"].as_str()), ("0", "3", "4"));
        assert_eq!(first["MASTER_PORT"], second["MASTER_PORT"]);
        assert_ne!(second["MASTER_PORT"], again["MASTER_PORT"]);
        assert_eq!(second["MASTER_ADDR"], "host-a");
    }
}
