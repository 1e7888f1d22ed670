//! Log, tables, snapshots, boot, install, truncation, identity: all logic, over a narrow Disk trait.
