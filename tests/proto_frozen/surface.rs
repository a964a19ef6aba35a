//! A descriptor set as flat maps: what a client generated from it relies on.

use std::collections::{BTreeMap, BTreeSet};

use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};

/// Everything below the package `claudemesh.`, by full name.
#[derive(Debug, Default)]
pub(crate) struct Surface {
    /// Message, enum or service -> the file that declares it.
    pub(crate) declared_in: BTreeMap<String, String>,
    /// (message, field number) -> field.
    pub(crate) fields: BTreeMap<(String, i32), Field>,
    /// (enum, number) -> names (several with aliases).
    pub(crate) values: BTreeMap<(String, i32), BTreeSet<String>>,
    /// `package.Service/Method` -> its shape.
    pub(crate) methods: BTreeMap<String, String>,
    /// Numbers and names that a message or enum must never use again.
    pub(crate) reserved: BTreeMap<String, BTreeSet<String>>,
}

/// What is fixed about a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// The name, which JSON callers and generated code use.
    pub(crate) name: String,
    /// The name in camelCase JSON.
    pub(crate) json_name: String,
    /// Type with cardinality and presence, such as `repeated .claudemesh.v1.Peer`.
    pub(crate) kind: String,
    /// The oneof it belongs to.
    pub(crate) oneof: Option<String>,
}

impl Surface {
    /// Flattens the files of the set that are ours.
    pub(crate) fn of(set: &FileDescriptorSet) -> Self {
        let mut surface = Self::default();
        for file in set.file.iter().filter(|file| file.package().starts_with("claudemesh.")) {
            let package = file.package();
            for message in &file.message_type {
                surface.add_message(package, message, file.name());
            }
            for list in &file.enum_type {
                surface.add_enum(package, list, file.name());
            }
            for service in &file.service {
                let full = format!("{package}.{}", service.name());
                for method in &service.method {
                    let stream = |on: bool| if on { "stream " } else { "" };
                    surface.methods.insert(
                        format!("{full}/{}", method.name()),
                        format!(
                            "({}{}) returns ({}{})",
                            stream(method.client_streaming()),
                            method.input_type(),
                            stream(method.server_streaming()),
                            method.output_type()
                        ),
                    );
                }
                surface.declared_in.insert(full, file.name().to_owned());
            }
        }
        surface
    }

    fn add_message(&mut self, scope: &str, message: &DescriptorProto, file: &str) {
        let full = format!("{scope}.{}", message.name());
        for field in &message.field {
            let synthetic = field.proto3_optional();
            let oneof = field
                .oneof_index
                .filter(|_| !synthetic)
                .and_then(|index| message.oneof_decl.get(usize::try_from(index).ok()?))
                .map(|oneof| oneof.name().to_owned());
            let presence = if synthetic { "optional " } else { "" };
            let cardinality =
                if field.label() == prost_types::field_descriptor_proto::Label::Repeated { "repeated " } else { "" };
            let kind = match field.r#type() {
                Type::Message | Type::Enum | Type::Group => field.type_name().to_owned(),
                scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_ascii_lowercase(),
            };
            self.fields.insert(
                (full.clone(), field.number()),
                Field {
                    name: field.name().to_owned(),
                    json_name: field.json_name().to_owned(),
                    kind: format!("{presence}{cardinality}{kind}"),
                    oneof,
                },
            );
        }
        let reserved = self.reserved.entry(full.clone()).or_default();
        for range in &message.reserved_range {
            // The end of a message's range is exclusive.
            reserved.extend((range.start()..range.end()).take(1000).map(|number| number.to_string()));
        }
        reserved.extend(message.reserved_name.iter().cloned());
        for nested in &message.nested_type {
            self.add_message(&full, nested, file);
        }
        for list in &message.enum_type {
            self.add_enum(&full, list, file);
        }
        self.declared_in.insert(full, file.to_owned());
    }

    fn add_enum(&mut self, scope: &str, list: &EnumDescriptorProto, file: &str) {
        let full = format!("{scope}.{}", list.name());
        for value in &list.value {
            self.values.entry((full.clone(), value.number())).or_default().insert(value.name().to_owned());
        }
        let reserved = self.reserved.entry(full.clone()).or_default();
        for range in &list.reserved_range {
            reserved.extend((range.start()..=range.end()).take(1000).map(|number| number.to_string()));
        }
        reserved.extend(list.reserved_name.iter().cloned());
        self.declared_in.insert(full, file.to_owned());
    }
}
