use super::{Field, FieldKind, dates, pattern};
use crate::store::error::FieldError;

/// Most values that a select field offers, and most that a list may hold.
const MAX_OPTIONS: u64 = 1000;

/// Most bytes that a value may ask for: no request is larger.
const MAX_SIZE: u64 = crate::config::MOST_BODY_BYTES;

impl Field {
    /// What is wrong with the options, at `place` in the request.
    pub fn wrong_options(&self, place: &str) -> Vec<FieldError> {
        let mut wrong = Vec::new();
        let mut refuse = |option: &str, code, message: String| {
            wrong.push(FieldError { field: format!("{place}.{option}"), code, message });
        };
        match &self.kind {
            FieldKind::Text { min, max, pattern } => {
                if *max > 0 && min > max {
                    refuse("max", "validation_min_greater_equal_than_required", format!("must be {min} or more"));
                }
                if let Err(reason) = pattern::compiled(pattern) {
                    refuse("pattern", "validation_invalid_regex", format!("is no regular expression: {reason}"));
                }
            }
            FieldKind::Password { min, max } if *max > 0 && min > max => {
                refuse("max", "validation_min_greater_equal_than_required", format!("must be {min} or more"));
            }
            FieldKind::Number { min: Some(min), max: Some(max), .. } if min.as_f64() > max.as_f64() => {
                refuse("max", "validation_min_greater_equal_than_required", format!("must be {min} or more"));
            }
            FieldKind::Editor { max_size } | FieldKind::Json { max_size } if *max_size > MAX_SIZE => {
                refuse("maxSize", "validation_max_less_equal_than_required", format!("must be at most {MAX_SIZE}"));
            }
            FieldKind::Email { except_domains, only_domains } | FieldKind::Url { except_domains, only_domains }
                if !except_domains.is_empty() && !only_domains.is_empty() =>
            {
                let message = "cannot be given together with onlyDomains: choose one".to_owned();
                refuse("exceptDomains", "validation_invalid_value", message);
            }
            FieldKind::Date { min, max } => {
                for (option, bound) in [("min", min), ("max", max)] {
                    if !bound.is_empty() && dates::parse(bound).is_none() {
                        refuse(option, "validation_invalid_date", format!("{bound:?} is no time"));
                    }
                }
            }
            FieldKind::Autodate { on_create: false, on_update: false } => {
                let message = "must be true, or onUpdate must: nothing else sets the field".to_owned();
                refuse("onCreate", "validation_required", message);
            }
            FieldKind::Select { values, max_select } => {
                if values.is_empty() {
                    refuse("values", "validation_required", "must not be empty".to_owned());
                }
                if values.len() as u64 > MAX_OPTIONS || *max_select > MAX_OPTIONS {
                    refuse("values", "validation_too_many", format!("must be at most {MAX_OPTIONS}"));
                }
                if values.iter().any(|value| value.is_empty() || value.starts_with('[')) {
                    let message = "must not be blank nor begin with [".to_owned();
                    refuse("values", "validation_invalid_value", message);
                }
            }
            FieldKind::Relation { min_select, max_select, .. } if *max_select > 0 && min_select > max_select => {
                let message = format!("must be {min_select} or more");
                refuse("maxSelect", "validation_min_greater_equal_than_required", message);
            }
            _ => {}
        }
        wrong
    }
}
