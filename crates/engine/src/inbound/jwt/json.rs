//! JSON as tokens and key sets may have it: one value, every name once in its object, bounded in depth. What two
//! readers could understand in two ways is no JSON here.

use std::collections::BTreeMap;

/// How deep arrays and objects may be nested.
pub const MAX_DEPTH: usize = 16;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    /// As it was written.
    Number(Box<str>),
    String(Box<str>),
    Array(Vec<Value>),
    Object(Object),
}

/// The members of an object.
pub type Object = BTreeMap<Box<str>, Value>;

impl Value {
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }
}

/// The one object that a text holds; `None` when it is anything else.
pub fn object(text: &[u8]) -> Option<Object> {
    // Checked once, so that every string in it is text.
    std::str::from_utf8(text).ok()?;
    let mut reader = Reader(text);
    let value = reader.value(0)?;
    reader.space();
    match value {
        Value::Object(object) if reader.0.is_empty() => Some(object),
        _ => None,
    }
}

struct Reader<'t>(&'t [u8]);

impl Reader<'_> {
    fn space(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Takes the byte if it is the next.
    fn take(&mut self, byte: u8) -> bool {
        match self.0 {
            [first, rest @ ..] if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn word(&mut self, word: &[u8], value: Value) -> Option<Value> {
        self.0 = self.0.strip_prefix(word)?;
        Some(value)
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.space();
        match self.0.first()? {
            b'{' => self.members(depth).map(Value::Object),
            b'[' => self.elements(depth).map(Value::Array),
            b'"' => self.string().map(Value::String),
            b't' => self.word(b"true", Value::Bool(true)),
            b'f' => self.word(b"false", Value::Bool(false)),
            b'n' => self.word(b"null", Value::Null),
            _ => self.number().map(Value::Number),
        }
    }

    fn members(&mut self, depth: usize) -> Option<Object> {
        self.next();
        let mut members = Object::new();
        self.space();
        if self.take(b'}') {
            return Some(members);
        }
        loop {
            self.space();
            let name = self.string()?;
            self.space();
            if !self.take(b':') {
                return None;
            }
            let value = self.value(depth + 1)?;
            if members.insert(name, value).is_some() {
                return None;
            }
            self.space();
            match self.next()? {
                b',' => {}
                b'}' => return Some(members),
                _ => return None,
            }
        }
    }

    fn elements(&mut self, depth: usize) -> Option<Vec<Value>> {
        self.next();
        let mut elements = Vec::new();
        self.space();
        if self.take(b']') {
            return Some(elements);
        }
        loop {
            elements.push(self.value(depth + 1)?);
            self.space();
            match self.next()? {
                b',' => {}
                b']' => return Some(elements),
                _ => return None,
            }
        }
    }

    fn string(&mut self) -> Option<Box<str>> {
        if !self.take(b'"') {
            return None;
        }
        let mut octets = Vec::new();
        loop {
            match self.next()? {
                b'"' => return String::from_utf8(octets).ok().map(Into::into),
                b'\\' => {
                    let character = self.escaped()?;
                    octets.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                0..=0x1f => return None,
                byte => octets.push(byte),
            }
        }
    }

    fn escaped(&mut self) -> Option<char> {
        Some(match self.next()? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => match self.hex()? {
                high @ 0xd800..=0xdbff => {
                    if !(self.take(b'\\') && self.take(b'u')) {
                        return None;
                    }
                    let low @ 0xdc00..=0xdfff = self.hex()? else {
                        return None;
                    };
                    char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))?
                }
                // A lone low surrogate is no character.
                code => char::from_u32(code)?,
            },
            _ => return None,
        })
    }

    fn hex(&mut self) -> Option<u32> {
        let mut code = 0;
        for _ in 0..4 {
            code = code << 4 | char::from(self.next()?).to_digit(16)?;
        }
        Some(code)
    }

    fn number(&mut self) -> Option<Box<str>> {
        let begun = self.0;
        self.take(b'-');
        if !self.take(b'0') && self.digits() == 0 {
            return None;
        }
        if self.take(b'.') && self.digits() == 0 {
            return None;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            if self.digits() == 0 {
                return None;
            }
        }
        let text = begun.get(..begun.len() - self.0.len())?;
        std::str::from_utf8(text).ok().map(Into::into)
    }

    fn digits(&mut self) -> usize {
        let mut count = 0;
        while let [b'0'..=b'9', rest @ ..] = self.0 {
            self.0 = rest;
            count += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_json_and_what_is_not() {
        let read = |text: &str| object(text.as_bytes());
        let found = read(r#" {"a":[1,-2.5e+3,true,null,"\u00e4\ud83d\ude00\n"],"b":{}} "#).unwrap();
        assert_eq!(
            found["a"],
            Value::Array(vec![
                Value::Number("1".into()),
                Value::Number("-2.5e+3".into()),
                Value::Bool(true),
                Value::Null,
                Value::String("ä😀\n".into()),
            ])
        );
        for wrong in [
            "",
            "[]",
            "1",
            "{",
            "{}x",
            r#"{"a":1,}"#,
            r#"{"a" 1}"#,
            r#"{a:1}"#,
            "{\"a\":\"\n\"}",
            r#"{"a":01}"#,
            r#"{"a":1.}"#,
            r#"{"a":+1}"#,
            r#"{"a":NaN}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":"\udc00"}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":tru}"#,
            r#"{"a":1e}"#,
            r#"{"a":[1 2]}"#,
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}"), None);
    }

    #[test]
    fn a_name_occurs_once_in_an_object_however_it_is_written() {
        assert_eq!(object(br#"{"iss":"a","iss":"b"}"#), None);
        assert_eq!(object(br#"{"iss":"a","\u0069ss":"b"}"#), None);
        assert_eq!(object(br#"{"x":{"a":1,"a":1}}"#), None);
        assert!(object(br#"{"x":{"a":1},"a":1}"#).is_some());
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(object(nested(MAX_DEPTH).as_bytes()).is_some());
        assert!(object(nested(MAX_DEPTH + 1).as_bytes()).is_none());
        assert!(object("[".repeat(100_000).as_bytes()).is_none());
    }

    proptest! {
        #[test]
        fn it_never_panics(text in "[\\[\\]{}\",:\\\\u0-9a-ftrne. -]{0,40}") {
            let _ = object(text.as_bytes());
        }
    }
}
