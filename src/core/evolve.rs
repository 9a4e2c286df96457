//! What happens when a column of a result meets a column that the table already has.

use std::fmt;

use crate::types::{Column, ColumnType, MAX_PRECISION, MAX_TEXT_BYTES};

/// The type of a column that a table already has, as far as we know its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExistingType {
    /// `BOOLEAN`
    Boolean,
    /// `NUMBER(precision, scale)`
    Number {
        /// Decimal digits in all.
        precision: u8,
        /// Decimal digits after the point.
        scale: u8,
    },
    /// `FLOAT`
    Float,
    /// `VARCHAR(length)`, in characters.
    Text {
        /// The longest string.
        length: u32,
    },
    /// `BINARY(length)`, in bytes.
    Binary {
        /// The longest value.
        length: u32,
    },
    /// `DATE`
    Date,
    /// `TIME(precision)`
    Time {
        /// Digits of a second's fraction.
        precision: u8,
    },
    /// `TIMESTAMP_NTZ(precision)`
    TimestampNtz {
        /// Digits of a second's fraction.
        precision: u8,
    },
    /// `TIMESTAMP_LTZ(precision)`
    TimestampLtz {
        /// Digits of a second's fraction.
        precision: u8,
    },
    /// `TIMESTAMP_TZ(precision)`
    TimestampTz {
        /// Digits of a second's fraction.
        precision: u8,
    },
    /// `VARIANT`
    Variant,
    /// `ARRAY`
    Array,
    /// `OBJECT`
    Object,
}

impl ExistingType {
    /// Reads a type as DESCRIBE TABLE writes it. `None` for types that the bridge has no values for.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (name, arguments) = match text.split_once('(') {
            None => (text, None),
            Some((name, rest)) => (name, Some(rest.strip_suffix(')')?)),
        };
        let first = |default: u32| match arguments {
            None => Some(default),
            Some(text) => text.split(',').next()?.trim().parse().ok(),
        };
        // Nine is what Snowflake takes where no precision is stated.
        let precision = || u8::try_from(first(9)?).ok();
        Some(match name.trim() {
            "BOOLEAN" => Self::Boolean,
            "NUMBER" => {
                let scale = arguments
                    .and_then(|text| text.split_once(','))
                    .map_or(Some(0), |(_, scale)| scale.trim().parse().ok());
                Self::Number {
                    precision: u8::try_from(first(MAX_PRECISION.into())?).ok()?,
                    scale: scale?,
                }
            }
            "FLOAT" | "DOUBLE" | "REAL" => Self::Float,
            "VARCHAR" | "TEXT" | "STRING" => Self::Text {
                length: first(16_777_216)?,
            },
            "BINARY" => Self::Binary {
                length: first(8_388_608)?,
            },
            "DATE" => Self::Date,
            "TIME" => Self::Time {
                precision: precision()?,
            },
            "TIMESTAMP_NTZ" => Self::TimestampNtz {
                precision: precision()?,
            },
            "TIMESTAMP_LTZ" => Self::TimestampLtz {
                precision: precision()?,
            },
            "TIMESTAMP_TZ" => Self::TimestampTz {
                precision: precision()?,
            },
            "VARIANT" => Self::Variant,
            // A structured ARRAY or OBJECT has arguments, and takes only what has its structure.
            "ARRAY" if arguments.is_none() => Self::Array,
            "OBJECT" if arguments.is_none() => Self::Object,
            _ => return None,
        })
    }
}

impl fmt::Display for ExistingType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("BOOLEAN"),
            Self::Number { precision, scale } => write!(f, "NUMBER({precision},{scale})"),
            Self::Float => f.write_str("FLOAT"),
            Self::Text { length } => write!(f, "VARCHAR({length})"),
            Self::Binary { length } => write!(f, "BINARY({length})"),
            Self::Date => f.write_str("DATE"),
            Self::Time { precision } => write!(f, "TIME({precision})"),
            Self::TimestampNtz { precision } => write!(f, "TIMESTAMP_NTZ({precision})"),
            Self::TimestampLtz { precision } => write!(f, "TIMESTAMP_LTZ({precision})"),
            Self::TimestampTz { precision } => write!(f, "TIMESTAMP_TZ({precision})"),
            Self::Variant => f.write_str("VARIANT"),
            Self::Array => f.write_str("ARRAY"),
            Self::Object => f.write_str("OBJECT"),
        }
    }
}

/// Whether a table's column takes a result's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// It holds every value of the type. What it cannot hold because of its size, Snowflake refuses; nothing is cut.
    AsIs,
    /// It holds every value of the type once it has this one, to which ALTER COLUMN … SET DATA TYPE can bring it without
    /// touching a value; as it is, maybe those that come.
    Widen(String),
    /// It does once its values have been copied into a column of this type, which takes its place: no ALTER gets there.
    Rebuild(String),
    /// It does not, and nothing can make it without changing values.
    Refused,
}

/// Digits of a second that the bridge's times and timestamps have.
const FRACTION_DIGITS: u8 = 6;

/// A double holds every integer of up to 15 decimal digits.
const EXACT_DOUBLE_DIGITS: u8 = 15;

/// Whether a column of type `existing` takes the values of `column`.
#[must_use]
pub fn fit(existing: ExistingType, column: &Column) -> Fit {
    use ExistingType as Has;
    let wanted = column.column_type;
    let fits = match (existing, wanted, column.narrowest.unwrap_or(wanted)) {
        (Has::Text { length }, ColumnType::Text, _) => {
            return if usize::try_from(length).is_ok_and(|length| length >= MAX_TEXT_BYTES) {
                Fit::AsIs
            } else {
                Fit::Widen(wanted.snowflake())
            };
        }
        (Has::Number { precision, scale }, _, ColumnType::Number { precision: digits, scale: decimals }) => {
            return fit_number((precision, scale), usual_number(wanted, digits, decimals), (digits, decimals));
        }
        (Has::Float, _, ColumnType::Number { precision, scale }) => scale == 0 && precision <= EXACT_DOUBLE_DIGITS,
        // These have one text each, whatever the session's output formats are.
        (Has::Text { .. }, ColumnType::Number { .. } | ColumnType::Boolean, _) => true,
        (Has::Boolean, ColumnType::Boolean, _)
        | (Has::Float, ColumnType::Float, _)
        | (Has::Binary { .. }, ColumnType::Binary, _)
        | (Has::Date, ColumnType::Date, _)
        | (Has::Array, ColumnType::Array, _)
        | (Has::Variant, _, _) => true,
        (Has::Time { precision }, ColumnType::Time, _)
        | (Has::TimestampNtz { precision }, ColumnType::TimestampNtz, _)
        // Both keep the instant, which is all that the value has: its offset is always zero.
        | (Has::TimestampLtz { precision } | Has::TimestampTz { precision }, ColumnType::TimestampTz, _) => {
            precision >= FRACTION_DIGITS
        }
        _ => false,
    };
    if fits { Fit::AsIs } else { Fit::Refused }
}

/// The digits and the scale that a column gets once it is changed: those of the type it would be created with. Numbers that
/// travel as text get what they would have got as numbers.
fn usual_number(wanted: ColumnType, digits: u8, decimals: u8) -> (u8, u8) {
    match wanted {
        ColumnType::Number { precision, scale } => (precision, scale),
        _ => match ColumnType::number_of_data((digits - decimals).into(), decimals.into()) {
            Some(ColumnType::Number { precision, scale }) => (precision, scale),
            _ => (digits, decimals),
        },
    }
}

/// Whether a NUMBER takes numbers, all three told by their digits in all and after the point: what there is, what it becomes
/// if it is changed, and what the numbers need.
fn fit_number(existing: (u8, u8), usual: (u8, u8), needed: (u8, u8)) -> Fit {
    let (precision, scale) = existing;
    let usual_digits = usual.0 - usual.1;
    if needed.1 > scale {
        let digits = precision.saturating_sub(scale).max(usual_digits);
        let precision = digits.saturating_add(usual.1).min(MAX_PRECISION);
        return Fit::Rebuild(format!("NUMBER({precision},{})", usual.1));
    }
    // The scale cannot change. A number that has too many digits even for the widest NUMBER of that scale, Snowflake refuses.
    if precision == MAX_PRECISION || (needed.0 - needed.1).saturating_add(scale) <= precision {
        return Fit::AsIs;
    }
    let wider = usual_digits.saturating_add(scale).min(MAX_PRECISION);
    Fit::Widen(format!("NUMBER({wider},{scale})"))
}

impl Column {
    /// Whether a column whose type DESCRIBE TABLE calls `existing` takes the values of this one.
    #[must_use]
    pub fn fit(&self, existing: &str) -> Fit {
        ExistingType::parse(existing).map_or(Fit::Refused, |existing| fit(existing, self))
    }
}

/// What COPY's SELECT says to bring the Parquet field of `column` into a column of type `existing`.
///
/// COPY converts few types on its own: text, for one, is not made a VARIANT unless asked.
#[must_use]
pub fn copy_expression_into(existing: ExistingType, column: &Column) -> String {
    use ExistingType as Has;
    let expression = column.column_type.copy_expression(&column.name);
    match (existing, column.column_type, column.narrowest) {
        (Has::Variant, ColumnType::Variant, _) => expression,
        (Has::Variant, _, _) => format!("TO_VARIANT({expression})"),
        // The digits of the number and no more, or its text would depend on the other rows.
        (Has::Text { .. }, ColumnType::Number { scale: 1.., .. }, _) => {
            format!("RTRIM(RTRIM({expression}::VARCHAR, '0'), '.')")
        }
        (Has::Text { .. }, ColumnType::Number { .. } | ColumnType::Boolean, _) => {
            format!("{expression}::VARCHAR")
        }
        (Has::Number { .. } | Has::Float, ColumnType::Text, Some(number)) => {
            number.copy_expression(&column.name)
        }
        _ => expression,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: ColumnType = ColumnType::Text;

    fn number(precision: u8, scale: u8) -> ColumnType {
        ColumnType::Number { precision, scale }
    }

    #[test]
    fn types_as_describe_table_writes_them() {
        for text in [
            "BOOLEAN",
            "NUMBER(38,0)",
            "NUMBER(10,2)",
            "FLOAT",
            "VARCHAR(16777216)",
            "BINARY(8388608)",
            "DATE",
            "TIME(9)",
            "TIMESTAMP_NTZ(9)",
            "TIMESTAMP_LTZ(6)",
            "TIMESTAMP_TZ(0)",
            "VARIANT",
            "ARRAY",
            "OBJECT",
        ] {
            assert_eq!(ExistingType::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "GEOGRAPHY",
            "VECTOR(FLOAT, 3)",
            "ARRAY(NUMBER(38,0))",
            "MAP(VARCHAR, NUMBER)",
            "NUMBER(38",
            "NUMBER(x,0)",
            "NUMBER(300,0)",
            "DECFLOAT(38)",
        ] {
            assert_eq!(ExistingType::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_the_bridge_creates_it_fits_into() {
        for wanted in [
            ColumnType::Boolean,
            number(38, 0),
            number(38, 10),
            number(5, 0),
            ColumnType::Float,
            TEXT,
            ColumnType::Binary,
            ColumnType::Date,
            ColumnType::Time,
            ColumnType::TimestampNtz,
            ColumnType::TimestampTz,
            ColumnType::Variant,
            ColumnType::Array,
        ] {
            let existing = ExistingType::parse(&wanted.snowflake()).unwrap();
            let column = Column::new("A", wanted);
            assert_eq!(fit(existing, &column), Fit::AsIs, "{existing}");
            assert_eq!(
                copy_expression_into(existing, &column),
                wanted.copy_expression("A")
            );
        }
    }

    #[test]
    fn columns_widen_where_snowflake_can_and_else_refuse() {
        let widen = |text: &str| Fit::Widen(text.to_owned());
        for (existing, wanted, expected) in [
            ("VARCHAR(20)", TEXT, widen("VARCHAR(134217728)")),
            ("NUMBER(5,0)", number(38, 0), widen("NUMBER(38,0)")),
            ("NUMBER(10,2)", number(10, 0), widen("NUMBER(12,2)")),
            ("NUMBER(10,2)", number(38, 0), widen("NUMBER(38,2)")),
            ("NUMBER(38,10)", number(38, 0), Fit::AsIs),
            ("NUMBER(38,10)", number(38, 2), Fit::AsIs),
            ("NUMBER(19,0)", number(10, 0), Fit::AsIs),
            (
                "NUMBER(38,0)",
                number(38, 10),
                Fit::Rebuild("NUMBER(38,10)".to_owned()),
            ),
            (
                "NUMBER(5,0)",
                number(12, 2),
                Fit::Rebuild("NUMBER(12,2)".to_owned()),
            ),
            (
                "NUMBER(20,2)",
                number(12, 4),
                Fit::Rebuild("NUMBER(22,4)".to_owned()),
            ),
            ("NUMBER(38,0)", TEXT, Fit::Refused),
            ("NUMBER(38,0)", ColumnType::Float, Fit::Refused),
            ("FLOAT", number(10, 0), Fit::AsIs),
            ("FLOAT", number(19, 0), Fit::Refused),
            ("VARCHAR(20)", number(38, 0), Fit::AsIs),
            ("VARCHAR(20)", ColumnType::Date, Fit::Refused),
            ("VARCHAR(20)", ColumnType::Variant, Fit::Refused),
            ("VARIANT", TEXT, Fit::AsIs),
            ("ARRAY", ColumnType::Variant, Fit::Refused),
            ("BINARY(8388608)", ColumnType::Binary, Fit::AsIs),
            ("TIME(3)", ColumnType::Time, Fit::Refused),
            ("TIMESTAMP_NTZ(9)", ColumnType::TimestampNtz, Fit::AsIs),
            ("TIMESTAMP_LTZ(9)", ColumnType::TimestampTz, Fit::AsIs),
            ("TIMESTAMP_NTZ(9)", ColumnType::TimestampTz, Fit::Refused),
            ("TIMESTAMP_TZ(3)", ColumnType::TimestampTz, Fit::Refused),
            ("DATE", ColumnType::TimestampNtz, Fit::Refused),
            ("BOOLEAN", number(1, 0), Fit::Refused),
            ("OBJECT", ColumnType::Variant, Fit::Refused),
        ] {
            assert_eq!(
                Column::new("A", wanted).fit(existing),
                expected,
                "{existing} ← {wanted:?}"
            );
        }
    }

    /// A column of numbers that have at most so many digits before and after the point.
    fn counted(column_type: ColumnType, integer_digits: i64, scale: i64) -> Column {
        Column {
            narrowest: ColumnType::narrowest_number(integer_digits, scale),
            ..Column::new("A", column_type)
        }
    }

    #[test]
    fn numbers_that_were_counted_fit_by_the_digits_that_they_have() {
        let rebuilt = || Fit::Rebuild("NUMBER(38,10)".to_owned());
        for (existing, integer_digits, scale, expected) in [
            ("NUMBER(12,2)", 2, 2, Fit::AsIs),
            ("NUMBER(12,2)", 10, 0, Fit::AsIs),
            ("NUMBER(12,2)", 11, 2, Fit::Widen("NUMBER(30,2)".to_owned())),
            ("NUMBER(12,2)", 2, 3, rebuilt()),
            ("NUMBER(10,0)", 5, 0, Fit::AsIs),
            ("NUMBER(10,0)", 11, 0, Fit::Widen("NUMBER(38,0)".to_owned())),
            ("NUMBER(38,0)", 1, 1, rebuilt()),
            ("NUMBER(38,8)", 1, 1, Fit::AsIs),
            ("NUMBER(38,8)", 1, 9, rebuilt()),
            // Whether it has room for these, Snowflake says.
            ("NUMBER(38,10)", 30, 0, Fit::AsIs),
            ("FLOAT", 15, 0, Fit::AsIs),
            ("FLOAT", 16, 0, Fit::Refused),
            ("FLOAT", 1, 1, Fit::Refused),
        ] {
            let number = ColumnType::number_of_data(integer_digits, scale).unwrap();
            // The same numbers on their way as text make the same of a column of numbers.
            for column_type in [number, TEXT] {
                assert_eq!(
                    counted(column_type, integer_digits, scale).fit(existing),
                    expected,
                    "{existing} ← {integer_digits}, {scale} as {column_type:?}"
                );
            }
        }
        assert_eq!(counted(TEXT, 39, 0).fit("NUMBER(38,0)"), Fit::Refused);
        assert_eq!(
            copy_expression_into(
                ExistingType::parse("NUMBER(12,2)").unwrap(),
                &counted(TEXT, 2, 1)
            ),
            "$1:\"A\"::NUMBER(3,1)"
        );
    }

    #[test]
    fn copy_converts_explicitly_what_it_would_not_convert_itself() {
        let number_10 = "$1:\"A\"::NUMBER(38,10)::VARCHAR";
        for (existing, wanted, expected) in [
            ("VARIANT", TEXT, "TO_VARIANT($1:\"A\"::VARCHAR(134217728))"),
            (
                "VARIANT",
                ColumnType::Array,
                "TO_VARIANT(PARSE_JSON($1:\"A\")::ARRAY)",
            ),
            (
                "VARCHAR(20)",
                number(38, 0),
                "$1:\"A\"::NUMBER(38,0)::VARCHAR",
            ),
            (
                "VARCHAR(20)",
                number(38, 10),
                &format!("RTRIM(RTRIM({number_10}, '0'), '.')"),
            ),
            (
                "VARCHAR(20)",
                ColumnType::Boolean,
                "$1:\"A\"::BOOLEAN::VARCHAR",
            ),
        ] {
            assert_eq!(
                copy_expression_into(
                    ExistingType::parse(existing).unwrap(),
                    &Column::new("A", wanted)
                ),
                expected,
                "{existing} ← {wanted:?}"
            );
        }
    }
}
