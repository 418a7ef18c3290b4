//! Reads the framing of protobuf messages. Every length is checked against the bytes
//! that exist, so a damaged or hostile file is an error.

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A variable-length integer.
    Varint(u64),
    /// Eight bytes.
    Fixed64([u8; 8]),
    /// A string, bytes, a message, or a packed list.
    Bytes(&'a [u8]),
    /// Four bytes.
    Fixed32([u8; 4]),
}

/// A field of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Field<'a> {
    /// The number that identifies the field.
    pub number: u32,
    /// The value of the field.
    pub value: Value<'a>,
}

impl<'a> Field<'a> {
    /// The content of a length-delimited field. The error describes the fault.
    pub fn bytes(&self) -> Result<&'a [u8], String> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(format!("field {} has the wrong type", self.number)),
        }
    }

    /// The content of a string field.
    pub fn text(&self) -> Result<&'a str, String> {
        let text = std::str::from_utf8(self.bytes()?);
        text.map_err(|_| format!("field {} is not UTF-8", self.number))
    }

    /// The value of an integer field.
    pub fn integer(&self) -> Result<i64, String> {
        match self.value {
            Value::Varint(value) => Ok(value.cast_signed()),
            _ => Err(format!("field {} has the wrong type", self.number)),
        }
    }

    /// Appends the values of a repeated integer field. The field may be packed or not.
    pub fn integers(&self, values: &mut Vec<i64>) -> Result<(), String> {
        match self.value {
            Value::Varint(value) => values.push(value.cast_signed()),
            Value::Bytes(mut packed) => {
                while !packed.is_empty() {
                    values.push(varint(&mut packed)?.cast_signed());
                }
            }
            _ => return Err(format!("field {} has the wrong type", self.number)),
        }
        Ok(())
    }
}

/// An iterator over the fields of a message, in the order of its bytes. After an error,
/// the iterator ends.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Makes the iterator over the fields of this message.
    pub fn of(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message }
    }

    fn read(&mut self) -> Result<Field<'a>, String> {
        let key = varint(&mut self.rest)?;
        let number = u32::try_from(key >> 3).unwrap_or(0);
        if number == 0 || number >= 1 << 29 {
            return Err("a field has an impossible number".to_owned());
        }
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut self.rest)?),
            1 => Value::Fixed64(*self.take_array()?),
            2 => {
                let length = varint(&mut self.rest)?;
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(*self.take_array()?),
            other => return Err(format!("field {number} has the unknown wire type {other}")),
        };
        Ok(Field { number, value })
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(format!(
                "a field has {length} bytes, and {} are left",
                self.rest.len()
            ));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Result<&'a [u8; N], String> {
        let Some((taken, rest)) = self.rest.split_first_chunk() else {
            return Err("it ends inside a field".to_owned());
        };
        self.rest = rest;
        Ok(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Takes a variable-length integer from the start of `bytes`.
fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let Some((byte, rest)) = bytes.split_first() else {
            return Err("it ends inside a number".to_owned());
        };
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err("a number has more than 64 bits".to_owned());
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number has more than ten bytes".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_wire_type_is_read() {
        let message = [
            0x08, 0x96, 0x01, // field 1: 150
            0x11, 1, 2, 3, 4, 5, 6, 7, 8, // field 2: eight bytes
            0x1a, 2, b'a', b'b', // field 3: "ab"
            0x25, 1, 2, 3, 4, // field 4: four bytes
        ];
        let fields: Vec<_> = Fields::of(&message).map(Result::unwrap).collect();
        let values: Vec<_> = fields
            .iter()
            .map(|field| (field.number, field.value))
            .collect();
        assert_eq!(
            values,
            [
                (1, Value::Varint(150)),
                (2, Value::Fixed64([1, 2, 3, 4, 5, 6, 7, 8])),
                (3, Value::Bytes(b"ab")),
                (4, Value::Fixed32([1, 2, 3, 4])),
            ]
        );
        assert_eq!(fields[2].text(), Ok("ab"));
        assert!(fields[2].integer().is_err() && fields[0].bytes().is_err());
        let mut values = Vec::new();
        fields[0].integers(&mut values).unwrap();
        fields[2].integers(&mut values).unwrap();
        assert_eq!(values, [150, 97, 98]);
    }

    #[test]
    fn damage_is_an_error_and_ends_the_message() {
        for (message, reason) in [
            (&[0x08][..], "it ends inside a number"),
            (&[0x1a, 5, b'a'], "a field has 5 bytes, and 1 are left"),
            (&[0x25, 1, 2], "it ends inside a field"),
            (&[0x0b], "field 1 has the unknown wire type 3"),
            (&[0x00, 0x00], "a field has an impossible number"),
            (&[0xff; 11], "a number has more than 64 bits"),
        ] {
            let fields: Vec<_> = Fields::of(message).collect();
            assert_eq!(fields, [Err(reason.to_owned())], "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_fields_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let count = Fields::of(&bytes).take(1000).count();
            prop_assert!(count <= bytes.len());
        }
    }
}
