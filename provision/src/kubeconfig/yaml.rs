//! Prints YAML in the layout of `sigs.k8s.io/yaml`, which kubectl, kubeadm and kind print with, so that a kubeconfig
//! that several of them rewrite does not change where its content has not.
//!
//! Block style with two spaces; lists start in the column of their key; keys are sorted, numbers in them by value;
//! plain and quoted texts are folded at the first space beyond column 80.

use std::cmp::Ordering;

use serde_json::{Map, Number, Value};

use super::scalar::{self, Style};

const STEP: usize = 2;
const WIDTH: usize = 80;
/// Longer keys are written after a `?`.
const LONGEST_KEY: usize = 128;

/// Prints `value`, with a newline at the end.
pub(super) fn to_string(value: &Value) -> String {
    let mut printer = Printer::default();
    match value {
        Value::Object(fields) if !fields.is_empty() => printer.mapping(fields, 0),
        Value::Array(items) if !items.is_empty() => printer.list(items, 0),
        _ => printer.leaf(value, STEP),
    }
    if printer.column != 0 {
        printer.newline();
    }
    printer.text
}

#[derive(Debug, Default)]
struct Printer {
    text: String,
    /// Characters in the current line.
    column: usize,
    /// Whether something other than spaces and the indicators `-`, `?` and `:` of this line's collections is in it.
    content: bool,
}

impl Printer {
    fn mapping(&mut self, fields: &Map<String, Value>, indent: usize) {
        for (key, value) in sorted(fields) {
            self.begin_at(indent);
            if key.len() <= LONGEST_KEY && !key.contains('\n') {
                self.scalar(key, indent + STEP, true);
                self.put(':');
                self.value(value, indent);
            } else {
                self.put('?');
                self.scalar(key, indent + STEP, false);
                self.begin_at(indent);
                self.put(':');
                self.content = false;
                self.value(value, indent);
            }
        }
    }

    fn list(&mut self, items: &[Value], indent: usize) {
        for item in items {
            self.begin_at(indent);
            self.put('-');
            self.content = false;
            match item {
                Value::Object(fields) if !fields.is_empty() => self.mapping(fields, indent + STEP),
                Value::Array(items) if !items.is_empty() => self.list(items, indent + STEP),
                _ => self.leaf(item, indent + STEP),
            }
        }
    }

    /// The value of a key in a mapping at `indent`.
    fn value(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Object(fields) if !fields.is_empty() => self.mapping(fields, indent + STEP),
            // In the key's column, except where the key has a line of its own and the list begins in its last one.
            Value::Array(items) if !items.is_empty() => {
                self.list(items, if self.content { indent } else { indent + STEP });
            }
            _ => self.leaf(value, indent + STEP),
        }
    }

    /// A value without entries; `indent` is that of the lines after the first.
    fn leaf(&mut self, value: &Value, indent: usize) {
        match value {
            Value::String(text) => self.scalar(text, indent, false),
            Value::Object(_) => self.word("{}"),
            Value::Array(_) => self.word("[]"),
            Value::Null => self.word("null"),
            Value::Bool(value) => self.word(if *value { "true" } else { "false" }),
            Value::Number(number) => self.word(&number_text(number)),
        }
    }

    fn scalar(&mut self, text: &str, indent: usize, is_key: bool) {
        match scalar::style(text, is_key) {
            Style::Plain => {
                self.space();
                self.folded(text, indent, is_key, Quote::None);
            }
            Style::Single => {
                self.space();
                self.put('\'');
                self.folded(text, indent, is_key, Quote::Single);
                self.put('\'');
            }
            Style::Double => {
                self.space();
                self.put('"');
                self.folded(text, indent, is_key, Quote::Double);
                self.put('"');
            }
            Style::Literal => self.literal(text, indent),
        }
    }

    fn folded(&mut self, text: &str, indent: usize, is_key: bool, quote: Quote) {
        let mut after_space = false;
        let mut characters = text.char_indices().peekable();
        while let Some((index, character)) = characters.next() {
            let before_space = characters.peek().is_some_and(|(_, next)| *next == ' ');
            let inside = index > 0 && index + 1 < text.len();
            let fold = character == ' ' && self.column > WIDTH && inside && !is_key && !after_space;
            match quote {
                // A line break stands for one space only, and the next line's own spaces are not read ...
                Quote::None | Quote::Single if fold && !before_space => self.newline_at(indent),
                // ... except behind a backslash.
                Quote::Double if fold => {
                    self.newline_at(indent);
                    if before_space {
                        self.put('\\');
                    }
                }
                Quote::Double => self.escaped(character),
                Quote::Single if character == '\'' => self.word_part("''"),
                _ => self.put(character),
            }
            after_space = character == ' ';
        }
    }

    fn escaped(&mut self, character: char) {
        let short = match character {
            '\0' => '0',
            '\u{7}' => 'a',
            '\u{8}' => 'b',
            '\t' => 't',
            '\n' => 'n',
            '\u{b}' => 'v',
            '\u{c}' => 'f',
            '\r' => 'r',
            '\u{1b}' => 'e',
            '"' => '"',
            '\\' => '\\',
            '\u{85}' => 'N',
            '\u{2028}' => 'L',
            '\u{2029}' => 'P',
            _ if !scalar::is_special(character) => return self.put(character),
            _ => {
                let code = u32::from(character);
                let escape = match code {
                    ..=0xff => format!("\\x{code:02X}"),
                    0x100..=0xffff => format!("\\u{code:04X}"),
                    _ => format!("\\U{code:08X}"),
                };
                return self.word_part(&escape);
            }
        };
        self.put('\\');
        self.put(short);
    }

    fn literal(&mut self, text: &str, indent: usize) {
        self.space();
        self.put('|');
        if text.starts_with([' ', '\n']) {
            // The first line does not show how far the text is indented.
            self.word_part(&STEP.to_string());
        }
        if !text.ends_with('\n') {
            self.put('-');
        } else if text == "\n" || text.ends_with("\n\n") {
            self.put('+');
        }
        self.newline();
        for line in text.split_inclusive('\n') {
            let content = line.trim_end_matches('\n');
            if !content.is_empty() {
                self.pad(indent);
                self.word_part(content);
            }
            if line.ends_with('\n') {
                self.newline();
            }
        }
    }

    /// Goes to column `indent`: in this line while it has nothing but indicators, else in the next.
    fn begin_at(&mut self, indent: usize) {
        if self.content {
            self.newline();
        }
        self.pad(indent);
    }

    fn newline_at(&mut self, indent: usize) {
        self.newline();
        self.pad(indent);
    }

    fn newline(&mut self) {
        self.text.push('\n');
        self.column = 0;
        self.content = false;
    }

    fn pad(&mut self, indent: usize) {
        while self.column < indent {
            self.text.push(' ');
            self.column += 1;
        }
    }

    /// A space after an indicator.
    fn space(&mut self) {
        if self.column != 0 && !self.text.ends_with(' ') {
            self.text.push(' ');
            self.column += 1;
        }
    }

    fn word(&mut self, word: &str) {
        self.space();
        self.word_part(word);
    }

    fn word_part(&mut self, part: &str) {
        for character in part.chars() {
            self.put(character);
        }
    }

    fn put(&mut self, character: char) {
        self.text.push(character);
        self.column += 1;
        self.content = true;
    }
}

#[derive(Clone, Copy, Debug)]
enum Quote {
    None,
    Single,
    Double,
}

/// Whole numbers with all digits, others as Go's `%g` writes them: with an exponent below -4 and from 6 on.
fn number_text(number: &Number) -> String {
    if number.is_i64() || number.is_u64() {
        return number.to_string();
    }
    let value = number.as_f64().unwrap_or_default();
    // JSON does not tell 2.0 from 2, and what fits an integer is read as one.
    if value.fract() == 0.0 && value.abs() < 1.8e19 {
        return format!("{value:.0}");
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// The fields in the order of their keys.
fn sorted(fields: &Map<String, Value>) -> Vec<(&String, &Value)> {
    // By insertion: the order has circles (`a9`, `a10`, `a1b`), at which the standard library's sorts may panic.
    let mut sorted: Vec<(&String, &Value)> = Vec::with_capacity(fields.len());
    for field in fields {
        let place = sorted.partition_point(|(key, _)| compare_keys(key, field.0).is_lt());
        sorted.insert(place, field);
    }
    sorted
}

/// Letters after everything else, runs of digits by their value, the rest by code point.
fn compare_keys(left: &str, right: &str) -> Ordering {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let Some(at) = left.iter().zip(&right).position(|(left, right)| left != right) else {
        return left.len().cmp(&right.len());
    };
    match (left[at].is_alphabetic(), right[at].is_alphabetic()) {
        (true, true) => left[at].cmp(&right[at]),
        (false, true) => Ordering::Less,
        (true, false) => Ordering::Greater,
        (false, false) => {
            // Zeros count within a number that has begun before the difference, and not at its beginning.
            let begun =
                left[..at].iter().rev().take_while(|digit| digit.is_ascii_digit()).any(|digit| *digit != '0');
            let zero = left[at] == '0' || right[at] == '0';
            let value = |text: &[char]| {
                let digits = text[at..].iter().map_while(|digit| digit.to_digit(10));
                let start = (u64::from(begun && zero), 0_usize);
                digits.fold(start, |(value, length), digit| {
                    (value.wrapping_mul(10).wrapping_add(u64::from(digit)), length + 1)
                })
            };
            value(&left).cmp(&value(&right)).then(left[at].cmp(&right[at]))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_layout_is_that_of_kubernetes_tools() {
        let value = json!({
            "users": [{"name": "a", "user": {"exec": {"args": ["x", "-y", "z: 1"], "env": null, "apiVersion": "v1"}}}],
            "apiVersion": "v1",
            "empty": {"list": [], "map": {}, "text": "", "nothing": null},
            "lists": [[1, [2]], [], [{"a": 1, "b": [true]}], "x"],
            "text": {"lines": "a\n  b\n\nc", "kept": "a\n\n", "indented": "  a\n", "last": "x"},
        });
        insta::assert_snapshot!(to_string(&value), @r#"
        apiVersion: v1
        empty:
          list: []
          map: {}
          nothing: null
          text: ""
        lists:
        - - 1
          - - 2
        - []
        - - a: 1
            b:
            - true
        - x
        text:
          indented: |2
              a
          kept: |+
            a

          last: x
          lines: |-
            a
              b

            c
        users:
        - name: a
          user:
            exec:
              apiVersion: v1
              args:
              - x
              - -y
              - 'z: 1'
              env: null
        "#);
    }

    #[test]
    fn long_texts_are_folded_at_spaces() {
        let words = "words of a text that is longer than a line ".repeat(3);
        let value = json!({"plain": words.trim(), "single": format!("- {}", words.trim()), "double": format!("\t{words}  x")});
        insta::assert_snapshot!(to_string(&value), @r#"
        double: "\twords of a text that is longer than a line words of a text that is longer
          than a line words of a text that is longer than a line   x"
        plain: words of a text that is longer than a line words of a text that is longer than
          a line words of a text that is longer than a line
        single: '- words of a text that is longer than a line words of a text that is longer
          than a line words of a text that is longer than a line'
        "#);
    }

    #[test]
    fn keys_are_sorted_by_the_value_of_numbers_in_them() {
        let keys = ["-", "1", "B", "a", "a-b", "a01", "a9", "a10", "ab", "b", "b100", "b101"];
        let fields: Map<String, Value> = keys.iter().map(|key| ((*key).to_owned(), Value::Null)).collect();
        assert_eq!(sorted(&fields).into_iter().map(|(key, _)| key).collect::<Vec<_>>(), keys);
    }

    #[test]
    fn keys_without_an_order_are_all_there() {
        let fields: Map<String, Value> = (0..64)
            .flat_map(|number| [format!("a{number}"), format!("a{number}b")])
            .map(|key| (key, Value::Null))
            .collect();
        assert_eq!(sorted(&fields).len(), 128);
    }

    #[test]
    fn numbers_are_written_as_go_does() {
        let texts = [
            json!(1),
            json!(-7),
            json!(u64::MAX),
            json!(2.0),
            json!(1.5),
            json!(0.0001),
            json!(0.00001),
            json!(123456.5),
            json!(1234567.5),
            json!(1e300),
            json!(-2.5e-9),
        ]
        .map(|number| to_string(&number));
        assert_eq!(
            texts.join(""),
            "1\n-7\n18446744073709551615\n2\n1.5\n0.0001\n1e-05\n123456.5\n1.2345675e+06\n1e+300\n-2.5e-09\n"
        );
    }

    #[test]
    fn keys_that_cannot_be_in_one_line_have_their_own() {
        let long = "k".repeat(129);
        let value = json!({"b\nc": {"x": [1]}, long: [{"y": 2}]});
        let text = to_string(&value);
        assert!(text.starts_with("? |-\n  b\n  c\n: x:\n  - 1\n? kkk"), "{text}");
        assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), value);
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ a-z\n:#'\"\\-]{0,12}",
            "[-+.0-9xobeE_:TZ ]{1,10}",
            "\\PC{0,8}",
            any::<String>(),
            "([a-z:,]{1,9} {1,2}){0,40}",
            prop::sample::select(vec![
                "yes", "Null", "~", "<<", "=", "---", ".inf", "NaN", "0o7", "1e9", "!x", "&a", "*a"
            ])
            .prop_map(str::to_owned),
        ]
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            text().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            Just(Value::Null),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(text(), inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(value in value()) {
            let text = to_string(&value);
            let read: Value = serde_saphyr::from_str(&text).map_err(|error| TestCaseError::fail(format!("{text}\n{error}")))?;
            prop_assert_eq!(read, value, "{}", text);
        }
    }
}
