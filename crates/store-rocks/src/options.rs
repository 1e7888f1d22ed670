//! Options of the two databases, each with its reason.

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, InfoLogger, LogLevel, Options};

use crate::limits::{
    BACKGROUND_JOBS_MAX, BYTES_PER_SYNC, EVENT_LOGS_KEPT, EVENT_LOG_BYTES_MAX, FILTER_BITS_PER_KEY,
    LOG_WRITE_BUFFERS_MAX, LOG_WRITE_BUFFER_BYTES, STATE_WRITE_BUFFERS_MAX, STATE_WRITE_BUFFER_BYTES,
    STATE_YOUNG_FILES_MAX, STATE_YOUNG_FILES_SLOW, TABLE_FILE_BYTES,
};

fn common(cache: &Cache, filter: bool) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    // The default, spelled out: a database that does not hold together must not open.
    options.set_paranoid_checks(true);
    options.set_max_background_jobs(BACKGROUND_JOBS_MAX);
    // Every database has one writer: the machinery for several would only spin.
    options.set_allow_concurrent_memtable_write(false);
    options.set_enable_write_thread_adaptive_yield(false);
    options.set_bytes_per_sync(BYTES_PER_SYNC);
    options.set_target_file_size_base(TABLE_FILE_BYTES);
    // Files stay open: a state directory is removed while views of it still read.
    options.set_max_open_files(-1);
    options.set_max_file_opening_threads(1);
    // A fast open; the figures are not used.
    options.set_skip_stats_update_on_db_open(true);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(EVENT_LOG_BYTES_MAX);
    options.set_keep_log_file_num(EVENT_LOGS_KEPT);
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    // Index and filters count against the cache, so that memory is bounded whatever the size of the state.
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    if filter {
        blocks.set_bloom_filter(FILTER_BITS_PER_KEY, false);
    }
    options.set_block_based_table_factory(&blocks);
    options
}

/// The log: written once, read rarely, deleted soon.
pub(crate) fn log(cache: &Cache) -> Options {
    let mut options = common(cache, false);
    // A torn record at the very end is a write that was never synced. Any other wrong checksum must refuse to open:
    // the default mode would silently drop all records behind it (durability rule 7).
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // A recycled file has old records behind its end, which that mode would take for damage or for data.
    options.set_recycle_log_file_num(0);
    // A write-ahead file that is gone, or shorter than it was when it was closed, is noticed.
    options.set_track_and_verify_wals_in_manifest(true);
    // Each write goes to the kernel at once, so that what is visible survives a kill; `sync` adds the fsync.
    options.set_manual_wal_flush(false);
    options.set_write_buffer_size(LOG_WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(LOG_WRITE_BUFFERS_MAX);
    // Most entries are deleted before a second compaction: compressing them costs more than it saves.
    options.set_compression_type(DBCompressionType::None);
    options
}

/// The tables: read by key and in order, rewritten often.
pub(crate) fn state(cache: &Cache) -> Options {
    let mut options = common(cache, true);
    // There is one column family, so a flush is atomic anyway; this keeps it so should a second ever come.
    options.set_atomic_flush(true);
    options.set_write_buffer_size(STATE_WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(STATE_WRITE_BUFFERS_MAX);
    options.set_level_zero_slowdown_writes_trigger(STATE_YOUNG_FILES_SLOW);
    options.set_level_zero_stop_writes_trigger(STATE_YOUNG_FILES_MAX);
    options.set_compression_type(DBCompressionType::Lz4);
    // What is young is rewritten soon: compressing it costs more than it saves.
    options.set_compression_per_level(&[DBCompressionType::None, DBCompressionType::None, DBCompressionType::Lz4]);
    options
}

/// A tables' database that is only looked at: nothing is made, no event log is left in it.
pub(crate) fn look(cache: &Cache) -> Options {
    let mut options = state(cache);
    options.create_if_missing(false);
    options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Fatal, |_, _| {}));
    options
}
