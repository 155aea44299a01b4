use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::spec::{Container, EnvironmentSource, KeyRef, ValueSource};
use crate::manifests::Manifests;

/// What a variable may take from its pod.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    pub pod: &'a str,
    pub namespace: &'a str,
}

/// The variables of a container, in no order: `env` wins over `envFrom`, the last source over the first.
pub fn resolve(container: &Container, fields: &Fields, from: &Manifests) -> Result<BTreeMap<String, String>> {
    let mut known = BTreeMap::new();
    for source in &container.env_from {
        known.extend(match source {
            EnvironmentSource::ConfigMapRef(source) => data(from, "ConfigMap", &source.name)?,
            EnvironmentSource::SecretRef(source) => data(from, "Secret", &source.name)?,
        });
    }
    for variable in &container.env {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), None) => expand(value, &known),
            (None, Some(ValueSource::Field(field))) => match field.field_path.as_str() {
                "metadata.name" => fields.pod.to_owned(),
                "metadata.namespace" => fields.namespace.to_owned(),
                other => bail!("the field {other} is not emulated"),
            },
            (None, Some(ValueSource::ConfigMapKey(source))) => key(from, "ConfigMap", source)?,
            (None, Some(ValueSource::SecretKey(source))) => key(from, "Secret", source)?,
            (value, source) => bail!("{}: {value:?} and {source:?}", variable.name),
        };
        known.insert(variable.name.clone(), value);
    }
    Ok(known)
}

/// All keys of a ConfigMap or Secret.
pub fn data(from: &Manifests, kind: &str, name: &str) -> Result<BTreeMap<String, String>> {
    let object = from.find(kind, name).with_context(|| format!("no {kind} {name}: the pod would wait for it"))?;
    let mut found = BTreeMap::new();
    for (field, is_plain) in [("data", kind == "ConfigMap"), ("stringData", true), ("binaryData", false)] {
        for (key, value) in object[field].as_object().into_iter().flatten() {
            let text = value.as_str().with_context(|| format!("{kind} {name}: {key} is no text"))?;
            let text =
                if is_plain { text.to_owned() } else { decode(text).with_context(|| format!("{name}: {key}"))? };
            found.insert(key.clone(), text);
        }
    }
    Ok(found)
}

fn key(from: &Manifests, kind: &str, source: &KeyRef) -> Result<String> {
    let value = data(from, kind, &source.name)?.remove(&source.key);
    value.with_context(|| format!("{kind} {} has no key {}", source.name, source.key))
}

/// `$(NAME)` becomes the variable's value, `$$` a dollar; a reference to nothing stays as it is.
fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let (mut made, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('$') {
        made.push_str(before);
        let reference = after.strip_prefix('(').and_then(|after| after.split_once(')'));
        rest = match (reference.and_then(|(name, rest)| Some((known.get(name)?, rest))), after.strip_prefix('$')) {
            (Some((value, rest)), _) => {
                made.push_str(value);
                rest
            }
            (None, Some(rest)) => {
                made.push('$');
                rest
            }
            (None, None) => {
                made.push('$');
                after
            }
        };
    }
    made + rest
}

/// Base64, as a Secret's `data` is written.
fn decode(text: &str) -> Result<String> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let value = LETTERS.iter().position(|letter| *letter == byte).context("no base64")?;
        bits = (bits << 6 | u32::try_from(value)?) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff)?);
        }
    }
    String::from_utf8(bytes).context("no text")
}

/// An opaque Secret of one key, as `kubectl create secret generic` makes it.
#[must_use]
pub fn secret(name: &str, key: &str, value: &str) -> Value {
    serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque", "stringData": {key: value},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_and_what_is_none_stays() {
        let known = BTreeMap::from([("POD".to_owned(), "p-0".to_owned())]);
        for (text, expanded) in [
            ("http://$(POD).s:1", "http://p-0.s:1"),
            ("$(NONE) $$(POD) $ $(", "$(NONE) $(POD) $ $("),
            ("plain", "plain"),
        ] {
            assert_eq!(expand(text, &known), expanded, "{text}");
        }
    }

    #[test]
    fn a_secrets_data_are_decoded() {
        assert_eq!(decode("aGVsbG8gd29ybGQ=").unwrap(), "hello world");
        assert_eq!(decode("").unwrap(), "");
        assert!(decode("a-b").is_err());
    }
}
