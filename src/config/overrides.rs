//! What the environment and the flags say over the file: `FORETELL_BROKER_BOOTSTRAP_SERVERS`, or
//! `--set broker.bootstrap_servers=…`.

use toml::{Table, Value};

use crate::config::secret;

/// The prefix of our variables.
const PREFIX: &str = "FORETELL_";

/// The sections of the file, as they begin a variable's name.
const SECTIONS: [&str; 13] = [
    "application",
    "broker",
    "schema_registry",
    "topics",
    "streams",
    "events",
    "scoring",
    "outcomes",
    "features",
    "learning",
    "tuning",
    "data",
    "http",
];

/// The variables among `environment` that set a key of the file, as `(section, key, value)`, in order
/// of their names. Others with our prefix (`FORETELL_CONFIG`, `FORETELL_LOG`, …) are not for the file.
pub(super) fn from_environment(
    environment: impl Iterator<Item = (String, String)>,
) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = environment
        .filter_map(|(name, value)| {
            let name = name.strip_prefix(PREFIX)?.to_lowercase();
            let section = SECTIONS.iter().find(|section| {
                name.strip_prefix(**section).is_some_and(|rest| rest.starts_with('_'))
            })?;
            let key = &name[section.len() + 1..];
            let path = format!("{section}.{key}");
            Some((property(&path).unwrap_or(path), value))
        })
        .collect();
    found.sort();
    found
}

/// librdkafka's names have dots where a variable's has underscores, and no underscores.
fn property(path: &str) -> Option<String> {
    let name = path.strip_prefix("broker.properties_")?;
    Some(format!("broker.properties.{}", name.replace('_', ".")))
}

/// Sets `path` (dotted) in the file to `value`: TOML if it reads as such, text if not.
///
/// # Errors
/// If `path` goes through something that is no section.
pub(super) fn set(file: &mut Table, path: &str, value: &str) -> Result<(), String> {
    let mut parts: Vec<&str> = match secret::property_of(path) {
        Some(name) => vec!["broker", "properties", name],
        None => path.split('.').collect(),
    };
    let Some(key) = parts.pop().filter(|key| !key.is_empty()) else {
        return Err(format!("`{path}` names no key"));
    };
    let mut table = file;
    for part in parts {
        let inner = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(inner) = inner else {
            return Err(format!("`{path}`: `{part}` is not a section"));
        };
        table = inner;
    }
    // A password of digits is no number.
    let is_text = secret::is_secret(path) || matches!(table.get(key), Some(Value::String(_)));
    table.insert(key.to_owned(), read(value, is_text));
    Ok(())
}

fn read(value: &str, is_text: bool) -> Value {
    // A list, a table or a quoted text is meant as TOML, whatever stood there.
    if is_text && !value.starts_with(['{', '[', '"', '\'']) {
        return Value::String(value.to_owned());
    }
    let line = format!("value = {value}");
    let parsed = line.parse::<Table>().ok().and_then(|mut table| table.remove("value"));
    parsed.unwrap_or_else(|| Value::String(value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        from_environment(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())))
    }

    #[test]
    fn variables_name_sections_and_keys() {
        let check = |name: &str, expected: &[&str]| {
            let found = environment(&[(name, "x")]);
            let found: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
            assert_eq!(found, expected, "{name}");
        };
        check("FORETELL_BROKER_BOOTSTRAP_SERVERS", &["broker.bootstrap_servers"]);
        check("FORETELL_SCHEMA_REGISTRY_URL", &["schema_registry.url"]);
        check("FORETELL_HTTP_BIND", &["http.bind"]);
        check("FORETELL_BROKER_PROPERTIES", &["broker.properties"]);
        check("FORETELL_BROKER_PROPERTIES_SASL_PASSWORD", &["broker.properties.sasl.password"]);
        check("FORETELL_LOG", &[]);
        check("FORETELL_TEST_BROKERS", &[]);
        check("HOME", &[]);
    }

    #[test]
    fn values_are_toml_where_they_can_be() {
        let check = |path: &str, value: &str, expected: &str| {
            let mut file: Table = "[topics]\nprefix = '7'\n".parse().unwrap();
            set(&mut file, path, value).unwrap();
            assert_eq!(file, expected.parse::<Table>().unwrap(), "{path} = {value}");
        };
        check("topics.partitions", "12", "topics = { prefix = '7', partitions = 12 }");
        check("topics.prefix", "12", "topics = { prefix = '12' }");
        check("topics.prefix", "{ a = 1 }", "topics = { prefix = { a = 1 } }");
        check("http.bind", "0.0.0.0:1", "topics = { prefix = '7' }\nhttp = { bind = '0.0.0.0:1' }");
        let more = "topics = { prefix = '7' }\n";
        let registry = |line: &str| format!("{more}[schema_registry]\n{line}");
        check("schema_registry.password", "007", &registry("password = '007'"));
        check("schema_registry.password", "true", &registry("password = 'true'"));
        let file = "{ file = '/run/x' }";
        check("schema_registry.password", file, &registry(&format!("password = {file}")));
        let property = format!("{more}[broker.properties]\n'sasl.password' = '1'");
        check("broker.properties.sasl.password", "1", &property);
        assert!(set(&mut "a = 1".parse().unwrap(), "a.b", "1").is_err());
        assert!(set(&mut Table::new(), "a.", "1").is_err());
    }
}
