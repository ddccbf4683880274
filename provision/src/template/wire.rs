//! Protocol buffers without their schema: enough of them to change single fields and keep everything else as it was
//! (<https://protobuf.dev/programming-guides/encoding/>).

/// A message: its fields in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    fields: Vec<(u32, Value)>,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Varint(u64),
    Fixed64([u8; 8]),
    /// A text, bytes or another message.
    Bytes(Vec<u8>),
    Fixed32([u8; 4]),
}

impl Message {
    /// Reads a message; `None` when these bytes are none.
    pub(super) fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes)?;
            let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0)?;
            let value = match tag & 7 {
                0 => Value::Varint(varint(&mut bytes)?),
                1 => Value::Fixed64(*bytes.split_off(..8)?.first_chunk()?),
                2 => {
                    let length = usize::try_from(varint(&mut bytes)?).ok()?;
                    Value::Bytes(bytes.split_off(..length)?.to_vec())
                }
                5 => Value::Fixed32(*bytes.split_off(..4)?.first_chunk()?),
                // Groups have not been used since before Kubernetes.
                _ => return None,
            };
            fields.push((number, value));
        }
        Some(Self { fields })
    }

    /// The message in bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, value) in &self.fields {
            let tag = u64::from(*number) << 3;
            match value {
                Value::Varint(value) => {
                    put_varint(&mut bytes, tag);
                    put_varint(&mut bytes, *value);
                }
                Value::Fixed64(value) => {
                    put_varint(&mut bytes, tag | 1);
                    bytes.extend_from_slice(value);
                }
                Value::Bytes(value) => {
                    put_varint(&mut bytes, tag | 2);
                    put_varint(&mut bytes, value.len() as u64);
                    bytes.extend_from_slice(value);
                }
                Value::Fixed32(value) => {
                    put_varint(&mut bytes, tag | 5);
                    bytes.extend_from_slice(value);
                }
            }
        }
        bytes
    }

    /// The first text or message of that number.
    pub(super) fn bytes(&self, number: u32) -> Option<&[u8]> {
        self.all(number).next()
    }

    /// The texts or messages of that number.
    pub(super) fn all(&self, number: u32) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().filter_map(move |(found, value)| match value {
            Value::Bytes(bytes) if *found == number => Some(bytes.as_slice()),
            _ => None,
        })
    }

    /// Adds a field at the end.
    pub(super) fn push(&mut self, number: u32, value: Value) {
        self.fields.push((number, value));
    }

    /// Removes all fields of that number.
    pub(super) fn remove(&mut self, number: u32) {
        self.fields.retain(|(found, _)| *found != number);
    }

    /// Keeps those messages of a repeated field that `keep` says. What is no message stays.
    pub(super) fn retain(&mut self, number: u32, mut keep: impl FnMut(&Self) -> bool) {
        self.fields.retain(|(found, value)| match value {
            Value::Bytes(bytes) if *found == number => Self::parse(bytes).is_none_or(|inner| keep(&inner)),
            _ => true,
        });
    }

    /// Calls `change` with every value at the end of `path`: field numbers from here inwards.
    pub(super) fn edit(&mut self, path: &[u32], change: &mut dyn FnMut(&mut Value)) {
        let Some((number, rest)) = path.split_first() else { return };
        for (found, value) in self.fields.iter_mut().filter(|(found, _)| found == number) {
            debug_assert_eq!(found, number);
            if rest.is_empty() {
                change(value);
            } else if let Value::Bytes(bytes) = value
                && let Some(mut inner) = Self::parse(bytes)
            {
                inner.edit(rest, change);
                *bytes = inner.encode();
            }
        }
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(number: u32, text: &str) -> (u32, Value) {
        (number, Value::Bytes(text.as_bytes().to_vec()))
    }

    #[test]
    fn the_example_of_the_specification_is_read() {
        let message = Message::parse(&[0x08, 0x96, 0x01]).unwrap();
        assert_eq!(message.fields, [(1, Value::Varint(150))]);
        assert_eq!(message.encode(), [0x08, 0x96, 0x01]);
    }

    #[test]
    fn what_is_inside_is_changed_and_lengths_follow() {
        let inner = Message { fields: vec![text(1, "name"), (8, Value::Varint(1))] };
        let mut outer = Message { fields: vec![(1, Value::Bytes(inner.encode())), text(2, "rest")] };
        outer.edit(&[1, 1], &mut |value| *value = Value::Bytes(b"a longer name".to_vec()));
        outer.edit(&[1, 8], &mut |value| *value = Value::Varint(1 << 40));
        let inner = Message::parse(outer.bytes(1).unwrap()).unwrap();
        assert_eq!(inner.fields, [text(1, "a longer name"), (8, Value::Varint(1 << 40))]);
        assert_eq!(outer.bytes(2), Some(&b"rest"[..]));
    }

    #[test]
    fn what_is_cut_or_no_message_is_refused() {
        for bytes in [&[0x08][..], &[0x0a, 5, b'a'], &[0x0b], &[0x00, 0x00], &[0xff; 11], &[0x0d, 1, 2]] {
            assert_eq!(Message::parse(bytes), None, "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost(numbers in proptest::collection::vec((1_u32..5000, any::<u64>(), any::<Vec<u8>>()), 0..20)) {
            let fields = numbers.into_iter().flat_map(|(number, varint, bytes)| {
                let half = u32::try_from(varint >> 32).unwrap_or_default();
                [
                    (number, Value::Varint(varint)), (number, Value::Bytes(bytes)),
                    (number, Value::Fixed64(varint.to_le_bytes())), (number, Value::Fixed32(half.to_le_bytes())),
                ]
            });
            let message = Message { fields: fields.collect() };
            prop_assert_eq!(Message::parse(&message.encode()), Some(message));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>()) {
            if let Some(message) = Message::parse(&bytes) {
                prop_assert_eq!(Message::parse(&message.encode()), Some(message));
            }
        }
    }
}
