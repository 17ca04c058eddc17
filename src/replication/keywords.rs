//! Connection strings: `host=/run user=x`, and `postgresql://x@host:5432/?sslmode=require`.
//!
//! Pure. Knows libpq's syntax (`conninfo_parse`, `conninfo_uri_parse` of `fe-connect.c`), not what the
//! keywords mean.

use std::collections::BTreeMap;

/// Keywords and their values, as written.
pub type Keywords = BTreeMap<String, String>;

/// Reads either form. The error says what is wrong.
pub fn parse(text: &str) -> Result<Keywords, String> {
    match text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")) {
        Some(rest) => uri(rest),
        None => pairs(text),
    }
}

/// `keyword = value`, separated by white space; a value in single quotes may hold anything, `\` before
/// a character takes it as it is.
fn pairs(text: &str) -> Result<Keywords, String> {
    let mut found = Keywords::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (keyword, after) = rest.split_at(end);
        let value = after.trim_start().strip_prefix('=').map(str::trim_start);
        let value = value.filter(|_| !keyword.is_empty()).ok_or_else(|| missing_equals(keyword))?;
        let (value, after) = match value.strip_prefix('\'') {
            Some(quoted) => quoted_value(quoted)?,
            None => plain_value(value),
        };
        found.insert(keyword.to_owned(), value);
        rest = after.trim_start();
    }
    Ok(found)
}

fn missing_equals(keyword: &str) -> String {
    format!("\"=\" is missing after \"{keyword}\"")
}

fn quoted_value(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' => return Ok((value, text.get(at + 1..).unwrap_or_default())),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    Err("a quoted value does not end".to_owned())
}

fn plain_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c.is_whitespace() => return (value, text.get(at..).unwrap_or_default()),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

/// What follows the scheme: `[user[:password]@][host[:port],…][/dbname][?keyword=value&…]`.
fn uri(text: &str) -> Result<Keywords, String> {
    let mut found = Keywords::new();
    let mut set = |keyword: &str, value: &str| -> Result<(), String> {
        if !value.is_empty() {
            found.insert(keyword.to_owned(), decoded(value)?);
        }
        Ok(())
    };
    let (text, query) = text.split_once('?').unwrap_or((text, ""));
    let authority_end = text.find('/').unwrap_or(text.len());
    let (authority, database) = text.split_at(authority_end);
    let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    set("user", user)?;
    set("password", password)?;
    set("dbname", database.strip_prefix('/').unwrap_or_default())?;
    let hosts = hosts.split(',').map(host_and_port).collect::<Result<Vec<_>, _>>()?;
    let list = |pick: fn(&(&str, &str)) -> String| hosts.iter().map(pick).collect::<Vec<_>>().join(",");
    set("host", &list(|(host, _)| (*host).to_owned()))?;
    if hosts.iter().any(|(_, port)| !port.is_empty()) {
        set("port", &list(|(_, port)| (*port).to_owned()))?;
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (keyword, value) = pair.split_once('=').ok_or_else(|| missing_equals(pair))?;
        // As JDBC writes it.
        let (keyword, value) = match (keyword, value) {
            ("ssl", "true") => ("sslmode", "require"),
            other => other,
        };
        set(&decoded(keyword)?, value)?;
    }
    Ok(found)
}

fn host_and_port(text: &str) -> Result<(&str, &str), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, after) =
            rest.split_once(']').ok_or_else(|| format!("\"]\" is missing after \"[{rest}\""))?;
        return match after.strip_prefix(':').or(after.is_empty().then_some("")) {
            Some(port) => Ok((address, port)),
            None => Err(format!("\"{after}\" follows an address in brackets")),
        };
    }
    Ok(text.split_once(':').unwrap_or((text, "")))
}

/// With `%` and two hexadecimal digits for any byte.
fn decoded(text: &str) -> Result<String, String> {
    let wrong = || format!("\"{text}\" has a \"%\" without two hexadecimal digits of a character after it");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        (rest, _) = match (byte, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
                let (high, low) = digit(high).zip(digit(low)).ok_or_else(wrong)?;
                (after, bytes.push(high << 4 | low))
            }
            (b'%', _) => return Err(wrong()),
            (byte, after) => (after, bytes.push(*byte)),
        };
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> String {
        let found = parse(text).unwrap();
        found.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn keywords_are_separated_by_white_space_and_may_be_quoted() {
        assert_eq!(read("host=/run user=x"), "host=/run|user=x");
        assert_eq!(read("  host = /run\tport= 5433 "), "host=/run|port=5433");
        assert_eq!(read(r"password='it\'s a \\ secret' user=x\ y"), r"password=it's a \ secret|user=x y");
        assert_eq!(read("user=''"), "user=");
        assert_eq!(read(""), "");
        for bad in ["host", "host user=x", "=x", "user='x", "a b"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_uri_names_user_hosts_ports_and_options() {
        assert_eq!(
            read("postgresql://u%40x:p%3Aw@h1:1,[::1]:2,h3/db?sslmode=require&application_name=a%20b"),
            "application_name=a b|dbname=db|host=h1,::1,h3|password=p:w|port=1,2,|sslmode=require|user=u@x"
        );
        assert_eq!(read("postgres://"), "");
        assert_eq!(read("postgres:///?host=/run/x&ssl=true"), "host=/run/x|sslmode=require");
        assert_eq!(read("postgresql://%2Fvar%2Frun/db"), "dbname=db|host=/var/run");
        for bad in
            ["postgres://[::1", "postgres://[::1]x", "postgres://h/?x", "postgres://%zz", "postgres://%0"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_value_can_be_quoted(value in "\\PC{0,20}") {
            let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
            let found = parse(&format!("a='{quoted}' b=c")).unwrap();
            prop_assert_eq!(found.get("a"), Some(&value));
            prop_assert_eq!(found.get("b").map(String::as_str), Some("c"));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}") {
            let _ = parse(&text);
            let _ = parse(&format!("postgresql://{text}"));
        }
    }
}
