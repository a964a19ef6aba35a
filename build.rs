//! Generates the API's types from `proto/`: messages, gRPC servers and clients,
//! and their JSON form. No `protoc` is needed.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message as _;
use protox::prost_reflect::{DescriptorPool, EnumDescriptor};

#[expect(clippy::disallowed_methods, reason = "cargo names a build script's folders in the environment")]
fn main() -> Result<(), Box<dyn Error>> {
    let proto = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo:rerun-if-changed={}", proto.display());

    let mut files = Vec::new();
    collect_protos(&proto.join("claudemesh"), &mut files)?;
    files.sort();
    let set = protox::compile(&files, [&proto])?;
    let encoded = set.encode_to_vec();
    fs::write(out.join("descriptors.binpb"), &encoded)?;

    let pool = DescriptorPool::decode(encoded.as_slice())?;
    write_methods(&pool, &out)?;
    let enums: Vec<EnumDescriptor> =
        pool.all_enums().filter(|one| one.package_name().starts_with("claudemesh.")).collect();
    write_enums(&enums, &out)?;

    tonic_prost_build::configure()
        .bytes(".")
        .compile_well_known_types(true)
        .extern_path(".google.protobuf", "crate::proto::wkt")
        .compile_fds(set)?;

    // Unknown fields are refused, defaults are printed. Enums have an own form.
    pbjson_build::Builder::new()
        .register_descriptors(&encoded)?
        .preserve_proto_field_names()
        .emit_fields()
        .exclude(enums.iter().map(|one| format!(".{}", one.full_name())))
        .build(&[".claudemesh"])?;
    Ok(())
}

fn collect_protos(folder: &Path, into: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect_protos(&path, into)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            into.push(path);
        }
    }
    Ok(())
}

/// The paths of all gRPC methods.
fn write_methods(pool: &DescriptorPool, out: &Path) -> Result<(), Box<dyn Error>> {
    let mut paths: Vec<String> = pool
        .services()
        .flat_map(|service| {
            let name = service.full_name().to_owned();
            service.methods().map(move |method| format!("/{name}/{}", method.name())).collect::<Vec<_>>()
        })
        .collect();
    paths.sort();
    fs::write(out.join("methods.rs"), format!("pub const METHODS: &[&str] = &{paths:?};\n"))?;
    Ok(())
}

/// One line for each enum, which the macro `short_names` makes into its JSON
/// form: the values' names without the enum's own, in lower case.
fn write_enums(enums: &[EnumDescriptor], out: &Path) -> Result<(), Box<dyn Error>> {
    let mut code = String::new();
    for one in enums {
        if one.parent_message().is_some() {
            return Err(format!("{}: enums inside messages are not prepared for", one.full_name()).into());
        }
        let prefix = format!("{}_", screaming_snake(one.name()));
        let mut names = String::new();
        for value in one.values() {
            let short = value.name().strip_prefix(&prefix).ok_or_else(|| {
                format!("{}: the value {} does not begin with {prefix}", one.full_name(), value.name())
            })?;
            write!(names, " {} => {:?} | {:?},", value.number(), short.to_lowercase(), value.name())?;
        }
        let path = format!("{}::{}", one.package_name().replace('.', "::"), one.name());
        writeln!(code, "short_names! {{ {path};{names} }}")?;
    }
    fs::write(out.join("enums.rs"), code)?;
    Ok(())
}

/// `PeerStatus` to `PEER_STATUS`.
fn screaming_snake(name: &str) -> String {
    let mut out = String::new();
    for (at, letter) in name.char_indices() {
        if at > 0 && letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_uppercase());
    }
    out
}
