//! A JSON Web Key Set (RFC 7517) as keys to verify with. A key tells its algorithm; what cannot be used says why.

use super::base64;
use super::json::{self, Object, Value};
use crate::invalid::Invalid;

/// The longest key set that is read, in bytes.
pub const MAX_JWKS: usize = 64 * 1024;
/// The most keys of a set.
pub const MAX_KEYS: usize = 64;

/// How tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// By JOSE's name; `None` for everything else, `none` and the symmetric ones included.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }

    fn family(self) -> &'static str {
        match self {
            Self::Es256 => "P-256",
            Self::Es384 => "P-384",
            Self::EdDsa => "Ed25519",
            _ => "RSA",
        }
    }
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The `kid`.
    pub id: Option<Box<str>>,
    /// The only algorithm that the key is used with.
    pub algorithm: Algorithm,
    /// The key itself.
    pub material: Material,
}

/// The numbers of a public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Material {
    /// Modulus and exponent, big-endian, without leading zeros.
    Rsa {
        /// 2048 to 8192 bits.
        modulus: Box<[u8]>,
        /// Odd, at least 3.
        exponent: Box<[u8]>,
    },
    /// An uncompressed point: 4, x, y. Whether it lies on the curve is for the verifier to see.
    Point(Box<[u8]>),
    /// The 32 octets of an Ed25519 key.
    Ed25519(Box<[u8]>),
}

/// The keys of a set, and what is wrong with those that are left out.
pub(super) fn compile(jwks: &str) -> Result<(Vec<Key>, Vec<Invalid>), Invalid> {
    if jwks.len() > MAX_JWKS {
        let why = format!("is longer than {MAX_JWKS} octets");
        return Err(Invalid::new("jwks", why));
    }
    let set = json::object(jwks.as_bytes())
        .ok_or_else(|| Invalid::new("jwks", "is not a JSON object with every name once"))?;
    let Some(Value::Array(members)) = set.get("keys") else {
        return Err(Invalid::missing("jwks.keys"));
    };
    if members.len() > MAX_KEYS {
        return Err(Invalid::new(
            "jwks.keys",
            format!("goes beyond {MAX_KEYS} keys"),
        ));
    }
    let (mut keys, mut problems) = (Vec::new(), Vec::new());
    for (index, member) in members.iter().enumerate() {
        match key(member) {
            Ok(key) => keys.push(key),
            Err(error) => problems.push(error.under(format!("jwks.keys[{index}]"))),
        }
    }
    if keys.is_empty() {
        let why = match problems.first() {
            Some(problem) => format!("has no key that can be used: {problem}"),
            None => "has no key".to_owned(),
        };
        return Err(Invalid::new("jwks", why));
    }
    Ok((keys, problems))
}

fn key(value: &Value) -> Result<Key, Invalid> {
    let Value::Object(key) = value else {
        return Err(Invalid::new("", "is not an object"));
    };
    let text = |name: &str| key.get(name).and_then(Value::text);
    if let Some(private) = ["d", "p", "q", "k"]
        .iter()
        .find(|name| key.contains_key(**name))
    {
        return Err(Invalid::new(
            *private,
            "belongs to a secret key: hand over public keys only",
        ));
    }
    if key.contains_key("use") && text("use") != Some("sig") {
        return Err(Invalid::new("use", "is not sig"));
    }
    match key.get("key_ops") {
        None => {}
        Some(Value::Array(uses)) if uses.iter().any(|word| word.text() == Some("verify")) => {}
        Some(_) => return Err(Invalid::new("key_ops", "does not hold verify")),
    }
    let told = match key.get("alg") {
        None => None,
        Some(name) => Some(name.text().and_then(Algorithm::named).ok_or_else(|| {
            Invalid::new("alg", "is no algorithm of signatures with public keys")
        })?),
    };
    let (default, material) = match (text("kty"), text("crv")) {
        (Some("RSA"), _) => (Algorithm::Rs256, rsa(key)?),
        (Some("EC"), Some("P-256")) => (Algorithm::Es256, point(key, 32)?),
        (Some("EC"), Some("P-384")) => (Algorithm::Es384, point(key, 48)?),
        (Some("OKP"), Some("Ed25519")) => {
            (Algorithm::EdDsa, Material::Ed25519(octets(key, "x", 32)?))
        }
        (Some("EC" | "OKP"), _) => {
            return Err(Invalid::new("crv", "is not P-256, P-384 or Ed25519"));
        }
        _ => return Err(Invalid::new("kty", "is not RSA, EC or OKP")),
    };
    let algorithm = told.unwrap_or(default);
    if algorithm.family() != default.family() {
        return Err(Invalid::new("alg", "does not fit the kind of key"));
    }
    let id = match key.get("kid") {
        None => None,
        Some(id) => Some(
            id.text()
                .ok_or_else(|| Invalid::new("kid", "is not a string"))?
                .into(),
        ),
    };
    Ok(Key {
        id,
        algorithm,
        material,
    })
}

fn rsa(key: &Object) -> Result<Material, Invalid> {
    let (modulus, exponent) = (number(key, "n")?, number(key, "e")?);
    let bits = modulus.len() * 8
        - modulus
            .first()
            .map_or(0, |first| first.leading_zeros() as usize);
    if !(2048..=8192).contains(&bits) {
        return Err(Invalid::new(
            "n",
            format!("has {bits} bits, not 2048 to 8192"),
        ));
    }
    let odd = exponent.last().is_some_and(|last| last % 2 == 1);
    if !odd || exponent.len() > 4 || *exponent == [1] {
        return Err(Invalid::new("e", "is not an odd number from 3 below 2^32"));
    }
    Ok(Material::Rsa { modulus, exponent })
}

fn number(key: &Object, name: &str) -> Result<Box<[u8]>, Invalid> {
    let octets = encoded(key, name)?;
    let zeros = octets.iter().take_while(|octet| **octet == 0).count();
    Ok(octets.get(zeros..).unwrap_or_default().into())
}

fn point(key: &Object, length: usize) -> Result<Material, Invalid> {
    let (x, y) = (octets(key, "x", length)?, octets(key, "y", length)?);
    Ok(Material::Point([&[4][..], &x, &y].concat().into()))
}

fn octets(key: &Object, name: &str, length: usize) -> Result<Box<[u8]>, Invalid> {
    let octets = encoded(key, name)?;
    if octets.len() != length {
        return Err(Invalid::new(name, format!("does not have {length} octets")));
    }
    Ok(octets.into())
}

fn encoded(key: &Object, name: &str) -> Result<Vec<u8>, Invalid> {
    key.get(name)
        .and_then(Value::text)
        .and_then(|text| base64::decode(text.as_bytes()))
        .ok_or_else(|| Invalid::new(name, "is not base64url"))
}
