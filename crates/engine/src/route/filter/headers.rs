//! Header modifiers, and the names that no filter may touch.

use tulle_api::http_types;

use crate::invalid::Invalid;
use crate::route::matcher::is_token;

/// A header field: its name in lower case and its value.
pub type Field = (Box<str>, Box<[u8]>);

/// Adds, then sets, then removes. Names are in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderModifier {
    /// Fields that are put beside those of the same name.
    pub add: Vec<Field>,
    /// Fields that take the place of those of the same name; `host` of a request is its authority.
    pub set: Vec<Field>,
    /// Names of fields that go.
    pub remove: Vec<Box<str>>,
}

impl HeaderModifier {
    pub(super) fn request(
        add: Option<&http_types::Headers>,
        set: Option<&http_types::Headers>,
        remove: &[String],
    ) -> Result<Self, Invalid> {
        let modifier = Self::response(add, set, remove)?;
        // A request has one authority: a second one would leave its readers two opinions, none would leave none.
        let added = modifier.add.iter().map(|(name, _)| name);
        if added.chain(&modifier.remove).any(|name| &**name == "host") {
            return Err(Invalid::new("", "\"host\" can only be set"));
        }
        Ok(modifier)
    }

    pub(super) fn response(
        add: Option<&http_types::Headers>,
        set: Option<&http_types::Headers>,
        remove: &[String],
    ) -> Result<Self, Invalid> {
        Ok(Self {
            add: fields("add", add)?,
            set: fields("set", set)?,
            remove: remove
                .iter()
                .enumerate()
                .map(|(index, name)| changeable(&format!("remove[{index}]"), name))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn fields(which: &str, message: Option<&http_types::Headers>) -> Result<Vec<Field>, Invalid> {
    let mut fields = Vec::new();
    for (index, header) in message
        .iter()
        .flat_map(|headers| &headers.headers)
        .enumerate()
    {
        let field = format!("{which}.headers[{index}]");
        let name = changeable(&format!("{field}.name"), &header.name)?;
        let value = &header.value;
        if !is_value(value) {
            return Err(Invalid::new(
                format!("{field}.value"),
                "is not a header value",
            ));
        }
        fields.push((name, value.as_slice().into()));
    }
    Ok(fields)
}

/// RFC 9110 §5.5, without blanks at the ends.
pub(super) fn is_value(value: &[u8]) -> bool {
    let padded = value.first().is_some_and(u8::is_ascii_whitespace)
        || value.last().is_some_and(u8::is_ascii_whitespace);
    !padded
        && !value
            .iter()
            .any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f)
}

/// Fields that frame the message or belong to one connection are the codecs' own: a route that changed them could
/// make two parsers disagree about where a message ends.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What proxies of the mesh tell each other by: a route that set it would speak in their name.
const MESH: [&str; 2] = ["l5d-", "tulle-"];

fn changeable(field: &str, name: &str) -> Result<Box<str>, Invalid> {
    if !is_token(name) {
        return Err(Invalid::new(field, format!("{name:?} is not a header")));
    }
    let name = name.to_ascii_lowercase();
    let why = if FRAMING.contains(&name.as_str()) {
        "frames the message and may not be changed"
    } else if MESH.iter().any(|prefix| name.starts_with(prefix)) {
        "is the mesh's own and may not be changed"
    } else {
        return Ok(name.into());
    };
    Err(Invalid::new(field, format!("{name:?} {why}")))
}
