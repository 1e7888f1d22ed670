//! A tables' database as files: what a checkpoint leaves and a snapshot carries.

use std::collections::BTreeMap;

use super::node::Rows;

/// Names the pieces; without it the files are no database.
pub(super) const CURRENT: &str = "CURRENT";
/// Bytes of rows in one file.
const PIECE_BYTES: usize = 2 << 10;

fn put(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(part);
}

fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn opened(bytes: &[u8]) -> Option<&[u8]> {
    let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    (crc32c::crc32c(body).to_le_bytes() == crc).then_some(body)
}

/// The files of `rows`.
pub(super) fn files(rows: &Rows) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut piece = Vec::new();
    let mut count = 0_u32;
    for (key, value) in rows {
        put(&mut piece, key);
        put(&mut piece, value);
        if piece.len() >= PIECE_BYTES {
            files.insert(format!("{count:06}.sst"), sealed(std::mem::take(&mut piece)));
            count += 1;
        }
    }
    if !piece.is_empty() {
        files.insert(format!("{count:06}.sst"), sealed(piece));
        count += 1;
    }
    let mut current = count.to_le_bytes().to_vec();
    current.extend_from_slice(&(rows.len() as u64).to_le_bytes());
    files.insert(CURRENT.to_owned(), sealed(current));
    files
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, tail) = rest.split_at_checked(4)?;
    let length = usize::try_from(u32::from_le_bytes(length.try_into().ok()?)).ok()?;
    let (part, tail) = tail.split_at_checked(length)?;
    *rest = tail;
    Some(part)
}

/// The rows in the files that `file` gives by name; Err says what is wrong with them.
pub(super) fn rows<'a>(file: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Rows, String> {
    let body = |name: &str| {
        let bytes = file(name).ok_or_else(|| format!("{name} is missing"))?;
        opened(bytes).ok_or_else(|| format!("the checksum of {name} is wrong"))
    };
    let current = body(CURRENT)?;
    let (count, total) = current.split_at_checked(4).ok_or("CURRENT is too short")?;
    let count = count.try_into().map(u32::from_le_bytes).map_err(|_| "CURRENT is too short")?;
    let mut rows = Rows::new();
    for number in 0..count {
        let mut rest = body(&format!("{number:06}.sst"))?;
        while !rest.is_empty() {
            let key = take(&mut rest).ok_or("a row is cut off")?;
            let value = take(&mut rest).ok_or("a row is cut off")?;
            rows.insert(key.to_vec(), value.to_vec());
        }
    }
    if total != (rows.len() as u64).to_le_bytes() {
        return Err("rows are missing".to_owned());
    }
    Ok(rows)
}

/// The values of `keys` in the files that `file` gives by name. As with real tables, only what is read is checked: another piece may be damaged.
pub(super) fn peek<'a>(
    file: impl Fn(&str) -> Option<&'a [u8]>,
    keys: &[&[u8]],
) -> Result<Vec<Option<Vec<u8>>>, String> {
    let current = file(CURRENT).ok_or("CURRENT is missing")?;
    let current = opened(current).and_then(|body| body.split_at_checked(4)).ok_or("CURRENT is damaged")?;
    let count = current.0.try_into().map(u32::from_le_bytes).map_err(|_| "CURRENT is too short")?;
    let mut found = vec![None; keys.len()];
    for number in 0..count {
        let name = format!("{number:06}.sst");
        let bytes = file(&name).ok_or_else(|| format!("{name} is missing"))?;
        let mut rest = bytes.get(..bytes.len().saturating_sub(4)).unwrap_or_default();
        while let Some((key, value)) = take(&mut rest).and_then(|key| Some((key, take(&mut rest)?))) {
            let Some(place) = keys.iter().position(|wanted| *wanted == key) else { continue };
            opened(bytes).ok_or_else(|| format!("the checksum of {name} is wrong"))?;
            found[place] = Some(value.to_vec());
        }
    }
    Ok(found)
}
