//! Marks of records, by which a log is recognised: one that was deleted and created again, or that was truncated, has other
//! records at the same offsets.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

use foretell_streams::record::{InputRecord, Offset};

/// A record of the log: its offset and a hash of its content and timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordMark {
    pub(super) offset: Offset,
    hash: [u8; 32],
}

impl RecordMark {
    pub(super) fn of(record: &InputRecord) -> Self {
        let mut hash = Sha256::new();
        let mut add = |bytes: Option<&[u8]>| {
            // With its length, so that no two records give the same bytes.
            let length = bytes.map_or(u64::MAX, |bytes| bytes.len() as u64);
            hash.update(length.to_le_bytes());
            hash.update(bytes.unwrap_or_default());
        };
        add(record.key.as_deref());
        add(record.value.as_deref());
        for header in &record.headers {
            add(Some(header.name.as_bytes()));
            add(Some(&header.value));
        }
        hash.update(record.timestamp.0.to_le_bytes());
        Self { offset: record.offset, hash: hash.finalize().into() }
    }

    pub(super) fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&self.offset.0.to_le_bytes())?;
        to.write_all(&self.hash)
    }

    pub(super) fn read(from: &mut dyn Read) -> io::Result<Self> {
        let (mut offset, mut hash) = ([0; 8], [0; 32]);
        from.read_exact(&mut offset)?;
        from.read_exact(&mut hash)?;
        Ok(Self { offset: Offset(i64::from_le_bytes(offset)), hash })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_streams::{
        record::{Header, Partition, Topic, TopicPartition},
        time::EventTime,
    };

    #[test]
    fn each_part_of_a_record_is_in_its_mark() {
        let header = |name: &str, value: &str| Header {
            name: name.to_owned(),
            value: value.as_bytes().to_vec(),
        };
        let record = InputRecord {
            source: TopicPartition { topic: Topic::new("log"), partition: Partition(0) },
            offset: Offset(7),
            timestamp: EventTime(70),
            key: Some(b"key".to_vec()),
            value: Some(b"value".to_vec()),
            headers: vec![header("a", "b")],
        };
        let others = [
            InputRecord { offset: Offset(8), ..record.clone() },
            InputRecord { timestamp: EventTime(71), ..record.clone() },
            InputRecord { key: None, ..record.clone() },
            InputRecord { key: Some(b"keyv".to_vec()), ..record.clone() },
            InputRecord { value: Some(Vec::new()), ..record.clone() },
            InputRecord { value: None, ..record.clone() },
            InputRecord { headers: Vec::new(), ..record.clone() },
            InputRecord { headers: vec![header("ab", "")], ..record.clone() },
        ];
        let mut marks: Vec<RecordMark> = others.iter().map(RecordMark::of).collect();
        marks.push(RecordMark::of(&record));
        for (number, mark) in marks.iter().enumerate() {
            assert!(!marks[..number].contains(mark), "{number}");
            let mut bytes = Vec::new();
            mark.write(&mut bytes).unwrap();
            assert_eq!(RecordMark::read(&mut bytes.as_slice()).unwrap(), *mark);
        }
    }
}
