//! The one table of types: how a value's type is called in Arrow, in a Snowflake table, and in COPY's SELECT.

use serde::{Deserialize, Serialize};

/// The type of a column on its way to Snowflake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// `BOOLEAN`
    Boolean,
    /// `NUMBER(precision, scale)`, 1 ≤ precision ≤ 38, scale ≤ precision.
    Number {
        /// Decimal digits in all.
        precision: u8,
        /// Decimal digits after the point.
        scale: u8,
    },
    /// `FLOAT`, which is IEEE double, NaN and infinities included.
    Float,
    /// `VARCHAR`
    Text,
    /// `BINARY`
    Binary,
    /// `DATE`
    Date,
    /// `TIME(6)`
    Time,
    /// `TIMESTAMP_NTZ(6)`
    TimestampNtz,
    /// `TIMESTAMP_TZ(6)`, always at offset zero.
    TimestampTz,
    /// `VARIANT`, travelling as JSON text.
    Variant,
    /// `ARRAY`, travelling as JSON text.
    Array,
}

/// A column of a result: its name in Snowflake, exactly as it will be quoted, and its type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The name in Snowflake and in the Parquet file.
    pub name: String,
    /// The type.
    #[serde(flatten)]
    pub column_type: ColumnType,
}
