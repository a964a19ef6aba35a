//! What a client says about its own connection. Most frames have no answer;
//! `set_visible` and `set_profile` are answered by `ack`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::profile::{Profile, Status};

/// What a member shows of itself, in a hello and at the broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// `idle`, `working` or `dnd`.
    pub status: String,
    /// Free text; empty when it does not say.
    pub summary: String,
    /// A hidden member is in nobody else's list and gets no multicast.
    pub visible: bool,
}

impl Default for Shown {
    fn default() -> Self {
        Self { status: "idle".to_owned(), summary: String::new(), visible: true }
    }
}

impl From<&Profile> for Shown {
    fn from(profile: &Profile) -> Self {
        let Profile { summary, status, visible } = profile.clone();
        Self { status: status.name().to_owned(), summary, visible }
    }
}

impl TryFrom<Shown> for Profile {
    type Error = String;

    fn try_from(shown: Shown) -> Result<Self, String> {
        let status = Status::parse(&shown.status).ok_or_else(|| format!("`{}` is no status", shown.status))?;
        Ok(Self { summary: shown.summary, status, visible: shown.visible })
    }
}

/// `set_status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetStatus {
    /// `idle`, `working` or `dnd`.
    pub status: String,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// `set_summary`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetSummary {
    /// Free text.
    pub summary: String,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// `set_visible`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetVisible {
    /// A hidden peer is in nobody else's list and gets no multicast.
    pub visible: bool,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// `set_profile`: fields that are absent stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetProfile {
    /// A picture or an emoji.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar: Option<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bio: Option<String>,
    /// Free texts; not the signed capability statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// `set_stats`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SetStats {
    /// Counters: messagesIn, messagesOut, toolCalls, uptime, errors.
    pub stats: Value,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// `join_group`: adds the group or changes the role in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinGroup {
    /// Name.
    pub name: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// `leave_group`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveGroup {
    /// Name.
    pub name: String,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}
